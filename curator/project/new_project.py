"""Write a commented `curator.toml` with the tasks found in the sources."""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curator.core.config import Config, DataSection, TaskSource, target_names
from curator.core.errors import ConfigError, DataError
from curator.core.figures import first_of
from curator.core.files import CONFIG_NAME, write_whole
from curator.core.folders import matching
from curator.core.hub_ids import is_hub_id
from curator.core.remote import RemoteFile, has_wildcards, is_remote, matches
from curator.data.discovery import find_tasks, found_at
from curator.data.importers.base import ImportedConfig, Table
from curator.data.importers.importer import read_export_at, read_trainer_config
from curator.data.layouts import Found, FoundTask
from curator.data.readers import FORMATS, is_saved_dataset, is_task_file, task_name
from curator.project.toml_text import one_line, quoted, toml_of

# Largest number of shards that a table lists one by one.
_FEW = 3
# Endings of archives, whose files curator does not read.
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")

_TEMPLATE = """\
# A curator project. Paths are relative to this file. Results live in .curator/ next to it. Deleting that folder
# loses results, never your data. Next: `curator check`, then `curator select`.

[project]
name = {name}

[model]
name_or_path = "model"        # a hub id, or a folder with a transformers model (safetensors)
revision = ""                 # optional hub revision; recorded in the manifest
dtype = "auto"                # auto | float32 | bfloat16 | float16
quantization = "none"         # none | 8bit | 4bit (QLoRA, needs a CUDA GPU)
attention = "auto"            # passed on as attn_implementation
device_map = ""               # passed on, e.g. "auto" for a model larger than one GPU
shard = "none"                # none | layers: several processes share the weights of each layer
trust_remote_code = false     # true runs Python code that comes with the model

[lora]
r = 8
alpha = 16
dropout = 0.0
target_modules = "all-linear" # or a list of module names

[train]                       # the recipe of meta-training and of every fine-tuning run
epochs = 3
learning_rate = 2e-4
batch_size = 32
gradient_accumulation = 1
schedule = "linear"           # linear | cosine | constant
warmup = 0.0                  # share of the steps
weight_decay = 0.0
seed = 0
report_to = "none"            # none | tensorboard | wandb | mlflow | trackio: experiment tracker; exports carry it

[gradients]
projection_dim = 256          # larger is more accurate and needs more space
sketch_dim = "auto"           # entries of a gradient that is summed over tasks; 8192 depends less on the seed
projection_seed = 0
points = "auto"               # shares of meta-training's steps: ends of the trajectory's segments, or checkpoints of
                              # quadratic and logistic, e.g. [0.4, 1.0]; [1.0] is the paper's
average = 0.1                 # quadratic, logistic: share of the steps before each point to average the adapter over
batch_tokens = 4096           # tokens per forward pass

[estimate]
method = "trajectory"         # trajectory | quadratic | logistic (the paper's)
ridge = "auto"                # of quadratic and logistic

[select]
method = "forward"            # forward | backward | exchange | ensemble | mixture; baselines:
                              # random | embedding | bm25 | gradient-cosine | less | kmm
subsets = 1000                # random ensemble: how many subsets
subset_size = 0.5             # random ensemble: share of the tasks in each
seed = 0

[verify]
metric = "loss"               # loss | exact_match | choice | lm-eval:TASK | command:WORDS
higher_is_better = true       # of the number that command:WORDS prints
command_seconds = 600         # time limit of command:WORDS
lm_eval_tasks = ""            # folder of task files for lm-eval:TASK
lm_eval_chat_template = false # whether lm-eval:TASK uses the chat template
runs = 24                     # subsets that the first `curator verify` fine-tunes on
seeds = 1                     # runs on each; with 1, a sixth of the subsets gets a second run, at most 4

[data]
target = {target}             # the task to improve: a name, or a list of names
# target_weights = {{ my-target = 2.0 }}  # weight of each of several targets; 1 if not named
validation = 0.2              # share of the target held out, unless it has its own file:
# validation_files = {{ my-target = "validation/my-target.jsonl" }}
test = 0                      # share of the target for the report only, or a file for each target:
# test_files = {{ my-target = "test/my-target.jsonl" }}
max_length = 256              # tokens; longer examples are truncated and counted
max_examples_per_task = 0     # 0 = all
chat_template = ""            # a file, a name or a text, instead of the model's own template
bad_rows = "refuse"           # refuse | skip rows that cannot be used
seed = 0
{tasks}

# Instead of the glob `tasks`, tables can name tasks one by one:
#   [[data.task]]
#   name = "carry"
#   path = "tasks/carry.jsonl"  # a file, a folder, a glob, an address such as s3://…, or a list of these; or:
#   hub = "owner/name"          # a `datasets` id, with config = "", split = "train", revision = "", streaming = true
#   column = "task"             # keep only the rows whose `column` equals `value`: one file becomes many tasks
#   value = "carry"
#   task_column = "task"        # or, without `name`: make a task of each value of that column
#   columns = {{ instruction = "question", output = "answer" }} # if columns have other names than curator's
#   roles = {{ customer = "user" }}                             # if a chat names its roles differently
#   rows = "data.items"         # if the rows are a list inside of a JSON object
#   csv = {{ delimiter = ";", header = false, quoting = false }} # if curator does not find out how cells are written
#   tags = ["arithmetic"]
"""


_DATA_TABLES = ("validation_files", "target_weights")


@dataclass(slots=True, kw_only=True)
class _Found:
    """Tasks found in the sources of a new project."""

    names: list[str] = field(default_factory=list)
    glob: str = ""
    """The source, if it is a single glob."""
    tables: list[Table] = field(default_factory=list)
    imports: list[ImportedConfig] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Files that a glob or folder covers and that belong to no task, one line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A new project."""

    path: Path
    """The project's `curator.toml`."""
    tasks: list[str]
    settings: dict[tuple[str, str], Any]
    """Values that differ from the template, by section and key."""
    left_out: list[str]
    """Settings of a trainer's configuration that were not imported, one line each."""


def write_project(
    folder: Path,
    sources: Sequence[str],
    *,
    model: str | None,
    target: str | Sequence[str] | None,
    task_column: str = "",
    named: Mapping[str, str] | None = None,
    settings: Mapping[tuple[str, str], Any] | None = None,
    replace: bool = False,
) -> Written:
    """Write `curator.toml`.

    Args:
        folder: The project's folder, created if missing.
        sources: Files, folders, globs, addresses, hub ids or configurations of other trainers. An empty list stands for
            the glob `tasks/*.jsonl`.
        model: Hub id, or folder relative to the working directory. None takes the model of a trainer's configuration.
        target: The target or targets, or None to leave the key empty.
        task_column: Column whose values become tasks.
        named: File, glob, address or hub id of each task by its name, added to those of the sources.
        settings: Values that differ from the defaults, by section and key. They count more than imported ones.
        replace: Whether to overwrite an existing `curator.toml`.

    Raises:
        ConfigError: A `curator.toml` exists already, or the target is not among the tasks.
        DataError: A source does not exist, or the file cannot be written.
    """
    path = folder / CONFIG_NAME
    if path.exists() and not replace:
        raise ConfigError(f"project exists already: {path}", hint="Edit that file, or choose another folder.")
    found = _find(sources, folder, task_column) if sources or not named else _Found()
    _add_named(found, named or {}, folder)
    names = found.names
    if sources and not names and found.imports:
        raise DataError(
            f"no training rows of an export in {first_of(sources, 3)}", hint="Name the folder of the export."
        )
    wanted = target_names(target)
    unknown = [name for name in wanted if names and name not in names]
    if unknown:
        hint = f"Choose one of the tasks found: {first_of(names, 20)}."
        raise ConfigError(f"unknown target: {unknown[0]!r}", hint=hint)
    values = _settings(found.imports, folder, model) | dict(settings or {})
    imported = [name for imported in found.imports for name in imported.targets]
    targets = list(wanted) or imported or (names if len(names) == 1 else [])
    _write(path, found, values, targets if len(targets) > 1 else "".join(targets))
    left_out = [f"{m.path.name}: {line}" for m in found.imports for line in m.left_out]
    return Written(path=path, tasks=names, settings=values, left_out=left_out + found.left_out)


def _add_named(found: _Found, named: Mapping[str, str], folder: Path) -> None:
    """Add tasks whose names are given."""
    if named and found.glob:
        raise ConfigError("cannot combine a glob with named tasks", hint="Name every task, or no task.")
    for name, source in named.items():
        places = _places(source, folder, found.left_out)
        if len(places) > 1:
            raise ConfigError(
                f"task {name!r} names {len(places)} tasks: {source}", hint="Name one file, or a data set of shards."
            )
        found.tables += [_table(name, key, value) for _, key, value in places]
        found.names.append(name)
    _check_names(found.names)


def write_groups(config: Config, root: Path, groups: Sequence[tuple[str, Path, int]], written: Written) -> list[str]:
    """Split the auxiliary tasks of a new project into groups, and name the groups in its `curator.toml` instead.

    Args:
        config: Configuration that `write_project` wrote.
        root: Folder of the project.
        groups: Result of `Project.group`.
        written: Result of `write_project`.

    Returns:
        Names of all tasks.

    Raises:
        ConfigError: Two groups have the same name.
        DataError: The file cannot be written.
    """
    targets = config.data.targets
    tables = [_table(name, "path", os.path.relpath(path, root)) for name, path, _ in groups]
    named = {task.name: task for task in config.data.task}
    for source in find_tasks(config.data, root):
        if source.name in targets and source.name in named:
            tables.append(Table(keys=named[source.name].model_dump(mode="json", exclude_defaults=True), origin=""))
        elif source.name in targets:
            place = str(source.folder or source.files[0]) if not source.hub else source.hub
            seen = place if source.hub or is_remote(place) else os.path.relpath(place, root)
            tables.append(_table(source.name, "hub" if source.hub else "path", seen, **source.filter))
    found = _Found(names=[table.keys["name"] for table in tables], tables=tables)
    _check_names(found.names)
    _write(written.path, found, written.settings, targets[0])
    return found.names


def _settings(imports: Sequence[ImportedConfig], folder: Path, model: str | None) -> dict[tuple[str, str], Any]:
    """Return values that differ from the template, by section and key. Model folders are relative to the project."""
    settings: dict[tuple[str, str], Any] = {("model", "name_or_path"): "model"}
    for imported in imports:
        for section, keys in imported.settings.items():
            settings |= {(section, key): value for key, value in keys.items()}
        beside = imported.path.parent / imported.settings.get("model", {}).get("name_or_path", "model")
        if "model" in imported.settings and beside.is_dir():
            settings["model", "name_or_path"] = str(beside)
    template = settings.get(("data", "chat_template"), "")
    if os.path.isabs(template) and Path(template).is_file():
        settings["data", "chat_template"] = os.path.relpath(template, folder)
    held_out = [item for imported in imports for item in imported.validation_files.items()]
    settings["data", "validation_files"] = {name: os.path.relpath(path, folder) for name, path in held_out} or None
    named = model or settings["model", "name_or_path"]
    settings["model", "name_or_path"] = os.path.relpath(named, folder) if Path(named).is_dir() else named
    return settings


def _write(path: Path, found: _Found, settings: dict[tuple[str, str], Any], target: str | list[str]) -> None:
    # The template holds these keys as examples only.
    tables = [f"{key} = {toml_of(settings['data', key])}" for key in _DATA_TABLES if settings.get(("data", key))]
    text = _TEMPLATE.format(
        name=quoted(path.parent.absolute().name), target=toml_of(target), tasks="\n".join([*tables, *_lines(found)])
    )
    for (section, key), value in settings.items():
        text = text if key in _DATA_TABLES else _with(text, section, key, value)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except UnicodeEncodeError as error:
        raise DataError(f"file name is not valid UTF-8: {error.object!a:.200}", hint="Rename the file.") from error
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}", hint="Choose another folder.") from error


def _find(sources: Sequence[str], folder: Path, task_column: str) -> _Found:
    """Return the tasks of the sources, with paths relative to the project's folder."""
    found = _Found()
    exported = [_export_at(source) for source in sources]
    if len(sources) == 1 and exported[0] is None and _is_glob(sources[0]) and not task_column:
        found.glob = sources[0] if is_remote(sources[0]) else os.path.relpath(sources[0], folder)
        found.names = sorted(task.name for task in _tasks(sources[0], found.left_out))
        _check_names(found.names)
        return found
    for source, export in zip(sources, exported, strict=True):
        imported = export or (None if is_remote(source) else read_trainer_config(Path(source)))
        if imported is not None:
            found.imports.append(imported)
            found.tables += [_seen_from(table, folder) for table in imported.tables]
        elif task_column:
            found.tables += _each(source, folder, task_column, found.left_out)
        else:
            places = _places(source, folder, found.left_out)
            found.tables += [_table(name, key, value) for name, key, value in places]
    found.names = [table.keys["name"] for table in found.tables]
    _check_names(found.names)
    return found


def _export_at(source: str) -> ImportedConfig | None:
    """Return the tasks of an export of curator, or None if the source is not part of an export."""
    if is_remote(source):
        return None
    paths = [Path(source)] if Path(source).exists() else _covered(source)
    return read_export_at(paths) if paths else None


def _covered(source: str) -> list[Path]:
    """Return what a glob covers. `found_at` reports the error of an invalid one."""
    try:
        return matching(source, Path())
    except (OSError, ValueError):
        return []


def _places(source: str, folder: Path, left_out: list[str]) -> list[tuple[str, str, str | list[str]]]:
    """Return name, key and value of the tables of a source. Add lines about files that belong to no task."""
    if is_remote(source) or _is_glob(source) or Path(source).exists():
        return [(task.name, "path", _seen(task, folder)) for task in _tasks(source, left_out)]
    if is_hub_id(source) and not is_task_file(Path(source)):
        return [(source.rpartition("/")[2], "hub", source)]
    raise DataError(f"not found: --from {source}", hint="Name a file, a folder, a glob or a hub id.")


def _tasks(source: str, left_out: list[str]) -> Sequence[FoundTask]:
    """Return the tasks of a file, a folder, a glob or an address. Add lines about files that belong to no task."""
    path = Path(source)
    if is_remote(source) and not has_wildcards(source):
        one = matches(source)
        found = Found(tasks=(FoundTask(task_name(one[0]), (one[0],)),)) if one == [RemoteFile(source)] else None
    elif not is_remote(source) and (path.is_file() or is_saved_dataset(path)):
        found = Found(tasks=(FoundTask(task_name(path), (path,)),))
    else:
        found = None
    known = found is None or is_saved_dataset(path) or is_task_file(found.files[0])
    found = found or found_at(source, Path(), "--from")
    if not known or not found.tasks:
        shown = RemoteFile(source) if is_remote(source) else source
        only = " (only test and validation splits)" if found.held_out else ""
        archive = "Unpack the archive. " if path.suffix.lower() in _ARCHIVES else ""
        raise DataError(
            f"no task file found: --from {shown}{only}", hint=f"{archive}Name files of these formats: {FORMATS}."
        )
    left_out += [f"{path}: unknown type of file" for path in found.unread]
    left_out += [f"{path}: in a folder that is not named" for path in found.below]
    left_out += [f"{name}: named by a README and missing" for name in found.missing]
    left_out += [f"{path}: test or validation split, not trained on" for path in found.held_out]
    return found.tasks


def _seen(task: FoundTask, folder: Path) -> str | list[str]:
    """Return the places of a task's files, relative to the project's folder. Many shards become one glob."""
    seen = [file.address if isinstance(file, RemoteFile) else os.path.relpath(file, folder) for file in task.files]
    if len(seen) == 1:
        return seen[0]
    shards = {re.sub(r"\d{5}(-of-\d{5})", r"*\1", glob.escape(place)) for place in seen}
    if len(seen) > _FEW and len(shards) == 1 and not isinstance(task.files[0], RemoteFile):
        (pattern,) = shards
        # The project's folder may not exist yet, so its path must not be walked.
        covered = sorted(glob.glob(os.path.relpath(folder / pattern)))
        if covered == sorted(os.path.relpath(folder / place) for place in seen):
            return pattern
    return seen


def _table(name: str, kind: str, place: str | list[str], **more: Any) -> Table:
    return Table(keys={"name": name, kind: place} | more, origin="")


def _each(source: str, folder: Path, column: str, left_out: list[str]) -> list[Table]:
    """Return one table for each value of a column."""
    here, tables = Path.cwd(), []
    # Relative to the working directory, because the project's folder does not exist yet.
    for (_, kind, place), (_, _, seen) in zip(
        _places(source, here, []), _places(source, folder, left_out), strict=True
    ):
        value = tuple(place) if isinstance(place, list) else place
        table = TaskSource.model_validate({kind: value, "task_column": column})
        tables += [_table(t.name, kind, seen, **t.filter) for t in find_tasks(DataSection(task=(table,)), here)]
    return tables


def _seen_from(table: Table, folder: Path) -> Table:
    """Return a table with paths relative to the project's folder."""
    paths = table.keys.get("path")
    if paths is None:
        return table
    seen = [
        path if is_remote(path) else os.path.relpath(path, folder)
        for path in ([paths] if isinstance(paths, str) else paths)
    ]
    return Table(keys=table.keys | {"path": seen[0] if isinstance(paths, str) else seen}, origin=table.origin)


def _lines(found: _Found) -> list[str]:
    """Return the lines under `[data]` that name the tasks."""
    if found.glob:
        return [f"tasks = {quoted(found.glob)}"]
    if not found.tables:
        return ['tasks = "tasks/*.jsonl"       # one file per task; the stem is the task\'s name']
    lines = []
    for table in found.tables:
        lines += ["", *([f"# {one_line(table.origin)}"] if table.origin else []), "[[data.task]]"]
        lines += [f"{key} = {toml_of(value)}" for key, value in table.keys.items()]
    return lines


def _with(text: str, section: str, key: str, value: Any) -> str:
    """Return the file with another value of one key. The comment stays. A key that the template omits is added."""
    line = re.compile(rf"^{key} = ([^#\n]*?)( *)(#.*)?$", re.MULTILINE)
    written = f"{key} = {toml_of(value)}"
    title = re.search(rf"^\[{section}\].*$", text, re.MULTILINE)
    if title is None:
        return f"{text.rstrip()}\n\n[{section}]\n{written}\n"
    after = re.compile(r"^\[", re.MULTILINE).search(text, title.end())
    end = len(text) if after is None else after.start()
    head, body, rest = text[: title.end()], text[title.end() : end], text[end:]
    if not line.search(body):
        return f"{head}\n{written}{body}{rest}"

    def put(match: re.Match[str]) -> str:
        comment = match[3] or ""
        return f"{written:<29} {comment}" if comment else written

    return head + line.sub(put, body, count=1) + rest


def _is_glob(source: str) -> bool:
    return has_wildcards(source) and (is_remote(source) or not Path(source).exists())


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"duplicate task name: {twice[0]!r}", hint="Rename one of the files.")

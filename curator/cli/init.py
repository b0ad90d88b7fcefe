"""`curator init`: a commented `curator.toml`, with the tasks it finds."""

import glob
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from curator.data import find_tasks
from curator.errors import ConfigError, DataError
from curator.files import CONFIG_NAME, write_whole
from curator.readers import FORMATS, is_saved_dataset, is_task_file, task_name

if TYPE_CHECKING:
    from curator.project import Project

_TEMPLATE = """\
# A curator project. Paths are relative to this file. Results live in .curator/ beside it; deleting that folder
# loses results, never your data. Next: `curator check`, then `curator select`.

[project]
name = {name}

[model]
name_or_path = {model}        # a hub id, or a folder with a transformers model (safetensors)
revision = ""                 # optional hub revision; recorded in the manifest
dtype = "auto"                # auto | float32 | bfloat16 | float16
quantization = "none"         # none | 8bit | 4bit (QLoRA, needs a CUDA GPU)
attention = "auto"            # passed on as attn_implementation
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

[gradients]
projection_dim = 256          # more is more exact and takes more room
projection_seed = 0
points = "auto"               # shares of meta-training's steps, e.g. [0.4, 1.0]; [1.0] is the paper's
average = 0.1                 # share of the steps before each point over which the adapter is averaged
batch_tokens = 4096           # tokens that go through the model at once

[estimate]
method = "quadratic"          # quadratic | logistic (the paper's)
ridge = "auto"

[select]
method = "forward"            # forward | backward | exchange | ensemble | mixture; baselines:
                              # random | embedding | bm25 | gradient-cosine | less | kmm
subsets = 1000                # random ensemble: how many subsets
subset_size = 0.5             # random ensemble: share of the tasks in each
seed = 0

[data]
target = {target}             # the task to improve: a name, or a list of names
# target_weights = {{ my-target = 2.0 }}  # how much each of several targets counts; 1 where it is not named
validation = 0.2              # share of the target held out, unless it has its own file:
# validation_files = {{ my-target = "validation/my-target.jsonl" }}
max_length = 256              # tokens; longer examples are truncated and counted
max_examples_per_task = 0     # 0 = all
bad_rows = "refuse"           # refuse | skip: what becomes of rows that cannot be used
seed = 0
{tasks}

# In place of the glob `tasks`, tables may name tasks one by one:
#   [[data.task]]
#   name = "carry"
#   path = "tasks/carry.jsonl"  # a file, a folder or a glob; or, in its place:
#   hub = "owner/name"          # a `datasets` id, with config = "", split = "train", revision = ""
#   column = "task"             # keep only the rows whose `column` equals `value`: one file becomes many tasks
#   value = "carry"
#   tags = ["arithmetic"]
"""


def write_project(
    folder: Path, sources: list[str], *, model: str, target: str | None, replace: bool = False
) -> tuple[Path, list[str]]:
    """Write `curator.toml`.

    Args:
        folder: The project's folder, made if need be.
        sources: Files, folders, globs or hub ids to take tasks from; none for the glob `tasks/*.jsonl`.
        model: Hub id, or folder relative to the present one.
        target: The target, or None to leave it to be filled in.
        replace: Whether to write over a `curator.toml` that is there.

    Returns:
        The file, and the names of the tasks found.

    Raises:
        ConfigError: There is a `curator.toml` already.
        DataError: A source does not exist, or the file cannot be written.
    """
    path = folder / CONFIG_NAME
    if path.exists() and not replace:
        raise ConfigError(f"{path}: there is a project already", hint="Edit that file, or choose another folder.")
    lines, names = _tasks(sources, folder)
    if target is not None and names and target not in names:
        raise ConfigError(f"target {target!r} is none of the tasks found", hint=f"Found: {', '.join(names[:20])}.")
    model_path = os.path.relpath(model, folder) if Path(model).is_dir() else model
    text = _TEMPLATE.format(
        name=_quote(folder.absolute().name),
        model=_quote(model_path),
        target=_quote(target or (names[0] if len(names) == 1 else "")),
        tasks="\n".join(lines),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}: a file's name is not UTF-8: {error.object!a:.200}", hint="Rename the file."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}", hint="Choose another folder.") from error
    return path, names


def write_groups(project: "Project", count: int, *, model: str) -> list[str]:
    """Cut the auxiliary tasks of a new project into groups, and name these in its `curator.toml` in their place.

    Args:
        project: As `write_project` made it.
        count: Groups of each task.
        model: As for `write_project`.

    Returns:
        Names of the tasks there are now.

    Raises:
        ConfigError, DataError: As `Project.group`.
    """
    targets = project.config.data.targets
    groups = project.group(count)
    kept = [source for source in find_tasks(project.config.data, project.root) if source.name in targets]
    places = [str(path) for _, path, _ in groups]
    places += [source.hub or str(source.folder or source.files[0]) for source in kept]
    _, names = write_project(project.root, places, model=model, target=targets[0], replace=True)
    return names


def _tasks(sources: list[str], folder: Path) -> tuple[list[str], list[str]]:
    if not sources:
        return ['tasks = "tasks/*.jsonl"       # one file per task; the stem is the task\'s name'], []
    if len(sources) == 1 and _is_glob(sources[0]):
        names = [task_name(path) for path in _paths(sources[0])]
        _check_names(names)
        return [f"tasks = {_quote(os.path.relpath(sources[0], folder))}"], sorted(names)
    lines, names = [], []
    for source in sources:
        places: list[tuple[str, str, str]]
        if _is_glob(source) or Path(source).exists():
            places = [(task_name(path), "path", os.path.relpath(path, folder)) for path in _paths(source)]
        elif source.count("/") == 1 and not source.startswith((".", "/", "~")) and not is_task_file(Path(source)):
            places = [(source.rpartition("/")[2], "hub", source)]
        else:
            raise DataError(f"--from {source}: does not exist", hint="Name a file, a folder, a glob or a hub id.")
        for name, key, value in places:
            names.append(name)
            lines += ["", "[[data.task]]", f"name = {_quote(name)}", f"{key} = {_quote(value)}"]
    _check_names(names)
    return lines, names


def _is_glob(source: str) -> bool:
    return any(c in source for c in "*?[") and not Path(source).exists()


def _paths(source: str) -> list[Path]:
    """The files and saved data sets that a file, a folder or a glob stands for."""
    path = Path(source)
    if path.is_dir() and not is_saved_dataset(path):
        found = sorted(path.iterdir())
    else:
        found = [path] if path.exists() else sorted(map(Path, glob.glob(source, recursive=True)))
    kept = [p for p in found if (is_task_file(p) or is_saved_dataset(p)) and not p.name.startswith(".")]
    if not kept:
        raise DataError(f"--from {source}: no task file there", hint=f"A task is one of: {FORMATS}.")
    return kept


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two tasks would be named {twice[0]!r}", hint="Rename one of the files.")


def _quote(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

"""`curator init`: a commented `curator.toml`, with the tasks it finds."""

import glob
import json
import os
from pathlib import Path

from curator.config import CONFIG_NAME
from curator.data import FORMATS
from curator.errors import ConfigError, DataError

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")

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
batch_tokens = 4096           # tokens that go through the model at once

[estimate]
method = "quadratic"          # quadratic | logistic (the paper's)
ridge = "auto"

[select]
method = "forward"            # forward | backward | exchange | ensemble
subsets = 1000                # random ensemble: how many subsets
subset_size = 0.5             # random ensemble: share of the tasks in each
seed = 0

[data]
target = {target}             # the task to improve: a name, or a list of names
validation = 0.2              # share of the target held out, unless it has its own file:
# validation_files = {{ my-target = "validation/my-target.jsonl" }}
max_length = 256              # tokens; longer examples are truncated and counted
max_examples_per_task = 0     # 0 = all
seed = 0
{tasks}
"""


def write_project(folder: Path, sources: list[str], *, model: str, target: str | None) -> tuple[Path, list[str]]:
    """Write `curator.toml`.

    Args:
        folder: The project's folder, made if need be.
        sources: Files, folders, globs or hub ids to take tasks from; none for the glob `tasks/*.jsonl`.
        model: Hub id, or folder relative to the present one.
        target: The target, or None to leave it to be filled in.

    Returns:
        The file, and the names of the tasks found.

    Raises:
        ConfigError: There is a `curator.toml` already.
        DataError: A source does not exist, or the file cannot be written.
    """
    path = folder / CONFIG_NAME
    if path.exists():
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
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from error
    return path, names


def _tasks(sources: list[str], folder: Path) -> tuple[list[str], list[str]]:
    if not sources:
        return ['tasks = "tasks/*.jsonl"       # one file per task; the stem is the task\'s name'], []
    if len(sources) == 1 and any(c in sources[0] for c in "*?["):
        files = _files(sources[0])
        return [f"tasks = {_quote(os.path.relpath(sources[0], folder))}"], sorted(_stem(f) for f in files)
    lines, names = [], []
    for source in sources:
        places: list[tuple[str, str, str]]
        if any(c in source for c in "*?[") or Path(source).exists():
            places = [(_stem(f), "path", os.path.relpath(f, folder)) for f in _files(source)]
        elif source.count("/") == 1 and not source.startswith((".", "/", "~")) and not source.endswith(_SUFFIXES):
            places = [(source.rpartition("/")[2], "hub", source)]
        else:
            raise DataError(f"--from {source}: does not exist", hint="Name a file, a folder, a glob or a hub id.")
        for name, key, value in places:
            if name in names:
                raise ConfigError(f"two tasks would be named {name!r}", hint="Rename one of the files.")
            names.append(name)
            lines += ["", "[[data.task]]", f"name = {_quote(name)}", f"{key} = {_quote(value)}"]
    return lines, names


def _files(source: str) -> list[str]:
    found = sorted(glob.glob(source, recursive=True))
    if len(found) == 1 and Path(found[0]).is_dir():
        inside = sorted(str(p) for p in Path(found[0]).iterdir() if _known(p))
        found = inside or found
    kept = [f for f in found if _known(Path(f)) or Path(f).is_dir()]
    if not kept:
        raise DataError(f"--from {source}: no task file there", hint=f"A task is one of: {FORMATS}.")
    return kept


def _known(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(_SUFFIXES)


def _stem(file: str) -> str:
    return Path(Path(file).name.removesuffix(".gz")).stem


def _quote(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

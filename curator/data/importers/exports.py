"""Import an export of curator: its rows in the form of the data, its names, its target and its held-out rows.

`curator-export.json` names the files of each task. The manifest holds the settings. A trainer's data files hold text
that curator has rendered, or token ids, so they are not read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from curator.core.errors import DataError
from curator.core.files import read_whole_text, refuse_endless, sha256_of
from curator.data.importers.base import COMMON, ImportedConfig, Setting, whole

RECORD, MANIFEST, TEMPLATE = "curator-export.json", "curator-manifest.json", "chat_template.jinja"


def _unchanged(value: Any) -> Any:
    return value


_CONFIGS = (".yaml", ".yml", ".json")
# Keys of a task in the record that name files. A file of held-out rows is no task.
_TRAINING, _HELD_OUT = ("file", "rows_of_data"), ("validation", "validation_of_data")
_SETTINGS: dict[str, dict[str, Setting]] = {
    "model": {
        "name_or_path": COMMON["model_name_or_path"],
        "revision": COMMON["model_revision"],
        "dtype": ("model", "dtype", str),
        "quantization": ("model", "quantization", str),
    },
    "lora": {key: ("lora", key, _unchanged) for key in ("r", "alpha", "dropout", "target_modules")},
    "train": {
        key: ("train", key, _unchanged)
        for key in (
            *("epochs", "learning_rate", "batch_size", "gradient_accumulation", "schedule", "warmup"),
            *("weight_decay", "seed"),
        )
    },
    "data": {
        "max_length": ("data", "max_length", whole),
        "seed": ("data", "seed", whole),
        "target_weights": ("data", "target_weights", dict),
    },
    "gradients": {key: ("gradients", key, _unchanged) for key in ("projection_dim", "projection_seed", "points")},
    "estimate": {"method": ("estimate", "method", str)},
}


def export_around(path: Path) -> Path | None:
    """Return the folder of the export that a path lies in or is, or None if there is no export."""
    return next((folder for folder in (path, *list(path.parents)[:2]) if (folder / RECORD).is_file()), None)


def read_export(folder: Path, paths: Sequence[Path], read_settings: Callable[[Path], ImportedConfig]) -> ImportedConfig:
    """Import an export, or some of its tasks.

    Args:
        folder: Folder of the export.
        paths: The folder, its record, its manifest, a trainer's configuration, or data files. A data file stands for
            its task. All others stand for all tasks.
        read_settings: Reads a trainer's configuration, whose settings replace the manifest's if it was edited.

    Raises:
        DataError: The record or the manifest cannot be read, or a file with rows is missing.
    """
    record = _read_json(folder / RECORD)
    imported = ImportedConfig(path=folder / RECORD, trainer="curator")
    try:
        written = {str(name): str(digest) for name, digest in record["written"].items()}
        tasks = record["tasks"]
        data = {str(task[key]).partition("/")[0] for task in tasks for key in (*_TRAINING, *_HELD_OUT)}
        configs = {name for name in (*written, RECORD, MANIFEST) if name.partition("/")[0] not in data}
        inside = {path.absolute().relative_to(folder.absolute()).as_posix() for path in paths}
        everything = not configs.isdisjoint(inside) or "." in inside
        for task in tasks:
            names = {task[key] for key in _TRAINING} - {""}
            if everything or any(name == part or name.startswith(f"{part}/") for name in names for part in inside):
                _add(imported, task, folder)
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(
            f"{folder / RECORD} does not name the rows of the data: {error}",
            hint="Export again. Exports of curator 0.1.0 cannot be imported.",
        ) from error
    _take_settings(imported, folder)
    for name in sorted(configs & inside):
        if name.endswith(_CONFIGS) and written.get(name) and sha256_of(folder / name) != written[name]:
            _take_edits(imported, read_settings(folder / name), name)
    return imported


def _take_edits(imported: ImportedConfig, edited: ImportedConfig, name: str) -> None:
    for section, keys in edited.settings.items():
        imported.settings.setdefault(section, {}).update(keys)
    imported.left_out += edited.left_out
    imported.skip(f"data sets of {name}", f"edited after the export, read from {RECORD} instead")


def _add(imported: ImportedConfig, task: Mapping[str, Any], folder: Path) -> None:
    rows = task["rows_of_data"]
    if not isinstance(task["name"], str) or not isinstance(rows, str):
        raise TypeError("a name is not text")
    if not rows:
        imported.skip(task["name"], "no rows")
        return
    imported.add(task["name"], _place(folder, rows), f"task {task['name']!r}")
    if task["target"]:
        imported.targets.append(task["name"])
    if task["validation_of_data"]:
        imported.validation_files[task["name"]] = _place(folder, task["validation_of_data"])["path"]


def _place(folder: Path, name: str) -> dict[str, Any]:
    path = (folder / name).absolute()
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder / RECORD} names a file outside of its folder: {name!r}", hint="Export again.")
    if not path.exists():
        raise DataError(f"missing rows: {path}, which {RECORD} names", hint="Export again.")
    return {"path": str(path)}


def _take_settings(imported: ImportedConfig, folder: Path) -> None:
    """Import the settings of the manifest, and the chat template."""
    manifest = _read_json(folder / MANIFEST)
    for name, known in _SETTINGS.items():
        values = manifest.get(name)
        given = values if isinstance(values, dict) else {}
        # An empty text or table stands for the default.
        imported.take({key: value for key, value in given.items() if key in known and value not in ("", {})}, known)
    if (folder / TEMPLATE).is_file():
        imported.settings.setdefault("data", {})["chat_template"] = str((folder / TEMPLATE).absolute())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        refuse_endless(path)
        values = json.loads(read_whole_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="Export again.") from error
    if not isinstance(values, dict):
        raise DataError(f"cannot read {path}: not an object", hint="Export again.")
    return values

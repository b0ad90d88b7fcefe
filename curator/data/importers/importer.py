"""Recognise and import another trainer's configuration for `curator init --from`.

    LLaMA-Factory   dataset_info.json, or the YAML of a run that names some of its data sets
    axolotl         the YAML of a run
    TRL             the YAML of a run, with `datasets` or `dataset_name`
    oumi            the YAML of a run, with `data.train.datasets`
    ms-swift        the YAML of a run, with `dataset` as a list
    curator         an export, its record, its configuration or its data files

Data sets become tasks, and the recipe becomes `[train]` and `[lora]`.
`ImportedConfig.left_out` lists every setting without an equivalent in curator.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curator.core.errors import DataError
from curator.core.figures import first_of
from curator.core.files import read_whole_text
from curator.core.foreign_yaml import read_yaml
from curator.data.importers.axolotl import read_axolotl
from curator.data.importers.base import ImportedConfig, Table
from curator.data.importers.exports import export_around, read_export
from curator.data.importers.llama_factory import is_dataset_info, read_dataset_info, read_run
from curator.data.importers.oumi import is_oumi, read_oumi
from curator.data.importers.swift import read_swift
from curator.data.importers.trl import read_trl

__all__ = ["ImportedConfig", "Table", "read_export_at", "read_trainer_config"]

_YAML = (".yaml", ".yml")
# Data files can also end in .json. Larger files are not read, because they are data.
_LARGEST = 2**24


def read_export_at(paths: Sequence[Path]) -> ImportedConfig | None:
    """Read an export of curator. Held-out rows become the validation file of their target, and never a task.

    Args:
        paths: The folder of an export, or files in it. A data file stands for its task.

    Returns:
        The imported tasks. None if the paths do not all lie in one export.

    Raises:
        DataError: The export is damaged.
    """
    folders = {export_around(path) for path in paths}
    folder = folders.pop() if len(folders) == 1 else None
    if folder is None:
        return None
    return read_export(folder, paths, lambda config: _read(config, _load(config)))


def read_trainer_config(path: Path) -> ImportedConfig | None:
    """Import another trainer's configuration. The content of the file decides which trainer it belongs to.

    Args:
        path: The file.

    Returns:
        The imported configuration, or None if the file may be a data file.

    Raises:
        DataError: The file cannot be read, is YAML of an unknown trainer, or names no usable data set.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_YAML, ".json") or not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    values = _load(path)
    if suffix == ".json" and not is_dataset_info(values):
        return None
    try:
        imported = _read(path, values)
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        # For example a list instead of a table. The trainer's parser names the place.
        raise DataError(
            f"{path}: unexpected structure: {type(error).__name__}: {error}",
            hint="Check that the trainer reads the file.",
        ) from error
    if not imported.tables:
        reasons = first_of(imported.left_out, 3, joint="; ")
        raise DataError(
            f"{path}: no usable data set" + (f": {reasons}" if reasons else ""),
            hint="Correct the data sets in the file, or pass data files to --from.",
        )
    return imported


def _load(path: Path) -> Any:
    try:
        text = read_whole_text(path, most=_LARGEST, encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _json(text)
        return read_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="Check the permissions and the encoding.") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid YAML: {error}", hint="Fix the line in the message.") from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read(path: Path, values: Any) -> ImportedConfig:
    if not isinstance(values, dict):
        values = {}
    if path.suffix.lower() == ".json":
        return read_dataset_info(values, path)
    entries = values.get("datasets")
    typed = isinstance(entries, list) and any(isinstance(entry, dict) and "type" in entry for entry in entries)
    if "base_model" in values or typed:
        return read_axolotl(values, path)
    if is_oumi(values):
        return read_oumi(values, path)
    named = values.get("dataset")
    if isinstance(named, str | list) and named:
        # ms-swift names the model `model`, LLaMA-Factory `model_name_or_path`.
        if "model_name_or_path" not in values and ("model" in values or isinstance(named, list)):
            return read_swift(values, path)
        return read_run(values | {"dataset": named if isinstance(named, str) else ",".join(map(str, named))}, path)
    if entries or "dataset_name" in values:
        return read_trl(values, path)
    if mixer := next((key for key in values if key.startswith("dataset_mixer")), None):
        raise DataError(
            f"{path}: curator does not read a mixer of open-instruct or the alignment handbook ({mixer})",
            hint="Pass each data set of the mixer with its own --from.",
        )
    raise DataError(
        f"{path}: not a configuration of LLaMA-Factory, axolotl or TRL, nor of oumi or ms-swift",
        hint="Use a file that names data sets: `dataset`, `datasets` or `dataset_name`.",
    )

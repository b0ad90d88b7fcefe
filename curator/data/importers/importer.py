"""What other trainers are told, read for `curator init --from`: their data sets become tasks, their recipe `[train]`.

    LLaMA-Factory   dataset_info.json, or the YAML of a run that names some of its data sets
    axolotl         the YAML of a run
    TRL             the YAML of a run, with `datasets` or `dataset_name`

Nothing is dropped in silence: what curator has no word for is in `ImportedConfig.left_out`.
"""

import json
from pathlib import Path
from typing import Any

from curator.core.errors import DataError
from curator.data.importers.axolotl import read_axolotl
from curator.data.importers.base import ImportedConfig, Table
from curator.data.importers.llama_factory import is_dataset_info, read_dataset_info, read_run
from curator.data.importers.trl import read_trl

__all__ = ["ImportedConfig", "Table", "read_trainer_config"]

_YAML = (".yaml", ".yml")
# A file of data may end in .json, too, and is not read whole to find that out.
_LARGEST = 2**24


def read_trainer_config(path: Path) -> ImportedConfig | None:
    """Read another trainer's configuration, told apart by what is in it.

    Args:
        path: The file.

    Returns:
        What it says, or None where the file is none of theirs but may be data.

    Raises:
        DataError: It cannot be read, is YAML of no known trainer, or names no data set that can be used.
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
        # A list where a table should be, for example; where, the trainer's own parser says better.
        raise DataError(
            f"{path}: not as its trainer has it: {type(error).__name__}: {error}", hint="Does the trainer read it?"
        ) from error
    if not imported.tables:
        said = "; ".join(imported.left_out[:3])
        raise DataError(f"{path}: names no data set that curator can use" + (f": {said}" if said else ""))
    return imported


def _load(path: Path) -> Any:
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _json(text)
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{path}: not valid YAML: {said}", hint="Mend the line named.") from error


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
    if isinstance(values.get("dataset"), str):
        return read_run(values, path)
    if entries or "dataset_name" in values:
        return read_trl(values, path)
    raise DataError(
        f"{path}: no configuration of LLaMA-Factory, axolotl or TRL",
        hint="It has to name data sets: `dataset`, `datasets` or `dataset_name`.",
    )

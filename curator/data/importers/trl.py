"""Import the YAML of a TRL run, which names a mixture of data sets or one data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from curator.core.config import RowField
from curator.data.importers.base import (
    ALL_ROWS,
    COMMON,
    NO_SETTING,
    ImportedConfig,
    Setting,
    brief,
    modules,
    precision,
    template_setting,
    text,
    whole,
)
from curator.data.importers.places import NotFoundError, Place

_SETTINGS: dict[str, Setting] = COMMON | {
    "dtype": ("model", "dtype", precision),
    "torch_dtype": ("model", "dtype", precision),
    "attn_implementation": ("model", "attention", text),
    "lora_r": ("lora", "r", whole),
    "lora_target_modules": (
        "lora",
        "target_modules",
        lambda value: "all-linear" if value == ["all-linear"] else modules(value),
    ),
    "max_length": ("data", "max_length", whole),
    "max_seq_length": ("data", "max_length", whole),
}
_KNOWN = ("path", "name", "data_dir", "data_files", "split", "columns", "fraction", "streaming", "revision")


def read_trl(values: Mapping[str, Any], path: Path) -> ImportedConfig:
    """Import the YAML of a TRL run.

    Args:
        values: Content of the file.
        path: The file. Paths in `values` are relative to its folder.
    """
    imported = ImportedConfig(path=path, trainer="TRL")
    entries = values.get("datasets")
    for place, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        if isinstance(entry, dict) and entry.get("path"):
            _add(imported, entry, f"datasets[{place}]", values)
        else:
            imported.skip(f"datasets[{place}]", "no `path`")
    if values.get("dataset_name") and not entries:
        single = {
            "path": values["dataset_name"],
            "name": values.get("dataset_config"),
            "split": values.get("dataset_train_split"),
        }
        _add(imported, single, "dataset_name", values)
    handled: tuple[str, ...] = (
        "datasets",
        "dataset_name",
        "dataset_config",
        "dataset_train_split",
        "dataset_streaming",
        "streaming",
    )
    template = values.get("chat_template_path")
    if template and str(template).endswith((".jinja", ".j2")):
        imported.settings["data"] = {"chat_template": template_setting(str(template), path.parent)}
        handled = (*handled, "chat_template_path")
    peft = ("use_peft",) if str(values.get("use_peft", True)).lower() == "true" else ()
    imported.take(values, _SETTINGS, handled=(*handled, *peft))
    return imported


def _add(imported: ImportedConfig, entry: Mapping[str, Any], label: str, values: Mapping[str, Any]) -> None:
    label = f"{label} ({entry['path']})"
    columns = [str(column) for column in entry.get("columns") or []]
    foreign = [column for column in columns if column not in get_args(RowField)]
    place = _place(entry)
    try:
        keys = place.keys(imported.path.parent)
        if {"chosen", "rejected"} & {column.lower() for column in foreign}:
            raise NotFoundError("unsupported preference data")
        if columns and len(foreign) == len(columns):
            raise NotFoundError(f"unsupported columns: {', '.join(columns)}")
    except NotFoundError as error:
        imported.skip(label, str(error))
        return
    for column in foreign:
        imported.skip(f"{label}.columns", f"unsupported column: {column!r}")
    for key, value in entry.items():
        if value is not None and (key not in _KNOWN or key == "fraction"):
            imported.skip(f"{label}.{key} = {brief(value)}", ALL_ROWS if key == "fraction" else NO_SETTING)
    files = entry.get("data_files")
    for split in files if isinstance(files, dict) else ():
        if split != (entry.get("split") or "train"):
            imported.skip(f"{label}.data_files.{split}", "name the file under validation_files or test_files in [data]")
    streams = entry.get("streaming", values.get("streaming", values.get("dataset_streaming")))
    if "hub" in keys and streams is False:
        keys["streaming"] = False
    kept = {column: column for column in columns if column not in foreign}
    imported.add(place.name, keys | {"columns": kept}, label)


def _place(entry: Mapping[str, Any]) -> Place:
    files, split = entry.get("data_files") or [], str(entry.get("split") or "train")
    if isinstance(files, dict):
        # `data_files` maps splits to files. Each file is read as a whole.
        files, split = files.get(split) or [], "train"
    return Place(
        path=str(entry["path"]),
        config=str(entry.get("name") or ""),
        files=[files] if isinstance(files, str) else [str(file) for file in files],
        folder=str(entry.get("data_dir") or ""),
        split=split,
        revision=str(entry.get("revision") or ""),
    )

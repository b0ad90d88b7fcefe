"""Import the YAML of an ms-swift run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curator.data.importers.base import (
    ALL_ROWS,
    COMMON,
    ImportedConfig,
    Setting,
    modules,
    precision,
    text,
    whole,
)
from curator.data.importers.places import NotFoundError, Place

_SETTINGS: dict[str, Setting] = {key: COMMON[key] for key in COMMON if key not in ("bf16", "fp16")} | {
    "model": COMMON["model_name_or_path"],
    "torch_dtype": ("model", "dtype", precision),
    "attn_impl": ("model", "attention", text),
    "quant_bits": ("model", "quantization", lambda value: f"{value}bit"),
    "lora_rank": ("lora", "r", whole),
    "target_modules": (
        "lora",
        "target_modules",
        lambda value: "all-linear" if value in ("all-linear", ["all-linear"]) else modules(value),
    ),
    "max_length": ("data", "max_length", whole),
}
_SAME_AS_CURATOR = {"tuner_type": "lora", "train_type": "lora", "task_type": "causal_lm", "use_hf": True}


def read_swift(values: Mapping[str, Any], path: Path) -> ImportedConfig:
    """Import the YAML of an ms-swift run.

    Args:
        values: Content of the file.
        path: The file. Paths in `values` are relative to its folder.
    """
    imported = ImportedConfig(path=path, trainer="ms-swift")
    written = values["dataset"]
    for place, entry in enumerate(written if isinstance(written, list) else [written], 1):
        _add(imported, str(entry), f"dataset[{place}]", on_hub=values.get("use_hf") is True)
    if values.get("val_dataset"):
        imported.skip("val_dataset", "name the file under validation_files in [data]")
    same = tuple(key for key, value in _SAME_AS_CURATOR.items() if values.get(key) == value)
    imported.take(values, _SETTINGS, handled=("dataset", "val_dataset", *same))
    return imported


def _add(imported: ImportedConfig, entry: str, label: str, *, on_hub: bool) -> None:
    """Add a data set, written as `path:config#rows`. A prefix names the hub: `HF::` or `MS::`."""
    label = f"{label} ({entry})"
    named, _, rows = entry.partition("#")
    hub, _, named = named.rpartition("::")
    here = Place(path=named)
    name, _, config = named.partition(":") if not _is_local(here, imported.path.parent) else (named, "", "")
    try:
        keys = Place(path=name, config=config).keys(imported.path.parent)
        if "hub" in keys and hub.upper() != "HF" and not on_hub:
            raise NotFoundError("a data set of ModelScope (curator reads the hub of Hugging Face)")
    except NotFoundError as error:
        imported.skip(label, str(error))
        return
    if rows:
        imported.skip(f"{label}: {rows} rows", ALL_ROWS)
    imported.add(Place(path=name).name, keys, label)


def _is_local(place: Place, base: Path) -> bool:
    try:
        return "path" in place.keys(base)
    except NotFoundError:
        return False

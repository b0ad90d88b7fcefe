"""Import the YAML of an oumi run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curator.data.importers.base import (
    ALL_ROWS,
    COMMON,
    NO_SETTING,
    ImportedConfig,
    Setting,
    brief,
    modules,
    number,
    precision,
    text,
    whole,
)
from curator.data.importers.places import NotFoundError, Place

_MODEL: dict[str, Setting] = {
    "model_name": COMMON["model_name_or_path"],
    "model_revision": COMMON["model_revision"],
    "model_max_length": ("data", "max_length", whole),
    "torch_dtype_str": ("model", "dtype", precision),
    "attn_implementation": ("model", "attention", text),
    "trust_remote_code": COMMON["trust_remote_code"],
}
_TRAINING: dict[str, Setting] = {
    key: COMMON[key]
    for key in (
        *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("lr_scheduler_type", "warmup_ratio", "weight_decay", "seed"),
    )
}
_PEFT: dict[str, Setting] = {
    "lora_r": ("lora", "r", whole),
    "lora_alpha": ("lora", "alpha", number),
    "lora_dropout": ("lora", "dropout", number),
    "lora_target_modules": (
        "lora",
        "target_modules",
        lambda value: "all-linear" if value == ["all-linear"] else modules(value),
    ),
}
# Data sets of oumi that hold text for supervised fine-tuning, as files or as data of `datasets`.
_KINDS = ("text_sft", "text_sft_jsonl", "PromptResponseDataset")
_PLACE = ("dataset_name", "dataset_path", "subset", "split", "dataset_kwargs")
_SAME_AS_CURATOR = {"trainer_type": "TRL_SFT", "use_peft": True}
_SAMPLING = ("mixture_strategy", "sample_count", "mixture_proportion", "shuffle", "seed", "shuffle_buffer_size")


def is_oumi(values: Mapping[str, Any]) -> bool:
    """Return whether the content of a YAML file is the configuration of an oumi run."""
    data = values.get("data")
    return isinstance(data, dict) and isinstance(data.get("train"), dict) and "datasets" in data["train"]


def read_oumi(values: Mapping[str, Any], path: Path) -> ImportedConfig:
    """Import the YAML of an oumi run.

    Args:
        values: Content of the file.
        path: The file. Paths in `values` are relative to its folder.
    """
    imported = ImportedConfig(path=path, trainer="oumi")
    for place, entry in enumerate(values["data"]["train"]["datasets"] or [], 1):
        _add(imported, entry, f"data.train.datasets[{place}]")
    for name, known in (("model", _MODEL), ("training", _TRAINING), ("peft", _PEFT)):
        section = values.get(name)
        if isinstance(section, dict):
            same = tuple(key for key, value in _SAME_AS_CURATOR.items() if section.get(key) == value)
            imported.take(section, known, handled=same)
    for key, value in values["data"]["train"].items():
        if value is not None and key != "datasets" and (key, value) != ("collator_name", "text_with_padding"):
            imported.skip(f"data.train.{key} = {brief(value)}", ALL_ROWS if key in _SAMPLING else NO_SETTING)
    for name in values:
        if name not in ("model", "training", "peft", "data"):
            imported.skip(str(name), NO_SETTING)
    for part in ("validation", "test"):
        if values["data"].get(part):
            imported.skip(f"data.{part}", "name the file under validation_files or test_files in [data]")
    return imported


def _add(imported: ImportedConfig, entry: Mapping[str, Any], label: str) -> None:
    name = str(entry.get("dataset_name") or "")
    label = f"{label} ({name})"
    options = dict(entry.get("dataset_kwargs") or {})
    file = entry.get("dataset_path") or options.pop("dataset_path", None)
    place = Place(
        path=str(file or name),
        config=str(entry.get("subset") or ""),
        split=str(entry.get("split") or "train"),
    )
    columns = {}
    try:
        if name == "PromptResponseDataset":
            columns = {
                "prompt": str(options.pop("prompt_column", "prompt")),
                "completion": str(options.pop("response_column", "completion")),
            }
            place = Place(path=str(options.pop("hf_dataset_path", place.path)), config=place.config, split=place.split)
        elif file and name not in _KINDS:
            raise NotFoundError(f"unsupported data set: {name}")
        keys = place.keys(imported.path.parent)
    except NotFoundError as error:
        imported.skip(label, str(error))
        return
    for key, value in [*entry.items(), *options.items()]:
        if value is not None and key not in _PLACE:
            imported.skip(f"{label}.{key} = {brief(value)}", ALL_ROWS if key in _SAMPLING else NO_SETTING)
    imported.add(place.name, keys | {"columns": columns}, label)

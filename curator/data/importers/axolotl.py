"""Import the YAML of an axolotl run."""

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
    role_names,
    switched,
    template_setting,
    text,
    whole,
)
from curator.data.importers.places import NotFoundError, Place

_SETTINGS: dict[str, Setting] = {key: COMMON[key] for key in COMMON if "lora" in key} | {
    "base_model": ("model", "name_or_path", text),
    "revision_of_model": ("model", "revision", text),
    "trust_remote_code": COMMON["trust_remote_code"],
    "load_in_4bit": COMMON["load_in_4bit"],
    "load_in_8bit": COMMON["load_in_8bit"],
    "bf16": COMMON["bf16"],
    "fp16": COMMON["fp16"],
    "attn_implementation": ("model", "attention", text),
    "flash_attention": ("model", "attention", lambda value: switched(value, "flash_attention_2")),
    "sequence_len": ("data", "max_length", whole),
    "lora_r": ("lora", "r", whole),
    "lora_target_modules": ("lora", "target_modules", modules),
    "lora_target_linear": ("lora", "target_modules", lambda value: switched(value, "all-linear")),
    "learning_rate": COMMON["learning_rate"],
    "num_epochs": ("train", "epochs", number),
    "micro_batch_size": ("train", "batch_size", whole),
    "gradient_accumulation_steps": COMMON["gradient_accumulation_steps"],
    "lr_scheduler": ("train", "schedule", COMMON["lr_scheduler_type"][2]),
    "warmup_ratio": COMMON["warmup_ratio"],
    "weight_decay": COMMON["weight_decay"],
    "seed": COMMON["seed"],
}
_PLACE = ("path", "name", "split", "revision", "data_files", "ds_type", "type")
# Columns by the `type` of a data set. {} means that curator recognises the columns.
_TYPES: dict[str, dict[str, str]] = {
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output"},
    "alpaca_chat": {"instruction": "instruction", "input": "input", "output": "output"},
    "alpaca_chat.load_qa": {"instruction": "question", "output": "answer"},
    "alpaca_w_system.load": {},
    "alpaca_w_system.load_open_orca": {"system": "system_prompt", "instruction": "question", "output": "response"},
    "gpteacher": {"instruction": "instruction", "input": "input", "output": "response"},
    "completion": {"text": "text"},
    "chat_template": {},
    "sharegpt": {"messages": "conversations"},
    "input_output": {},
}
_CHAT_KEYS = (
    "field_messages",
    "field_system",
    "field_tools",
    "message_property_mappings",
    "message_field_role",
    "message_field_content",
    "message_field_training",
    "roles",
    "roles_to_train",
    "train_on_eos",
)


def read_axolotl(values: Mapping[str, Any], path: Path) -> ImportedConfig:
    """Import the YAML of an axolotl run.

    Args:
        values: Content of the file.
        path: The file. Paths in `values` are relative to its folder.
    """
    imported = ImportedConfig(path=path, trainer="axolotl")
    entries = values.get("datasets")
    for place, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        if isinstance(entry, str):
            entry = {"path": entry}
        if isinstance(entry, dict) and entry.get("path"):
            _add(imported, dict(entry), f"datasets[{place}]")
        else:
            imported.skip(f"datasets[{place}]", "no `path`")
    if values.get("adapter") not in (None, "lora", "qlora"):
        imported.skip(f"adapter = {brief(values['adapter'])}", "curator trains LoRA only")
    template = values.get("chat_template_jinja")
    if template and values.get("chat_template", "jinja") == "jinja":
        imported.settings["data"] = {"chat_template": template_setting(str(template), path.parent)}
    elif values.get("chat_template") not in (None, "tokenizer_default"):
        imported.skip(f"chat_template = {brief(values['chat_template'])}", "not a template of the tokenizer")
    if values.get("test_datasets"):
        imported.skip("test_datasets", "name the file under validation_files in [data]")
    handled = ("datasets", "test_datasets", "adapter", "chat_template", "chat_template_jinja")
    imported.take(values, _SETTINGS, handled=handled)
    return imported


def _add(imported: ImportedConfig, entry: dict[str, Any], label: str) -> None:
    label = f"{label} ({entry['path']})"
    files = entry.get("data_files") or []
    place = Place(
        path=str(entry["path"]),
        config=str(entry.get("name") or ""),
        files=[files] if isinstance(files, str) else [str(file) for file in files],
        split="train" if entry.get("split") is None else str(entry["split"]),
        revision=str(entry.get("revision") or ""),
    )
    try:
        keys = place.keys(imported.path.parent)
        fields, handled = _fields(entry)
    except NotFoundError as error:
        imported.skip(label, str(error))
        return
    for key, value in entry.items():
        # An empty list of `roles_to_train` leaves the loss to the marks of each turn.
        read = key in handled and value != []
        if key not in _PLACE and not read and value not in (None, False):
            imported.skip(f"{label}.{key} = {brief(value)}", ALL_ROWS if key in ("weight", "shards") else NO_SETTING)
    imported.add(place.name, keys | fields, label)


def _fields(entry: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return `columns` and `roles` of a task, and the keys of the entry that define them.

    Raises:
        NotFoundError: curator does not support the `type` of the data set.
    """
    kind = entry.get("type") or "chat_template"
    if isinstance(kind, dict):
        return {"columns": _custom(kind)}, ()
    kind = str(kind).partition(":")[0]
    kind = kind if kind in _TYPES else kind.removesuffix(".load")
    if kind not in _TYPES:
        raise NotFoundError(f"unsupported type: {brief(entry['type'])}")
    if kind == "completion":
        return {"columns": {"text": str(entry.get("field") or "text")}}, ("field",)
    if kind in ("chat_template", "sharegpt"):
        return _chat(entry, _TYPES[kind].get("messages", "messages")), _CHAT_KEYS
    return {"columns": _TYPES[kind]}, ()


def _custom(kind: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a custom `type`."""
    if any(kind.get(key) for key in ("system_prompt", "format", "no_input_format")):
        raise NotFoundError("unsupported custom prompt format (write the prompts into the file instead)")
    names = {
        "instruction": kind.get("field_instruction", "instruction"),
        "output": kind.get("field_output", "output"),
        "input": kind.get("field_input"),
        "system": kind.get("field_system"),
    }
    return {ours: str(theirs) for ours, theirs in names.items() if theirs}


def _chat(entry: Mapping[str, Any], usual_column: str) -> dict[str, Any]:
    if not set(_list(entry.get("roles_to_train") or [])) <= {"assistant", "gpt"}:
        raise NotFoundError(f"roles_to_train {brief(entry['roles_to_train'])}: curator trains on assistant turns only")
    if entry.get("train_on_eos") not in (None, "turn", "all"):
        raise NotFoundError(f"train_on_eos {brief(entry['train_on_eos'])}: curator always trains on the end of a turn")
    if entry.get("message_field_training") not in (None, "train", "weight"):
        raise NotFoundError("message_field_training: curator supports `train` and `weight`")
    columns = {"messages": str(entry.get("field_messages") or usual_column)}
    columns |= {ours: str(entry[f"field_{ours}"]) for ours in ("system", "tools") if entry.get(f"field_{ours}")}
    if columns in ({"messages": "messages"}, {"messages": "conversations"}):
        # curator recognises these columns, and `tools` and `system` with them.
        columns = {}
    mapped = dict(entry.get("message_property_mappings") or {})
    for ours, usual in (("role", ("role", "from")), ("content", ("content", "value"))):
        theirs = str(mapped.get(ours) or entry.get(f"message_field_{ours}") or usual[0])
        if theirs not in usual:
            columns[ours] = theirs
    others = sorted(key for key, theirs in mapped.items() if key not in ("role", "content") and key != theirs)
    if others:
        raise NotFoundError(f"unsupported message_property_mappings: {', '.join(others)}")
    named = {str(name): str(ours) for ours, names in (entry.get("roles") or {}).items() for name in _list(names)}
    return {"columns": columns, "roles": role_names(named)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]

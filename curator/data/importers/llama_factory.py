"""Import LLaMA-Factory's `dataset_info.json`, or the YAML of a run that names data sets of that file."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from curator.core.errors import DataError
from curator.core.files import read_whole_text
from curator.data.importers.base import (
    ALL_ROWS,
    COMMON,
    NO_SETTING,
    ImportedConfig,
    Setting,
    brief,
    modules,
    role_names,
    whole,
)
from curator.data.importers.places import NotFoundError, Place, local_path

# Largest `dataset_info.json` in bytes.
_LARGEST = 2**24
_PLACES = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_HANDLED = (*_PLACES, "file_sha1", "subset", "split", "revision", "folder", "formatting", "columns", "tags", "ranking")
# curator's column names by LLaMA-Factory's names. An entry without `columns` reads exactly these columns.
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_ALPACA_MORE = {"history": "history", "system": "system", "tools": "tools"}
_CHAT_MORE = {"system": "system", "tools": "tools"}
_PREFERENCES = ("chosen", "rejected", "kto_tag")
_MEDIA = ("images", "videos", "audios")
_TAGS = {
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"),
    "function_tag": ("function_call", "function_call"),
    "system_tag": ("system", "system"),
}
_SAME_AS_CURATOR = {"stage": "sft", "finetuning_type": "lora", "do_train": True}
_RUN: dict[str, Setting] = COMMON | {
    "lora_rank": ("lora", "r", whole),
    "lora_target": (
        "lora",
        "target_modules",
        lambda value: "all-linear" if value == "all" else modules([name.strip() for name in str(value).split(",")]),
    ),
    "cutoff_len": ("data", "max_length", whole),
    "quantization_bit": ("model", "quantization", lambda value: f"{value}bit"),
    "flash_attn": (
        "model",
        "attention",
        lambda value: {"fa2": "flash_attention_2", "sdpa": "sdpa", "disabled": "eager"}.get(str(value), "auto"),
    ),
}


def is_dataset_info(values: Any) -> bool:
    """Return whether a JSON document is a `dataset_info.json` and not a data set."""
    if not isinstance(values, dict):
        return False
    entries = _without_comments(values).values()
    return all(isinstance(entry, dict) for entry in entries) and any(
        place in entry for entry in entries for place in _PLACES
    )


def _without_comments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data sets of a `dataset_info.json`. LLaMA-Factory reads only those that a run names."""
    return {
        name: entry
        for name, entry in values.items()
        if not (isinstance(entry, str) and name.lower().lstrip("_$").startswith(("//", "#", "comment", "schema")))
    }


def read_dataset_info(values: Mapping[str, Any], path: Path, wanted: Collection[str] | None = None) -> ImportedConfig:
    """Import `dataset_info.json`.

    Args:
        values: Content of the file.
        path: The file. File names in `values` are relative to its folder.
        wanted: Names of the data sets to import. None for all.
    """
    imported = ImportedConfig(path=path, trainer="LLaMA-Factory")
    for name, entry in _without_comments(values).items():
        if wanted is None or name in wanted:
            _add(imported, name, entry)
    return imported


def read_run(values: Mapping[str, Any], path: Path) -> ImportedConfig:
    """Import the YAML of a LLaMA-Factory run.

    Args:
        values: Content of the file.
        path: The file. `dataset_dir` is relative to its folder.

    Raises:
        DataError: The `dataset_info.json` of the run cannot be read.
    """
    folder = local_path(str(values.get("dataset_dir", "data")), path.parent)
    info = Path(folder or path.parent) / "dataset_info.json"
    try:
        described = json.loads(read_whole_text(info, most=_LARGEST, encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"cannot read {info}, which {path} needs: {error}", hint="Correct `dataset_dir` in the configuration."
        ) from error
    names = [name.strip() for name in str(values["dataset"]).split(",")]
    imported = read_dataset_info(described, info, names)
    for name in dict.fromkeys(names):
        if name not in described:
            imported.skip(name, f"not in {info}")
        elif names.count(name) > 1:
            imported.skip(f"{name} (named {names.count(name)} times)", f"read once, {ALL_ROWS}")
    imported.path = path
    same_as_curator = tuple(key for key, value in _SAME_AS_CURATOR.items() if values.get(key) == value)
    imported.take(values, _RUN, handled=("dataset", "dataset_dir", *same_as_curator))
    return imported


def _add(imported: ImportedConfig, name: str, entry: Mapping[str, Any]) -> None:
    columns = {str(theirs): str(column) for theirs, column in dict(entry.get("columns") or {}).items() if column}
    try:
        _check_kind(entry, columns)
        place = _place(entry).keys(imported.path.parent)
    except NotFoundError as error:
        imported.skip(name, str(error))
        return
    for key in entry:
        if key not in _HANDLED:
            imported.skip(f"{name}.{key} = {brief(entry[key])}", ALL_ROWS if key == "num_samples" else NO_SETTING)
    if entry.get("formatting", "alpaca") == "alpaca":
        keys = {"columns": _alpaca(columns)}
    else:
        keys = _chat(columns, entry.get("tags") or {})
    imported.add(name, place | keys, f'"{name}"')


def _check_kind(entry: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    """Check that curator can train on a data set.

    Raises:
        NotFoundError: The data set holds preferences or media, or has an unsupported formatting.
    """
    if entry.get("ranking") or any(columns.get(column) for column in _PREFERENCES):
        raise NotFoundError("unsupported preference data")
    if any(columns.get(column) for column in _MEDIA):
        raise NotFoundError("unsupported images, audio or video (curator trains on text only)")
    if entry.get("formatting", "alpaca") not in ("alpaca", "sharegpt", "openai"):
        raise NotFoundError(f"unsupported formatting: {brief(entry['formatting'])}")


def _place(entry: Mapping[str, Any]) -> Place:
    split = str(entry.get("split") or "train")
    if entry.get("hf_hub_url"):
        return Place(
            path=str(entry["hf_hub_url"]),
            config=str(entry.get("subset") or ""),
            folder=str(entry.get("folder") or ""),
            split=split,
            revision=str(entry.get("revision") or ""),
        )
    file = entry.get("cloud_file_name") or entry.get("file_name")
    if not file:
        other = next((place for place in _PLACES if entry.get(place)), "")
        raise NotFoundError(f"unsupported place of data: {other}" if other else "names no file and no hub id")
    return Place(path="json", files=[str(file)], split=split)


def _alpaca(columns: Mapping[str, str]) -> dict[str, str]:
    if not columns:
        return {ours: ours for ours in _ALPACA.values()}
    if not columns.get("response"):
        # LLaMA-Factory's form for pre-training: the whole text carries loss.
        return {"text": columns.get("prompt") or "text"}
    return {ours: columns[theirs] for theirs, ours in (_ALPACA | _ALPACA_MORE).items() if columns.get(theirs)}


def _chat(columns: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, Any]:
    named = {"messages": columns.get("messages") or "conversations"}
    named |= {ours: columns[theirs] for theirs, ours in _CHAT_MORE.items() if columns.get(theirs)}
    role, content = tags.get("role_tag", "from"), tags.get("content_tag", "value")
    if role not in ("from", "role"):
        named["role"] = role
    if content not in ("value", "content"):
        named["content"] = content
    roles = role_names({tags.get(tag) or usual: ours for tag, (usual, ours) in _TAGS.items()})
    return {"columns": named, "roles": {name: r for name, r in roles.items() if name != r}}

"""Test which settings of other trainers are imported, and the reasons for skipped settings."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from curator.data.importers.axolotl import read_axolotl
from curator.data.importers.base import modules, never, precision, schedule, switched
from curator.data.importers.places import NotFoundError, Place


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (schedule, "cosine", "cosine"),
        (modules, "all-linear", "all-linear"),
        (modules, ["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        (precision, "bf16", "bfloat16"),
        (precision, "torch.float16", "float16"),
        (precision, "auto", "auto"),
        (never, False, None),
        (never, "no", None),
    ],
)
def test_converter_supported_value_is_converted(read: Any, value: Any, expected: Any) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (schedule, "polynomial", "linear, cosine and constant"),
        (modules, "q_proj", "a list of names"),
        (modules, [], "a list of names"),
        (modules, ["q_proj", 3], "a list of names"),
        (precision, "int8", "bfloat16 and float16"),
        (never, True, "if you trust"),
        (never, "yes", "if you trust"),
    ],
)
def test_converter_unsupported_value_raises_with_reason(read: Any, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(value)


def test_switched_on_or_off_gives_meaning_or_none() -> None:
    assert [switched(value, "8bit") for value in (True, "true", "1", False, None, "off")] == ["8bit"] * 3 + [None] * 3


def test_place_keys_existing_data_gives_table_keys(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "notes.bin"):
        (tmp_path / name).write_text("{}\n")
    Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "saved"))
    both = Place(path="json", files=["a.jsonl", "b.jsonl"])
    assert both.keys(tmp_path) == {"path": [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]}
    assert both.name == "a"
    assert Place(path=str(tmp_path), files=["a.jsonl"]).keys(tmp_path) == {"path": str(tmp_path / "a.jsonl")}
    assert Place(path="saved", split="test").keys(tmp_path) == {"path": str(tmp_path / "saved"), "split": "test"}
    assert Place(path="some/set", config="c", split="test", revision="r").keys(tmp_path) == {
        "hub": "some/set", "config": "c", "revision": "r", "split": "test",
    }  # fmt: skip
    of_a_hub = Place(path="some/set", files=["x.jsonl"], folder="data", revision="r")
    assert of_a_hub.keys(tmp_path) == {"path": "hf://datasets/some/set@r/data/x.jsonl"}
    assert Place(path="some/set", folder="data").keys(tmp_path) == {"path": "hf://datasets/some/set/data"}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(path="json"), "without `data_files`"),
        (Place(path="./nothing"), "no such file or hub id"),
        (Place(path="json", files=["nothing.jsonl"]), "no such file: nothing.jsonl"),
        (Place(path="json", files=["notes.bin"]), "unsupported file type"),
        (Place(path="a.jsonl", split="test"), "no split 'test' in files"),
        (Place(path="some/set", files=["x.jsonl"], split="test"), "unsupported combination of hub files"),
        (Place(path="some/set", files=["x.jsonl"], config="c"), "unsupported combination of hub files"),
    ],
)
def test_place_keys_missing_or_unsupported_data_raises(place: Place, words: str, tmp_path: Path) -> None:
    for name in ("a.jsonl", "notes.bin"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(NotFoundError, match=words):
        place.keys(tmp_path)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"roles_to_train": ["user"]}, "roles_to_train"),
        ({"train_on_eos": "last"}, "train_on_eos"),
        ({"message_field_training": "use"}, "message_field_training"),
        ({"message_property_mappings": {"weight": "w"}}, "unsupported message_property_mappings: weight"),
    ],
)
def test_read_axolotl_unsupported_chat_options_are_skipped(entry: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"messages": []}\n')
    values = {"datasets": [{"path": "a.jsonl", "type": "chat_template"} | entry, "a.jsonl", {"type": "alpaca"}]}
    imported = read_axolotl(values | {"adapter": "ia3"}, tmp_path / "config.yaml")
    skipped = "\n".join(imported.left_out)
    assert words in skipped
    assert ": no `path`" in skipped
    assert "curator trains LoRA" in skipped

"""Every column of a row is used, named as unused, or a reason to refuse the row."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE, MakeProject, make_tokenizer, pair_rows

from curator.core.errors import DataError
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.data.tokens import Encoder
from curator.project.project import Project

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def _read(tmp_path: Path, *rows: dict[str, Any] | str, **options: Any) -> list[Any]:
    path = tmp_path / "t.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return read_task(Source(name="t", files=(path,), **options))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "q", "completion": "a", "label": False}, "preference data.*'label' says whether"),
        ({"prompt": "q", "completion": "a", "label": True}, "preference data.*'label' says whether"),
        ({"messages": TURNS, "kto_tag": False}, "preference data.*'kto_tag'"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preference data.*'chosen' and 'rejected'"),
        ({"conversations": TURNS, "chosen": TURNS[1], "rejected": TURNS[1]}, "preference data"),
        ({"messages": TURNS, "rejected_response": "b"}, "preference data.*'rejected_response'"),
        ({"query": "q", "response": "a", "rejected_response": "b"}, "preference data.*'rejected_response'"),
        ({"prompt": "q", "chosen_response": "a", "rejected_response": "b"}, "preference data.*'chosen_response' and"),
        ({"question": "q", "response_j": "a", "response_k": "b"}, "preference data.*'response_j' and 'response_k'"),
        ({"instruction": "q", "output_1": "a", "output_2": "b"}, "preference data.*'output_1' and 'output_2'"),
        ({"prompt": "q", "completion": "a…", "truncated_cells": ["completion"]}, "the hub cut off the text"),
        ({"prompt": "q", "completion": "a", "Rejected": "b"}, "preference data.*'rejected'"),
        ({"PROMPT": "q", "CHOSEN": "a", "REJECTED": "b"}, "preference data.*'chosen' and 'rejected'"),
        ({"prompt": "q", "completion": "a", "desirable": False}, "'desirable' is false"),
        ({"question": "q", "answer": "a", "is_correct": "False"}, "'is_correct' is false"),
        ({"messages": TURNS, "correct": False}, "'correct' is false"),
        ({"text": "t", "answer": "reject", "_task_hash": 1}, "an annotator of Prodigy chose 'reject'"),
        ({"prompt": "q", "completion": "a", "system_prompt": "s"}, "'system_prompt' is not read in rows of the format"),
        ({"question": "q", "A": "x", "B": "y", "C": "z", "answer": "B"}, "the answer 'B' is the letter of one of"),
        ({"input": "q", "choices": ["x", "y"], "target": "1"}, "the answer '1' is the number of one of the choices"),
        ({"prompt": "q", "options": ["x", "y"], "completion": "(b)"}, r"the answer '\(b\)' is the letter of one of"),
        ({"question": "q", "options": "A) x B) y", "answer": "B"}, "'answer' names one of the choices in 'options'"),
        (
            {"contents": [{"role": "model", "parts": [{"text": "so", "thought": True}, {"text": "a"}]}]},
            r"a turn holds 'content\[\]\.thought'",
        ),
        (
            {"contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}]},
            "unsupported part in a turn: type 'functionCall'",
        ),
        ({"Prompt": "q", "Completion": "a", "Image": "x.png"}, "'image' holds media"),
        ({"messages": TURNS, "images": ["a.png"]}, "'images' holds media"),
        ({"messages": TURNS, "videos": ["a.mp4"]}, "'videos' holds media"),
        ({"messages": TURNS, "audios": [{"path": "a"}]}, "'audios' holds media"),
        ({"messages": [{"role": "user", "content": "<image>\nq"}, TURNS[1]]}, "<image> stands for media"),
        ({"instruction": "q <audio>", "output": "a"}, "<audio> stands for media"),
        ({"prompt": "<|image_1|>\nq", "completion": "a"}, r"<\|image_1\|> stands for media"),
        ({"prompt": "<|vision_start|><|image_pad|>q", "completion": "a"}, r"<\|vision_start\|> stands for media"),
        ({"prompt": "q", "completion": "a", "system": "s"}, "'system' is not read in rows of the format prompt"),
        ({"inputs": "q", "targets": "a", "system": "s"}, "'system' is not read in rows of the format FLAN"),
        ({"prompt": "q", "completion": "a", "history": [["b", "c"]]}, "'history' is not read"),
        ({"messages": [TURNS[0], TURNS[1] | {"reasoning_content": "r"}]}, "a turn holds 'reasoning_content'"),
        ({"messages": [TURNS[0], TURNS[1] | {"thinking": "r"}]}, "a turn holds 'thinking'"),
        ({"messages": [TURNS[0], TURNS[1] | {"mask": 1}]}, "a turn holds 'mask'"),
        ({"messages": [TURNS[0], TURNS[1] | {"masked": False}]}, "a turn holds 'masked'"),
        ('{"prompt": "q", "prompt": "p", "completion": "a"}', "the key 'prompt' occurs twice"),
        ('{"messages": [{"role": "user", "content": "q", "content": "r"}]}', "the key 'content' occurs twice"),
    ],
)
def test_read_task_row_with_more_than_an_example_is_refused_by_name(
    tmp_path: Path, row: dict[str, Any] | str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        _read(tmp_path, row)


@pytest.mark.parametrize(
    ("row", "unused"),
    [
        ({"text": "t", "label": 3, "id": 7}, ("label", "id")),
        ({"text": "t", "label": True}, ("label",)),
        (
            {"messages": [TURNS[0], TURNS[1] | {"reasoning": False}], "images": False},
            ("images", "messages[].reasoning"),
        ),
        ({"prompt": "q", "completion": "a", "explanation": "e", "score": 0.5}, ("explanation", "score")),
        ({"messages": [TURNS[0] | {"id": 1}, TURNS[1]], "text": "rendered"}, ("text", "messages[].id")),
        ({"messages": TURNS, "conversations": [TURNS[0], {"role": "assistant", "content": "x"}]}, ("conversations",)),
        ({"messages": None, "conversations": TURNS}, ()),
        ({"prompt": "q", "completion": "a", "images": [], "system": "", "label": None}, ()),
        ({"messages": [TURNS[0] | {"value": "other", "from": "user"}, TURNS[1]]}, ("messages[].value",)),
        ({"messages": TURNS, "conversations": [TURNS[0]]}, ("conversations",)),
        ({"messages": TURNS, "tools": [{"name": "f"}], "functions": [{"name": "g"}]}, ("functions",)),
        ({"messages": [TURNS[0] | {"name": "Ann"}, TURNS[1]]}, ("messages[].name",)),
        ({"messages": [{"role": "system", "content": "s"}, *TURNS], "system_prompt": "s"}, ("system_prompt",)),
        ({"prompt": "q", "completion": "a", "correct": "false"}, ("correct",)),
        ({"prompt": "q", "completion": "a", "is_correct": True}, ("is_correct",)),
        ({"prompt": "A) x B) y", "completion": "B", "options": ["x", "y"]}, ()),
        ({"question": "q", "answer": "y", "A": "x", "B": "y"}, ("A", "B")),
        ({"prompt": "<image> is a tag", "completion": "a"}, None),
    ],
)
def test_read_task_unread_column_is_named_as_unused(
    tmp_path: Path, row: dict[str, Any], unused: tuple[str, ...] | None
) -> None:
    if unused is None:
        with pytest.raises(DataError, match="stands for media"):
            _read(tmp_path, row)
        return
    assert _read(tmp_path, row)[0].unused == unused


def test_read_task_named_columns_are_the_only_ones_that_are_read(tmp_path: Path) -> None:
    """`columns` says which columns count: the others are left out on purpose."""
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "note": "n"}
    (read,) = _read(tmp_path, row, columns={"prompt": "prompt", "completion": "chosen"})
    assert read.content == {"prompt": "q", "completion": "a"}
    assert read.unused == ()


def test_check_unused_columns_are_reported_once_a_task_with_their_rows(make_project: MakeProject) -> None:
    rows = [row | {"note": "n"} for row in pair_rows("alpha", 8)]
    folder = make_project(tasks={"target": pair_rows("target", 12), "alpha": rows})
    problems = Project.open(folder).check().problems
    assert [problem for problem in problems if "unused" in problem] == ["alpha: unused columns: note (8 rows)"]


def test_check_equal_unused_columns_of_many_tasks_are_one_line(make_project: MakeProject) -> None:
    tasks = {name: [row | {"note": "n"} for row in pair_rows(name, 8)] for name in ("alpha", "beta", "gamma")}
    folder = make_project(tasks={"target": pair_rows("target", 12)} | tasks)
    problems = [problem for problem in Project.open(folder).check().problems if "unused" in problem]
    assert problems == ["alpha and 2 more tasks: unused columns: note (24 rows)"]


def test_read_task_column_of_the_filter_is_used(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "a", "task": "t"}
    (read,) = _read(tmp_path, row, column="task", value="t")
    assert read.unused == ()


@pytest.mark.parametrize("role", ["critic", "developer", "tool_call"])
def test_encode_turn_that_the_template_leaves_out_is_refused(role: str) -> None:
    template = (
        "{% for m in messages %}{% if m.role in ('user', 'assistant') %}<{{ m.role }}>{{ m.content }}\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    encoder = Encoder(make_tokenizer(chat_template=template), max_length=64, encoder_decoder=False)
    for said in ("the", "q"):
        # `q` occurs in another turn as well: the check must not look for the words alone.
        with pytest.raises(DataError, match=f"leaves out turn 1, of the role '{role}'"):
            encoder.encode({"messages": [{"role": role, "content": said}, *TURNS]})
    encoder.encode({"messages": TURNS})


def test_encode_turns_of_a_template_that_writes_every_role_are_accepted() -> None:
    encoder = Encoder(make_tokenizer(chat_template=CHAT_TEMPLATE), max_length=64, encoder_decoder=False)
    assert "the" in encoder.encode({"messages": [{"role": "critic", "content": "the"}, *TURNS]}).text


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ({"question": "q", "answer": "a"}, {"instruction": "q", "response": "a"}),
        ({"Question": "q", "Answer": "a"}, {"instruction": "q", "response": "a"}),
        ({"query": "q", "response": "a"}, {"instruction": "q", "response": "a"}),
        ({"instruction": "q", "context": "c", "response": "a"}, {"instruction": "q\n\nc", "response": "a"}),
        ({"instruction": "q", "context": "", "response": "a"}, {"instruction": "q", "response": "a"}),
        ({"Prompt": "q", "Completion": "a"}, {"prompt": "q", "completion": "a"}),
        ({"instruction": "q", "output": 3}, {"instruction": "q", "response": "3"}),
        ({"prompt": "q", "completion": 2.5}, {"prompt": "q", "completion": "2.5"}),
        ({"instruction": "q", "input": float("nan"), "output": "a"}, {"instruction": "q", "response": "a"}),
        (
            {"system_prompt": "s", "question": "q", "response": "a"},
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a"},
                ]
            },
        ),
        (
            {"query": "q", "response": "a", "history": [["b", "c"]]},
            {
                "messages": [
                    {"role": "user", "content": "b"},
                    {"role": "assistant", "content": "c"},
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a"},
                ]
            },
        ),
    ],
)
def test_read_task_public_shape_is_read(tmp_path: Path, row: dict[str, Any], content: dict[str, Any]) -> None:
    assert _read(tmp_path, row)[0].content == content


def test_read_task_number_of_a_choice_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'answer' names one of the choices in 'choices'"):
        _read(tmp_path, {"question": "q", "choices": ["a", "b"], "answer": 1})


def test_read_task_unknown_pair_of_texts_gets_the_line_to_paste(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        _read(tmp_path, {"q": "x", "a": "y"})
    assert 'columns = { prompt = "q", completion = "a" }' in refused.value.hint


def test_read_task_equal_problems_are_one_line_with_their_number(tmp_path: Path) -> None:
    rows = [{"q": "x"}] * 7 + [{"z": "x"}] * 2
    with pytest.raises(DataError) as refused:
        _read(tmp_path, *rows)
    lines = refused.value.message.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("t.jsonl:1: unknown row format (fields: q) (7 rows)")
    assert lines[2].endswith("t.jsonl:8: unknown row format (fields: z) (2 rows)")


@pytest.mark.parametrize(
    ("name", "first", "words"),
    [
        ("t.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "is a Git LFS pointer"),
        ("t.jsonl", b"\x1f\x8b\x08\x00rest", "is packed with gzip"),
        ("t.csv", b"\x28\xb5\x2f\xfdrest", "is packed with zstd"),
        ("t.json", b"\xff\xfe{\x00", "is UTF-16, not UTF-8"),
        ("t.jsonl", '{"text": "q"}'.encode("utf-16-le"), "is UTF-16 without a byte order mark"),
        ("t.jsonl", '{"text": "q"}'.encode("utf-32"), "is UTF-32, not UTF-8"),
        ("t.jsonl.gz", gzip.compress('{"text": "q"}'.encode("utf-16")), "is UTF-16, not UTF-8"),
        ("t.jsonl.gz", gzip.compress(gzip.compress(b"{}")), "is packed twice"),
        ("t.csv", b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml", "is a workbook of a spreadsheet program"),
        ("t.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Excel workbook"),
        ("t.csv", b'{"prompt": "q", "completion": "a"}\n', "holds JSON Lines, not CSV"),
        ("t.csv", b'[\n  {\n    "prompt": "q"', "holds JSON, not CSV"),
        ("t.jsonl", b"PAR1\x15\x04", "is Parquet"),
        ("t.json", b"ARROW1\0\0", "is Arrow"),
        ("t.json", b"SQLite format 3\0", "is an SQLite database"),
        ("t.jsonl", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is XML"),
        ("t.jsonl", b"a".ljust(257, b"\0") + b"ustar\x0000", "is a tar archive"),
        ("t.jsonl", b"<!DOCTYPE html><html>", "is a web page"),
        ("t.jsonl.gz", b'{"prompt": "q", "completion": "a"}', "is not a gzip file"),
    ],
)
def test_read_task_file_of_another_kind_is_named_in_one_line(
    tmp_path: Path, name: str, first: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(first)
    with pytest.raises(DataError, match=words) as refused:
        read_task(Source(name="t", files=(path,)))
    assert "\n" not in refused.value.message

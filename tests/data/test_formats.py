"""Test that rows of other trainers are recognised, and that unsupported rows are named."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeProject, make_tokenizer, pair_rows, write_rows

from curator.cli.check_table import show_check
from curator.core.config import TaskSource
from curator.core.errors import DataError
from curator.data.formats import recognise, renamed
from curator.data.rows import content_hash, trainable
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.project.project import Project

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
GIVEN = A | {"train": False}


def share(*turns: str) -> list[dict[str, str]]:
    """Make ShareGPT turns from texts with the prefix `speaker:`."""
    return [dict(zip(("from", "value"), turn.split(":", 1), strict=True)) for turn in turns]


@pytest.mark.parametrize(
    ("row", "name", "turns"),
    [
        ({"messages": [SYSTEM, Q, A]}, "OpenAI messages", [SYSTEM, Q, A]),
        ({"messages": [Q, A], "system": "s"}, "OpenAI messages", [SYSTEM, Q, A]),
        ({"messages": [SYSTEM, Q, A], "system": "s"}, "OpenAI messages", [SYSTEM, Q, A]),
        ({"conversations": [Q, A]}, "OpenAI messages", [Q, A]),
        (
            {"messages": [Q, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
            "OpenAI messages",
            [Q, A],
        ),
        (
            {
                "messages": [
                    Q,
                    {
                        "role": "assistant",
                        "function_call": {"name": "f", "arguments": '{"x": 1}'},
                    },
                ]
            },
            "OpenAI messages",
            [Q, CALLS],
        ),
        ({"id": "ai2_1", "messages": [Q, A], "source": "ai2/x"}, "Tülu", [Q, A]),
        ({"dataset": "flan_v2", "id": "flan_v2_1", "messages": [Q, A]}, "Tülu", [Q, A]),
        ({"conversations": share("human:q", "gpt:a")}, "ShareGPT", [Q, A]),
        ({"conversations": share("system:s", "user:q", "chatgpt:a")}, "ShareGPT", [SYSTEM, Q, A]),
        ({"conversations": share("human:q", "gpt:a"), "system": "s", "tools": ""}, "ShareGPT", [SYSTEM, Q, A]),
        ({"messages": share("human:q", "gpt:a"), "id": "x"}, "ShareGPT", [Q, A]),
        (
            {
                "conversations": share(
                    "human:q",
                    'function_call:{"name": "f", "arguments": {"x": 1}}',
                    "observation:r",
                    "gpt:a",
                )
            },
            "ShareGPT",
            [Q, CALLS, {"role": "tool", "content": "r"}, A],
        ),
        (
            {"conversations": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]},
            "OpenAI messages",
            [Q, A],
        ),
        ({"instruction": "q", "output": "a", "system": "s"}, "Alpaca", [SYSTEM, Q, A]),
        ({"instruction": "q", "input": "", "output": "a", "history": [["q", "a"]]}, "Alpaca", [Q, A, Q, A]),
        ({"prompt": [Q], "completion": [A]}, "conversational prompt–completion", [Q, A]),
        (
            {"prompt": [SYSTEM, Q, A, Q], "completion": [A]},
            "conversational prompt–completion",
            [SYSTEM, Q, GIVEN, Q, A],
        ),
        ({"prompt": [Q], "completion": "a"}, "conversational prompt–completion", [Q, A]),
        ({"messages": [Q, A | {"weight": 0}, Q, A | {"train": True}]}, "OpenAI messages", [Q, GIVEN, Q, A]),
    ],
)
def test_recognise_chat_row_gives_name_and_turns(row: dict[str, Any], name: str, turns: list[dict[str, Any]]) -> None:
    assert recognise(row, "here") == (name, {"messages": turns})
    # An exported row is read back unchanged.
    assert recognise(json.loads(json.dumps(trainable({"messages": turns}))), "here")[1] == {"messages": turns}


@pytest.mark.parametrize(
    ("row", "name", "content"),
    [
        ({"prompt": "q", "completion": "a"}, "prompt–completion", {"prompt": "q", "completion": "a"}),
        (
            {"instruction": "q", "output": "a", "system": "", "history": []},
            "Alpaca",
            {"instruction": "q", "response": "a"},
        ),
        ({"inputs": "q", "targets": "a", "task": "t"}, "FLAN", {"instruction": "q", "response": "a"}),
        ({"text": "x"}, "text", {"text": "x"}),
        ({"text": "x", "conversations": []}, "text", {"text": "x"}),
    ],
)
def test_recognise_pair_or_text_row_gives_name_and_content(
    row: dict[str, Any], name: str, content: dict[str, Any]
) -> None:
    assert recognise(row, "here") == (name, content)


@pytest.mark.parametrize("tools", [[TOOL], [TOOL["function"]], json.dumps([TOOL]), [json.dumps(TOOL)]])
def test_recognise_tools_in_any_notation_gives_equal_content(tools: Any) -> None:
    for row in (
        {"messages": [Q, A]},
        {"conversations": share("human:q", "gpt:a")},
        {"instruction": "q", "output": "a"},
    ):
        assert recognise(row | {"tools": tools}, "here")[1] == {"messages": [Q, A], "tools": [TOOL]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": share("human:q", "narrator:a")}, "unknown speaker of a turn: 'narrator'"),
        ({"messages": [Q, A | {"weight": 0.5}]}, "'weight' of a turn must be 0 or 1, not 0.5"),
        ({"messages": [Q, A | {"train_detail": [{"begin_offset": 0}]}]}, "unsupported field in a turn: 'train_detail'"),
        ({"messages": [Q | {"train": True}, A]}, "'train' is true for a turn with role 'user'"),
        ({"messages": [Q | {"content": [{"type": "image_url"}]}, A]}, "unsupported part in a turn: type 'image_url'"),
        ({"messages": [SYSTEM, Q, A], "system": "other"}, "two system prompts"),
        ({"messages": [Q, A], "tools": "["}, "not valid JSON in 'tools'"),
        ({"messages": [Q, A], "tools": [{"x": 1}]}, "a tool without a `name`"),
        (
            {"messages": [Q, CALLS | {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "not valid JSON in the arguments of 'f'",
        ),
        (
            {"messages": [Q, CALLS | {"tool_calls": [{"name": "f", "arguments": [1]}]}]},
            "the arguments of 'f' must be an object",
        ),
        (
            {"messages": [Q, CALLS | {"tool_calls": [{"name": "f", "arguments": {"x": "\ud800"}}]}]},
            "a tool call holds half a surrogate",
        ),
        ({"conversations": share("human:q", "function_call:f(x)")}, "not valid JSON in a function call"),
        ({"instruction": "q", "output": "a", "history": ["q", "a"]}, "'history' must be a list of pairs"),
        ({"conversations": []}, "'conversations' must be a list of turns"),
    ],
)
def test_recognise_unsupported_row_names_place_and_problem(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        recognise(row, "t.jsonl:7")
    assert caught.value.message.startswith(f"t.jsonl:7: {message}")
    assert caught.value.hint


def test_content_hash_known_rows_keeps_stored_values() -> None:
    """Stores hold these hashes, so a change would make every stored example invalid."""
    for row, known in (
        ({"prompt": "q", "completion": "a"}, "a68be1e11fdc7d3ed45427c06462ef50"),
        (
            {"messages": [SYSTEM, Q, A, {"role": "tool", "content": "r", "name": "f"}]},
            "37cde8282bb7635bc1e6a248dc1a7c48",
        ),
        ({"text": "é"}, "7e5a5ccc2e6ccc561fcfaeda378e731d"),
    ):
        assert content_hash(recognise(row, "here")[1]) == known


def test_read_task_renamed_columns_gives_known_fields(tmp_path: Path) -> None:
    def read(*rows: dict[str, Any], **keys: Any) -> list[Any]:
        path = write_rows(tmp_path / "t.jsonl", list(rows))
        return [row.content for row in read_task(Source(name="t", files=(path,), **keys))]

    row = {"question": "q", "answer": "a", "text": "t", "system": "s"}
    assert read(row, columns={"instruction": "question", "output": "answer"}) == [{"instruction": "q", "response": "a"}]
    assert read(row, columns={"prompt": "question", "completion": "text"}) == [{"prompt": "q", "completion": "t"}]
    chat = {"dialog": [{"who": "customer", "said": "q"}, {"who": "agent", "said": "a", "mood": 1}]}
    keys = {
        "columns": {"messages": "dialog", "role": "who", "content": "said"},
        "roles": {"customer": "user", "agent": "assistant"},
    }
    assert read(chat, **keys) == [{"messages": [Q, A]}]
    with pytest.raises(DataError, match=r"no column 'qestion' in .*t\.jsonl"):
        read(row, columns={"instruction": "qestion", "output": "answer"})
    with pytest.raises(DataError, match="no column 'contxt'"):
        read(row, columns={"instruction": "question", "output": "answer", "input": "contxt"})
    # A column under its own name may be missing. It only excludes other columns.
    assert read({"prompt": "q", "completion": "a", "text": "t"}, columns={"text": "text", "prompt": "prompt"}) == [
        {"text": "t"}
    ]


def test_renamed_every_field_maps_back() -> None:
    row = {"messages": [Q, A], "tools": [TOOL], "system": "s"}
    columns = {"messages": "x", "tools": "y", "system": "z"}
    assert renamed({columns[key]: value for key, value in row.items()}, columns, {}) == row
    TaskSource.model_validate({"name": "t", "path": "p", "columns": columns})


def test_check_mixed_formats_counts_rows_by_format(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = [{"conversations": share("human:q", f"gpt:{n}")} for n in range(3)] + [{"messages": [Q, A]}]
    folder = make_project(tasks={"target": pair_rows("target", 6), "mixed": mixed})
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    make_tokenizer(bos=True, chat_template=template).save_pretrained(folder / "model")
    report = Project.open(folder).check()
    assert {task.name: task.formats for task in report.tasks} == {
        "mixed": {"ShareGPT": 3, "OpenAI messages": 1},
        "target": {"prompt–completion": 6},
    }
    assert json.loads(json.dumps(report.to_json()))["tasks"][0]["formats"] == {"ShareGPT": 3, "OpenAI messages": 1}
    show_check(report)
    shown = capsys.readouterr().out
    assert "ShareGPT (3), OpenAI messages (1)" in shown
    assert shown.count("prompt–completion") == 1
    # The second call reads the store.
    assert [task.formats for task in Project.open(folder).check().tasks] == [task.formats for task in report.tasks]

"""Rows under a key of a file are found, and what stands outside of them is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from reading import json_lines, read_text

from curator.core.errors import DataError
from curator.data.nested import cell
from curator.data.sources import Source
from curator.data.task_rows import read_task

QA = [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]
READ = [{"instruction": "q", "response": "a"}, {"instruction": "r", "response": "b"}]
PAIRS = [{"prompt": "q", "completion": "a"}, {"prompt": "r", "completion": "b"}]


@pytest.mark.parametrize(
    ("document", "unused"),
    [
        ({"data": QA}, ()),
        ({"version": "1", "data": QA}, ("version",)),
        ({"data": {"rows": QA}}, ()),
        ({"anything": QA, "meta": {"by": "me"}, "tags": ["x"]}, ("meta", "tags")),
        ({"canary": "c", "examples": [{"input": "q", "target": "a"}, {"input": "r", "target": "b"}]}, ("canary",)),
        ({"features": [{"name": "question"}], "rows": [{"row_idx": i, "row": row} for i, row in enumerate(QA)]}, None),
        ({"question": ["q", "r"], "answer": ["a", "b"]}, ()),
        ({"question": {"0": "q", "1": "r"}, "answer": {"0": "a", "1": "b"}}, ()),
        ({"columns": ["question", "answer"], "index": [0, 1], "data": [["q", "a"], ["r", "b"]]}, ()),
        ({"17": QA[0], "18": QA[1]}, ()),
    ],
)
def test_read_task_rows_of_one_object_are_found(tmp_path: Path, document: Any, unused: tuple[str, ...] | None) -> None:
    rows = read_text(tmp_path, "t.json", document)
    assert [row.content for row in rows] == READ
    assert unused is None or rows[0].unused == unused


def test_read_task_of_several_splits_reads_train_and_names_the_others(tmp_path: Path) -> None:
    for document in (
        {"train": QA, "test": PAIRS, "validation": PAIRS},
        {"data": {"train": QA, "test": PAIRS}},
        {"train": {"rows": QA}, "dev": {"rows": PAIRS}},
    ):
        rows = read_text(tmp_path, "t.json", document)
        assert [row.content for row in rows] == READ
        assert len(rows[0].notes) == 1
        assert rows[0].notes[0].startswith("only the rows under ")
    assert read_text(tmp_path, "t.json", {"train": QA, "test": PAIRS})[0].notes == (
        "only the rows under 'train' are read (left out: 'test')",
    )


def test_read_task_of_test_splits_only_is_refused_with_the_line(tmp_path: Path) -> None:
    (row,) = read_text(tmp_path, "t.json", {"test": QA})
    assert "no training split" in row.problem
    assert 'Set rows = "test" in [[data.task]]' in row.problem
    assert [row.content for row in read_text(tmp_path, "t.json", {"test": QA}, rows="test")] == READ


def test_read_task_several_lists_of_rows_are_refused_with_the_lines(tmp_path: Path) -> None:
    document = {"facts": QA, "chats": PAIRS, "authors": [{"name": "me"}]}
    (row,) = read_text(tmp_path, "t.json", document)
    assert row.problem == (
        "several lists of rows in one object: 'facts' (2), 'chats' (2)\n"
        'Set rows = "facts" or rows = "chats" in [[data.task]].'
    )
    assert [row.content for row in read_text(tmp_path, "t.json", document, rows="facts")] == READ
    assert [row.content for row in read_text(tmp_path, "t.json", document, rows="chats")] == PAIRS


def test_read_task_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    (row,) = read_text(tmp_path, "t.json", {"prompt": ["q", "r"], "completion": ["a"]})
    assert "different lengths: 'prompt' (2), 'completion' (1)" in row.problem


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
        {"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ],
)
def test_read_task_only_row_of_a_file_is_not_taken_for_a_list(tmp_path: Path, row: Any) -> None:
    (read,) = read_text(tmp_path, "t.json", row)
    assert [turn["content"] for turn in read.content["messages"]] == ["q", "a"]


def test_read_task_row_with_a_configured_column_is_a_row(tmp_path: Path) -> None:
    row = {"dialog": [{"who": "user", "said": "q"}, {"who": "assistant", "said": "a"}]}
    (read,) = read_text(
        tmp_path, "t.jsonl", json_lines(row), columns={"messages": "dialog", "role": "who", "content": "said"}
    )
    assert [turn["content"] for turn in read.content["messages"]] == ["q", "a"]


def test_read_task_rows_setting_walks_lists_and_keeps_outer_fields(tmp_path: Path) -> None:
    document = {
        "books": [
            {"about": "oaks", "items": [{"q": "1", "a": "2"}]},
            {"about": "moss", "items": [{"q": "3", "a": "4"}]},
        ]
    }
    columns = {"instruction": "q", "input": "about", "output": "a"}
    rows = read_text(tmp_path, "t.json", document, rows="books.items", columns=columns)
    assert [row.content for row in rows] == [
        {"instruction": "1\n\noaks", "response": "2"},
        {"instruction": "3\n\nmoss", "response": "4"},
    ]


def test_read_task_outer_field_never_replaces_a_field_of_the_row(tmp_path: Path) -> None:
    document = {"id": 1, "text": "about the file", "data": [{"id": 2, "question": "q", "answer": "a"}]}
    (row,) = read_text(tmp_path, "t.json", document)
    assert row.content == READ[0]
    assert set(row.unused) == {"id", "id (outside of data)", "text (outside of data)"}


def test_read_task_rows_setting_without_rows_lists_the_paths(tmp_path: Path) -> None:
    (row,) = read_text(tmp_path, "t.json", {"data": QA}, rows="date")
    assert row.problem == "no rows at `rows = 'date'`\nUse one of: rows = \"data\"."


def test_read_task_rows_setting_on_lines_reads_the_list_of_each_line(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.jsonl", json_lines({"qa": QA}, {"qa": QA[:1]}), rows="qa")
    assert [row.content for row in rows] == [*READ, READ[0]]
    assert [row.place for row in rows][-1].endswith("t.jsonl, row 3")


def test_read_task_dotted_column_reads_inside_of_objects_and_lists(tmp_path: Path) -> None:
    row = {"data": {"question": "q"}, "answers": {"text": ["a", "b"]}, "a.b": "c"}
    columns = {"prompt": "data.question", "completion": "answers.text.1"}
    (read,) = read_text(tmp_path, "t.jsonl", json_lines(row), columns=columns)
    assert read.content == {"prompt": "q", "completion": "b"}
    names = ("a.b", "answers.text.7", "data.x", "x", "data")
    assert [cell(row, name) for name in names] == ["c", None, None, None, row["data"]]


def test_read_task_dotted_column_that_no_row_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json_lines({"data": {"question": "q"}, "a": "b"}))
    columns = {"prompt": "data.frage", "completion": "a"}
    with pytest.raises(DataError, match=r"no column 'data\.frage'"):
        read_task(Source(name="t", files=(path,), columns=columns))


def test_source_rows_and_csv_are_part_of_the_identity() -> None:
    plain = Source(name="t").describe()
    assert plain == {}
    source = Source(name="t", rows="data.items", csv={"header": False})
    assert source.describe() == {"rows": "data.items", "csv": {"header": False}}
    assert Source.described("t", source.describe(), []) == source


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_read_task_several_json_documents_in_a_file_are_rows_with_their_lines(tmp_path: Path, name: str) -> None:
    text = '{\n  "prompt": "q",\n  "completion": "a"\n}\n{\n  "prompt": "r",\n  "completion": "b"\n}\n'
    rows = read_text(tmp_path, name, text)
    assert [(row.line, row.content) for row in rows] == [(1, PAIRS[0]), (5, PAIRS[1])]


def test_read_task_several_json_lists_in_a_file_are_rows(tmp_path: Path) -> None:
    rows = read_text(
        tmp_path, "t.json", '[\n{"prompt": "q", "completion": "a"}]\n[{"prompt": "r", "completion": "b"}]\n'
    )
    assert [(row.line, row.content) for row in rows] == [(2, PAIRS[0]), (3, PAIRS[1])]


def test_read_task_damaged_first_json_line_costs_only_its_row(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.jsonl", '{"prompt": "q",\n' + json_lines(*PAIRS))
    assert [row.problem.partition("\n")[0] for row in rows] == ["not valid JSON: unexpected end", "", ""]
    assert [row.line for row in rows] == [1, 2, 3]


def test_read_task_json_trailing_comma_of_list_is_named_with_its_line(tmp_path: Path) -> None:
    text = '[\n{"prompt": "q", "completion": "a"},\n{"prompt": "r, ]", "completion": "b"},\n\n]\n'
    with pytest.raises(DataError) as caught:
        read_text(tmp_path, "t.json", text)
    assert caught.value.message.endswith(
        "t.json:3: not valid JSON: a trailing comma before the closing bracket, at column 38"
    )
    assert caught.value.hint == "Remove the comma."


def test_read_task_json_trailing_comma_of_object_costs_only_its_row(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.jsonl", '{"prompt": "q", "completion": "a", }\n' + json_lines(*PAIRS))
    expected = "not valid JSON: a trailing comma before the closing bracket, at column 34"
    assert [row.problem.partition("\n")[0] for row in rows] == [expected, "", ""]


def test_read_task_list_on_one_line_counts_each_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('[{"x": 1}, {"y": 2}, {"prompt": "q", "completion": "a"}]')
    with pytest.raises(DataError, match="2 of 3 rows") as refused:
        read_task(Source(name="t", files=(path,)))
    assert "t.json, row 1: unknown row format (fields: x)" in refused.value.message


CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.jsonl", json_lines(CHAT, CHAT)),
        ("t.json", json.dumps([CHAT, CHAT])),
        ("t.json", json.dumps(CHAT, indent=1) + "\n" + json.dumps(CHAT)),
    ],
)
def test_read_task_list_of_turns_is_one_chat(tmp_path: Path, name: str, text: str) -> None:
    assert [row.content for row in read_text(tmp_path, name, text)] == [{"messages": CHAT}] * 2


def test_read_task_lists_of_texts_in_lines_are_no_rows_of_text(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.jsonl", json_lines(["q", "a"], ["r", "b"]))
    problem = "a row must be a JSON object, not ['q', 'a']"
    assert [row.problem.partition("\n")[0] for row in rows] == [problem, problem.replace("'q', 'a'", "'r', 'b'")]


def test_read_task_split_with_a_list_for_each_column_reads_training_only(tmp_path: Path) -> None:
    train = {"prompt": ["q", "r"], "completion": ["a", "b"]}
    rows = read_text(tmp_path, "t.json", {"train": train, "test": {"prompt": ["x"], "completion": ["y"]}})
    assert [row.content for row in rows] == PAIRS
    assert rows[0].notes == ("only the rows under 'train' are read (left out: 'test')",)


@pytest.mark.parametrize("row", [{"canary": "c", "examples": []}, {"data": []}, {"train": [], "test": []}])
def test_read_task_object_with_an_empty_list_holds_no_rows(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        read_text(tmp_path, "t.json", row)


def test_read_task_choices_of_the_only_row_are_no_rows(tmp_path: Path) -> None:
    row = {"question": {"stem": "q", "choices": [{"label": "A", "text": "x"}]}, "answerKey": "A"}
    (read,) = read_text(tmp_path, "t.jsonl", json_lines(row))
    assert read.problem.startswith("'answerKey' names one of the choices in 'question.choices'")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "q", "completion": "a"},', "a comma after the row, at column 35"),
        ('{"prompt": "q", "completion": "a"}{}', "more text after the row, at column 35"),
        ('{"prompt": "q", "compl', "unexpected end"),
        ('{"prompt": "q\t", "completion": "a"}', "Invalid control character at column 14"),
        ('\x1e{"prompt": "q", "completion": "a"}', "a record separator before the row (RFC 7464)"),
        ("# rows of plants", "a comment"),
        ("{'prompt': 'q', 'completion': 'a'}", "a text in single quotes, as Python writes it"),
        ('{"prompt": "q", "completion": None}', "None, as Python writes it"),
    ],
)
def test_read_task_damaged_json_line_names_the_damage(tmp_path: Path, line: str, problem: str) -> None:
    rows = read_text(tmp_path, "t.jsonl", json_lines(PAIRS[0]) + line + "\n")
    assert [row.problem.partition("\n")[0] for row in rows] == ["", f"not valid JSON: {problem}"]


@pytest.mark.parametrize("ending", ["\r", "\r\n", "\n\ufeff"])
def test_read_task_lines_of_old_and_joined_files_are_rows(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(ending.join(json.dumps(row) for row in PAIRS).encode())
    rows = read_task(Source(name="t", files=(path,)))
    assert [(row.line, row.content) for row in rows] == [(1, PAIRS[0]), (2, PAIRS[1])]


def test_read_task_split_layout_of_pandas_loses_no_cell(tmp_path: Path) -> None:
    names = ["prompt", "completion"]
    rows = read_text(tmp_path, "t.json", {"columns": names, "index": [0, 1], "data": [["q", "a"], ["r", "b", "c"]]})
    assert (rows[0].content, rows[1].problem.partition("\n")[0]) == (
        {"prompt": "q", "completion": "a"},
        "3 cells, but 2 columns",
    )
    (row,) = read_text(tmp_path, "t.json", {"columns": [*names, "completion"], "index": [0], "data": [["q", "a", "b"]]})
    assert row.problem.startswith("duplicate column: 'completion'")


def test_read_task_error_of_a_mapped_row_names_its_own_columns(tmp_path: Path) -> None:
    rows = [{"q": "x", "a": ["y", "z"]}, {"q": "x", "a": None}, {"q": 5, "a": "y"}, {"q": "x", "a": "y"}]
    columns = {"prompt": "q", "completion": "a"}
    read = read_text(tmp_path, "t.jsonl", json_lines(*rows), columns=columns)
    assert [row.problem.partition("\n")[0] for row in read] == [
        "'a' holds 2 answers instead of one text",
        "the row has no value in 'a', which `columns` names",
        "'q' must be text, not 5",
        "",
    ]
    assert 'Set columns = { prompt = "q", completion = "a.0" } in [[data.task]]' in read[0].problem

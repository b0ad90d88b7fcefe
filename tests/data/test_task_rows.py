"""Test every row and file format of the contract, and that errors name file and line."""

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.config import DataSection, TaskSource
from curator.core.errors import ConfigError, DataError, ExitCode
from curator.data.discovery import check_target, find_tasks, find_validation
from curator.data.rows import Row, content_hash, is_empty
from curator.data.sources import Source
from curator.data.task_rows import read_task

PAIR = {"prompt": "a", "completion": "b"}
OTHER = {"prompt": "c", "completion": "d"}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(folder: Path, name: str, content: str | bytes, **source: Any) -> list[Row]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_task(Source(name="t", files=(path,), **source))


def contents(folder: Path, name: str, content: str | bytes, **source: Any) -> list[Any]:
    return [row.content for row in read(folder, name, content, **source)]


def problem(folder: Path, name: str, content: str | bytes, **source: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, name, content, **source)
    assert caught.value.exit_code == ExitCode.DATA
    assert caught.value.hint
    return caught.value.message.replace(str(folder) + os.sep, "")


# -- formats of rows ----------------------------------------------------------------------------------------------


def test_read_task_every_format_gives_content(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    assert contents(
        tmp_path,
        "t.jsonl",
        lines(
            PAIR,
            {"messages": chat},
            {"instruction": "i", "output": "o"},
            {"instruction": "i", "input": "x", "output": "o"},
            {"instruction": "i", "input": "", "output": "o"},
            {"inputs": "i", "targets": "o"},
            {"text": "t", "id": 5},
        ),
    ) == [
        PAIR,
        {"messages": chat},
        {"instruction": "i", "response": "o"},
        {"instruction": "i\n\nx", "response": "o"},
        {"instruction": "i", "response": "o"},
        {"instruction": "i", "response": "o"},
        {"text": "t"},
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, "t.jsonl:2: unknown row format (fields: prompt)"),
        ({"prompt": "a", "completion": None}, "t.jsonl:2: unknown row format (fields: prompt; null: completion)"),
        ({}, "t.jsonl:2: unknown row format (fields: none)"),
        ({"prompt": "a", "completion": ["b", "c"]}, "t.jsonl:2: 'completion' holds 2 answers instead of one text"),
        ({"prompt": ["a"], "completion": "b"}, "t.jsonl:2: 'prompt' must be text, not ['a']"),
        ({"instruction": "a", "input": 1, "output": "b"}, "t.jsonl:2: 'input' must be text, not 1"),
        ({"text": 5}, "t.jsonl:2: 'text' must be text, not 5"),
        ({"messages": "hi"}, "t.jsonl:2: 'messages' must be a list of turns, not 'hi'"),
        ({"messages": []}, "t.jsonl:2: 'messages' must be a list of turns, not []"),
        ({"messages": [{"content": "x"}]}, "t.jsonl:2: each turn needs `role` and `content`"),
        ({"messages": [{"role": "user"}]}, "t.jsonl:2: 'content' must be text, not None"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "t.jsonl:2: a tool call without"),
        ({"prompt": "a", "completion": "\ud800"}, "t.jsonl:2: 'completion' holds half a surrogate pair"),
        ([1, 2], "t.jsonl:2: a row must be a JSON object, not [1, 2]"),
        ("text", "t.jsonl:2: a row must be a JSON object, not 'text'"),
    ],
)
def test_read_task_wrong_fields_names_the_line(tmp_path: Path, row: Any, message: str) -> None:
    assert problem(tmp_path, "t.jsonl", lines(PAIR, row)).startswith(message)


def test_content_hash_equal_examples_have_equal_hash() -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert len({content_hash(c) for c in (PAIR, chat, {"instruction": "a", "response": "b"})}) == 1
    assert content_hash(PAIR) != content_hash({"prompt": "ab", "completion": ""})
    assert content_hash({"text": "ab"}) != content_hash(PAIR)


def test_is_empty_without_completion_is_true() -> None:
    assert is_empty({"prompt": "a", "completion": " \n"})
    assert is_empty({"text": ""})
    assert is_empty({"messages": [{"role": "user", "content": "a"}]})
    assert is_empty({"messages": [{"role": "assistant", "content": " "}]})
    assert not is_empty(PAIR)


# -- text files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        lines(PAIR, OTHER),
        lines(PAIR, OTHER).rstrip("\n"),
        lines(PAIR, OTHER).replace("\n", "\r\n"),
        "\ufeff" + lines(PAIR, OTHER),
        "\n" + lines(PAIR) + "\n  \n" + lines(OTHER) + "\n\n",
    ],
    ids=["plain", "no last line break", "CRLF", "BOM", "blank lines"],
)
def test_read_task_json_lines_in_any_layout_gives_rows(tmp_path: Path, content: str) -> None:
    for name in ("t.jsonl", "t.ndjson", "t.json"):
        assert contents(tmp_path, name, content) == [PAIR, OTHER]
    packed = tmp_path / "t.jsonl.gz"
    packed.write_bytes(gzip.compress(content.encode(), mtime=0))
    assert [row.content for row in read_task(Source(name="t", files=(packed,)))] == [PAIR, OTHER]


def test_read_task_blank_lines_count_as_lines(tmp_path: Path) -> None:
    rows = read(tmp_path, "t.jsonl", "\n" + lines(PAIR) + "\n\n" + lines(OTHER))
    assert [(row.number, row.line) for row in rows] == [(0, 2), (1, 5)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\n \n"])
def test_read_task_json_list_gives_rows_and_lines(tmp_path: Path, indent: int | None, mark: str) -> None:
    rows = read(tmp_path, "t.json", mark + json.dumps([PAIR, OTHER], indent=indent))
    assert [row.content for row in rows] == [PAIR, OTHER]
    if indent:
        text = (tmp_path / "t.json").read_text(encoding="utf-8").splitlines()
        assert all(text[row.line - 1].strip() == "{" for row in rows)


def test_read_task_json_object_or_texts_gives_rows(tmp_path: Path) -> None:
    assert contents(tmp_path, "t.json", json.dumps(PAIR, indent=1)) == [PAIR]
    assert contents(tmp_path, "t.json", '["x, y", "[z]"]') == [{"text": "x, y"}, {"text": "[z]"}]


def test_read_task_dates_and_labels_stay_text(tmp_path: Path) -> None:
    """Loaders that infer types turn dates into times, and labels into numbers or null."""
    rows = [{"prompt": "2020-01-01", "completion": "2021-02-03"}, {"prompt": "007", "completion": "NA"}]
    assert contents(tmp_path, "t.jsonl", lines(*rows)) == rows
    assert contents(tmp_path, "t.json", json.dumps(rows)) == rows
    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "completion"])
    writer.writeheader()
    writer.writerows(rows)
    assert contents(tmp_path, "t.csv", text.getvalue()) == rows
    assert contents(tmp_path, "t.tsv", text.getvalue().replace(",", "\t")) == rows


def test_read_task_other_columns_hold_any_type(tmp_path: Path) -> None:
    rows = [PAIR | {"meta": {"x": 1}}, PAIR | {"meta": [1, "s"]}, PAIR | {"n": 10**30, "type": "user", "message": {}}]
    assert contents(tmp_path, "t.jsonl", lines(*rows)) == [PAIR] * 3


def test_read_task_nul_and_unicode_are_kept(tmp_path: Path) -> None:
    row = {"prompt": "a\0b\u2028\x85", "completion": "😀"}
    assert contents(tmp_path, "t.jsonl", lines(row)) == [row]
    assert contents(tmp_path, "t.jsonl", json.dumps(row, ensure_ascii=False)) == [row]


def test_read_task_line_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    long = {"prompt": "x" * 10_000_000, "completion": "y"}
    assert contents(tmp_path, "t.jsonl", lines(PAIR, long, OTHER)) == [PAIR, long, OTHER]
    assert contents(tmp_path, "t.csv", f"prompt,completion\n{long['prompt']},y\n") == [long]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", lines(PAIR) + "\n{broken\n" + lines(PAIR), "t.jsonl:3: not valid JSON"),
        ("t.jsonl", lines(PAIR) + '{"prompt": \n', "t.jsonl:2: not valid JSON: unexpected end"),
        (
            "t.jsonl",
            lines(PAIR) + '{"prompt": "a", "completion": "b"} x',
            "t.jsonl:2: not valid JSON: more text after the row",
        ),
        ("t.jsonl", b'{"prompt": "a\0"}', "t.jsonl:1: not valid JSON"),
        ("t.jsonl", b'\n{"prompt": "\xe9"}', "t.jsonl:2: not UTF-8 (byte 0xe9)"),
        ("t.jsonl", lines(PAIR).encode("utf-16"), "t.jsonl is UTF-16, not UTF-8"),
        ("t.jsonl", '{"prompt": ' + "[" * 100_000, "t.jsonl:1: not valid JSON: nested too deeply"),
        ("t.json", "[" * 100_000, "t.json:1: not valid JSON: nested too deeply"),
        ("t.json", '[{"prompt": "a"},\n{"prompt":}]', "t.json:2: not valid JSON"),
        ("t.json", '[\n{"prompt": "a", "completion": "b"},\n{"prompt": "c"}\n]', "t.json:3: unknown row format"),
        ("t.json", '[\n{"prompt": "a", "completion": "b"},\n5]', "t.json:3: a row must be a JSON object"),
        ("t.jsonl", "", "task 't': t.jsonl holds no rows"),
        ("t.jsonl", "\n \n", "task 't': t.jsonl holds no rows"),
        ("t.json", "[]", "task 't': t.json holds no rows"),
        ("t.csv", "prompt,completion\n", "task 't': t.csv holds no rows"),
        ("t.csv", "prompt,completion\na,b\nc,d,e\n", "t.csv:3: 3 cells, but the header has 2"),
        ("t.csv", 'prompt,completion\n"a\nb",c\nd\n', "t.csv:4: 1 cells, but the header has 2"),
        ("t.csv", 'prompt,completion\na,b\n"c,d\n', "t.csv:3: not valid CSV"),
        ("t.csv", "prompt,prompt\na,b\n", "t.csv:1: duplicate column: 'prompt'"),
        ("t.csv", b"prompt,completion\n\xe9,b\n", "t.csv:2: not UTF-8"),
        ("t.csv", "a,b,c\nd,e,f\n", "t.csv:2: unknown row format (fields: a, b, c)"),
        ("t.jsonl.gz", b"hello", "t.jsonl.gz is not a gzip file"),
        ("t.jsonl.gz", gzip.compress(lines(PAIR).encode(), mtime=0)[:-9], "cannot read t.jsonl.gz: "),
        ("t.jsonl.gz", gzip.compress(b'\n{"prompt": 1}', mtime=0), "t.jsonl.gz:2: unknown row format"),
        ("t.parquet", b"hello", "cannot load t.parquet: "),
    ],
)
def test_read_task_broken_file_names_file_and_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    assert problem(tmp_path, name, content).startswith(message)


def test_read_task_quoted_csv_cells_give_text_and_lines(tmp_path: Path) -> None:
    text = '\ufeffprompt,completion\r\n"a, ""b""","c\r\nd"\r\n\r\nnull,\r\n'
    rows = read(tmp_path, "t.csv", text)
    assert [row.content for row in rows] == [
        {"prompt": 'a, "b"', "completion": "c\r\nd"},
        {"prompt": "null", "completion": ""},
    ]
    assert [row.line for row in rows] == [2, 5]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_read_task_any_text_survives_every_format(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    assert contents(folder, "t.jsonl", lines(*rows)) == rows
    assert contents(folder, "u.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)) == rows
    assert contents(folder, "t.json", json.dumps(rows, ensure_ascii=False)) == rows
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["prompt", "completion"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    assert contents(folder, "t.csv", text.getvalue()) == rows


# -- by `datasets` ------------------------------------------------------------------------------------------------


def test_read_task_parquet_and_saved_data_sets_give_rows(tmp_path: Path) -> None:
    made = datasets.Dataset.from_list([PAIR, OTHER])
    made.to_parquet(tmp_path / "p[1].parquet")
    assert [r.content for r in read_task(Source(name="t", files=(tmp_path / "p[1].parquet",)))] == [PAIR, OTHER]
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk(tmp_path / "many")
    for folder, split, expected in (
        ("one", "train", [PAIR, OTHER]),
        ("many", "train", [PAIR, OTHER]),
        ("many", "test", [OTHER]),
    ):
        data = DataSection(task=(TaskSource(name="t", path=folder, split=split),))
        (source,) = find_tasks(data, tmp_path)
        assert [row.content for row in read_task(source)] == expected
        assert source.files
    data = DataSection(task=(TaskSource(name="t", path="many", split="dev"),))
    with pytest.raises(DataError, match="no split 'dev'"):
        read_task(find_tasks(data, tmp_path)[0])


def test_read_task_null_keys_of_parquet_are_dropped(tmp_path: Path) -> None:
    """Arrow fills missing keys of a turn with null."""
    chats = [
        {
            "messages": [{"role": "user", "content": "q", "name": "x"}, {"role": "assistant", "content": "a"}],
            "text": None,
        },
        {"messages": None, "text": "t"},
    ]
    datasets.Dataset.from_list(chats).to_parquet(tmp_path / "t.parquet")
    assert [row.content for row in read_task(Source(name="t", files=(tmp_path / "t.parquet",)))] == [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"text": "t"},
    ]
    broken = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant"}]}]
    datasets.Dataset.from_list(broken).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet, row 1: 'content' must be text, not None"):
        read_task(Source(name="t", files=(tmp_path / "b.parquet",)))


# -- filters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "value", "kept"),
    [
        ([1, 2, None, 1.0], 1, [0, 3]),
        (["x", "y", "X"], "x", [0]),
        ([True, False, 1], True, [0]),
        (["2020-01-01", "2020-01-02"], "2020-01-01", [0]),
        ([0, "", None, False], "", [1]),
        ([0, "", None, False], False, [3]),
        ([0, "", None, False], 0, [0]),
        (["7", "007"], 7, [0]),
    ],
)
def test_read_task_filter_keeps_equal_cells(tmp_path: Path, cells: list[Any], value: Any, kept: list[int]) -> None:
    rows = [{"prompt": str(n), "completion": "x", "task": cell} for n, cell in enumerate(cells)]
    found = read(tmp_path, "t.jsonl", lines(*rows), column="task", value=value)
    assert [(row.number, row.line - 1) for row in found] == list(enumerate(kept))


def test_read_task_csv_filter_compares_text(tmp_path: Path) -> None:
    text = "prompt,completion,task\na,b,true\nc,d,false\ne,f,7\n"
    assert contents(tmp_path, "t.csv", text, column="task", value=True) == [PAIR]
    assert contents(tmp_path, "t.csv", text, column="task", value=7) == [{"prompt": "e", "completion": "f"}]


def test_read_task_filter_ignores_bad_rows_of_others(tmp_path: Path) -> None:
    text = lines({"task": "other"}, {"x": 1}, PAIR | {"task": "mine"})
    assert contents(tmp_path, "t.jsonl", text, column="task", value="mine") == [PAIR]
    wrong = problem(tmp_path, "t.jsonl", lines({"task": "other"}, {"task": "mine"}), column="task", value="mine")
    assert wrong.startswith("t.jsonl:2: ")


def test_read_task_filter_without_match_raises_data_error(tmp_path: Path) -> None:
    assert "no column 'tsk'" in problem(tmp_path, "t.jsonl", lines(PAIR), column="tsk", value="x")
    assert "no rows with prompt = 'x'" in problem(tmp_path, "t.jsonl", lines(PAIR), column="prompt", value="x")


# -- finding tasks ------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(lines(PAIR))


def test_find_tasks_glob_matches_task_files_only(tmp_path: Path) -> None:
    touch(tmp_path, "tasks/b.jsonl", "tasks/a.v2.json", "tasks/c.csv.gz", "tasks/D.JSONL", "tasks/README.md")
    touch(tmp_path, "tasks/.hidden.jsonl", "tasks/._a.json", "tasks/sub/e.jsonl")
    assert [s.name for s in find_tasks(DataSection(tasks="tasks/*"), tmp_path)] == ["D", "a.v2", "b", "c"]
    assert [s.name for s in find_tasks(DataSection(tasks="tasks/**/*.jsonl"), tmp_path)] == ["b", "e"]
    assert [s.name for s in find_tasks(DataSection(tasks=str(tmp_path / "tasks/*.json")), Path("/"))] == ["a.v2"]


def test_find_tasks_glob_includes_saved_data_sets(tmp_path: Path) -> None:
    datasets.Dataset.from_list([PAIR]).save_to_disk(tmp_path / "tasks" / "saved.v1")
    touch(tmp_path, "tasks/a.jsonl")
    assert [s.name for s in find_tasks(DataSection(tasks="tasks/*"), tmp_path)] == ["a", "saved.v1"]
    table = DataSection(task=(TaskSource(name="t", path="tasks/*"),))
    assert [f.name for f in find_tasks(table, tmp_path)[0].files] == ["a.jsonl"]


def test_find_tasks_table_reads_folder_and_file(tmp_path: Path) -> None:
    touch(tmp_path, "x/b.jsonl", "x/a.csv", "x/.c.jsonl", "x/note.txt", "odd[1].jsonl")
    task = TaskSource(name="t", path="x", tags=("tag",))
    (source,) = find_tasks(DataSection(task=(task,)), tmp_path)
    assert [f.name for f in source.files] == ["a.csv", "b.jsonl"]
    assert source.tags == ("tag",)
    (odd,) = find_tasks(DataSection(task=(TaskSource(name="t", path="odd[1].jsonl"),)), tmp_path)
    assert odd.files == (tmp_path / "odd[1].jsonl",)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.jsonl", "no such file or folder"),
        ("*.nothing", "no task file matches"),
        ("note.txt", "unsupported file type"),
        ("empty", "no task file in folder"),
    ],
)
def test_find_tasks_wrong_path_raises_data_error(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(DataError, match=message):
        find_tasks(DataSection(task=(TaskSource(name="t", path=path),)), tmp_path)


def test_find_tasks_equal_task_names_raise_data_error(tmp_path: Path) -> None:
    touch(tmp_path, "tasks/a.jsonl", "tasks/a.json")
    with pytest.raises(DataError, match="two files have the same task name: 'a'"):
        find_tasks(DataSection(tasks="tasks/*"), tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="file names are Unicode there")
def test_find_tasks_name_not_utf8_raises_data_error(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.jsonl")).write_text(lines(PAIR))
    with pytest.raises(DataError, match="file name is not valid UTF-8") as caught:
        find_tasks(DataSection(tasks="*.jsonl"), tmp_path)
    caught.value.message.encode()


def test_check_target_unknown_or_twice_raises_config_error(tmp_path: Path) -> None:
    touch(tmp_path, "addition.jsonl", "carry.jsonl", "val/addition.jsonl")
    data = DataSection(tasks="*.jsonl", validation_files={"addition": "val/addition.jsonl"})
    sources = find_tasks(data, tmp_path)
    check_target(("addition", "carry"), sources)
    validation = find_validation(data, "addition", tmp_path)
    assert validation is not None
    assert validation.files == (tmp_path / "val/addition.jsonl",)
    assert find_validation(data, "carry", tmp_path) is None
    for targets, message in (
        ((), "no target task is set"),
        (("additoin",), "unknown target: 'additoin'"),
        (("carry", "carry"), "duplicate target: 'carry'"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_target(targets, sources)
    with pytest.raises(ConfigError, match="validation_files: unknown task: 'additoin'"):
        find_tasks(DataSection(tasks="*.jsonl", validation_files={"additoin": "val/addition.jsonl"}), tmp_path)


def test_read_task_choices_of_a_row_are_read_and_not_unused(tmp_path: Path) -> None:
    listed = {"prompt": "q", "completion": "b", "choices": ["a", "b"], "id": 7}
    (row,) = read(tmp_path, "a.jsonl", lines(listed))
    assert (row.choices, row.unused) == (("a", "b"), ("id",))
    assert row.content == {"prompt": "q", "completion": "b"}
    (row,) = read(tmp_path, "b.jsonl", lines(listed | {"choices": "none"}))
    assert (row.choices, row.unused) == ((), ("choices", "id"))
    (row,) = read(tmp_path, "c.json", json.dumps({"examples": [{"input": "q", "target_scores": {"yes": 1, "no": 0}}]}))
    assert row.choices == ("yes", "no")
    (row,) = read(
        tmp_path,
        "d.jsonl",
        lines({"q": "x", "a": "b", "options": ["a", "b"]}),
        columns={"prompt": "q", "completion": "a"},
    )
    assert (row.content, row.choices) == ({"prompt": "x", "completion": "b"}, ("a", "b"))

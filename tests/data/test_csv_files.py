"""curator finds out how cells of CSV and TSV are written, says it, and loses no first row."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeProject
from hostile import run_cli
from reading import read_text

from curator.core.config import CsvOptions
from curator.core.errors import ConfigError
from curator.core.load_config import load_config
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.select.manifest import read_manifest

SEMICOLON = "cells are separated by ';'"
NUMBERED = 'the first line is read as an example, so the names of columns are numbers: "1", "2"'
LITERAL = "quotes are read as text, and enclose no cells"


def pairs(folder: Path, name: str, text: str, **options: Any) -> list[tuple[str, str]]:
    """Return prompt and completion of each row."""
    rows = read_text(folder, name, text, **options)
    assert not [row.problem for row in rows if row.problem]
    return [(row.content["prompt"], row.content["completion"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "text", "notes"),
    [
        ("t.csv", "prompt,completion\na,b\nc,d\n", ()),
        ("t.csv", "prompt;completion\na;b\nc;d\n", (SEMICOLON,)),
        ("t.csv", "prompt|completion\na|b\nc|d\n", ("cells are separated by '|'",)),
        ("t.csv", "prompt\tcompletion\na\tb\nc\td\n", ("cells are separated by a tab",)),
        ("t.tsv", "prompt,completion\na,b\nc,d\n", ("cells are separated by ','",)),
        ("t.csv", "sep=;\nprompt;completion\na;b\nc;d\n", (SEMICOLON,)),
        ("t.csv", '"sep=;"\r\nprompt;completion\r\na;b\r\nc;d\r\n', (SEMICOLON,)),
        ("t.csv", "sep=,\nprompt,completion\na,b\nc,d\n", ()),
        ("t.csv", "Prompt, Completion\na,b\nc,d\n", ()),
    ],
)
def test_read_csv_delimiter_is_found_and_said(tmp_path: Path, name: str, text: str, notes: tuple[str, ...]) -> None:
    assert pairs(tmp_path, name, text) == [("a", "b"), ("c", "d")]
    assert read_text(tmp_path, name, text)[0].notes == notes


def test_read_csv_commas_inside_cells_do_not_hide_the_semicolon(tmp_path: Path) -> None:
    assert pairs(tmp_path, "t.csv", "prompt;completion\na, b;c\nd;e, f, g\n") == [("a, b", "c"), ("d", "e, f, g")]


def test_read_csv_one_column_with_semicolons_stays_one_column(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.csv", "text\na; b\nc; d\n")
    assert [row.content for row in rows] == [{"text": "a; b"}, {"text": "c; d"}]


@pytest.mark.parametrize("text", ["What is an oak?,a tree\nMoss?,a plant\n", "oak,green\nfern,green\n", "1,x\n2,y\n"])
def test_read_csv_without_header_names_columns_by_number_and_keeps_first_row(tmp_path: Path, text: str) -> None:
    rows = read_text(tmp_path, "t.csv", text)
    assert rows[0].notes == (NUMBERED,)
    assert [row.line for row in rows] == [1, 2]
    assert 'Set columns = { prompt = "1", completion = "2" } in [[data.task]].' in rows[0].problem
    # The suggested line reads every row.
    columns = {"prompt": "1", "completion": "2"}
    assert pairs(tmp_path, "t.csv", text, columns=columns) == [
        (line.split(",")[0], line.split(",")[1]) for line in text.splitlines()
    ]


def test_read_csv_numbers_as_columns_mean_no_header(tmp_path: Path) -> None:
    found = pairs(tmp_path, "t.csv", "oak,green\nfern,red\n", columns={"prompt": "1", "completion": "2"})
    assert found == [("oak", "green"), ("fern", "red")]


def test_read_csv_unknown_words_in_first_line_are_names_and_said(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.csv", "frage,antwort\na,b\n")
    assert len(rows) == 1
    assert "the first line is read as names of columns" in rows[0].notes[0]
    assert "csv = { header = false }" in rows[0].problem
    assert 'columns = { prompt = "frage", completion = "antwort" }' in rows[0].problem
    # A configuration that names them confirms the header.
    columns = {"prompt": "frage", "completion": "antwort"}
    assert read_text(tmp_path, "t.csv", "frage,antwort\na,b\n", columns=columns)[0].notes == ()


@pytest.mark.parametrize(
    ("name", "text", "wanted", "notes"),
    [
        (
            "t.tsv",
            'prompt\tcompletion\n"oak" is\tyes\n"fern"\tno\n',
            [('"oak" is', "yes"), ('"fern"', "no")],
            (LITERAL,),
        ),
        ("t.tsv", 'prompt\tcompletion\n"oak\tyes\nfern"\tno\n', [('"oak', "yes"), ('fern"', "no")], (LITERAL,)),
        ("t.tsv", 'prompt\tcompletion\n"a ""b"""\tc\n', [('a "b"', "c")], ()),
        ("t.tsv", '"prompt"\t"completion"\n"a\tb"\t"c\nd"\n', [("a\tb", "c\nd")], ()),
        ("t.csv", 'prompt,completion\nthe "oak" is,yes\n', [('the "oak" is', "yes")], ()),
        (
            "t.csv",
            'prompt,completion\n"oak" is,yes\n"fern" is,no\n',
            [('"oak" is', "yes"), ('"fern" is', "no")],
            (LITERAL,),
        ),
        ("t.csv", 'prompt,completion\n"a, b",c\n"d\ne",f\n', [("a, b", "c"), ("d\ne", "f")], ()),
    ],
)
def test_read_csv_quotes_enclose_cells_only_where_they_can(
    tmp_path: Path, name: str, text: str, wanted: list[tuple[str, str]], notes: tuple[str, ...]
) -> None:
    assert pairs(tmp_path, name, text) == wanted
    assert read_text(tmp_path, name, text)[0].notes == notes


def test_read_csv_bad_quotes_cost_only_their_own_row(tmp_path: Path) -> None:
    text = 'prompt,completion\n"a, b",c\n"oak" is,yes\n"d,e\nf,g\nh,i,j\nk,l\n'
    rows = read_text(tmp_path, "t.csv", text)
    good = [(row.line, row.content["prompt"]) for row in rows if not row.problem]
    assert good == [(2, "a, b"), (5, "f"), (7, "k")]
    bad = {row.line: row.problem.partition("\n")[0] for row in rows if row.problem}
    assert bad == {
        3: "not valid CSV: ',' expected after '\"'",
        4: "not valid CSV: unexpected end of data",
        6: "3 cells, but the header has 2",
    }


def test_read_csv_options_override_what_the_file_looks_like(tmp_path: Path) -> None:
    options = {"delimiter": ";", "header": False, "quoting": False}
    columns = {"prompt": "1", "completion": "2"}
    found = pairs(tmp_path, "t.csv", 'prompt;completion\n"a";b\n', csv=options, columns=columns)
    assert found == [("prompt", "completion"), ('"a"', "b")]
    assert read_text(tmp_path, "t.csv", "prompt;completion\n", csv=options, columns=columns)[0].notes == ()


def test_check_csv_note_is_shown_once_and_export_reads_the_same_rows(make_project: MakeProject, tmp_path: Path) -> None:
    folder = make_project()
    lines = "".join(f"{number}?;yes {number}\n" for number in range(8))
    (folder / "tasks" / "alpha.csv").write_text(lines)
    (folder / "tasks" / "alpha.jsonl").unlink()
    config = folder / "curator.toml"
    text = config.read_text()
    glob = next(line for line in text.splitlines() if line.startswith("tasks ="))
    names = sorted({path.stem for path in (folder / "tasks").iterdir()} - {"alpha"})
    tables = "".join(f'[[data.task]]\nname = "{name}"\npath = "tasks/{name}.jsonl"\n' for name in names)
    tables += '[[data.task]]\nname = "alpha"\npath = "tasks/alpha.csv"\ncsv = { delimiter = ";", header = false }\n'
    tables += 'columns = { prompt = "1", completion = "2" }\n'
    config.write_text(text.replace(glob, "") + tables)
    report = json.loads(run_cli("check", "-p", folder, "--json").check(0).out)
    assert {task["name"]: task["rows"] for task in report["tasks"]}["alpha"] == 8
    assert not [problem for problem in report["problems"] if problem.startswith("alpha")]
    assert run_cli("select", "-p", folder, "-q", "--include", "alpha").check(0)
    entry = next(t for t in read_manifest(folder / "curator-manifest.json").tasks if t.name == "alpha")
    assert entry.source["csv"] == {"delimiter": ";", "header": False}
    assert run_cli("export", folder / "curator-manifest.json", "-o", tmp_path / "out").check(0)
    exported = [json.loads(line) for line in (tmp_path / "out" / "alpha.jsonl").read_text().splitlines()]
    assert sorted(row["prompt"] for row in exported) == [f"{number}?" for number in range(8)]
    # Without the options, curator finds them out and says so once.
    config.write_text(config.read_text().replace('csv = { delimiter = ";", header = false }\n', ""))
    report = json.loads(run_cli("check", "-p", folder, "--json").check(0).out)
    assert [problem for problem in report["problems"] if problem.startswith("alpha")] == [
        f"alpha: {SEMICOLON}",
        f"alpha: {NUMBERED}",
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('csv = { delimiter = ";;" }', "must be one character"),
        ("csv = { delimeter = 1 }", "use `delimiter`"),
        ("csv = { header = 1 }", "csv.header: must be a "),
    ],
)
def test_load_config_wrong_csv_option_is_explained(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "curator.toml"
    path.write_text(f'[model]\nname_or_path = "m"\n[[data.task]]\nname = "a"\npath = "a.csv"\n{line}\n')
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert words in refused.value.message


def test_csv_options_of_a_hub_data_set_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "curator.toml"
    path.write_text('[model]\nname_or_path = "m"\n[[data.task]]\nname = "a"\nhub = "o/n"\ncsv = { header = true }\n')
    with pytest.raises(ConfigError, match="`csv` requires `path`"):
        load_config(path)
    assert CsvOptions().model_dump(exclude_none=True) == {}


def test_check_same_note_of_many_tasks_is_one_line(make_project: MakeProject) -> None:
    folder = make_project()
    for name in ("alpha", "beta"):
        (folder / "tasks" / f"{name}.jsonl").unlink()
        lines = "".join(f"{name} {number};yes\n" for number in range(8))
        (folder / "tasks" / f"{name}.csv").write_text(f"prompt;completion\n{lines}")
    config = folder / "curator.toml"
    config.write_text(config.read_text().replace("tasks/*.jsonl", "tasks/*"))
    report = json.loads(run_cli("check", "-p", folder, "--json").check(0).out)
    assert [problem for problem in report["problems"] if SEMICOLON in problem] == [
        f"alpha and 1 more tasks: {SEMICOLON}"
    ]


def test_read_task_csv_with_carriage_returns_alone_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'prompt,completion\r"q\rr",a\rs,b\r')
    rows = read_task(Source(name="t", files=(path,)))
    assert [row.content for row in rows] == [
        {"prompt": "q\rr", "completion": "a"},
        {"prompt": "s", "completion": "b"},
    ]


def test_read_task_csv_with_several_unnamed_columns_numbers_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("prompt,completion,,\nq,a,,x\n")
    (row,) = read_task(Source(name="t", files=(path,)))
    assert (row.content, row.unused) == ({"prompt": "q", "completion": "a"}, ("4",))


def test_read_task_csv_with_backslashes_before_quotes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('prompt,completion\n"say \\"yes\\", now",a\nq,b\n')
    rows = read_task(Source(name="t", files=(path,)), keep_bad=True)
    assert [bool(row.problem) for row in rows] == [True, False]
    assert 'not as \\"' in rows[0].problem


def test_read_task_csv_with_spaces_before_quotes_is_read_without_them(tmp_path: Path) -> None:
    rows = read_text(tmp_path, "t.csv", 'prompt,completion\n"q, r", "a, b"\ns, "c"\n')
    assert [row.content for row in rows] == [
        {"prompt": "q, r", "completion": "a, b"},
        {"prompt": "s", "completion": "c"},
    ]
    assert rows[0].notes == ("spaces after ',' belong to no cell",)


@pytest.mark.parametrize(
    ("text", "completion"),
    [
        ('prompt,completion\n"He said, ""q""", yes\n', " yes"),
        ('prompt,completion\nq," ""a"""\n', ' "a"'),
        ("prompt,completion\nq, a\n", " a"),
    ],
)
def test_read_task_csv_space_at_the_start_of_a_cell_is_kept(tmp_path: Path, text: str, completion: str) -> None:
    (row,) = read_text(tmp_path, "t.csv", text)
    assert (row.content["completion"], row.notes) == (completion, ())


def test_read_task_csv_cells_that_a_spreadsheet_damaged_are_said(tmp_path: Path) -> None:
    text = f"prompt,completion\nq,{'a' * 32_767}\nr,#NAME?\ns,#VALUE!\n"
    (first, *_) = read_text(tmp_path, "t.csv", text)
    assert first.notes == (
        "cells with exactly 32,767 characters, where Excel cuts texts off: 1",
        "cells with an error of a spreadsheet, such as #NAME?: 2",
    )


@pytest.mark.parametrize(
    "answers",
    [
        "{'text': ['a', 'b'], 'answer_start': [1, 2]}",
        '{"text": ["a", "b"], "answer_start": [1, 2]}',
        "{'text': array(['a', 'b'], dtype=object), 'answer_start': array([1, 2], dtype=int32)}",
        "['a', 'b']",
        '["a", "b"]',
        "['a' 'b']",
    ],
)
def test_read_task_csv_with_answers_as_pandas_writes_them_reads_the_first(tmp_path: Path, answers: str) -> None:
    cell = answers.replace('"', '""')
    (row,) = read_text(tmp_path, "t.csv", f'question,context,answers\nq,c,"{cell}"\n')
    assert row.content == {"instruction": "q\n\nc", "response": "a"}
    assert row.unused == ("answers[1:]",)


def test_read_task_csv_text_of_a_list_may_be_the_answer(tmp_path: Path) -> None:
    (row,) = read_text(tmp_path, "t.csv", "question,answer,images\nWhat is list(\"ab\")?,\"['a', 'b']\",[]\n")
    assert row.content["response"] == "['a', 'b']"


def test_read_task_csv_answer_with_quotes_inside_is_not_split(tmp_path: Path) -> None:
    cell = """{'text': ["a' 'b"], 'answer_start': [1]}""".replace('"', '""')
    (row,) = read_text(tmp_path, "t.csv", f'question,context,answers\nq,c,"{cell}"\n')
    assert (row.content["response"], row.unused) == ("a' 'b", ())

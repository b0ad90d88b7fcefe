"""Test that curator finds all bad rows, and that the user decides whether to skip them."""

import json
from pathlib import Path

import pytest
from conftest import MakeProject, pair_rows, write_rows
from hostile import run_cli

from curator.core.errors import DataError
from curator.data.bad_rows import BadRow, each_once
from curator.data.left_out import BAD
from curator.export import export
from curator.project.project import Project
from curator.select.manifest import read_manifest


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    """A project in which three rows of `alpha` and one of `beta` cannot be used."""
    folder = make_project()
    good = [json.dumps(row) for row in pair_rows("alpha", 8)]
    bad = ['{"prompt": "a"}', "{broken", '{"prompt": "a", "completion": [5]}']
    lines = [*good[:2], bad[0], *good[2:5], *bad[1:], *good[5:]]
    (folder / "tasks" / "alpha.jsonl").write_text("\n".join(lines) + "\n")
    with (folder / "tasks" / "beta.jsonl").open("ab") as file:
        file.write(b'{"prompt": "\xe9", "completion": "b"}\n')
    return folder


def test_check_bad_rows_counts_all_and_lists_first(folder: Path) -> None:
    tasks = folder / "tasks"
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "4 of 40 rows in 2 files cannot be used" in done.err
    for line in (3, 7, 8):
        assert f"{tasks / 'alpha.jsonl'}:{line}: " in done.err
    assert f"{tasks / 'beta.jsonl'}:9: not UTF-8 (byte 0xe9)" in done.err
    assert "--skip-bad-rows" in done.err
    # The second call reads the store and gives the same output.
    assert run_cli("check", "-p", folder, "-q") == done
    assert run_cli("status", "-p", folder).check(0)
    write_rows(tasks / "alpha.jsonl", [{"prompt": 1}] * 100 + pair_rows("alpha", 8))
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "101 of 137 rows" in done.err
    assert "(100 rows)" in done.err


def test_check_one_bad_row_names_it_and_suggests_fix(folder: Path) -> None:
    write_rows(folder / "tasks" / "alpha.jsonl", pair_rows("alpha", 8))
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert f"{folder / 'tasks' / 'beta.jsonl'}:9: not UTF-8 (byte 0xe9): invalid continuation byte (1 of 37" in done.err
    assert "Save the file as UTF-8." in done.err


def test_skip_bad_rows_leaves_them_out_of_manifest_and_export(folder: Path, tmp_path: Path) -> None:
    done = run_cli("check", "-p", folder, "--skip-bad-rows", "--json").check(0)
    report = json.loads(done.out)
    rows = {task["name"]: task for task in report["tasks"]}
    assert rows["alpha"]["left_out"] == {BAD: 3}
    assert (rows["alpha"]["rows"], rows["alpha"]["examples"]) == (11, 8)
    assert f"alpha: 3 examples left out: {BAD}" in report["problems"]
    assert run_cli("select", "-p", folder, "-q").check(3)
    wanted = ["--include", "alpha", "--include", "beta"]
    assert run_cli("select", "-p", folder, "--skip-bad-rows", "-q", *wanted).check(0)
    manifest = read_manifest(folder / "curator-manifest.json")
    assert {task.name: task.left_out for task in manifest.tasks if task.left_out} == {
        "alpha": {BAD: (2, 6, 7)},
        "beta": {BAD: (8,)},
    }
    assert run_cli("export", folder / "curator-manifest.json", "-o", tmp_path / "out").check(0)
    exported = [json.loads(line) for line in (tmp_path / "out" / "alpha.jsonl").read_text().splitlines()]
    assert exported == pair_rows("alpha", 8)


def test_export_bad_row_missing_in_manifest_raises_data_error(folder: Path, tmp_path: Path) -> None:
    write_rows(folder / "tasks" / "alpha.jsonl", pair_rows("alpha", 8))
    write_rows(folder / "tasks" / "beta.jsonl", pair_rows("beta", 8))
    Project.open(folder).select(include=["alpha"])
    (folder / "tasks" / "alpha.jsonl").write_text("{broken\n")
    with pytest.raises(DataError, match=r"alpha\.jsonl:1: not valid JSON"):
        export(
            read_manifest(folder / "curator-manifest.json"),
            folder,
            format="jsonl",
            folder=tmp_path / "out",
            allow_changed=True,
        )


def test_bad_rows_skip_in_config_check_succeeds(folder: Path) -> None:
    config = folder / "curator.toml"
    config.write_text(config.read_text().replace("[data]", '[data]\nbad_rows = "skip"'))
    assert run_cli("check", "-p", folder, "-q").check(0)
    assert Project.open(folder).status().stages[0].state != "stale"


def test_skip_bad_rows_task_of_only_bad_rows_is_left_out_and_named(folder: Path) -> None:
    (folder / "tasks" / "alpha.jsonl").write_text("{broken\n")
    done = run_cli("check", "-p", folder, "--skip-bad-rows", "--json").check(0)
    report = json.loads(done.out)
    rows = {task["name"]: task for task in report["tasks"]}
    assert rows["alpha"]["problem"].startswith("no training examples (1 cannot be used: 1 × not valid JSON: Expecting")
    assert list(rows["alpha"]["bad_rows"].values()) == [1]
    assert (rows["alpha"]["rows"], rows["alpha"]["examples"], rows["beta"]["examples"]) == (1, 0, 8)
    assert any(line.startswith("alpha: left out as a whole: no training examples") for line in report["problems"])
    assert run_cli("select", "-p", folder, "--skip-bad-rows", "-q").check(0)
    manifest = read_manifest(folder / "curator-manifest.json")
    assert "alpha" not in [task.name for task in manifest.tasks]


def test_check_row_rejected_by_chat_template_is_bad_row(make_project: MakeProject) -> None:
    folder = make_project()
    with (folder / "tasks" / "alpha.jsonl").open("a") as file:
        file.write(json.dumps({"messages": [{"role": "assistant", "content": "a"}]}) + "\n")
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "alpha.jsonl:9: the rows are chats, but the model's tokenizer has no chat template (1 of 37" in done.err
    assert run_cli("check", "-p", folder, "-q", "--skip-bad-rows").check(0)


def test_check_files_of_equal_name_names_the_right_file(make_project: MakeProject) -> None:
    folder = make_project(data={"tasks": None, "target": None})
    config = folder / "curator.toml"
    config.write_text(
        config.read_text() + '[[data.task]]\nname = "x"\npath = ["a/x.jsonl", "b/x.jsonl", "c/x.jsonl"]\n'
    )
    for name in "abc":
        write_rows(
            folder / name / "x.jsonl", [{"prompt": 1}, *pair_rows(name, 8)] if name != "b" else pair_rows("b", 8)
        )
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "2 of 26 rows in 2 files" in done.err
    assert f"{folder / 'a' / 'x.jsonl'}:1: " in done.err
    assert f"{folder / 'c' / 'x.jsonl'}:1: " in done.err
    write_rows(folder / "c" / "x.jsonl", pair_rows("c", 8))
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert f"{folder / 'a' / 'x.jsonl'}:1: " in done.err
    assert f"(1 of 25 rows in {folder / 'a' / 'x.jsonl'})" in done.err


def test_check_bad_rows_of_one_line_are_counted_by_row(make_project: MakeProject) -> None:
    """Most scripts write a JSON list into one line. Six rows of this line are six rows."""
    folder = make_project(data={"tasks": "tasks/*"})
    (folder / "tasks" / "list.json").write_text(json.dumps([{"q": "a", "b": n, "c": 1} for n in range(6)]))
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert f"6 of {8 * 3 + 12 + 6} rows in " in done.err
    report = json.loads(run_cli("check", "-p", folder, "--json").check(3).out)
    (found,) = [task for task in report["tasks"] if task["name"] == "list"]
    assert list(found["bad_rows"].values()) == [6]


def test_check_bad_csv_record_of_several_lines_is_one_row(make_project: MakeProject) -> None:
    folder = make_project(data={"tasks": "tasks/*"})
    text = 'prompt,completion\na,b\n"one\ntwo\nthree",b,c\nd,e\n'
    (folder / "tasks" / "sheet.csv").write_text(text)
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert f"{folder / 'tasks' / 'sheet.csv'}:3: 3 cells, but the header has 2 (1 of " in done.err
    report = json.loads(run_cli("check", "-p", folder, "--json").check(3).out)
    (found,) = [task for task in report["tasks"] if task["name"] == "sheet"]
    assert (found["rows"], found["examples"], found["bad_rows"]) == (3, 2, {"3 cells, but the header has 2": 1})


def test_each_once_row_of_unknown_task_counts_once_and_table_rows_count_each() -> None:
    lost = [BadRow(file="f", line=4, number=n, problem="not valid JSON") for n in (1, 2)]
    assert each_once([lost[:1], lost[1:]]) == lost[:1]
    assert each_once([lost, lost[:1]]) == lost
    table = [BadRow(file="f", line=0, number=1, problem="x") for _ in range(2)]
    assert len(each_once([table[:1], table[1:]])) == 2

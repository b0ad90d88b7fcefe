"""Test that curator finds all bad rows, and that the user decides whether to skip them."""

import json
from pathlib import Path

import pytest
from conftest import MakeProject, pair_rows, write_rows
from hostile import run_cli

from curator.core.errors import DataError
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


def test_check_task_of_only_bad_rows_raises_data_error(folder: Path) -> None:
    (folder / "tasks" / "alpha.jsonl").write_text("{broken\n")
    done = run_cli("check", "-p", folder, "--skip-bad-rows", "-q").check(3)
    assert "no training examples in task 'alpha' (1 cannot be used: 1 × not valid JSON: Expecting" in done.err
    assert "Correct these rows, or remove the task." in done.err


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

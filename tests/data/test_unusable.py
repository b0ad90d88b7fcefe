"""Test that whole tasks that cannot be used are named, and left out if the user says so."""

import json
from pathlib import Path

import pytest
from conftest import MakeProject, pair_rows, write_rows
from hostile import run_cli

from curator.core.errors import DataError
from curator.data.bad_rows import SKIP_HINT
from curator.data.check import CheckFailed
from curator.data.corpus import read_corpus
from curator.project.project import Project

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
SKIPPING = {"data": {"bad_rows": "skip"}}


def break_tasks(folder: Path) -> None:
    """Make three of the four auxiliary tasks unusable, each for another reason."""
    tasks = folder / "tasks"
    (tasks / "alpha.jsonl").write_text("")
    (tasks / "beta.jsonl").write_text(POINTER)
    write_rows(tasks / "gamma.jsonl", [{"prompt": "a", "completion": ""}] * 3)
    write_rows(tasks / "delta.jsonl", pair_rows("delta", 8))


def test_check_unusable_tasks_are_named_at_once_below_the_table(make_project: MakeProject) -> None:
    folder = make_project()
    break_tasks(folder)
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "3 tasks cannot be used:" in done.err
    tasks = folder / "tasks"
    assert f"task 'alpha': {tasks / 'alpha.jsonl'} holds no rows" in done.err
    assert f"task 'beta': {tasks / 'beta.jsonl'} is a Git LFS pointer, not the data" in done.err
    assert "no training examples in task 'gamma' (3 empty)" in done.err
    assert SKIP_HINT in done.err
    lines = {line.split()[0]: line.strip() for line in done.out.splitlines() if line.strip()}
    assert lines["alpha"].endswith("not used: the file holds no rows")
    assert lines["beta"].endswith("not used: the file is a Git LFS pointer, not the data")
    assert lines["delta"].split()[1:3] == ["8", "8"]
    with pytest.raises(DataError, match="3 tasks cannot be used"):
        Project.open(folder).train()


def test_check_unusable_task_raises_the_report(make_project: MakeProject) -> None:
    folder = make_project()
    (folder / "tasks" / "alpha.jsonl").write_text("")
    with pytest.raises(CheckFailed, match=r"task 'alpha': .*holds no rows") as caught:
        Project.open(folder).check()
    report = caught.value.report
    assert report.error == caught.value.message
    assert {task.name: (task.examples, task.problem) for task in report.tasks} == {
        "alpha": (0, "the file holds no rows"),
        "beta": (8, ""),
        "gamma": (8, ""),
        "target": (8, ""),
    }


def test_skip_bad_rows_unusable_tasks_are_left_out(make_project: MakeProject) -> None:
    folder = make_project(**SKIPPING)
    break_tasks(folder)
    report = json.loads(run_cli("check", "-p", folder, "--json").check(0).out)
    assert (report["error"], {task["name"] for task in report["tasks"] if task["problem"]}) == (
        "",
        {"alpha", "beta", "gamma"},
    )
    assert [line for line in report["problems"] if line.startswith("beta:")] == [
        "beta: left out as a whole: the file is a Git LFS pointer, not the data"
    ]
    done = run_cli("select", "-p", folder).check(0)
    assert "alpha: left out as a whole" in done.err
    manifest = json.loads((folder / "curator-manifest.json").read_text())
    assert [task["name"] for task in manifest["tasks"] if task["name"] != "target"] == ["delta"]
    # `status` reads no files, but knows which tasks cannot be read.
    assert [stage.state for stage in Project.open(folder).status().stages][:2] == ["done", "done"]
    assert read_corpus(Project.open(folder).workspace, ("target",), read=False) is not None


def test_skip_bad_rows_repaired_file_is_read_again(make_project: MakeProject) -> None:
    folder = make_project(**SKIPPING)
    (folder / "tasks" / "alpha.jsonl").write_text(POINTER)
    assert "alpha" not in [task.name for task in Project.open(folder).corpus(("target",)).tasks]
    write_rows(folder / "tasks" / "alpha.jsonl", pair_rows("alpha", 8))
    assert read_corpus(Project.open(folder).workspace, ("target",), read=False) is None
    assert "alpha" in [task.name for task in Project.open(folder).corpus(("target",)).tasks]


def test_skip_bad_rows_file_that_the_disk_cannot_read_is_left_out(make_project: MakeProject) -> None:
    folder = make_project(**SKIPPING)
    # Reading this file of the kernel fails, although it looks like a regular file.
    (folder / "tasks" / "zeta.jsonl").symlink_to("/proc/self/mem")
    corpus = Project.open(folder).corpus(("target",))
    assert [(task.name, "cannot read" in task.error.message) for task in corpus.unusable] == [("zeta", True)]
    assert len(corpus.tasks) == 4


@pytest.mark.parametrize("content", ["", POINTER, '{"q": "a"}\n' * 4, '{"prompt": "a", "completion": ""}\n' * 4])
def test_skip_bad_rows_unusable_target_remains_an_error(make_project: MakeProject, content: str) -> None:
    folder = make_project(**SKIPPING)
    (folder / "tasks" / "target.jsonl").write_text(content)
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "alpha" in done.out
    assert "target" in done.err
    assert SKIP_HINT not in done.err
    run_cli("select", "-p", folder, "-q").check(3)


def test_skip_bad_rows_unusable_validation_file_remains_an_error(make_project: MakeProject) -> None:
    folder = make_project(data={"bad_rows": "skip", "validation_files": {"target": "val.jsonl"}})
    (folder / "val.jsonl").write_text("")
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert f"{folder / 'val.jsonl'} holds no rows" in done.err


def test_check_target_of_bad_rows_names_their_reasons(make_project: MakeProject) -> None:
    folder = make_project(**SKIPPING)
    write_rows(folder / "tasks" / "target.jsonl", [{"q": "a"}] * 5)
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "too few usable examples in target 'target': 0 (left out: 5 cannot be used: 5 × " in done.err
    assert "(fields: q))" in done.err


def test_check_few_held_out_examples_are_warned_about_once(make_project: MakeProject) -> None:
    folder = make_project()
    words = "target: few held-out examples (4). Estimates are uncertain below 100."
    assert run_cli("check", "-p", folder).check(0).out.count(words) == 1
    for command in ("train", "select"):
        done = run_cli(command, "-p", folder).check(0)
        assert (done.err + done.out).count(words) == 1, command
    rows = pair_rows("target", 400)
    write_rows(folder / "tasks" / "target.jsonl", rows)
    assert Project.open(folder).corpus(("target",)).few_held_out() == []

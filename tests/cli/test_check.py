"""Test the table that `curator check` prints, and that large collections print few lines."""

import json
from pathlib import Path

import pytest
from conftest import MakeProject, pair_rows, write_rows
from hostile import run_cli

from curator import results
from curator.cli.check_table import show_check


def rows_of(text: str) -> list[list[str]]:
    """Return the words of each line of a table that has a cell."""
    return [line.split() for line in text.splitlines() if line.strip()]


def test_check_table_has_a_line_for_each_task_and_reason(make_project: MakeProject) -> None:
    folder = make_project()
    bad = [{"q": "a"}, {"q": "b"}, {"prompt": "a", "completion": ""}, {"prompt": [1]}]
    write_rows(folder / "tasks" / "alpha.jsonl", pair_rows("alpha", 3) + bad)
    done = run_cli("check", "-p", folder, "-q", "--skip-bad-rows").check(0)
    lines = rows_of(done.out)
    start = next(n for n, words in enumerate(lines) if words[0] == "alpha")
    assert lines[start][1:3] == ["7", "3"]
    assert lines[start][7] == "4"
    below = [" ".join(words) for words in lines[start + 1 : start + 4]]
    assert below[0] == "1 empty"
    assert below[1].startswith("2 ")
    assert "(fields: q)" in below[1]
    assert below[2].startswith("1 ")
    assert "(fields: prompt)" in below[2]
    assert lines[start + 4][0] == "beta"


@pytest.fixture
def collection(make_project: MakeProject) -> Path:
    """A project of 283 task files. Some are empty, some repeat the target, and some have bad rows of many kinds."""
    tasks = {"target": pair_rows("target", 20)}
    for number in range(282):
        rows = pair_rows(f"t{number}", 4)
        if number % 4 == 1:
            rows += tasks["target"]
        if number % 4 == 2:
            rows += [{f"field{number}": "a"}, {"prompt": "a", "completion": ""}]
        tasks[f"t{number:03}"] = [] if number % 4 == 3 else rows
    folder = make_project(tasks=tasks, data={"tasks": "tasks/*"})
    for number in range(12):
        (folder / "tasks" / f"notes{number}.xlsx").write_bytes(b"PK")
    return folder


def test_check_large_collection_prints_at_most_sixty_lines(collection: Path) -> None:
    done = run_cli("check", "-p", collection, "-q").check(3)
    assert len(done.out.splitlines()) + len(done.err.splitlines()) <= 60
    for words in (
        "283 tasks",
        "target (target)",
        "t003 and 69 more",
        "not used: the file holds no rows",
        "and 269 more tasks",
        "also in the target's validation",
        "t001 and 70 more",
        "12 files are not read",
    ):
        assert words in done.out, words
    assert "70 tasks cannot be used" in done.err
    assert "70 of " in done.err
    done = run_cli("check", "-p", collection, "--skip-bad-rows").check(0)
    assert len(done.out.splitlines()) + len(done.err.splitlines()) <= 60
    detailed = run_cli("check", "-p", collection, "-q", "--skip-bad-rows", "--details").check(0).out
    names = {words[0] for words in rows_of(detailed)}
    assert {f"t{number:03}" for number in range(282)} <= names
    document = json.loads(run_cli("check", "-p", collection, "--skip-bad-rows", "--json").check(0).out)
    assert len(document["tasks"]) == 283
    assert sum(bool(task["problem"]) for task in document["tasks"]) == 70
    assert sum("examples left out: also in" in line for line in document["problems"]) == 71
    warned = run_cli("train", "-p", collection, "--skip-bad-rows").check(0).err
    assert "t001 and 70 more tasks: " in warned
    assert len([line for line in warned.splitlines() if "left out" in line]) <= 10


def test_show_check_hostile_reasons_are_printed_clean(capsys: pytest.CaptureFixture[str]) -> None:
    task = results.CheckedTask(
        name="a\x1b[31m",
        target=False,
        rows=1,
        examples=0,
        validation=0,
        tokens=0,
        longest=0,
        truncated=0,
        left_out={"empty\x07": 1},
        formats={},
        bad_rows={"[red]x[/red]\x1b": 1},
        problem="[bold]\x1b]0;t\x07",
    )
    report = results.CheckReport(
        project="p",
        target=(),
        model="m",
        tasks=(task,) * 40,
        problems=(),
        overlaps=(),
        duplicates=(results.DuplicateTasks(task="a\x1b", other="b", pairs=1, examples=1, other_examples=1),),
        near_duplicates=(("a\x1b", 1, "b", 2),),
        notes=("note\x1b",) * 20,
    )
    for details in (False, True):
        show_check(report, details=details)
        printed = capsys.readouterr().out
        assert "\x1b" not in printed
        assert "\x07" not in printed
        assert "[red]x[/red]" in printed
        assert ("near duplicates by row:" in printed) == details
        assert ("8 more notes: --details lists them" in printed) == (not details)


def test_check_missing_shards_are_named(make_project: MakeProject) -> None:
    """An interrupted download left out rows in silence."""
    folder = make_project(data={"tasks": "tasks/*", "validation_files": {"target": "held/x-00001-of-00002.jsonl"}})
    for number in (0, 3):
        write_rows(folder / f"tasks/delta-0000{number}-of-00005.jsonl", pair_rows(f"delta{number}", 4))
    write_rows(folder / "held/x-00001-of-00002.jsonl", pair_rows("held", 4))
    found = json.loads(run_cli("check", "-p", folder, "-q", "--json").check(0).out)
    notes = {task["name"]: task["notes"] for task in found["tasks"]}
    assert notes["delta"] == ["reads 2 of the 5 shards of delta-*-of-00005.jsonl"]
    assert notes["target"] == ["validation file: reads 1 of the 2 shards of x-*-of-00002.jsonl"]
    assert "delta: reads 2 of the 5 shards of delta-*-of-00005.jsonl" in found["problems"]

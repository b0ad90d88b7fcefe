"""Test that near duplicates equal a slow comparison, and that they are summed up by pair of tasks."""

import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeProject, pair_rows, write_rows
from hostile import run_cli

import curator
from curator.core.events import Event, Reporter, StageStarted
from curator.data import duplicates, near_duplicates
from curator.data.duplicates import by_tasks, overlaps, warnings
from curator.data.near_duplicates import NEARLY, NearDuplicates
from curator.project.project import Project
from curator.results import DuplicateTasks, Overlap

Examples = list[list[int]]


def _draw(seed: int, count: int) -> Examples:
    """Draw examples. Half of them repeat an earlier example, with or without one other token."""
    rng = random.Random(seed)
    examples: Examples = []
    for number in range(count):
        if number and rng.random() < 0.5:
            examples.append(list(rng.choice(examples)))
            if examples[-1] and rng.random() < 0.5:
                examples[-1][rng.randrange(len(examples[-1]))] = 999
        else:
            examples.append([rng.randrange(400) for _ in range(rng.randint(0, 60))])
    return examples


def _found(examples: Examples, *, each: int = 10**9) -> list[tuple[int, ...]]:
    search = NearDuplicates()
    for start in range(0, len(examples), each):
        search.add([np.array(example, np.int32) for example in examples[start : start + each]])
    pairs = [tuple(pair) for pair in search.pairs().tolist()]
    search.close()
    return pairs


def _runs(example: list[int]) -> set[tuple[int, ...]]:
    padded = example + [0] * (4 - len(example))
    return {tuple(padded[n : n + 4]) for n in range(len(padded) - 3)}


def _slow(examples: Examples) -> list[tuple[int, int]]:
    """Search as curator 0.1 did: Python sets of all shingles, a dictionary of all bands, and a set of all pairs."""
    factors = np.random.default_rng(0).integers(1, 1 << 31, (64, 2), dtype=np.uint64)
    found = [frozenset(near_duplicates.shingles(np.array(example, np.int32)).tolist()) for example in examples]
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, hashes in enumerate(found):
        values = np.fromiter(hashes, dtype=np.uint64, count=len(hashes))
        signature = (factors[:, :1] * values + factors[:, 1:]).min(axis=1)
        for band in range(16):
            buckets[band, signature[band * 4 : band * 4 + 4].tobytes()].append(number)
    pairs = {
        (first, second)
        for members in buckets.values()
        for place, second in enumerate(members)
        for first in members[max(place - 20, 0) : place]
        if len(found[first] & found[second]) >= NEARLY * len(found[first] | found[second])
    }
    return sorted(pairs)


def test_near_duplicates_equal_exhaustive_comparison() -> None:
    examples = _draw(0, 300)
    every = [_runs(example) for example in examples]
    expected = [
        (first, second)
        for first, here in enumerate(every)
        for second, there in enumerate(every[first + 1 :], first + 1)
        if len(here & there) >= NEARLY * len(here | there)
    ]
    found = _found(examples)
    assert set(found) <= set(expected)
    assert len(found) >= 0.97 * len(expected), "the search compares pairs above the limit with near certainty"


def test_near_duplicates_equal_slow_search_also_in_large_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = _draw(1, 400) + [[7] * 20 + [n % 3] for n in range(90)] + _draw(2, 100)
    expected = _slow(examples)
    assert len(expected) > 500
    assert _found(examples) == expected
    for each, held, step, block in ((1, 2**27, 1, 1), (7, 64, 100, 50), (1000, 0, 2**13, 3)):
        monkeypatch.setattr(near_duplicates, "_IN_MEMORY", held)
        monkeypatch.setattr(near_duplicates, "_STEP", step)
        monkeypatch.setattr(near_duplicates, "_EXAMPLES", block)
        assert _found(examples, each=each) == expected
    assert _found([]) == []
    assert _found([[1, 2]]) == []


def test_by_tasks_counts_pairs_and_different_examples() -> None:
    of_place = np.array([0, 0, 0, 1, 1, 2])
    pairs = np.array([[0, 1], [0, 3], [1, 3], [1, 4], [4, 5]], np.int32)
    assert by_tasks(pairs, of_place, ["a", "b", "validation of a"]) == [
        DuplicateTasks(task="a", other="b", pairs=3, examples=2, other_examples=2),
        DuplicateTasks(task="a", other="a", pairs=1, examples=2, other_examples=2),
        DuplicateTasks(task="b", other="validation of a", pairs=1, examples=1, other_examples=1),
    ]
    assert by_tasks(pairs[:0], of_place, ["a", "b", "c"]) == []


def test_overlaps_at_least_half_of_smaller_task_is_listed() -> None:
    sizes = {"a": 10, "b": 4, "c": 10}
    found = [
        DuplicateTasks(task="a", other="b", pairs=9, examples=6, other_examples=2),
        DuplicateTasks(task="a", other="c", pairs=8, examples=4, other_examples=9),
        DuplicateTasks(task="c", other="c", pairs=7, examples=10, other_examples=10),
    ]
    assert overlaps(found, sizes) == (Overlap(task="b", other="a", share=0.5),)


def test_warnings_many_pairs_name_held_out_first_and_count_the_rest() -> None:
    sizes = {f"t{n}": 100 + n for n in range(30)} | {"validation of t0": 5}
    found = [
        DuplicateTasks(task="t1", other=f"t{n}", pairs=2000 - n, examples=50, other_examples=40) for n in range(2, 30)
    ]
    found.append(DuplicateTasks(task="t3", other="validation of t0", pairs=1, examples=1, other_examples=1))
    lines = warnings(found, sizes)
    assert lines[0] == "1 near-duplicate pairs between t3 and validation of t0"
    assert lines[1] == "t1 has near duplicates in t2: 50 of 101 examples, 1,998 pairs"
    assert len(lines) == 11
    assert lines[-1] == "and 19 more pairs of tasks with near duplicates"


def test_check_copied_task_reports_overlap_and_pairs(make_project: MakeProject) -> None:
    folder = make_project()
    rows = pair_rows("alpha", 8)
    write_rows(folder / "tasks" / "copy.jsonl", [{**row, "completion": row["completion"] + " "} for row in rows])
    report = curator.Project.open(folder).check()
    assert {(o.task, o.other) for o in report.overlaps} <= {("copy", "alpha"), ("alpha", "copy")}
    write_rows(folder / "tasks" / "copy.jsonl", rows)
    report = curator.Project.open(folder).check()
    assert [(o.task, o.other, o.share) for o in report.overlaps] == [("alpha", "copy", 1.0)]
    (pair,) = (pair for pair in report.duplicates if (pair.task, pair.other) == ("alpha", "copy"))
    assert (pair.examples, pair.other_examples) == (8, 8)
    assert f"alpha has near duplicates in copy: 8 of 8 examples, {pair.pairs} pairs" in report.problems
    assert ("alpha", 1, "copy", 1) in report.near_duplicates
    assert {"task": "alpha", "other": "copy"}.items() <= report.to_json()["duplicates"][0].items()


def test_check_unchanged_examples_are_not_searched_again(make_project: MakeProject) -> None:
    folder = make_project()
    write_rows(folder / "tasks" / "copy.jsonl", pair_rows("alpha", 8))
    heard: list[Event] = []

    def check() -> curator.CheckReport:
        return Project.open(folder, reporter=Reporter(heard.append)).check()

    first = check()
    assert [event.stage for event in heard if isinstance(event, StageStarted)] == ["data", "duplicates"]
    heard.clear()
    assert check() == first
    assert heard == []
    write_rows(folder / "tasks" / "copy.jsonl", pair_rows("alpha", 7))
    assert check() != first
    assert [event.stage for event in heard if isinstance(event, StageStarted)] == ["data", "duplicates"]


def test_check_busy_store_reports_duplicates_without_keeping_them(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.open(make_project())
    first = project.check()
    with project.store.write() as connection:
        connection.execute("DELETE FROM artifacts WHERE stage = 'duplicates'")

    def refuse(*_: object) -> None:
        raise curator.StoreBusy("the store is locked", hint="Wait.")

    monkeypatch.setattr(type(project.store), "put_artifact", refuse)
    assert project.check() == first
    assert project.store.artifacts("duplicates") == []


def test_check_many_tasks_prints_few_lines_and_details_print_all(make_project: MakeProject) -> None:
    tasks = {"target": pair_rows("target", 12)} | {f"t{n:03}": pair_rows(f"t{n % 40}", 4) for n in range(80)}
    folder: Path = make_project(tasks=tasks)
    done = run_cli("check", "-p", str(folder), "--quiet")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) <= 60
    assert any("target (target)" in line for line in lines)
    assert any(line.split()[:5] == ["and", "67", "more", "tasks", "268"] for line in lines)
    assert any(line.endswith("more pairs of tasks with near duplicates") for line in lines)
    whole = run_cli("check", "-p", str(folder), "--quiet", "--details").out
    assert all(f" {name} " in whole for name in tasks)
    assert "t000 row 1 and t040 row 1" in whole


def test_duplicates_listed_rows_are_limited(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_LISTED", 3)
    folder = make_project()
    write_rows(folder / "tasks" / "copy.jsonl", pair_rows("alpha", 8))
    report = Project.open(folder).check()
    assert len(report.near_duplicates) == 3
    assert sum(pair.pairs for pair in report.duplicates) > 3

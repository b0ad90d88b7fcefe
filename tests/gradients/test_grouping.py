"""Test the influence of examples, groups by gradient, and near duplicates."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import pair_rows, write_rows
from hostile import run_cli

import curator
from curator.core.errors import ConfigError
from curator.data.duplicates import near_duplicates, overlaps
from curator.gradients.grouping import cluster

MakeProject = Callable[..., Path]


def test_examples_report_ranks_by_estimated_gain(make_project: MakeProject) -> None:
    project = curator.Project.open(make_project())
    selected = project.select().selected
    report = project.examples("alpha")
    estimates = project.estimates(("target",))
    mask = estimates.mask(selected)
    gains = estimates.estimator.gains_of([t.name for t in estimates.tasks].index("alpha"), mask)
    assert [e.gain for e in report.examples] == sorted(gains.tolist(), reverse=True)
    rows = [json.loads(line) for line in (project.root / "tasks" / "alpha.jsonl").read_text().splitlines()]
    for example in report.examples:
        assert rows[example.line - 1]["prompt"] in example.text
    with pytest.raises(ConfigError, match="unknown task"):
        project.examples("alhpa")


def test_cluster_directions_of_any_length_are_found() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 20))
    truth = np.repeat([0, 1, 2], [30, 20, 10])
    rows = centres[truth] + 0.1 * rng.standard_normal((60, 20))
    found = cluster(rows * rng.uniform(0.01, 100, (60, 1)), 3, seed=0)
    assert (found == truth).all()
    assert (cluster(rows, 3, seed=0) == found).all()
    order = rng.permutation(60)
    assert (cluster(rows[order], 3, seed=0) == truth[order]).all()
    assert set(cluster(np.zeros((5, 4)), 3, seed=0).tolist()) <= {0, 1, 2}


def test_init_group_splits_unlabelled_data(make_project: MakeProject, tmp_path: Path) -> None:
    source = make_project("source", tasks={"target": pair_rows("target", 12), "pile": pair_rows("pile", 20)})
    command = ["init", str(tmp_path / "new"), "--model", str(source / "model")]
    for name in ("target", "pile"):
        command += ["--from", str(source / "tasks" / f"{name}.jsonl")]
    done = run_cli(*command, "--target", "target", "--group", "3")
    assert done.code == 0, done.err
    project = curator.Project.open(tmp_path / "new")
    report = project.check()
    groups = [task for task in report.tasks if task.name.startswith("pile-group-")]
    assert report.target == ("target",)
    assert 1 < len(groups) <= 3
    assert sum(task.rows for task in groups) == 20
    rows = [
        json.loads(line)
        for path in sorted((tmp_path / "new" / "groups").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert sorted(r["prompt"] for r in rows) == sorted(r["prompt"] for r in pair_rows("pile", 20))


def test_near_duplicates_equal_exhaustive_comparison() -> None:
    rng = random.Random(0)
    first = [[rng.randrange(500) for _ in range(rng.randint(3, 60))] for _ in range(300)]
    second = [list(example) for example in first[:40]]
    for example in second[:20]:
        if len(example) > 30:
            example[-1] = 501
    found = {(pair.first, pair.second) for pair in near_duplicates([first, second])}

    def runs(example: list[int]) -> set[tuple[int, ...]]:
        padded = example + [0] * (4 - len(example))
        return {tuple(padded[n : n + 4]) for n in range(len(padded) - 3)}

    every = [((t, n), runs(e)) for t, examples in enumerate((first, second)) for n, e in enumerate(examples)]
    expected = {
        (place, other)
        for position, (place, here) in enumerate(every)
        for other, there in every[position + 1 :]
        if len(here & there) >= 0.8 * len(here | there)
    }
    assert found == expected
    assert overlaps(near_duplicates([first, second]), [300, 40]) == [(1, 0, pytest.approx(len(expected) / 40))]


def test_check_copied_task_reports_overlap_and_pairs(make_project: MakeProject) -> None:
    folder = make_project()
    rows = pair_rows("alpha", 8)
    write_rows(folder / "tasks" / "copy.jsonl", [{**row, "completion": row["completion"] + " "} for row in rows])
    report = curator.Project.open(folder).check()
    assert {(o.task, o.other) for o in report.overlaps} <= {("copy", "alpha"), ("alpha", "copy")}
    write_rows(folder / "tasks" / "copy.jsonl", rows)
    report = curator.Project.open(folder).check()
    assert [(o.task, o.other, o.share) for o in report.overlaps] == [("alpha", "copy", 1.0)]
    assert any("has near duplicates in copy" in problem for problem in report.problems)
    assert ("alpha", 1, "copy", 1) in report.near_duplicates

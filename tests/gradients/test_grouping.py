"""Test the influence of examples, groups by gradient, and near duplicates."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import pair_rows
from hostile import run_cli

import curator
from curator.core.errors import ConfigError
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

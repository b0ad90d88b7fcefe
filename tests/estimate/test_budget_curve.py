"""Budget curves: ends, Pareto front, command and several targets."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_estimators import draw_checkpoints, make_estimator
from hostile import run_cli

import curator
from curator.estimate.whatif import budget_curve

MakeProject = Callable[..., Path]


def test_budget_curve_spans_no_task_to_all_tasks_with_front() -> None:
    estimator, tokens = make_estimator(draw_checkpoints(), [2.0, 3.0]), np.array([10, 20, 30, 40])
    extra = np.array([[False, True, True, False]])
    points = budget_curve(estimator, tokens, extra=extra)
    masks = [tuple(point.estimated.mask.tolist()) for point in points]
    assert len(set(masks)) == len(masks)
    assert {(False,) * 4, (True,) * 4, tuple(extra[0].tolist())} <= set(masks)
    assert [p.tokens for p in points] == sorted(p.tokens for p in points)
    for point in points:
        assert point.tokens == tokens[point.estimated.mask].sum()
        beaten = any(o.tokens <= point.tokens and o.estimated.loss < point.estimated.loss for o in points)
        assert point.on_front == (not beaten)


def test_budget_curve_first_step_has_best_gain_per_token() -> None:
    estimator, tokens = make_estimator(draw_checkpoints(), [2.0, 3.0]), np.array([10, 20, 30, 40])
    singles = estimator.validation_losses(np.eye(4, dtype=bool)) @ estimator.validation_weights
    none = (estimator.validation_losses(np.zeros((1, 4), dtype=bool)) @ estimator.validation_weights)[0]
    best = int(np.argmin((singles - none) / tokens))
    assert any(p.estimated.mask.sum() == 1 and p.estimated.mask[best] for p in budget_curve(estimator, tokens))


def test_curve_command_prints_json_and_draws_plot(make_project: MakeProject, tmp_path: Path) -> None:
    folder = make_project()
    run = run_cli("curve", "-p", str(folder), "--json", "--plot", str(tmp_path / "c.svg"))
    assert run.code == 0, run.err
    found = json.loads(run.out)
    assert found["calibrated"] is False
    assert found["points"][0]["subset"] == []
    assert "<svg" in (tmp_path / "c.svg").read_text()
    wrong = run_cli("curve", "-p", str(folder), "--plot", str(tmp_path / "c.txt"))
    assert wrong.code == 2
    report = curator.Project.open(folder).curve()
    assert [p.estimated_loss for p in report.front] == sorted((p.estimated_loss for p in report.front), reverse=True)


def test_estimate_several_targets_count_by_their_shares(make_project: MakeProject) -> None:
    one = curator.Project.open(make_project("one"))
    alone = {t: one.estimate(["gamma"], target=["target", "alpha"]).estimated_loss for t in ("both",)}
    weighted = make_project("two", data={"target_weights": {"target": 3.0, "alpha": 1.0}})
    project = curator.Project.open(weighted)
    found = project.estimate(["gamma"], target=["target", "alpha"]).estimated_loss
    estimator = project.estimates(("target", "alpha")).estimator
    losses = estimator.validation_losses(np.array([[False, True]]))[0]
    target, _ = (len(task.split.validation) for task in project.corpus(("target", "alpha")).target_tasks)
    assert found == pytest.approx(0.75 * losses[:target].mean() + 0.25 * losses[target:].mean(), abs=1e-6)
    assert alone["both"] == pytest.approx(0.5 * losses[:target].mean() + 0.5 * losses[target:].mean(), abs=1e-4)

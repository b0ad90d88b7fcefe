"""Examples are chosen inside tasks within a budget, and the estimate is not worse than that of whole tasks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import pair_rows
from drawn_trajectories import FINAL, TASKS, all_masks, draw_basis, draw_recorded, trajectory_of
from hostile import run_cli

import curator
from curator.core.errors import ConfigError
from curator.estimate.trajectory import TrajectoryEstimator
from curator.select.manifest import read_manifest
from curator.select.per_example import Chosen, ExampleSearch, Units

MakeProject = Callable[..., Path]
SIZES = (5, 9, 1, 7)


def _units(*, copies: bool = False) -> Units:
    """Return units of 3 to 8 tokens. With copies, the first two examples of each larger task are one unit."""
    of_example, tasks, tokens = [], list[int](), list[int]()
    for task, size in enumerate(SIZES):
        own = [len(tasks) + max(0, n - 1) if copies and size > 1 else len(tasks) + n for n in range(size)]
        of_example.append(np.array(own))
        new = own[-1] + 1 - len(tasks)
        tokens += [3 + (len(tasks) + n) % 6 for n in range(new)]
        tasks += [task] * new
    return Units(np.array(tasks), [str(n) for n in range(len(tasks))], np.array(tokens), of_example)


def _search(units: Units, budget: int, include: tuple[int, ...] = (), exclude: tuple[int, ...] = ()) -> Chosen:
    trajectory = trajectory_of(draw_recorded(), draw_basis())
    estimator = TrajectoryEstimator(trajectory, FINAL)
    pins = [np.isin(np.arange(TASKS), pin) for pin in (include, exclude)]
    search = ExampleSearch(estimator, trajectory, units, max_tokens=budget, include=pins[0], exclude=pins[1])
    return search.best(_best_tasks(units, budget))


def _best_tasks(units: Units, budget: int) -> np.ndarray:
    """Return the best whole tasks within a budget, by brute force."""
    estimator = TrajectoryEstimator(trajectory_of(draw_recorded(), draw_basis()), FINAL)
    costs = np.array([units.tokens[units.tasks == task].sum() for task in range(TASKS)])
    allowed = [mask for mask in all_masks() if costs[mask].sum() <= budget]
    losses = estimator.validation_losses(np.array(allowed)) @ estimator.validation_weights
    return np.asarray(allowed[int(losses.argmin())])


@pytest.mark.parametrize("budget", [20, 60, 10_000])
def test_example_search_keeps_budget_and_is_not_worse_than_whole_tasks(budget: int) -> None:
    units = _units()
    estimator = TrajectoryEstimator(trajectory_of(draw_recorded(), draw_basis()), FINAL)
    whole = estimator.validation_losses(_best_tasks(units, budget)[None])[0] @ estimator.validation_weights
    found = _search(units, budget)
    assert units.tokens[found.kept].sum() <= budget
    assert found.loss < whole - 1e-3
    again = _search(units, budget)
    assert (again.kept == found.kept).all()


def test_example_search_keeps_pins_and_copies_together() -> None:
    units = _units(copies=True)
    found = _search(units, 60, include=(2,), exclude=(1,))
    assert found.kept[units.tasks == 2].all()
    assert not found.kept[units.tasks == 1].any()
    assert found.kept.any()


def test_select_per_example_writes_a_manifest_within_the_budget(make_project: MakeProject) -> None:
    tasks = {"target": pair_rows("target", 12)} | {t: pair_rows(t, 8) for t in ("alpha", "beta", "gamma")}
    tasks["alpha"].append(tasks["alpha"][2])
    folder = make_project(tasks=tasks, estimate={"method": "trajectory"})
    project = curator.Project.open(folder)
    whole = project.select(max_tokens=200)
    result = project.select(max_tokens=150, per_example=True)
    manifest = read_manifest(folder / "curator-manifest.json")
    assert 0 < sum(task.tokens for task in manifest.tasks if task.selected) <= 150
    assert manifest.dropped_examples
    assert manifest.options == {"max_tokens": 150, "per_example": True}
    named = sorted({(row.task, row.sha256) for row in manifest.dropped_examples})
    assert project.estimate(result.selected, drop_examples=named).estimated_loss == result.estimated_loss
    first = (folder / "curator-manifest.json").read_bytes()
    assert project.select(max_tokens=150, per_example=True).cached
    again = run_cli("select", "-p", folder, "--per-example", "--max-tokens", "150").check(0)
    assert "estimates of chosen examples tend to be too low" in again.err
    assert (folder / "curator-manifest.json").read_bytes() == first
    assert not whole.dropped_examples
    with pytest.raises(ConfigError, match="needs a budget"):
        project.select(per_example=True)
    with pytest.raises(ConfigError, match="cannot combine"):
        project.select(per_example=True, max_tokens=9, drop_examples=named)
    assert run_cli("select", "-p", folder, "--per-example").check(2).out == ""

"""The Pareto front of several targets: against its definition, and on a project."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import run_cli
from hypothesis import given
from hypothesis import strategies as st

from curator.select.pareto import competing_subsets, pareto_front, weightings
from curator.select.search import Constraints

MakeProject = Callable[..., Path]


@given(st.integers(1, 25), st.integers(1, 4), st.integers(0, 10**6))
def test_pareto_front_equals_its_definition(subsets: int, targets: int, seed: int) -> None:
    losses = np.random.default_rng(seed).integers(0, 5, (subsets, targets)).astype(float)
    front = pareto_front(losses)
    for number in range(subsets):
        beaten = any(
            all(losses[other][u] <= losses[number][u] for u in range(targets))
            and any(losses[other][u] < losses[number][u] for u in range(targets))
            for other in range(subsets)
        )
        assert front[number] == (not beaten)


@pytest.mark.parametrize(("targets", "count"), [(2, 11), (3, 36), (8, 36)])
def test_weightings_sum_to_one_and_hold_each_target_alone(targets: int, count: int) -> None:
    found = weightings(targets)
    assert len(found) == count
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    for target in range(targets):
        assert any((row == np.eye(targets)[target]).all() for row in found)


class Planted:
    """Two targets with two validation examples each. Task 0 helps the first, task 1 the second, and task 2 harms."""

    task_count = 3
    validation_weights = np.full(4, 0.25)

    def validation_losses(self, masks: np.ndarray) -> np.ndarray:
        effects = np.array([[-0.4, -0.4, 0.3, 0.3], [0.2, 0.2, -0.5, -0.5], [0.1, 0.1, 0.1, 0.1]])
        return np.asarray(1.0 + masks @ effects)

    def losses_and_readings(self, masks: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.validation_losses(masks), np.zeros((len(masks), 0))

    def reading_noise(self, readings: np.ndarray) -> np.ndarray:
        return np.zeros(readings.shape[:-1])


def test_competing_subsets_hold_the_whole_front_of_planted_targets() -> None:
    memberships = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    ones = np.ones(3, dtype=np.int64)
    limits = Constraints(tokens=ones, examples=ones, threshold=0.0)
    found = competing_subsets(Planted(), memberships, limits, np.zeros((1, 3), dtype=bool))
    every = (np.arange(8)[:, None] >> np.arange(3)) & 1 > 0
    losses = Planted().validation_losses(every) @ memberships.T
    wanted = {mask.tobytes() for mask in every[pareto_front(losses)]}
    assert len(wanted) == 3
    assert wanted <= {mask.tobytes() for mask in found}


def test_curve_pareto_prints_the_front_of_two_targets(make_project: MakeProject, tmp_path: Path) -> None:
    folder, picture = make_project(), tmp_path / "front.svg"
    targets = ("--target", "target", "--target", "alpha")
    report = json.loads(run_cli("curve", "--pareto", *targets, "--json", "--plot", picture, "-p", folder).check(0).out)
    assert report["target"] == ["target", "alpha"]
    losses = np.array([[p["losses"]["target"], p["losses"]["alpha"]] for p in report["points"]])
    # Losses in JSON are rounded, so equal losses may differ in the last place before rounding.
    assert (pareto_front(losses) >= [p["on_front"] for p in report["points"]]).all()
    assert any(p["on_front"] for p in report["points"])
    for point in report["points"]:
        assert point["estimated_loss"] == pytest.approx(np.mean(list(point["losses"].values())), abs=2e-6)
    assert picture.read_bytes().startswith(b"<?xml")
    table = run_cli("curve", "--pareto", *targets, "-p", folder).check(0).out
    assert "Pareto front" in table
    wrong = run_cli("curve", "--pareto", "-p", folder).check(2)
    assert "only one target" in wrong.err

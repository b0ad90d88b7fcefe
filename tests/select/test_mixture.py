"""Mixture weights: gradient, optimum, and effect on an export."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from drawn_estimators import draw_checkpoints, make_estimator
from hypothesis import given
from hypothesis import strategies as st

import curator
from curator.core.errors import ConfigError
from curator.data.repetition import counts_of, repeated
from curator.select.mixture import MOST, best_mixture

MakeProject = Callable[..., Path]


def test_weighted_with_ones_and_zeros_equals_subset() -> None:
    estimator = make_estimator(draw_checkpoints(), [2.0, 3.0])
    for mask in np.array([[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=bool):
        loss = estimator.validation_losses(mask[None])[0] @ estimator.validation_weights
        assert estimator.weighted(mask.astype(float))[0] == pytest.approx(loss)


def test_weighted_logistic_estimator_raises_error() -> None:
    with pytest.raises(ConfigError, match=r"^mixture weights need the quadratic estimator$") as caught:
        make_estimator(draw_checkpoints(), [2.0, 3.0], method="logistic").weighted(np.ones(4))
    assert caught.value.hint == 'Set method = "quadratic" under [estimate].'


def test_weighted_gradient_equals_derivative_of_loss() -> None:
    estimator = make_estimator(draw_checkpoints(), [2.0, 3.0])
    weights = np.array([0.3, 1.7, 0.0, 1.0])
    _, gradient = estimator.weighted(weights)
    for task in range(4):
        step = np.zeros(4)
        step[task] = 1e-6
        slope = (estimator.weighted(weights + step)[0] - estimator.weighted(weights - step)[0]) / 2e-6
        assert gradient[task] == pytest.approx(slope, rel=1e-5, abs=1e-8)


def _best(**options: object) -> tuple[np.ndarray, float]:
    estimator = make_estimator(draw_checkpoints(), [2.0, 3.0])
    given: dict[str, object] = {
        "tokens": np.array([10.0, 20.0, 30.0, 40.0]),
        "allowed": np.ones(4, dtype=bool),
        "needed": np.zeros(4, dtype=bool),
    }
    found = best_mixture(estimator, **(given | options))  # type: ignore[arg-type]
    assert found.loss == pytest.approx(estimator.weighted(found.weights)[0])
    return found.weights, found.loss


def test_best_mixture_is_local_optimum_and_beats_subsets() -> None:
    estimator = make_estimator(draw_checkpoints(), [2.0, 3.0])
    weights, loss = _best()
    masks = np.array([[n >> t & 1 for t in range(4)] for n in range(16)], dtype=bool)
    subsets = estimator.validation_losses(masks) @ estimator.validation_weights
    assert loss <= subsets.min() + 1e-6
    rng = np.random.default_rng(0)
    for _ in range(200):
        near = np.clip(weights + rng.normal(0, 0.05, 4), 0, MOST)
        assert estimator.weighted(near)[0] >= loss - 1e-4


def test_best_mixture_keeps_budget_and_pins() -> None:
    tokens = np.array([10.0, 20.0, 30.0, 40.0])
    free, best = _best()
    for budget in (0, 15, 60):
        weights, loss = _best(max_tokens=budget)
        assert weights @ tokens <= budget + 1e-6
        assert loss >= best - 1e-6
    needed = np.array([False, False, True, False])
    assert _best(needed=needed)[0][2] >= 1
    allowed = np.array([True, False, True, True])
    assert _best(allowed=allowed)[0][1] == 0
    assert ((free >= 0) & (free <= MOST)).all()


@given(st.integers(1, 40), st.floats(0, MOST))
def test_repeated_rows_are_spread_evenly(count: int, weight: float) -> None:
    found = repeated(range(count), round(weight * count), seed="seed")
    assert len(found) == round(weight * count)
    assert found == sorted(found)
    times = np.bincount(found, minlength=count)
    assert times.max() - times.min() <= 1
    assert repeated(range(count), round(weight * count), seed="seed") == found


@given(st.lists(st.tuples(st.floats(0, MOST), st.integers(0, 50)), max_size=8), st.randoms())
def test_repeat_counts_are_nearest_to_weights_in_any_order(tasks: list[tuple[float, int]], random: Random) -> None:
    named = {f"task {number}": task for number, task in enumerate(tasks)}
    counts = counts_of(named)
    quotas = {name: weight * size for name, (weight, size) in named.items()}
    assert sum(counts.values()) == round(sum(quotas.values()))
    assert all(abs(counts[name] - quota) < 1 + 1e-6 for name, quota in quotas.items())
    names = list(named)
    random.shuffle(names)
    assert counts_of({name: named[name] for name in names}) == counts


def test_select_mixture_weights_reach_export(make_project: MakeProject, tmp_path: Path) -> None:
    project = curator.Project.open(make_project())
    result = project.select(method="mixture")
    manifest = json.loads((project.root / "curator-manifest.json").read_text())
    weights = {task["name"]: task["weight"] for task in manifest["tasks"] if task["selected"]}
    assert set(weights) == set(result.selected)
    assert all(0 < weight <= MOST for weight in weights.values())
    project.export("curator-manifest.json", output=tmp_path / "out")
    for name, weight in weights.items():
        assert len((tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()) == round(8 * weight)


def test_select_mixture_unsupported_options_raise_error(make_project: MakeProject) -> None:
    folder = make_project()
    with pytest.raises(ConfigError, match="tokens only"):
        curator.Project.open(folder).select(method="mixture", k=2)
    text = (folder / "curator.toml").read_text()
    (folder / "curator.toml").write_text(text.replace('method = "quadratic"', 'method = "logistic"'))
    with pytest.raises(ConfigError, match="quadratic"):
        curator.Project.open(folder).select(method="mixture")

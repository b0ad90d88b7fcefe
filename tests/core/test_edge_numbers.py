"""Estimates at numerical limits: a correct result, or a `NumericalError` that names the cause. Invariances too."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeProject, pair_rows
from drawn_estimators import FINAL, Examples, all_masks, draw_checkpoints, draw_examples, make_estimator, sums_of
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.core.config import EstimateSection
from curator.core.errors import NumericalError
from curator.estimate.affinity import sample_affinities
from curator.estimate.estimator import ExampleSet, TargetEstimator, build_estimator
from curator.gradients.stage import _check_finite
from curator.project.project import Project
from curator.select.search import Constraints, select_forward

ESTIMATORS = st.sampled_from(["quadratic", "logistic"])
SEEDS = st.integers(0, 2**32 - 1)


def _joined(*sets: ExampleSet) -> ExampleSet:
    return ExampleSet(
        losses=np.concatenate([s.losses for s in sets]),
        gradients=np.concatenate([s.gradients for s in sets]),
        weights=np.concatenate([s.weights for s in sets]),
    )


def _with(point: Examples, tasks: list[ExampleSet]) -> Examples:
    return Examples(share=point.share, tasks=tasks, target=point.target, validation=point.validation)


def _losses(points: list[Examples], masks: np.ndarray, method: str, ridge: float = 0.7) -> np.ndarray:
    """Return estimates with a ridge in units of the mean weight, so that the number of examples has no effect."""
    units = [float(_joined(*p.tasks, p.target).weights.mean()) for p in points]
    estimator = make_estimator(points, [ridge / unit for unit in units], method=method)
    return estimator.validation_losses(np.atleast_2d(masks))


# -- invariances ---------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(seed=SEEDS, method=ESTIMATORS, order=st.permutations(range(4)))
def test_estimate_permuted_tasks_permutes_results(seed: int, method: str, order: list[int]) -> None:
    points = draw_checkpoints(seed)
    moved = [_with(p, [p.tasks[t] for t in order]) for p in points]
    masks = all_masks()
    np.testing.assert_allclose(_losses(points, masks, method), _losses(moved, masks[:, order], method), atol=1e-6)
    here, there = (make_estimator(p, [0.5, 0.5], method=method) for p in (points, moved))
    affinities, others = sample_affinities(here, masks), sample_affinities(there, masks[:, order])
    np.testing.assert_allclose(affinities.values[order], others.values, atol=1e-6)
    ones = np.ones(4, dtype=np.int64)
    chosen = select_forward(here, Constraints(tokens=ones, examples=ones)).mask
    assert (chosen[order] == select_forward(there, Constraints(tokens=ones, examples=ones)).mask).all()


@settings(max_examples=25)
@given(seed=SEEDS, method=ESTIMATORS, cut=st.integers(1, 8))
def test_estimate_task_split_in_two_is_unchanged(seed: int, method: str, cut: int) -> None:
    points = draw_checkpoints(seed)

    def halved(s: ExampleSet) -> list[ExampleSet]:
        parts = slice(None, cut), slice(cut, None)
        return [ExampleSet(losses=s.losses[p], gradients=s.gradients[p], weights=s.weights[p]) for p in parts]

    split = [_with(p, [p.tasks[0], *halved(p.tasks[1]), *p.tasks[2:]]) for p in points]
    masks = all_masks()
    np.testing.assert_allclose(
        _losses(points, masks, method), _losses(split, np.insert(masks, 1, masks[:, 1], axis=1), method), atol=1e-6
    )


@settings(max_examples=25)
@given(seed=SEEDS, method=ESTIMATORS)
def test_estimate_duplicate_task_equals_doubled_examples(seed: int, method: str) -> None:
    """Both copies together equal the doubled task. One copy equals the other copy."""
    points = draw_checkpoints(seed)
    twice = [_with(p, [*p.tasks, p.tasks[1]]) for p in points]
    longer = [_with(p, [p.tasks[0], _joined(p.tasks[1], p.tasks[1]), *p.tasks[2:]]) for p in points]
    masks = all_masks()
    np.testing.assert_allclose(
        _losses(twice, np.c_[masks, masks[:, 1]], method), _losses(longer, masks, method), atol=1e-6
    )
    either = masks[~masks[:, 1]]
    first, second = np.c_[either, np.zeros(len(either), bool)], np.c_[either, np.ones(len(either), bool)]
    first[:, 1] = True
    np.testing.assert_allclose(_losses(twice, first, method), _losses(twice, second, method), atol=1e-6)


@settings(max_examples=25)
@given(seed=SEEDS, exponent=st.integers(-6, 6))
def test_estimate_rescaled_gradients_is_unchanged(seed: int, exponent: int) -> None:
    """Scaling gradients by s and the ridge by s² changes only the units. `auto` scales the ridge."""
    points, scale = draw_checkpoints(seed), 10.0**exponent

    def scaled(s: ExampleSet) -> ExampleSet:
        return ExampleSet(losses=s.losses, gradients=s.gradients * scale, weights=s.weights)

    other = [
        Examples(share=p.share, tasks=[*map(scaled, p.tasks)], target=scaled(p.target), validation=scaled(p.validation))
        for p in points
    ]
    found = [
        build_estimator([sums_of(p) for p in each], FINAL, EstimateSection(method="quadratic")).validation_losses(
            all_masks()
        )
        for each in (points, other)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@settings(max_examples=25)
@given(seed=SEEDS, factor=st.sampled_from([1e-3, 0.5, 7.0, 1e4]))
def test_estimate_rescaled_weights_is_unchanged(seed: int, factor: float) -> None:
    points = draw_checkpoints(seed)

    def heavier(s: ExampleSet) -> ExampleSet:
        return ExampleSet(losses=s.losses, gradients=s.gradients, weights=s.weights * factor)

    other = [_with(p, [heavier(s) for s in p.tasks]) for p in points]
    other = [Examples(share=p.share, tasks=p.tasks, target=heavier(p.target), validation=p.validation) for p in other]
    found = [make_estimator(each, [0.5, 0.5]).validation_losses(all_masks()) for each in (points, other)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


# -- edges ---------------------------------------------------------------------------------------------------------


def _one(*sizes: int, change: Callable[[list[ExampleSet]], None] = lambda _: None) -> list[Examples]:
    rng = np.random.default_rng(0)
    sets = [draw_examples(rng, n) for n in sizes]
    change(sets)
    return [
        Examples(share=0.5, tasks=sets, target=draw_examples(rng, 6), validation=draw_examples(rng, 8, validation=True))
    ]


def _build(points: list[Examples], **section: Any) -> TargetEstimator:
    names = [f"task {n}" for n in range(len(points[0].tasks))]
    return build_estimator(
        [sums_of(p) for p in points], FINAL, EstimateSection(**{"method": "quadratic"} | section), names=names
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_build_estimator_gradient_not_finite_names_task(value: float) -> None:
    """1e30 is finite, but its square overflows float32."""

    def spoil(sets: list[ExampleSet]) -> None:
        sets[1].gradients[0, 2] = value

    with np.errstate(all="ignore"), pytest.raises(NumericalError, match=r"at 50% of .*: 'task 1'"):
        _build(_one(3, 4, 5, change=spoil))


@pytest.mark.parametrize("method", ["quadratic", "logistic"])
@pytest.mark.parametrize("ridge", [1e-300, 1e-30, 1e-12])
def test_build_estimator_singular_system_raises_or_is_solved(method: str, ridge: float) -> None:
    """With one example in six dimensions and no ridge, infinitely many displacements are optimal."""
    points = _one(1)
    if method == "quadratic":
        with pytest.raises(NumericalError, match="no unique solution"):
            _build(points, method=method, ridge=ridge)
        return
    # The problem is convex and bounded below, so Newton's method converges or raises an error.
    with contextlib.suppress(NumericalError):
        losses = _build(points, method=method, ridge=ridge).validation_losses(np.array([[True], [False]]))
        assert np.isfinite(losses).all()


def test_estimate_identical_tasks_have_equal_affinities() -> None:
    def same(sets: list[ExampleSet]) -> None:
        sets[1:] = [sets[0]] * 3

    estimator = _build(_one(4, 4, 4, 4, change=same))
    masks = all_masks()
    losses = estimator.validation_losses(masks) @ estimator.validation_weights
    for count in range(5):
        of_size = losses[masks.sum(axis=1) == count]
        np.testing.assert_allclose(of_size, of_size[0], atol=1e-6)
    np.testing.assert_allclose(np.ptp(sample_affinities(estimator, masks).values), 0, atol=1e-6)


def test_estimate_zero_gradients_have_no_effect() -> None:
    def empty(sets: list[ExampleSet]) -> None:
        sets[1].gradients[:] = 0

    points = _one(1, 1, 1, change=empty)
    for method in ("quadratic", "logistic"):
        losses = _build(points, method=method).validation_losses(np.array([[True, b, True] for b in (True, False)]))
        np.testing.assert_allclose(losses[0], losses[1], atol=1e-9)


def test_estimate_large_and_small_task_keeps_precision() -> None:
    """The float32 sums over 100,000 examples do not hide the effect of one example."""
    points = _one(100_000, 1)
    estimator = _build(points)
    (point,) = points
    found = estimator.validation_losses(np.array([[False, True], [True, True], [True, False], [False, False]]))
    assert np.isfinite(found).all()
    unit = _joined(*point.tasks, point.target).weights.mean()
    ridge = estimator.ridges[0] * unit

    def slow(*sets: ExampleSet) -> np.ndarray:
        examples = _joined(*sets, point.target)
        weighted = examples.weights[:, None] * examples.gradients
        matrix = weighted.T @ examples.gradients + ridge * np.eye(weighted.shape[1])
        return np.asarray(-np.linalg.solve(matrix, weighted.sum(axis=0)))

    large, one = point.tasks
    every = slow(large, one)
    for row, sets in enumerate([(one,), (large, one), (large,), ()]):
        expected = FINAL + point.validation.gradients @ (slow(*sets) - every)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)
    assert not np.array_equal(found[0], found[3])


def test_check_finite_gradient_not_finite_names_example() -> None:
    batch: Any = [("h", None, "example 7 of task 'carry'"), ("i", None, "example 8 of task 'carry'")]
    losses = np.zeros(2)
    for loss, gradient in ((0.0, np.inf), (np.nan, 0.0)):
        with pytest.raises(NumericalError, match="example 8 of task 'carry'"):
            _check_finite(batch, losses + np.array([0, loss]), np.array([[0.0], [gradient]], dtype=np.float32))


# -- through a model -----------------------------------------------------------------------------------------------


def _weights(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_train_loss_not_finite_names_task(make_project: MakeProject) -> None:
    """Only the task `tilde` uses the token whose embedding is NaN."""
    words = [{"prompt": f"the {n} ~", "completion": " one"} for n in range(6)]
    tasks = {"target": pair_rows("target", 8), "alpha": pair_rows("alpha", 4), "tilde": words}
    folder = make_project(tasks=tasks, train={"epochs": 1})
    from transformers import AutoTokenizer

    (tilde,) = AutoTokenizer.from_pretrained(folder / "model")("~", add_special_tokens=False)["input_ids"]

    def spoil(weights: dict[str, Any]) -> None:
        weights["model.embed_tokens.weight"][tilde] = float("nan")

    _weights(folder, spoil)
    causes = r"not finite in model\.embed_tokens\.weight\. Before training, .* in 'tilde'$"
    with pytest.raises(NumericalError, match=rf"loss became nan at step \d+\. The base model .* {causes}"):
        Project.open(folder).train()


@pytest.mark.parametrize("large", [False, True])
def test_select_float16_is_finite_or_raises(make_project: MakeProject, large: bool) -> None:
    folder = make_project(
        tasks={"target": pair_rows("target", 6), "alpha": pair_rows("alpha", 4)},
        model_={},
        train={"epochs": 1},
    )
    config = folder / "curator.toml"
    config.write_text(config.read_text().replace("[model]", '[model]\ndtype = "float16"').replace("[model_]\n", ""))
    if large:

        def enlarge(weights: dict[str, Any]) -> None:
            weights["model.layers.0.mlp.down_proj.weight"] *= 1e9

        _weights(folder, enlarge)
        with pytest.raises(NumericalError, match="'alpha'"):
            Project.open(folder).select()
    else:
        assert np.isfinite(Project.open(folder).select().estimated_loss)


def test_select_more_dimensions_than_parameters_is_finite(make_project: MakeProject) -> None:
    tasks = {"target": pair_rows("target", 6), "one": pair_rows("one", 1), "same": pair_rows("one", 1) * 3}
    folder = make_project(tasks=tasks, train={"epochs": 1}, lora={"r": 1, "target_modules": ["q_proj"]})
    config = folder / "curator.toml"
    config.write_text(config.read_text().replace("projection_dim = 16", "projection_dim = 300"))
    project = Project.open(folder)
    assert project.train().trainable_parameters < 300
    result = project.select(include=["one"])
    assert np.isfinite([result.estimated_loss, *result.reference.values(), *(t.affinity for t in result.tasks)]).all()

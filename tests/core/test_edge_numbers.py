"""Numbers at their edges: exit code 6 with what is wrong named, or a right answer; and what the mathematics says."""

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
    """Estimates with a ridge that does not depend on how many examples there are: its unit is their mean weight."""
    units = [float(_joined(*p.tasks, p.target).weights.mean()) for p in points]
    estimator = make_estimator(points, [ridge / unit for unit in units], method=method)
    return estimator.validation_losses(np.atleast_2d(masks))


# -- what the mathematics says -------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(seed=SEEDS, method=ESTIMATORS, order=st.permutations(range(4)))
def test_the_order_of_tasks_moves_nothing_but_their_places(seed: int, method: str, order: list[int]) -> None:
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
def test_a_task_cut_anywhere_is_the_task(seed: int, method: str, cut: int) -> None:
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
def test_a_task_twice_is_a_task_of_twice_the_examples(seed: int, method: str) -> None:
    """Both copies, all of the longer task; one of them, the task as it was, as seen from another mean weight."""
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
def test_the_unit_of_the_parameters_moves_nothing(seed: int, exponent: int) -> None:
    """Gradients times s, and the ridge times s², are the same step in other units; `auto` does that by itself."""
    points, scale = draw_checkpoints(seed), 10.0**exponent

    def scaled(s: ExampleSet) -> ExampleSet:
        return ExampleSet(losses=s.losses, gradients=s.gradients * scale, weights=s.weights)

    other = [
        Examples(share=p.share, tasks=[*map(scaled, p.tasks)], target=scaled(p.target), validation=scaled(p.validation))
        for p in points
    ]
    found = [
        build_estimator([sums_of(p) for p in each], FINAL, EstimateSection()).validation_losses(all_masks())
        for each in (points, other)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@settings(max_examples=25)
@given(seed=SEEDS, factor=st.sampled_from([1e-3, 0.5, 7.0, 1e4]))
def test_the_unit_of_the_weights_moves_nothing(seed: int, factor: float) -> None:
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
    return build_estimator([sums_of(p) for p in points], FINAL, EstimateSection(**section), names=names)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_number_is_named(value: float) -> None:
    """1e30 is a number, whose square float32 does not hold."""

    def spoil(sets: list[ExampleSet]) -> None:
        sets[1].gradients[0, 2] = value

    with np.errstate(all="ignore"), pytest.raises(NumericalError, match=r"at 50% of .*\('task 1'\)"):
        _build(_one(3, 4, 5, change=spoil))


@pytest.mark.parametrize("method", ["quadratic", "logistic"])
@pytest.mark.parametrize("ridge", [1e-300, 1e-30, 1e-12])
def test_a_system_without_a_single_solution_is_an_error_or_solved(method: str, ridge: float) -> None:
    """One example in six dimensions: without a ridge, infinitely many displacements are as good."""
    points = _one(1)
    if method == "quadratic":
        with pytest.raises(NumericalError, match="there is no single solution"):
            _build(points, method=method, ridge=ridge)
        return
    # Convex, and bounded from below: Newton's method ends, or says that it does not.
    with contextlib.suppress(NumericalError):
        losses = _build(points, method=method, ridge=ridge).validation_losses(np.array([[True], [False]]))
        assert np.isfinite(losses).all()


def test_all_tasks_the_same_help_the_same() -> None:
    def same(sets: list[ExampleSet]) -> None:
        sets[1:] = [sets[0]] * 3

    estimator = _build(_one(4, 4, 4, 4, change=same))
    masks = all_masks()
    losses = estimator.validation_losses(masks) @ estimator.validation_weights
    for count in range(5):
        of_size = losses[masks.sum(axis=1) == count]
        np.testing.assert_allclose(of_size, of_size[0], atol=1e-6)
    np.testing.assert_allclose(np.ptp(sample_affinities(estimator, masks).values), 0, atol=1e-6)


def test_tasks_of_one_example_and_gradients_of_nothing() -> None:
    def empty(sets: list[ExampleSet]) -> None:
        sets[1].gradients[:] = 0

    points = _one(1, 1, 1, change=empty)
    for method in ("quadratic", "logistic"):
        losses = _build(points, method=method).validation_losses(np.array([[True, b, True] for b in (True, False)]))
        np.testing.assert_allclose(losses[0], losses[1], atol=1e-9)


def test_a_hundred_thousand_examples_beside_one() -> None:
    """The one is not lost in the sum of the others, which float32 keeps."""
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


def test_a_gradient_that_is_no_number_names_its_task() -> None:
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


def test_a_loss_that_is_no_number_names_the_task(make_project: MakeProject) -> None:
    """A token that only one task uses has a row of NaN."""
    words = [{"prompt": f"the {n} ~", "completion": " one"} for n in range(6)]
    tasks = {"target": pair_rows("target", 8), "alpha": pair_rows("alpha", 4), "tilde": words}
    folder = make_project(tasks=tasks, train={"epochs": 1})
    from transformers import AutoTokenizer

    (tilde,) = AutoTokenizer.from_pretrained(folder / "model")("~", add_special_tokens=False)["input_ids"]

    def spoil(weights: dict[str, Any]) -> None:
        weights["model.embed_tokens.weight"][tilde] = float("nan")

    _weights(folder, spoil)
    with pytest.raises(NumericalError, match=r"loss became nan at step \d+\. Before training, .* in 'tilde'$"):
        Project.open(folder).train()


@pytest.mark.parametrize("large", [False, True])
def test_half_precision_is_right_or_said_to_overflow(make_project: MakeProject, large: bool) -> None:
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


def test_more_dimensions_than_parameters_and_tasks_of_one_example(make_project: MakeProject) -> None:
    tasks = {"target": pair_rows("target", 6), "one": pair_rows("one", 1), "same": pair_rows("one", 1) * 3}
    folder = make_project(tasks=tasks, train={"epochs": 1}, lora={"r": 1, "target_modules": ["q_proj"]})
    config = folder / "curator.toml"
    config.write_text(config.read_text().replace("projection_dim = 16", "projection_dim = 300"))
    project = Project.open(folder)
    assert project.train().trainable_parameters < 300
    result = project.select(include=["one"])
    assert np.isfinite([result.estimated_loss, *result.reference.values(), *(t.affinity for t in result.tasks)]).all()

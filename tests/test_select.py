"""Selection methods against brute force, and under every limit."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.select import (
    Affinities,
    Problem,
    Selection,
    sample_affinities,
    sample_subsets,
    select_backward,
    select_ensemble,
    select_exchange,
    select_forward,
)

METHODS = {"forward": select_forward, "backward": select_backward, "exchange": select_exchange}


class Toy:
    """A target whose loss is a known function of the subset: an effect per task, and one per pair of tasks."""

    def __init__(self, effects: np.ndarray, pairs: np.ndarray | None = None, spread: float = 0.0) -> None:
        self.effects = np.asarray(effects, dtype=float)
        self.pairs = np.zeros((len(effects),) * 2) if pairs is None else pairs
        self.task_count = len(effects)
        self.validation_weights = np.full(10, 0.1)
        # How much the effect of each task differs between validation examples.
        self.each = spread * np.random.default_rng(0).standard_normal((len(effects), 10))
        self.each -= self.each.mean(axis=1, keepdims=True)

    def validation_losses(self, masks: np.ndarray) -> np.ndarray:
        m = masks.astype(float)
        loss = 1 + m @ self.effects + np.einsum("si,ij,sj->s", m, self.pairs, m) / 2
        return loss[:, None] + m @ self.each

    def loss(self, mask: np.ndarray) -> float:
        return float((self.validation_losses(mask[None]) @ self.validation_weights)[0])


def _problem(count: int, **limits: object) -> Problem:
    values: dict[str, object] = {"tokens": np.arange(1, count + 1) * 10, "examples": np.arange(1, count + 1)}
    return Problem(**(values | limits))  # type: ignore[arg-type]


def _run(method: str, toy: Toy, problem: Problem) -> Selection:
    if method == "ensemble":
        masks = sample_subsets(toy.task_count, subsets=400, share=0.5, seed=0)
        return select_ensemble(toy, problem, sample_affinities(toy, masks))
    return METHODS[method](toy, problem)


ALL = [*METHODS, "ensemble"]


@pytest.mark.parametrize("method", ALL)
def test_effects_that_add_up_are_told_apart_exactly(method: str) -> None:
    toy = Toy(np.array([-0.3, 0.2, -0.1, 0.05, -0.02]))
    selection = _run(method, toy, _problem(5))
    assert np.flatnonzero(selection.mask).tolist() == [0, 2, 4]
    assert selection.loss == pytest.approx(toy.loss(selection.mask))


@pytest.mark.parametrize("method", ALL)
def test_nothing_helps_so_nothing_is_selected(method: str) -> None:
    assert not _run(method, Toy(np.array([0.1, 0.2, 0.3])), _problem(3)).mask.any()


def test_forward_tries_all_that_remain_at_every_step() -> None:
    # Task 2 helps only together with task 1, which is the best first step; an index-order pass would refuse it.
    pairs = np.zeros((3, 3))
    pairs[1, 2] = pairs[2, 1] = -0.5
    selection = select_forward(Toy(np.array([-0.01, -0.2, 0.1]), pairs), _problem(3))
    assert [step.tasks for step in selection.steps] == [(1,), (2,), (0,)]
    assert [step.loss for step in selection.steps] == sorted((s.loss for s in selection.steps), reverse=True)


def test_exchange_finds_the_swap_that_the_others_miss() -> None:
    # 0 is the best single task, but 1 and 2 together beat all that holds 0; with room for two, only a swap helps.
    pairs = np.zeros((3, 3))
    pairs[1, 2] = pairs[2, 1] = -1.0
    pairs[0, 1] = pairs[1, 0] = pairs[0, 2] = pairs[2, 0] = 0.1
    toy = Toy(np.array([-0.5, -0.2, -0.2]), pairs)
    problem = _problem(3, k=2)
    best = min(_subsets(3, problem), key=toy.loss)
    assert select_exchange(toy, problem).loss == pytest.approx(toy.loss(best))


def test_backward_goes_past_a_removal_that_hurts_alone() -> None:
    # Two copies of one harm: either alone is no worse than both, so removing one gains nothing before both are gone.
    pairs = np.zeros((3, 3))
    pairs[0, 1] = pairs[1, 0] = -0.6
    toy = Toy(np.array([0.5, 0.5, -0.2]), pairs)
    both_but_one = toy.loss(np.array([False, True, True]))
    assert both_but_one > toy.loss(np.array([True, True, True])) > toy.loss(np.array([False, False, True]))
    assert np.flatnonzero(select_backward(toy, _problem(3)).mask).tolist() == [2]


def _subsets(count: int, problem: Problem) -> list[np.ndarray]:
    masks = [np.array(bits) for bits in itertools.product([False, True], repeat=count)]
    return [
        m for m in masks
        if problem.allows(m) and m[list(problem.include)].all() and not m[list(problem.exclude)].any()
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(2, 6), method=st.sampled_from(ALL))
def test_every_limit_holds_in_every_method(data: st.DataObject, count: int, method: str) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    pairs = rng.normal(0, 0.1, (count, count))
    toy = Toy(rng.normal(0, 0.2, count), (pairs + pairs.T) / 2, spread=0.05)
    pins = data.draw(st.lists(st.sampled_from(["free", "in", "out"]), min_size=count, max_size=count))
    include = frozenset(t for t, pin in enumerate(pins) if pin == "in")
    problem = _problem(
        count,
        include=include,
        exclude=frozenset(t for t, pin in enumerate(pins) if pin == "out"),
        k=data.draw(st.none() | st.integers(len(include), count)),
        max_tokens=data.draw(st.none() | st.integers(sum(10 * (t + 1) for t in include), 250)),
        max_examples=data.draw(st.none() | st.integers(sum(t + 1 for t in include), 25)),
    )
    selection = _run(method, toy, problem)
    assert any((selection.mask == m).all() for m in _subsets(count, problem))
    assert selection.loss == pytest.approx(toy.loss(selection.mask))
    if method == "exchange":
        # Nothing that one add, drop or swap away would be better.
        for other in _subsets(count, problem):
            changed = np.flatnonzero(other != selection.mask)
            one_swap = len(changed) == 2 and other[changed].sum() == 1
            if len(changed) == 1 or one_swap:
                assert toy.loss(other) >= selection.loss - 1e-8
        for start in (select_forward, select_backward):
            assert selection.loss <= start(toy, problem).loss + 1e-9


def test_a_gain_within_the_noise_is_none() -> None:
    toy = Toy(np.array([-0.01, -0.5]), spread=0.2)
    assert np.flatnonzero(select_forward(toy, _problem(2)).mask).tolist() == [1]
    assert select_forward(toy, _problem(2, threshold=0.0)).mask.all()
    assert not select_forward(toy, _problem(2, threshold=0.6)).mask.any()


def test_under_a_token_budget_gain_per_token_decides() -> None:
    # Task 2 gains most, but costs three times as much as task 0, which gains nearly as much.
    toy = Toy(np.array([-0.25, -0.1, -0.3]))
    selection = select_forward(toy, _problem(3, max_tokens=30))
    assert [step.tasks for step in selection.steps] == [(0,), (1,)]


def test_affinity_is_the_difference_of_means() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(0, 0.1, (5, 5))
    toy = Toy(rng.normal(0, 0.2, 5), pairs + pairs.T)
    masks = sample_subsets(5, subsets=37, share=0.4, seed=1)
    losses = np.array([toy.loss(m) for m in masks])
    affinities = sample_affinities(toy, masks, chunk=8)
    for task in range(5):
        inside = masks[:, task]
        assert affinities.values[task] == pytest.approx(losses[~inside].mean() - losses[inside].mean())


def test_standard_error_covers_the_effect_that_is_there() -> None:
    effects = np.array([-0.3, 0.2, 0.0, -0.1])
    pairs = np.random.default_rng(3).normal(0, 0.05, (4, 4))
    toy = Toy(effects, pairs + pairs.T)
    exact = sample_affinities(toy, np.array(list(itertools.product([False, True], repeat=4))))
    distances = []
    for seed in range(50):
        sampled = sample_affinities(toy, sample_subsets(4, subsets=60, share=0.5, seed=seed))
        distances.append((sampled.values - exact.values) / sampled.standard_errors)
    # Standard errors of the right size: about a unit of spread, not a tenth of one and not ten.
    assert 0.5 < np.std(distances) < 1.6


def test_sampled_tasks_are_independent_and_seeded() -> None:
    masks = sample_subsets(8, subsets=20_000, share=0.3, seed=0)
    assert masks.mean() == pytest.approx(0.3, abs=0.01)
    correlations = np.corrcoef(masks.T) - np.eye(8)
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)
    np.testing.assert_array_equal(masks, sample_subsets(8, subsets=20_000, share=0.3, seed=0))


def test_one_task_alone_has_an_affinity() -> None:
    toy = Toy(np.array([-0.3]))
    affinities: Affinities = sample_affinities(toy, sample_subsets(1, subsets=20, share=0.5, seed=0))
    assert affinities.values[0] == pytest.approx(0.3)

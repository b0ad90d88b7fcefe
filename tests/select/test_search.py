"""Selection methods: against brute force, and under every limit."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.estimate.affinity import Affinities, sample_affinities, sample_subsets
from curator.select.search import (
    Constraints,
    Scores,
    Selection,
    Step,
    select_backward,
    select_ensemble,
    select_exchange,
    select_forward,
    select_scored,
)

METHODS = {"forward": select_forward, "backward": select_backward, "exchange": select_exchange}


class Toy:
    """A target whose loss is a known function of the subset: an effect per task, and one per pair of tasks."""

    def __init__(self, effects: np.ndarray, pairs: np.ndarray | None = None, spread: float = 0.0) -> None:
        self.effects = np.asarray(effects, dtype=float)
        self.pairs = np.zeros((len(effects),) * 2) if pairs is None else pairs
        self.task_count = len(effects)
        self.validation_weights = np.full(10, 0.1)
        # Spread of each task's effect between validation examples.
        self.each = spread * np.random.default_rng(0).standard_normal((len(effects), 10))
        self.each -= self.each.mean(axis=1, keepdims=True)

    def validation_losses(self, masks: np.ndarray) -> np.ndarray:
        m = masks.astype(float)
        loss = 1 + m @ self.effects + np.einsum("si,ij,sj->s", m, self.pairs, m) / 2
        return loss[:, None] + m @ self.each

    def losses_and_readings(self, masks: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.validation_losses(masks), np.zeros((len(masks), 0))

    def reading_noise(self, readings: np.ndarray) -> np.ndarray:
        return np.zeros(readings.shape[:-1])

    def loss(self, mask: np.ndarray) -> float:
        return float((self.validation_losses(mask[None]) @ self.validation_weights)[0])


class Turning(Toy):
    """A toy whose first part of meta-training sees other effects of the tasks than the second."""

    def __init__(self, early: np.ndarray, late: np.ndarray) -> None:
        super().__init__((early + late) / 2)
        self.parts = np.stack([early, late], axis=1)

    def losses_and_readings(self, masks: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.validation_losses(masks), masks @ self.parts

    def reading_noise(self, readings: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(readings[..., 0] - readings[..., 1]) / 2)


def _problem(count: int, **limits: object) -> Constraints:
    values: dict[str, object] = {"tokens": np.arange(1, count + 1) * 10, "examples": np.arange(1, count + 1)}
    return Constraints(**(values | limits))  # type: ignore[arg-type]


def _run(method: str, toy: Toy, constraints: Constraints) -> Selection:
    if method == "ensemble":
        masks = sample_subsets(toy.task_count, subsets=400, share=0.5, seed=0)
        return select_ensemble(toy, constraints, sample_affinities(toy, masks))
    return METHODS[method](toy, constraints)


ALL = [*METHODS, "ensemble"]


@pytest.mark.parametrize("method", ALL)
def test_select_additive_effects_finds_exact_subset(method: str) -> None:
    toy = Toy(np.array([-0.3, 0.2, -0.1, 0.05, -0.02]))
    selection = _run(method, toy, _problem(5))
    assert np.flatnonzero(selection.mask).tolist() == [0, 2, 4]
    assert selection.loss == pytest.approx(toy.loss(selection.mask))


@pytest.mark.parametrize("method", ALL)
def test_select_only_harmful_tasks_selects_no_task(method: str) -> None:
    assert not _run(method, Toy(np.array([0.1, 0.2, 0.3])), _problem(3)).mask.any()


def test_select_forward_tries_all_remaining_tasks() -> None:
    # Task 2 helps only together with task 1, the best first step. A single pass in index order would refuse it.
    pairs = np.zeros((3, 3))
    pairs[1, 2] = pairs[2, 1] = -0.5
    selection = select_forward(Toy(np.array([-0.01, -0.2, 0.1]), pairs), _problem(3))
    assert [step.tasks for step in selection.steps] == [(1,), (2,), (0,)]
    assert [step.loss for step in selection.steps] == sorted((s.loss for s in selection.steps), reverse=True)


def test_select_exchange_finds_swap_others_miss() -> None:
    # 0 is the best single task, but 1 and 2 together beat every subset with 0. With room for two, only a swap helps.
    pairs = np.zeros((3, 3))
    pairs[1, 2] = pairs[2, 1] = -1.0
    pairs[0, 1] = pairs[1, 0] = pairs[0, 2] = pairs[2, 0] = 0.1
    toy = Toy(np.array([-0.5, -0.2, -0.2]), pairs)
    constraints = _problem(3, k=2)
    best = min(_subsets(3, constraints), key=toy.loss)
    assert select_exchange(toy, constraints).loss == pytest.approx(toy.loss(best))


def test_select_backward_continues_past_harmful_removal() -> None:
    # Two copies of one harmful task: each alone does as much harm as both. Only removing both helps.
    pairs = np.zeros((3, 3))
    pairs[0, 1] = pairs[1, 0] = -0.6
    toy = Toy(np.array([0.5, 0.5, -0.2]), pairs)
    both_but_one = toy.loss(np.array([False, True, True]))
    assert both_but_one > toy.loss(np.array([True, True, True])) > toy.loss(np.array([False, False, True]))
    assert np.flatnonzero(select_backward(toy, _problem(3)).mask).tolist() == [2]


def _subsets(count: int, constraints: Constraints) -> list[np.ndarray]:
    masks = [np.array(bits) for bits in itertools.product([False, True], repeat=count)]
    return [
        m for m in masks
        if constraints.allows(m) and m[list(constraints.include)].all() and not m[list(constraints.exclude)].any()
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(2, 6), method=st.sampled_from(ALL))
def test_select_every_method_keeps_every_limit(data: st.DataObject, count: int, method: str) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    pairs = rng.normal(0, 0.1, (count, count))
    toy = Toy(rng.normal(0, 0.2, count), (pairs + pairs.T) / 2, spread=0.05)
    pins = data.draw(st.lists(st.sampled_from(["free", "in", "out"]), min_size=count, max_size=count))
    include = frozenset(t for t, pin in enumerate(pins) if pin == "in")
    constraints = _problem(
        count,
        include=include,
        exclude=frozenset(t for t, pin in enumerate(pins) if pin == "out"),
        k=data.draw(st.none() | st.integers(len(include), count)),
        max_tokens=data.draw(st.none() | st.integers(sum(10 * (t + 1) for t in include), 250)),
        max_examples=data.draw(st.none() | st.integers(sum(t + 1 for t in include), 25)),
    )
    selection = _run(method, toy, constraints)
    assert any((selection.mask == m).all() for m in _subsets(count, constraints))
    assert selection.loss == pytest.approx(toy.loss(selection.mask))
    if method == "exchange":
        # No add, drop or swap of one task is better.
        for other in _subsets(count, constraints):
            changed = np.flatnonzero(other != selection.mask)
            one_swap = len(changed) == 2 and other[changed].sum() == 1
            if len(changed) == 1 or one_swap:
                assert toy.loss(other) >= selection.loss - 1e-8
        for start in (select_forward, select_backward):
            assert selection.loss <= start(toy, constraints).loss + 1e-9


def test_select_forward_gain_within_noise_is_ignored() -> None:
    toy = Toy(np.array([-0.01, -0.5]), spread=0.2)
    assert np.flatnonzero(select_forward(toy, _problem(2)).mask).tolist() == [1]
    assert select_forward(toy, _problem(2, threshold=0.0)).mask.all()
    assert not select_forward(toy, _problem(2, threshold=0.6)).mask.any()


def test_select_forward_token_budget_uses_gain_per_token() -> None:
    # Task 2 gains most, but costs three times as much as task 0, which gains nearly as much.
    toy = Toy(np.array([-0.25, -0.1, -0.3]))
    selection = select_forward(toy, _problem(3, max_tokens=30))
    assert [step.tasks for step in selection.steps] == [(0,), (1,)]


def test_sample_affinities_equal_difference_of_means() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(0, 0.1, (5, 5))
    toy = Toy(rng.normal(0, 0.2, 5), pairs + pairs.T)
    masks = sample_subsets(5, subsets=37, share=0.4, seed=1)
    losses = np.array([toy.loss(m) for m in masks])
    affinities = sample_affinities(toy, masks, chunk=8)
    for task in range(5):
        inside = masks[:, task]
        assert affinities.values[task] == pytest.approx(losses[~inside].mean() - losses[inside].mean())


def test_sample_affinities_standard_error_covers_true_effect() -> None:
    effects = np.array([-0.3, 0.2, 0.0, -0.1])
    pairs = np.random.default_rng(3).normal(0, 0.05, (4, 4))
    toy = Toy(effects, pairs + pairs.T)
    exact = sample_affinities(toy, np.array(list(itertools.product([False, True], repeat=4))))
    distances = []
    for seed in range(50):
        sampled = sample_affinities(toy, sample_subsets(4, subsets=60, share=0.5, seed=seed))
        distances.append((sampled.values - exact.values) / sampled.standard_errors)
    # Standard errors have the right size: about one unit of spread, not a tenth and not ten.
    assert 0.5 < np.std(distances) < 1.6


def test_sample_subsets_are_independent_and_seeded() -> None:
    masks = sample_subsets(8, subsets=20_000, share=0.3, seed=0)
    assert masks.mean() == pytest.approx(0.3, abs=0.01)
    correlations = np.corrcoef(masks.T) - np.eye(8)
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)
    np.testing.assert_array_equal(masks, sample_subsets(8, subsets=20_000, share=0.3, seed=0))


def test_sample_affinities_single_task_has_affinity() -> None:
    toy = Toy(np.array([-0.3]))
    affinities: Affinities = sample_affinities(toy, sample_subsets(1, subsets=20, share=0.5, seed=0))
    assert affinities.values[0] == pytest.approx(0.3)


# -- against slow references ----------------------------------------------------------------------------------------

Way = tuple[set[int], list[tuple[str, tuple[int, ...]]]]


class Twin:
    """Select as the docstrings of the methods say, one subset at a time, on sets."""

    def __init__(self, toy: Toy, constraints: Constraints) -> None:
        self.toy, self.constraints = toy, constraints
        self.free = [t for t in range(toy.task_count) if t not in constraints.include | constraints.exclude]

    def each(self, subset: set[int]) -> np.ndarray:
        return self.toy.validation_losses(np.array([[t in subset for t in range(self.toy.task_count)]]))[0]

    def loss(self, subset: set[int]) -> float:
        return float(self.each(subset) @ self.toy.validation_weights)

    def allows(self, subset: set[int]) -> bool:
        p = self.constraints
        limits = (
            (len(subset), p.k),
            (sum(p.tokens[t] for t in subset), p.max_tokens),
            (sum(p.examples[t] for t in subset), p.max_examples),
        )
        return all(most is None or there <= most for there, most in limits)

    def cost(self, task: int) -> float:
        p = self.constraints
        if p.max_tokens is not None:
            return max(float(p.tokens[task]), 1.0)
        return max(float(p.examples[task]), 1.0) if p.max_examples is not None else 1.0

    def needed(self, before: set[int], after: set[int]) -> float:
        if self.constraints.threshold is not None:
            return self.constraints.threshold
        differences, weights = self.each(before) - self.each(after), self.toy.validation_weights
        mean = sum(w * d for w, d in zip(weights, differences, strict=True))
        return float(sum(w**2 * (d - mean) ** 2 for w, d in zip(weights, differences, strict=True)) ** 0.5)

    def forward(self) -> Way:
        subset, way = set(self.constraints.include), []
        while True:
            worth = {}
            for task in self.free:
                more = subset | {task}
                gain = self.loss(subset) - self.loss(more)
                if task not in subset and self.allows(more) and gain > max(self.needed(subset, more), 1e-9):
                    worth[task] = gain / self.cost(task)
            if not worth:
                return subset, way
            best = max(worth, key=lambda task: worth[task])
            subset = subset | {best}
            way.append(("add", (best,)))

    def backward(self) -> Way:
        return self.pruned(*self.down())

    def pruned(self, best: set[int], way: list[tuple[str, tuple[int, ...]]]) -> Way:
        """Drop the least useful task while the loss is above that of the best subset by no more than the noise."""
        subset = best
        while self.constraints.threshold is None and (inside := [t for t in self.free if t in subset]):
            worst = min(inside, key=lambda t: self.loss(subset - {t}))
            rise = self.loss(subset - {worst}) - self.loss(best)
            if rise > max(self.needed(best, subset - {worst}), 1e-9):
                break
            subset = subset - {worst}
            way = [*way, ("drop", (worst,))]
        return subset, way

    def down(self) -> Way:
        subset, way = set(self.constraints.include) | set(self.free), []
        path = [subset]
        while inside := [t for t in self.free if t in subset]:
            share = {t: 1.0 if self.allows(subset) else self.cost(t) for t in inside}
            worst = min(inside, key=lambda t: (self.loss(subset - {t}) - self.loss(subset)) / share[t])
            subset = subset - {worst}
            path.append(subset)
            way.append(("drop", (worst,)))
        allowed = [n for n, subset in enumerate(path) if self.allows(subset)]
        least = min(self.loss(path[n]) for n in allowed)
        last = max(n for n in allowed if self.loss(path[n]) <= least + (self.constraints.threshold or 0.0))
        return path[last], way[:last]

    def exchange(self, told: list[str]) -> Way:
        starts = [way for way in (self.forward(), self.down()) if self.allows(way[0])]
        subset, way = min(starts, key=lambda way: self.loss(way[0]))
        if all(start[0] == subset for start in starts):
            # Two paths to one subset may differ by the rounding of a sum. Accept either.
            way = next((way for _, way in starts if [name for name, _ in way] == told[: len(way)]), way)
        while True:
            moves = [(t,) for t in self.free]
            moves += [(i, o) for i in self.free for o in self.free if i in subset and o not in subset]
            changed = {move: subset ^ set(move) for move in moves if self.allows(subset ^ set(move))}
            if not changed:
                return self.pruned(subset, way)
            best = min(changed, key=lambda move: self.loss(changed[move]))
            if self.loss(changed[best]) > self.loss(subset) - max(self.constraints.threshold or 0.0, 1e-9):
                return self.pruned(subset, way)
            name = "swap" if len(best) == 2 else "drop" if best[0] in subset else "add"
            subset = changed[best]
            way = [*way, (name, best)]

    def best_first(self, worth: np.ndarray, good: np.ndarray) -> Way:
        subset, way = set(self.constraints.include), []
        for task in sorted(self.free, key=lambda t: (-worth[t], t)):
            if good[task] and self.allows(subset | {task}):
                subset = subset | {task}
                way.append(("add", (task,)))
        return subset, way


def _drawn_problem(data: st.DataObject, count: int, thresholds: st.SearchStrategy[float | None]) -> Constraints:
    pins = data.draw(st.lists(st.sampled_from(["free", "free", "in", "out"]), min_size=count, max_size=count))
    include = frozenset(t for t, pin in enumerate(pins) if pin == "in")
    tokens = np.array(data.draw(st.lists(st.integers(0, 40), min_size=count, max_size=count)))
    examples = np.array(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
    within = list(include)
    return Constraints(
        tokens=tokens,
        examples=examples,
        include=include,
        exclude=frozenset(t for t, pin in enumerate(pins) if pin == "out"),
        k=data.draw(st.none() | st.integers(len(include), count)),
        max_tokens=data.draw(st.none() | st.integers(int(tokens[within].sum()), int(tokens.sum()))),
        max_examples=data.draw(st.none() | st.integers(int(examples[within].sum()), int(examples.sum()))),
        threshold=data.draw(thresholds),
    )


def _assert_the_same(found: Selection, told: list[Step], twin: Twin, expected: Way, *, told_all: bool = True) -> None:
    subset, way = expected
    assert set(np.flatnonzero(found.mask)) == subset
    assert found.loss == pytest.approx(twin.loss(subset), abs=1e-9)
    assert [(step.change, step.tasks) for step in found.steps] == way
    here = subset
    for step in found.steps[::-1]:
        assert step.loss == pytest.approx(twin.loss(here), abs=1e-9)
        here = here ^ set(step.tasks)
    assert tuple(told)[: len(found.steps)] == found.steps
    assert len(told) == len(found.steps) or not told_all


@settings(max_examples=60)
@given(data=st.data(), count=st.integers(1, 6), method=st.sampled_from([*METHODS]))
def test_select_steps_equal_slow_reference(data: st.DataObject, count: int, method: str) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    pairs = rng.normal(0, 0.15, (count, count))
    toy = Toy(rng.normal(-0.05, 0.2, count), pairs + pairs.T, spread=data.draw(st.sampled_from([0.0, 0.1, 0.5])))
    toy.validation_weights = rng.dirichlet(np.ones(10))
    constraints = _drawn_problem(data, count, st.sampled_from([None, 0.0, 0.02, 0.2]))
    twin, told = Twin(toy, constraints), list[Step]()
    found = METHODS[method](toy, constraints, told.append)
    # Backward reports all of its steps, and keeps those to the best subset.
    expected = twin.exchange([step.change for step in told]) if method == "exchange" else getattr(twin, method)()
    _assert_the_same(found, told, twin, expected, told_all=method != "backward")


@settings(max_examples=60)
@given(data=st.data(), count=st.integers(1, 7))
def test_select_scored_steps_equal_slow_reference(data: st.DataObject, count: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    toy = Toy(rng.normal(0, 0.2, count))
    constraints = _drawn_problem(data, count, st.sampled_from([None, -0.1, 0.0, 0.1]))
    twin = Twin(toy, constraints)
    # With ties: the first of equals wins.
    values = rng.integers(-3, 4, count) / 10
    costs = np.array([twin.cost(task) for task in range(count)])
    affinities = Affinities(values, np.ones(count))
    told: list[Step] = []
    found = select_ensemble(toy, constraints, affinities, told.append)
    _assert_the_same(found, told, twin, twin.best_first(values / costs, values > (constraints.threshold or 0.0)))

    cutoff, least = data.draw(st.sampled_from([-0.1, 0.0, 0.2])), data.draw(st.sampled_from([-np.inf, -0.2, 0.1]))
    if constraints.threshold is not None:
        lowest = constraints.threshold
    else:
        limited = (
            constraints.k is not None or constraints.max_tokens is not None or constraints.max_examples is not None
        )
        lowest = -np.inf if limited else cutoff
    good = (values > lowest) & (values > least)
    told = []
    scores = Scores(values, cutoff, least) if least != -np.inf else Scores(values, cutoff)
    found = select_scored(toy, constraints, scores, told.append)
    _assert_the_same(found, told, twin, twin.best_first(values, good))


@pytest.mark.parametrize("method", [*METHODS.values()], ids=[*METHODS])
def test_select_all_tasks_pinned_returns_pins(method: Callable[..., Selection]) -> None:
    toy = Toy(np.array([0.3, -0.2, 0.1]))
    found = method(toy, _problem(3, include=frozenset({0, 1}), exclude=frozenset({2})))
    assert found.mask.tolist() == [True, True, False]
    assert found.loss == pytest.approx(1.1)
    assert found.steps == ()


def _exchanged(
    monkeypatch: pytest.MonkeyPatch, toy: Toy, start: list[int], *, count: int = 256, **limits: object
) -> list[tuple[str, tuple[int, ...]]]:
    """Return an exchange from a start that forward and backward would not reach."""
    mask = np.isin(np.arange(toy.task_count), start)
    monkeypatch.setattr("curator.select.search.select_forward", lambda *_: Selection(mask, toy.loss(mask)))
    monkeypatch.setattr("curator.select.search._on_the_way_down", lambda _: (mask, toy.loss(mask)))
    monkeypatch.setattr("curator.select.search._SWAPS_TRIED", count)
    found = select_exchange(toy, _problem(toy.task_count, **limits))
    for step in found.steps:
        mask = mask ^ np.isin(np.arange(toy.task_count), step.tasks)
        assert step.loss == pytest.approx(toy.loss(mask))
    assert (found.mask == mask).all()
    return [(step.change, step.tasks) for step in found.steps]


def test_select_exchange_adds_drops_and_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _exchanged(monkeypatch, Toy(np.array([0.3, -0.2, -0.5])), [0, 1]) == [("swap", (0, 2))]
    assert _exchanged(monkeypatch, Toy(np.array([-0.3, -0.2, 0.1])), [0]) == [("add", (1,))]
    assert _exchanged(monkeypatch, Toy(np.array([0.3, -0.2, 0.1])), [0, 1, 2]) == [("drop", (0,)), ("drop", (2,))]
    # A gain below the threshold is ignored, whether positive or negative.
    near = Toy(np.array([-0.3, -0.1, 0.1]))
    assert _exchanged(monkeypatch, near, [0], threshold=0.2) == []
    assert _exchanged(monkeypatch, near, [0], threshold=0.05) == [("add", (1,))]


def test_select_exchange_tries_most_promising_swaps_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # The budget is used up: the best task outside replaces the worst task inside.
    toy = Toy(np.array([-0.6, -0.5, -0.7, -0.9, -0.8]))
    assert _exchanged(monkeypatch, toy, [0, 1], count=1, k=2)[0] == ("swap", (1, 3))


def test_select_backward_over_budget_uses_loss_per_token() -> None:
    # Task 0 costs ten tokens, task 2 costs thirty. Dropping 2 loses more, but less for each token.
    assert [s.tasks for s in select_backward(Toy(np.array([-0.1, -0.9, -0.2])), _problem(3, max_tokens=30)).steps] == [
        (2,)
    ]
    # Within the budget the lowest loss goes first, whatever its cost.
    toy = Toy(np.array([0.3, 0.2, 0.5]))
    told: list[Step] = []
    select_backward(toy, _problem(3, max_tokens=100), told.append)
    assert [step.tasks for step in told] == [(2,), (0,), (1,)]


def test_select_scored_without_budget_uses_cutoff() -> None:
    toy, scores = Toy(np.array([-0.1, -0.2, -0.3])), Scores(np.array([0.1, 0.6, -0.4]), 0.5)
    assert select_scored(toy, _problem(3), scores).mask.tolist() == [False, True, False]
    assert select_scored(toy, _problem(3, threshold=0.0), scores).mask.tolist() == [True, True, False]
    assert select_scored(toy, _problem(3, k=3), scores).mask.all()
    assert select_scored(toy, _problem(3, k=3), Scores(np.array([0.1, 0.6, -0.4]), 0.5, 0.0)).mask.tolist() == [
        True, True, False,
    ]  # fmt: skip


def test_sample_affinities_equal_slow_reference() -> None:
    rng = np.random.default_rng(2)
    toy = Toy(rng.normal(0, 0.2, 4), spread=0.3)
    toy.validation_weights = rng.dirichlet(np.ones(10))
    masks = sample_subsets(4, subsets=23, share=0.5, seed=4)
    masks[:, 2], masks[:, 3] = True, False
    done: list[int] = []
    found = sample_affinities(toy, masks, chunk=10, on_chunk=done.append)
    assert done == [10, 20, 23]
    assert found.values[2:].tolist() == [0.0, 0.0]
    assert found.standard_errors[2:].tolist() == [np.inf, np.inf]
    each, weights = toy.validation_losses(masks), toy.validation_weights
    losses = each @ weights
    for task in (0, 1):
        inside = masks[:, task]
        difference = each[~inside].mean(axis=0) - each[inside].mean(axis=0)
        judged = sum(w**2 * (d - difference @ weights) ** 2 for w, d in zip(weights, difference, strict=True))
        drawn = losses[inside].var() / inside.sum() + losses[~inside].var() / (~inside).sum()
        assert found.values[task] == pytest.approx(difference @ weights)
        assert found.standard_errors[task] == pytest.approx((judged + drawn) ** 0.5)
    whole = sample_affinities(toy, masks)
    np.testing.assert_allclose(whole.values, found.values)
    # A single subset with, or without, the task is enough for a difference.
    once = np.array([[True, False], [False, True], [False, True]])
    assert np.isfinite(sample_affinities(toy_of_two := Toy(np.array([-0.3, 0.2])), once).standard_errors).all()
    assert sample_affinities(toy_of_two, once).values[0] == pytest.approx(0.3 + 0.2)


def test_select_forward_noise_is_standard_error_over_examples() -> None:
    rng = np.random.default_rng(1)
    toy = Toy(np.zeros(2))
    toy.validation_weights = weights = rng.dirichlet(np.ones(10))
    spread = rng.standard_normal((2, 10))
    toy.each = spread - (spread @ weights)[:, None]
    errors = [sum((w * d) ** 2 for w, d in zip(weights, each, strict=True)) ** 0.5 for each in toy.each]
    toy.effects = np.array([-1.02, -0.98]) * errors
    assert select_forward(toy, _problem(2, exclude=frozenset({1}))).mask.tolist() == [True, False]
    assert select_forward(toy, _problem(2, exclude=frozenset({0}))).mask.tolist() == [False, False]
    # Each gain has its own noise, also if both are compared.
    assert select_forward(toy, _problem(2)).steps[0].tasks == (0,)
    # The noise is that of the difference, however far the examples are apart.
    toy.each = np.array([[50.0, -50.0] * 5, [0.0] * 10])
    toy.effects = np.array([0.0, -0.1])
    assert select_forward(toy, _problem(2, include=frozenset({0}))).mask.all()


@pytest.mark.parametrize(("sizes", "limit"), [("tokens", "max_tokens"), ("examples", "max_examples")])
def test_constraints_cost_is_size_and_at_least_one(sizes: str, limit: str) -> None:
    # A gain of a third for one token beats a half for two. A task without tokens costs as much as one.
    toy = Toy(np.array([-0.3, -0.5]))
    for first in (0, 1):
        constraints = _problem(2, **{sizes: np.array([first, 2]), limit: 10})
        assert select_forward(toy, constraints).steps[0].tasks == (0,)
        affinities = Affinities(-toy.effects, np.ones(2))
        assert select_ensemble(toy, constraints, affinities).steps[0].tasks == (0,)


def test_searches_leave_out_a_task_that_helps_early_and_harms_late() -> None:
    # The mean effect of task 1 is a gain of 0.1. Its two parts differ by 0.4.
    early, late = np.array([-0.3, -0.3, 0.2]), np.array([-0.2, 0.1, 0.2])
    toy = Turning(early, late)
    assert select_forward(toy, _problem(3)).mask.tolist() == [True, False, False]
    assert select_forward(toy, _problem(3, threshold=0.05)).mask.tolist() == [True, True, False]
    for method in (select_backward, select_exchange):
        assert method(toy, _problem(3)).mask.tolist() == [True, False, False]
        assert method(toy, _problem(3, threshold=0.05)).mask.tolist() == [True, True, False]

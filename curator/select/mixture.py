"""How much of each task: weights of least estimated loss, in place of a subset.

A task of weight ½ gives half of its examples, one of weight 2 all of them twice. The estimate has a cheap gradient (one
solve for all tasks together), so the weights are found by a bounded quasi-Newton method (L-BFGS-B; Byrd, Lu, Nocedal &
Zhu 1995), from several starts, as the problem is not convex.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curator.core.arrays import Floats, Mask

MOST = 2.0
"""Most that a task may weigh: beyond it, examples are seen so often that they are memorised."""
# Weights below this are nothing: less than an example of most tasks.
_LEAST = 0.02
# How exactly a budget is met, and how often the price of a token is halved for it.
_SLACK, _HALVINGS = 0.01, 30


class WeightedEstimator(Protocol):
    """What a mixture needs of an estimator."""

    @property
    def task_count(self) -> int:
        """Number t of auxiliary tasks."""

    def weighted(self, weights: Floats) -> tuple[float, Floats]:
        """Estimated loss at weights (t,), and its gradient (t,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Weights of the tasks (t,), and the target's estimated loss with them, in nats per target token."""

    weights: Floats
    loss: float


def best_mixture(
    estimator: WeightedEstimator,
    *,
    tokens: Floats,
    allowed: Mask,
    needed: Mask,
    max_tokens: int | None = None,
    start: Mask | None = None,
    on_step: Callable[[float], None] = lambda _: None,
) -> Mixture:
    """Find the weights of least estimated loss.

    Args:
        estimator: Of the target's loss.
        tokens: Tokens of each task (t,).
        allowed: Tasks that may weigh something (t,).
        needed: Tasks that must weigh at least 1 (t,).
        max_tokens: Most tokens of all tasks together, each by its weight.
        start: A subset to start from, beside all and half of the tasks.
        on_step: Told the loss of each step.

    Returns:
        The best that was found; weights too small to matter are 0.
    """
    lowest, highest = needed.astype(np.float64), np.where(allowed | needed, MOST, 0.0)
    best: Mixture | None = None
    for begin in (np.ones(len(tokens)), np.full(len(tokens), 0.5), *([] if start is None else [start.astype(float)])):
        found = _within_budget(estimator, np.clip(begin, lowest, highest), lowest, highest, tokens, max_tokens, on_step)
        if best is None or found.loss < best.loss:
            best = found
    assert best is not None
    return best


def _within_budget(
    estimator: WeightedEstimator,
    begin: Floats,
    lowest: Floats,
    highest: Floats,
    tokens: Floats,
    max_tokens: int | None,
    on_step: Callable[[float], None],
) -> Mixture:
    """The best weights at the lowest price of a token at which they keep within the budget."""

    def at(price: float) -> Mixture:
        return _descend(estimator, begin, lowest, highest, price * tokens, on_step)

    def spent(mixture: Mixture) -> float:
        return float(mixture.weights @ tokens)

    found = at(0.0)
    if max_tokens is None or spent(found) <= max_tokens:
        return found
    low, high = 0.0, 1.0 / max(float(tokens.sum()), 1.0)
    while spent(found := at(high)) > max_tokens and high < 1e6:
        low, high = high, high * 4
    for _ in range(_HALVINGS):
        if spent(found) >= (1 - _SLACK) * max_tokens:
            break
        middle = (low + high) / 2
        tried = at(middle)
        if spent(tried) > max_tokens:
            low = middle
        else:
            high, found = middle, tried
    return found


def _descend(
    estimator: WeightedEstimator,
    begin: Floats,
    lowest: Floats,
    highest: Floats,
    prices: Floats,
    on_step: Callable[[float], None],
) -> Mixture:
    from scipy.optimize import minimize

    def priced(weights: Floats) -> tuple[float, Floats]:
        loss, gradient = estimator.weighted(weights)
        on_step(loss)
        return loss + float(prices @ weights), gradient + prices

    bounds = list(zip(lowest, highest, strict=True))
    weights = minimize(priced, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 100}).x
    weights = np.where((weights < _LEAST) & (lowest == 0), 0.0, weights)
    return Mixture(weights, estimator.weighted(weights)[0])

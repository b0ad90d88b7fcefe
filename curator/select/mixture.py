"""Find weights of the tasks with the lowest estimated loss, instead of a subset.

A task of weight ½ gives half of its examples. A task of weight 2 gives all of them twice.
The gradient of the estimate is cheap: one solve for all tasks together.
A bounded quasi-Newton method finds the weights (L-BFGS-B; Byrd, Lu, Nocedal & Zhu 1995).
It starts from several points, because the problem is not convex.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curator.core.arrays import Floats, Mask

MOST = 2.0
"""Maximum weight of a task. More repetitions of examples would memorise them."""
# Smaller weights become 0. They are less than one example of most tasks.
_LEAST = 0.02
# Relative tolerance of the budget, and maximum number of bisections of the token price.
_SLACK, _HALVINGS = 0.01, 30


class WeightedEstimator(Protocol):
    """Interface that a mixture needs of an estimator."""

    @property
    def task_count(self) -> int:
        """Number t of auxiliary tasks."""

    def weighted(self, weights: Floats) -> tuple[float, Floats]:
        """Return the estimated loss at weights (t,), nats, and its gradient (t,)."""


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
    """Find the weights with the lowest estimated loss.

    Args:
        estimator: Estimates the target's loss.
        tokens: Tokens of each task (t,).
        allowed: Tasks that may have a positive weight (t,).
        needed: Tasks that must have a weight of at least 1 (t,).
        max_tokens: Maximum number of tokens of all tasks, times their weights.
        start: Another subset to start from, in addition to all tasks and to half of each task.
        on_step: Called with the loss of each step.

    Returns:
        The best mixture found. Negligible weights are 0.
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
    """Return the best weights at the lowest token price that keeps the budget."""

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

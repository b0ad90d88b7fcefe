"""What a selection is asked to be, and every method that makes one, by its name."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from curator.core.errors import ConfigError
from curator.data.corpus import Task
from curator.estimate.affinity import Affinities
from curator.estimate.estimator import TargetEstimator
from curator.select import baselines
from curator.select.baseline_inputs import BaselineInputs, baseline_scores, kmm_weights
from curator.select.mixture import best_mixture
from curator.select.search import (
    Constraints,
    Selection,
    Step,
    select_backward,
    select_ensemble,
    select_exchange,
    select_forward,
    select_scored,
)

_SEARCHES = {"forward": select_forward, "backward": select_backward, "exchange": select_exchange}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a selection is asked to be."""

    method: str
    k: int | None = None
    max_tokens: int | None = None
    max_examples: int | None = None
    threshold: float | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """What was asked beside the method, without what was not."""
        return {k: v for k, v in asdict(self).items() if k != "method" and v not in (None, ())}


def constraints_of(request: Request, tasks: Sequence[Task], number_of: Callable[[str], int]) -> Constraints:
    """What is asked for, with tasks by number.

    Args:
        request: What is wanted.
        tasks: The auxiliary tasks.
        number_of: Gives a task's number in `tasks`.

    Raises:
        ConfigError: A name is no auxiliary task, or the pins contradict each other or the budget.
    """
    if request.threshold is not None and not isfinite(request.threshold):
        raise ConfigError(f"threshold {request.threshold}: no finite number", hint="Name a number of nats.")
    both = sorted(set(request.include) & set(request.exclude))
    if both:
        raise ConfigError(f"both included and excluded: {', '.join(both)}", hint="Name a task in one of them.")
    constraints = Constraints(
        tokens=np.array([task.tokens for task in tasks], dtype=np.int64),
        examples=np.array([len(task.split.train) for task in tasks], dtype=np.int64),
        include=frozenset(number_of(name) for name in request.include),
        exclude=frozenset(number_of(name) for name in request.exclude),
        k=request.k,
        max_tokens=request.max_tokens,
        max_examples=request.max_examples,
        threshold=request.threshold,
    )
    if not constraints.allows(constraints.start(full=False)):
        raise ConfigError(
            "the tasks that are included exceed the budget by themselves",
            hint="Raise --k, --max-tokens or --max-examples, or include fewer.",
        )
    return constraints


@dataclass(frozen=True, slots=True, kw_only=True)
class Methods:
    """All methods on the tasks of one target.

    Attributes:
        estimator: Says what a subset comes to.
        affinities: Gives the affinity of every task.
        inputs: What baselines are computed from.
    """

    estimator: TargetEstimator
    affinities: Affinities
    inputs: BaselineInputs

    def select(self, method: str, constraints: Constraints, follow: Callable[[Step], None]) -> Selection:
        """Select by a method.

        Args:
            method: Its name; `curator select --method` lists them.
            constraints: What is asked for.
            follow: Told of each step.

        Raises:
            ConfigError: The method knows no such budget, or the estimator no weights.
        """
        if method == "mixture":
            return self._mixture(constraints)
        if method == "ensemble":
            return select_ensemble(self.estimator, constraints, self.affinities, follow)
        if method in baselines.NAMES:
            return self._baseline(method, constraints, follow)
        return _SEARCHES[method](self.estimator, constraints, follow)

    def _baseline(self, method: str, constraints: Constraints, follow: Callable[[Step], None]) -> Selection:
        scores = baseline_scores(method, self.inputs, constraints.start(full=True))
        found = select_scored(self.estimator, constraints, scores, follow)
        if method != "kmm":
            return found
        weights = kmm_weights(self.inputs, found.mask)
        # The logistic estimator knows no weights: its estimate is that of the tasks without.
        quadratic = self.inputs.workspace.config.estimate.method == "quadratic"
        return replace(found, weights=weights, loss=self.estimator.weighted(weights)[0] if quadratic else found.loss)

    def _mixture(self, constraints: Constraints) -> Selection:
        if constraints.k is not None or constraints.max_examples is not None or constraints.threshold is not None:
            raise ConfigError(
                "a mixture has a budget of tokens only", hint="Use --max-tokens in place of --k and the like."
            )
        found = best_mixture(
            self.estimator,
            tokens=constraints.tokens.astype(np.float64),
            allowed=constraints.start(full=True),
            needed=constraints.start(full=False),
            max_tokens=constraints.max_tokens,
            start=select_forward(self.estimator, constraints).mask,
        )
        return Selection(found.weights > 0, found.loss, weights=found.weights)

"""Selection methods by name, and the request that they answer."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from curator.core.errors import ConfigError
from curator.data.corpus import Corpus, Task
from curator.data.dropped import NOTHING, Dropped
from curator.estimate.affinity import Affinities
from curator.estimate.loss_estimator import LossEstimator
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
    """Method and constraints that a selection is asked for."""

    method: str
    k: int | None = None
    max_tokens: int | None = None
    max_examples: int | None = None
    threshold: float | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    dropped: Dropped = NOTHING
    """Examples that the selection does not train on."""
    per_example: bool = False
    """Whether to choose examples inside tasks. `max_tokens` is then set."""

    def options(self) -> dict[str, Any]:
        """Return the constraints that are set. The dropped examples are not among them."""
        return {k: v for k, v in asdict(self).items() if k not in ("method", "dropped") and v not in (None, (), False)}

    def inputs(self) -> dict[str, Any]:
        """Return the request as inputs of a selection. Dropped examples decide the estimates, and are inputs there."""
        found = {k: v for k, v in asdict(self).items() if k not in ("dropped", "per_example")}
        return found | ({"per_example": True} if self.per_example else {})


def check_request(request: Request, estimator: str) -> None:
    """Check the parts of a request that need no data.

    Args:
        request: The request.
        estimator: Name of the configured estimator.

    Raises:
        ConfigError: Options contradict each other, or the method or estimator does not support an option.
    """
    if request.threshold is not None and not isfinite(request.threshold):
        raise ConfigError(f"threshold is not finite: {request.threshold}", hint="Set a finite number of nats.")
    both = sorted(set(request.include) & set(request.exclude))
    if both:
        raise ConfigError(f"tasks both included and excluded: {', '.join(both)}", hint="Name each task only once.")
    if request.per_example and request.dropped:
        raise ConfigError("cannot combine --per-example and --drop-examples", hint="Use one of them.")
    if request.per_example and request.max_tokens is None:
        raise ConfigError("--per-example needs a budget", hint="Add --max-tokens N.")
    if request.method != "mixture":
        return
    if request.k is not None or request.max_examples is not None or request.threshold is not None:
        raise ConfigError(
            "mixture supports a budget of tokens only",
            hint="Use --max-tokens instead of --k, --max-examples or --threshold.",
        )
    if estimator == "logistic":
        raise ConfigError(
            "mixture weights need the trajectory or the quadratic estimator",
            hint='Set method = "trajectory" under [estimate].',
        )


def constraints_of(request: Request, tasks: Sequence[Task], number_of: Callable[[str], int]) -> Constraints:
    """Convert a request to constraints, with tasks by number.

    Args:
        request: The request.
        tasks: The auxiliary tasks.
        number_of: Returns a task's number in `tasks`.

    Raises:
        ConfigError: A name is not an auxiliary task, or included tasks exceed the budget.
    """
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
            "included tasks exceed the budget",
            hint="Raise --k, --max-tokens or --max-examples, or include fewer tasks.",
        )
    return constraints


def check_budget(request: Request, corpus: Corpus) -> None:
    """Check the constraints of a request against the sizes of the tasks, before any stage runs.

    Raises:
        ConfigError: Included tasks exceed the budget.
    """
    names = [task.name for task in corpus.auxiliary]
    constraints_of(request, corpus.auxiliary, names.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Methods:
    """All selection methods on the tasks of one target.

    Attributes:
        estimator: Estimates the loss of a subset.
        affinities: Affinity of every task.
        inputs: Inputs of the baselines.
    """

    estimator: LossEstimator
    affinities: Affinities
    inputs: BaselineInputs

    def select(self, method: str, constraints: Constraints, follow: Callable[[Step], None]) -> Selection:
        """Select by a method.

        Args:
            method: Name of the method. `curator select --method` lists the names.
            constraints: Constraints of the selection.
            follow: Called with each step.

        Raises:
            ConfigError: The method does not support a constraint, or the estimator does not support weights.
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
        # The logistic estimator has no weights, so its estimate is that of the unweighted tasks.
        has_weights = self.inputs.workspace.config.estimate.method != "logistic"
        return replace(found, weights=weights, loss=self.estimator.weighted(weights)[0] if has_weights else found.loss)

    def _mixture(self, constraints: Constraints) -> Selection:
        found = best_mixture(
            self.estimator,
            tokens=constraints.tokens.astype(np.float64),
            allowed=constraints.start(full=True),
            needed=constraints.start(full=False),
            max_tokens=constraints.max_tokens,
            start=select_forward(self.estimator, constraints).mask,
        )
        return Selection(found.weights > 0, found.loss, weights=found.weights)

"""Choose a subset by fine-tuning on few promising ones: each run decides which run follows.

Candidates are the selections of several methods, all tasks and the target alone. Measured subsets, subsets near the
leader and random subsets join them. The joint posterior (posterior.py) gives how much a run on each is expected to
improve the leader. The candidate with the highest gain gets the next run. A configured metric replaces the loss in this
choice once enough subsets have a value (race_goal.py).
Then the calibration and the methods' selections are made again.

The plan of a race is stored before each run. A killed race resumes its last run, and repeats none.
"""

from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from curator import results
from curator.core.arrays import Floats, Mask
from curator.core.errors import CuratorError, NumericalError
from curator.core.metric_name import LOSS
from curator.core.provenance import Inputs, key_of
from curator.data.corpus import Corpus
from curator.metrics.measuring import Measurer
from curator.results.base import rounded
from curator.select.baselines import NAMES
from curator.select.considered import neighbours, random_subsets, unit_of
from curator.select.methods import Request, constraints_of
from curator.select.posterior import gains_of_next_run, joint_posterior, probabilities_best
from curator.select.search import Constraints
from curator.select.selections import Selections
from curator.training.fine_tune import diverged_runs, measured_subsets, measurement_inputs, recipe_key
from curator.verify.measure import Run, run_seeds
from curator.verify.race_goal import MetricGoal, metric_goal
from curator.workspace.workspace import Workspace

# Increase when the same runs give other choices.
_VERSION = 2
SURE = 0.9
"""A race ends before its last run if one candidate is the best with this probability."""
_SEARCHES = ("forward", "backward", "exchange", "ensemble")
_RANDOM, _NEAR, _DRAWS = 64, 32, 2000
# Most runs on one subset.
_MOST_SEEDS = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """Subsets that compete in a race.

    Attributes:
        masks: All subsets (s, t). Each occurs once.
        named: Which subsets (s,) a method selects, or a run measured. The probability of the best is among these.
    """

    masks: Mask
    named: Mask


@dataclass(frozen=True, slots=True)
class Standing:
    """State of a race after some runs.

    Attributes:
        winner: Row of the leader: the lowest posterior mean of the measured subsets. Without a run, of all subsets.
        runner_up: Row of the candidate that is the best most often, apart from the leader. None with one candidate.
        probability_best: Probability that the leader has the lowest loss of the named subsets.
        gains: How much a run on each subset is expected to lower the leader's mean (s,), nats. Another subset may lead
            after the run.
    """

    winner: int
    runner_up: int | None
    probability_best: float
    gains: Floats


def standing_of(
    field: Field,
    changes: Floats,
    *,
    known: float,
    unit: float,
    rows: Sequence[int],
    losses: Sequence[float],
    seed: int,
) -> Standing:
    """Rank the subsets of a race by the joint posterior.

    Args:
        field: The subsets.
        changes: Estimated change of each subset (s,), uncalibrated, nats.
        known: Loss of all tasks together, nats.
        unit: Spread of the estimated changes, from `spread_of`.
        rows: Row of the subset of each run (n).
        losses: Measured loss of each run (n), nats.
        seed: Seed of the draws.
    """
    found = joint_posterior(field.masks, changes, known=known, unit=unit, rows=rows, losses=losses)
    draws, _ = found.draw(np.random.default_rng([seed, len(rows)]), _DRAWS)
    measured = np.isin(np.arange(len(changes)), rows)
    winner = int(np.where(measured | (not rows), found.mean, np.inf).argmin())
    among = np.flatnonzero(field.named | (np.arange(len(changes)) == winner))
    shares = probabilities_best(draws[:, among])
    others = [(share, -found.mean[row], row) for share, row in zip(shares, among, strict=True) if row != winner]
    return Standing(
        winner=winner,
        runner_up=int(max(others)[2]) if others else None,
        probability_best=float(shares[int(np.flatnonzero(among == winner)[0])]),
        gains=gains_of_next_run(found, measured if rows else np.arange(len(changes)) == winner),
    )


def next_row(standing: Standing, rows: Sequence[int], free: Mask) -> int | None:
    """Return the row of the subset to measure next.

    The first run is on the leader. Later runs are on the subset with the highest gain. If no run gains anything, the
    leader gets another run.

    Args:
        standing: State of the race.
        rows: Row of the subset of each run (n).
        free: Which subsets (s,) may have another run.

    Returns:
        The row, or None if no subset may have another run.
    """
    if not free.any():
        return None
    if not rows and free[standing.winner]:
        return standing.winner
    gains = np.where(free, standing.gains, -1.0)
    best = int(gains.argmax())
    return standing.winner if gains[best] <= 0 and free[standing.winner] else best


def runs_left(workspace: Workspace, corpus: Corpus, request: Request, *, metric: str, most: int) -> int:
    """Return how many runs a race may still make. It may end earlier.

    Args:
        workspace: The project.
        corpus: Examples of the project, split for the targets.
        request: Limits of the selection.
        metric: Name of the metric of the runs.
        most: Maximum number of runs of the race, with those that are done.
    """
    kept = workspace.store.artifact("race", key_of(_inputs(workspace, corpus, request, metric)))
    planned = [] if kept is None else [(frozenset(subset), seed) for subset, seed in kept.outputs["runs"]]
    found = workspace.store.measurements(recipe_key(workspace.config, corpus))
    done = {(m.subset, run.seed) for m in measured_subsets(corpus, found) for run in m.runs}
    done |= diverged_runs(corpus, found)
    return max(most - sum(run in done for run in planned), 0)


def _inputs(workspace: Workspace, corpus: Corpus, request: Request, metric: str) -> Inputs:
    """Return what decides a race."""
    inputs: Inputs = measurement_inputs(workspace.config, corpus) | {
        "tasks": {task.name: task.content for task in corpus.auxiliary},
        "request": asdict(replace(request, method="race")),
        "race": _VERSION,
    }
    return inputs if metric == LOSS else inputs | {"metric": metric}


class Race:
    """A race for one target and one request.

    Args:
        selections: Selections for the target, by estimates that all stored runs calibrate.
        request: Limits of the selection. Its method has no effect.
        fresh: Begin another race. Its runs do not repeat stored runs.
        measurer: Metric of the runs. None races by the loss.
    """

    def __init__(
        self, selections: Selections, request: Request, *, fresh: bool, measurer: Measurer | None = None
    ) -> None:
        self._selections, self._request, self._measurer = selections, request, measurer
        estimates = selections.estimates
        workspace, corpus = estimates.workspace, estimates.corpus
        self._store = workspace.store
        self._inputs = _inputs(workspace, corpus, request, LOSS if measurer is None else measurer.name)
        self._key = key_of(self._inputs)
        kept = None if fresh else self._store.artifact("race", self._key)
        outputs = {} if kept is None else kept.outputs
        self.runs: list[Run] = [(frozenset(subset), seed) for subset, seed in outputs.get("runs", [])]
        self._constraints = constraints_of(request, estimates.tasks, estimates.number_of)
        self._baselines: list[Mask] | None = None

    def renew(self, selections: Selections) -> None:
        """Continue with the selections by estimates that all stored runs calibrate."""
        self._selections = selections

    def number_of(self, run: Run) -> int:
        """Return the number of a run in the race, from 1."""
        return self.runs.index(run) + 1

    def next_run(self, most: int) -> Run | None:
        """Return the next run, and store it in the plan. None if the race is over.

        Args:
            most: Maximum number of runs of this race, with those that are done.
        """
        estimates = self._selections.estimates
        done = {(m.subset, run.seed) for m in estimates.measured for run in m.runs} | estimates.diverged
        left = [run for run in self.runs[:most] if run not in done]
        if left:
            return left[0]
        if len(self.runs) >= most:
            return None
        field, changes = self._field()
        standing, rows = self._standing(field, changes)
        if len(set(rows)) > 1 and standing.probability_best >= SURE:
            return None
        names = np.array([task.name for task in estimates.tasks], dtype=object)
        subsets = [frozenset(names[mask].tolist()) for mask in field.masks]
        seeds = [
            next((s for s in run_seeds(estimates.workspace.config, _MOST_SEEDS) if (subset, s) not in done), None)
            for subset in subsets
        ]
        # The same recipe would diverge again, most likely with every seed.
        bad = {subset for subset, _ in estimates.diverged}
        free = [seed is not None and subset not in bad for subset, seed in zip(subsets, seeds, strict=True)]
        row = next_row(standing, rows, np.array(free))
        if row is None:
            return None
        seed = seeds[row]
        assert seed is not None
        self.runs.append((subsets[row], seed))
        outputs = {"runs": [[sorted(subset), seed] for subset, seed in self.runs]}
        self._store.put_artifact("race", self._key, self._inputs, outputs)
        return self.runs[-1]

    def result(self) -> tuple[results.RaceResult, Mask]:
        """Return the result of the race, and the winner's membership (t,).

        Raises:
            NumericalError: Every run diverged.
        """
        estimates = self._selections.estimates
        field, changes = self._field()
        standing, rows = self._standing(field, changes)
        if not rows:
            raise NumericalError("every fine-tuning run diverged", hint="Lower train.learning_rate.")
        goal = metric_goal(estimates, self._measurer)
        names = np.array([task.name for task in estimates.tasks], dtype=object)

        def subset(row: int) -> frozenset[str]:
            return frozenset(names[field.masks[row]].tolist())

        measured = {m.subset: m.mean for m in estimates.measured}
        own = {subset(row) for row in rows}
        winner = subset(standing.winner)
        runner_up = None if standing.runner_up is None else tuple(sorted(subset(standing.runner_up)))
        found = results.RaceResult(
            runs=len(self.runs),
            winner=tuple(sorted(winner)),
            runner_up=runner_up,
            probability_best=round(standing.probability_best, 3),
            regret=rounded(measured[winner] - min(measured[one] for one in own)),
            measured_loss=rounded(measured[winner]),
            **({} if goal is None else _metric_fields(goal, winner, own)),
        )
        return found, field.masks[standing.winner]

    def _standing(self, field: Field, changes: Floats) -> tuple[Standing, list[int]]:
        """Return the state of the race by its goal, and the row of the subset of each run that counts."""
        estimates = self._selections.estimates
        goal, seed = metric_goal(estimates, self._measurer), estimates.workspace.config.select.seed
        known, unit = estimates.estimator.all_tasks_loss, unit_of(estimates)
        if goal is None:
            values = [(m.subset, run.loss) for m in estimates.measured for run in m.runs]
        else:
            known, unit, changes = goal.known, goal.unit(unit), goal.slope * changes
            pairs = zip(goal.measured, goal.values, strict=True)
            values = [(m.subset, goal.sign * value) for m, own in pairs for value in own]
        places = {mask.tobytes(): row for row, mask in enumerate(field.masks)}
        found = [(places[key], value) for s, value in values if (key := estimates.mask(s).tobytes()) in places]
        rows, losses = [row for row, _ in found], [value for _, value in found]
        standing = standing_of(field, changes, known=known, unit=unit, rows=rows, losses=losses, seed=seed)
        return standing, rows

    def _field(self) -> tuple[Field, Floats]:
        """Return the subsets that compete now, and the uncalibrated change of each (s,), nats."""
        selections, limits = self._selections, self._constraints
        estimates, seed = selections.estimates, selections.estimates.workspace.config.select.seed
        measured = [mask for m in estimates.measured if _allowed(mask := estimates.mask(m.subset), limits)]
        chosen = self._choices(selections, _SEARCHES)
        if self._baselines is None:
            # Baselines do not depend on the runs.
            self._baselines = self._choices(selections, [name for name in NAMES if name != "random"])
        whole = [mask for full in (True, False) if _allowed(mask := limits.start(full=full), limits)]
        named = [*chosen, *self._baselines, *whole, *measured]
        leaders = measured or chosen or whole
        means = estimates.estimator.validation_losses(np.stack(leaders)) @ estimates.estimator.validation_weights
        near = neighbours(leaders[int(means.argmin())], count=_NEAR, seed=seed, constraints=limits)
        others = random_subsets(len(estimates.tasks), count=_RANDOM, seed=seed, constraints=limits)
        order: dict[bytes, Mask] = {mask.tobytes(): mask for mask in [*named, *near, *others]}
        masks = np.stack(list(order.values()))
        keys = {mask.tobytes() for mask in named}
        field = Field(masks=masks, named=np.array([key in keys for key in order]))
        return field, estimates.estimator.changes(masks).mean(axis=1)

    def _choices(self, selections: Selections, methods: Sequence[str]) -> list[Mask]:
        """Return the selections of methods (t,). Leave out a method that does not suit the project or the limits."""
        found = []
        for method in methods:
            try:
                names = selections.choose(replace(self._request, method=method, threshold=None))
            except CuratorError:
                continue
            mask = selections.estimates.mask(names)
            if _allowed(mask, self._constraints):
                found.append(mask)
        return found


def _allowed(mask: Mask, limits: Constraints) -> bool:
    """Return whether a subset (t,) keeps the limits and the pins."""
    pinned = (mask & limits.start(full=True)) | limits.start(full=False)
    return bool((pinned == mask).all()) and limits.allows(mask)


def _metric_fields(goal: MetricGoal, winner: frozenset[str], own: Set[frozenset[str]]) -> dict[str, Any]:
    """Return the fields of a result that a metric decides. `own` holds the measured subsets of the race."""
    means = {subset: value for subset, value in goal.means().items() if subset in own}
    best = min(means.values(), key=lambda value: goal.sign * value)
    return {
        "metric": goal.name,
        "measured_metric": rounded(means[winner]),
        "metric_regret": rounded(abs(best - means[winner])),
    }

"""Small estimators with random gradients, for tests of the mathematics."""

from dataclasses import dataclass

import numpy as np

from curator.estimate.estimator import CheckpointSums, ExampleSet, TargetEstimator
from curator.estimate.task_sums import TaskSums

K, TASKS = 6, 4
FINAL = np.linspace(0.5, 1.5, 8)


@dataclass(frozen=True)
class Examples:
    """All examples of one checkpoint, for its sums."""

    share: float
    tasks: list[ExampleSet]
    target: ExampleSet
    validation: ExampleSet


def sums_of(e: Examples) -> CheckpointSums:
    sets = [*e.tasks, e.target]
    return CheckpointSums(
        share=e.share,
        sums=TaskSums.of(sets),
        validation=e.validation,
        read=lambda tasks: [sets[t] for t in tasks],
    )


def make_estimator(
    points: list[Examples], ridges: list[float], *, method: str = "quadratic", final: np.ndarray = FINAL
) -> TargetEstimator:
    return TargetEstimator([sums_of(p) for p in points], final, ridges, method=method)


def draw_examples(rng: np.random.Generator, n: int, *, validation: bool = False) -> ExampleSet:
    return ExampleSet(
        losses=rng.uniform(0.05, 3, n),
        gradients=rng.standard_normal((n, K)) + 0.3,
        weights=np.full(n, 1 / n) if validation else rng.integers(1, 6, n).astype(float),
    )


def draw_checkpoints(seed: int = 0, count: int = 2, sizes: tuple[int, ...] = (5, 9, 1, 7)) -> list[Examples]:
    """Draw checkpoints that share their weights, as checkpoints of one project do."""
    points: list[Examples] = []
    for number in range(count):
        rng = np.random.default_rng(seed + 100 * number)
        made = [draw_examples(rng, n) for n in sizes], draw_examples(rng, 6), draw_examples(rng, 8, validation=True)
        if points:
            first = points[0]
            made = (
                [_reweighted(m, f) for m, f in zip(made[0], first.tasks, strict=True)],
                _reweighted(made[1], first.target),
                made[2],
            )
        points.append(Examples(share=(number + 1) / count, tasks=made[0], target=made[1], validation=made[2]))
    return points


def _reweighted(examples: ExampleSet, like: ExampleSet) -> ExampleSet:
    return ExampleSet(losses=examples.losses, gradients=examples.gradients, weights=like.weights)


def all_masks() -> np.ndarray:
    return np.array([[bool(n >> t & 1) for t in range(TASKS)] for n in range(2**TASKS)])

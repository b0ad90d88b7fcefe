"""Small trajectories with random gradients, for tests of the mathematics."""

from dataclasses import dataclass, replace

import numpy as np

from curator.estimate.task_sums import ExampleSet
from curator.estimate.trajectory import Segment, Trajectory, TrajectoryEstimator, example_sums

K, RANK, TASKS, VALIDATION = 12, 5, 4, 8
FINAL = np.linspace(0.5, 1.5, VALIDATION)


@dataclass(frozen=True)
class Recorded:
    """All examples of one segment, for its sums: those of each auxiliary task, then of the target."""

    share: float
    step: float
    sets: list[ExampleSet]
    validation: ExampleSet
    moved: np.ndarray


def segment_of(recorded: Recorded, basis: np.ndarray) -> Segment:
    sums = [example_sums(examples, basis) for examples in recorded.sets]
    return Segment(
        share=recorded.share,
        step=recorded.step,
        weights=np.array([examples.weights.sum() for examples in recorded.sets]),
        examples=np.array([len(examples.weights) for examples in recorded.sets]),
        gradient_sums=np.array([of.gradient_sum for of in sums]),
        curvatures=np.array([of.curvature for of in sums]),
        rest=np.array([of.rest for of in sums]),
        validation=recorded.validation,
        moved=recorded.moved,
        read=lambda tasks: [recorded.sets[task] for task in tasks],
    )


def trajectory_of(recorded: list[Recorded], basis: np.ndarray) -> Trajectory:
    return Trajectory(basis, [segment_of(segment, basis) for segment in recorded])


def draw_basis(dim: int = K, rank: int = RANK, seed: int = 9) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, rank)))[0]


def draw_recorded(
    sizes: tuple[int, ...] = (5, 9, 1, 7, 6), *, segments: int = 3, dim: int = K, validation: int = VALIDATION,
    seed: int = 0,
) -> list[Recorded]:  # fmt: skip
    """Draw segments whose examples keep their weights, and whose recorded movement is a third of the predicted one."""
    rng = np.random.default_rng(seed)
    weights = [rng.integers(1, 6, size).astype(float) for size in sizes]
    found, before = [], np.zeros(dim)
    for number in range(segments):
        step = 0.01 * (number + 1)
        sets = [
            ExampleSet(losses=np.ones(len(w)), gradients=0.5 * rng.standard_normal((len(w), dim)) + 0.1, weights=w)
            for w in weights
        ]
        own = -step * np.asarray(sum(s.weights @ s.gradients for s in sets))
        held_out = ExampleSet(
            losses=rng.uniform(0.05, 3, validation),
            gradients=rng.standard_normal((validation, dim)),
            weights=np.full(validation, 1 / validation),
        )
        found.append(Recorded((number + 1) / segments, step, sets, held_out, (before + own) / 6))
        before = own
    return found


def make_trajectory_estimator(
    recorded: list[Recorded] | None = None, basis: np.ndarray | None = None, trained: np.ndarray | None = None
) -> TrajectoryEstimator:
    recorded = draw_recorded() if recorded is None else recorded
    drawn = trajectory_of(recorded, draw_basis() if basis is None else basis)
    return TrajectoryEstimator(replace(drawn, trained=trained), FINAL)


def all_masks(tasks: int = TASKS) -> np.ndarray:
    return np.array([[bool(n >> t & 1) for t in range(tasks)] for n in range(2**tasks)])

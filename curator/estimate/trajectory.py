"""Placeholder of the interface until the module arrives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from curator.core.arrays import Floats
from curator.estimate.task_sums import ExampleSet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    share: float
    step: float
    weights: Floats
    examples: Any
    gradient_sums: Any
    curvatures: Any
    rest: Floats
    validation: ExampleSet
    read: Callable[[Sequence[int]], list[ExampleSet]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    basis: Floats
    segments: list[Segment]
    moved: Floats
    trained: list[int]


class TrajectoryEstimator: ...

"""Reports of the stages: train, gradients, status."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from curator.results.base import Report
from curator.results.display import Shown

StageState = Literal["done", "stale", "partial", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport(Report, Shown):
    """A meta-initialization."""

    _table: ClassVar[str] = "points"

    key: str
    points: tuple[dict[str, Any], ...]
    """Share of the steps, step and folder of each snapshot."""
    examples: int
    trainable_parameters: int
    unseen: tuple[str, ...]
    """Tasks that were added since, which it has not seen."""
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientsReport(Report, Shown):
    """Projected gradients in the store."""

    examples: int
    points: int
    projection_dim: int
    computed: int
    """Gradients that this call computed; the others were there."""
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """Where one stage stands."""

    stage: str
    state: StageState
    detail: str
    """What is there."""
    reasons: tuple[str, ...] = ()
    """Why it is stale, and what it has not seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport(Report, Shown):
    """Where a project stands."""

    _table: ClassVar[str] = "stages"

    project: str
    stages: tuple[StageStatus, ...]
    runs: tuple[dict[str, Any], ...] = field(default=())
    selections: tuple[dict[str, Any], ...] = field(default=())

"""Reports of `train`, `gradients` and `status`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from curator.results.base import Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Expected cost of one stage."""

    stage: str
    steps: int
    """Optimizer steps of a stage that trains, else units that the stage counts. 0 if cached or unknown."""
    tokens: int
    """Tokens that pass through the model."""
    seconds: float
    """Expected time on this machine."""
    peak_bytes: int
    """Expected memory: of the GPU if the model runs on one, else of the process. 0 if cached."""
    cached: bool
    exact: bool = True
    """Whether steps and tokens are known. Otherwise they are expected values."""
    workers: int = 1
    """Largest number of workers that can share the stage, each with one GPU or one processor. 0 if cached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport(Report, Shown):
    """Expected costs of a verb, in the order of its stages."""

    _table: ClassVar[str] = "stages"
    _document: ClassVar[tuple[str, ...]] = ("stages", "seconds", "peak_bytes", "workers", "folder", "machine")

    stages: tuple[StageCost, ...]
    folder: Path
    """Folder of the results."""
    machine: str
    """Name of the machine that the times are expected on."""

    @property
    def seconds(self) -> float:
        """Expected time of all stages."""
        return round(sum(stage.seconds for stage in self.stages), 3)

    @property
    def peak_bytes(self) -> int:
        """Expected memory of the stage that needs the most. Each worker needs as much."""
        return max((stage.peak_bytes for stage in self.stages), default=0)

    @property
    def workers(self) -> int:
        """Largest number of workers that a stage can use."""
        return max((stage.workers for stage in self.stages), default=0)


StageState = Literal["done", "running", "stale", "partial", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport(Report, Shown):
    """A meta-initialization."""

    _table: ClassVar[str] = "points"

    key: str
    points: tuple[dict[str, Any], ...]
    """Share of the steps, step and folder of each saved adapter."""
    examples: int
    trainable_parameters: int
    unseen: tuple[str, ...]
    """Tasks that were added after meta-training."""
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientsReport(Report, Shown):
    """Number of projected gradients in the store."""

    examples: int
    points: int
    """Number of segments of the trajectory, or of checkpoints of the other estimators."""
    projection_dim: int
    computed: int
    """Gradients that this call computed in passes of its own. The other gradients were captured or cached."""
    cached: bool
    captured: bool = False
    """Whether meta-training captured the gradients of its examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """State of one stage."""

    stage: str
    state: StageState
    detail: str
    """Summary of the stage's output."""
    reasons: tuple[str, ...] = ()
    """Reasons why the stage is stale, and tasks that are not part of it."""
    progress: float | None = None
    """Finished share of a running stage. None if the stage does not run, or its size is unknown."""
    seconds_left: float | None = None
    """Expected time until a running stage ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport(Report, Shown):
    """State of a project: stages, last jobs and selections."""

    _table: ClassVar[str] = "stages"

    project: str
    stages: tuple[StageStatus, ...]
    runs: tuple[dict[str, Any], ...] = field(default=())
    selections: tuple[dict[str, Any], ...] = field(default=())

"""What the verbs of a `Project` return: frozen values, each with the JSON document that `--json` prints."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from curator.frames import Shown, plain

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

SCHEMA_VERSION = 1

StageState = Literal["done", "stale", "partial", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTask:
    """One task as `curator check` shows it."""

    name: str
    target: bool
    rows: int
    """Rows read."""
    examples: int
    """Examples that are trained on."""
    validation: int
    """Examples that are held out."""
    tokens: int
    """Tokens of the training examples."""
    longest: int
    """Tokens of the longest training example."""
    truncated: int
    left_out: dict[str, int]
    """Rows that are not trained on, by reason."""
    formats: dict[str, int]
    """Rows by the format they were recognised in, the most frequent first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Two tasks of which the smaller one is largely in the other."""

    task: str
    other: str
    share: float
    """Of the task's examples, those that are nearly the same in the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport(Shown):
    """What a project's data look like."""

    _table: ClassVar[str] = "tasks"

    project: str
    target: tuple[str, ...]
    model: str
    tasks: tuple[CheckedTask, ...]
    problems: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    near_duplicates: tuple[tuple[str, int, str, int], ...]
    """(task, row, other task, row) of examples that are nearly the same, rows counted from 1; the first thousand."""

    def to_json(self) -> dict[str, Any]:
        """As `curator check --json` prints it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "target": one_or_list(self.target)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport(Shown):
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

    def to_json(self) -> dict[str, Any]:
        """As `curator train --json` prints it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientsReport(Shown):
    """Projected gradients in the store."""

    examples: int
    points: int
    projection_dim: int
    computed: int
    """Gradients that this call computed; the others were there."""
    cached: bool

    def to_json(self) -> dict[str, Any]:
        """As `curator gradients --json` prints it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateResult(Shown):
    """Estimated target loss of one subset, in nats per target token, with a 90 % interval."""

    subset: tuple[str, ...]
    estimated_loss: float
    estimated_loss_low: float
    estimated_loss_high: float
    measured_loss: float | None
    """Mean over the seeds with which the subset was really fine-tuned on; None where it was not."""
    as_good_as_best: bool
    """Whether it cannot be told apart from the best of the subsets asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatesReport(Shown):
    """Estimates of several subsets."""

    _table: ClassVar[str] = "estimates"

    target: tuple[str, ...]
    calibrated_on: int
    """Subsets that were really fine-tuned on and correct the estimates; 0: they are not calibrated."""
    estimates: tuple[EstimateResult, ...]
    ridge: tuple[float, ...]
    """Ridge at each point of meta-training."""

    def to_json(self) -> dict[str, Any]:
        """As `curator estimate --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target": one_or_list(self.target),
            "calibrated": self.calibrated_on > 0,
            "estimates": [asdict(estimate) | {"subset": list(estimate.subset)} for estimate in self.estimates],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedTask:
    """One auxiliary task and what the selection made of it."""

    name: str
    examples: int
    tokens: int
    affinity: float
    affinity_standard_error: float | None
    """None where the task was in all or in none of the sampled subsets."""
    selected: bool
    weight: float
    """How much it counts where it is selected: 0.5 for half of its examples, 2 for all of them twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionResult(Shown):
    """A selection."""

    _table: ClassVar[str] = "tasks"

    project: str
    name: str
    target: tuple[str, ...]
    method: str
    tasks: tuple[SelectedTask, ...]
    estimated_loss: float
    estimated_loss_low: float
    estimated_loss_high: float
    calibrated: bool
    measured_loss: float | None
    """After really fine-tuning on the selection, if that was done."""
    reference: dict[str, float]
    """Estimated loss of `all_tasks` and `target_only`."""
    indistinguishable: tuple[str, ...]
    """Which of these the selection cannot be told apart from."""
    steps: tuple[dict[str, Any], ...]
    manifest: Path | None
    cached: bool

    @property
    def selected(self) -> list[str]:
        """Names of the selected tasks."""
        return [task.name for task in self.tasks if task.selected]

    @property
    def excluded(self) -> list[str]:
        """Names of the others."""
        return [task.name for task in self.tasks if not task.selected]

    def to_json(self) -> dict[str, Any]:
        """As `curator select --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "project": self.project,
            "name": self.name,
            "target": one_or_list(self.target),
            "method": self.method,
            "selected": self.selected,
            "excluded": self.excluded,
            "estimated_loss": self.estimated_loss,
            "estimated_loss_low": self.estimated_loss_low,
            "estimated_loss_high": self.estimated_loss_high,
            "calibrated": self.calibrated,
            "measured_loss": self.measured_loss,
            "reference": self.reference,
            "indistinguishable": list(self.indistinguishable),
            "tasks": [asdict(task) for task in self.tasks],
            "steps": list(self.steps),
            "manifest": None if self.manifest is None else str(self.manifest),
            "cached": self.cached,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRun:
    """One fine-tuning run, and what a calibration that has not seen its subset estimates of it."""

    subset: tuple[str, ...]
    seed: int
    estimated_loss: float
    estimated_loss_low: float
    estimated_loss_high: float
    measured_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSubset:
    """One measured subset, over all its runs."""

    subset: tuple[str, ...]
    estimated_loss: float
    estimated_loss_low: float
    estimated_loss_high: float
    measured_loss: float
    """Mean over its seeds."""
    lowest_measured: float
    highest_measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMethod:
    """What one method selected within the tokens of the current selection, and what came of fine-tuning on that."""

    method: str
    selected: tuple[str, ...]
    tokens: int
    """Training tokens of the selected tasks."""
    tokens_left: int | None
    """What the budget has left; None where there was none, because the current selection is empty."""
    estimated_loss: float
    """By a calibration that has not seen this subset."""
    measured_losses: tuple[float, ...]
    """Of each seed."""
    measured_loss: float
    as_good_as_best: bool | None
    """Whether its measured loss is above the lowest by no more than seeds alone may do; None with one seed each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport(Shown):
    """How far the estimates of a target may be trusted.

    A subset's measured loss is the mean over its seeds; its estimate is that of a calibration on all other subsets.
    """

    _table: ClassVar[str] = "runs"

    target: tuple[str, ...]
    calibrated: bool
    """False with too few subsets: then the estimates are as they are without any run."""
    runs: tuple[VerifiedRun, ...]
    subsets: int
    """Different subsets that were measured."""
    relative_error: float
    """Mean of |estimated − measured| / measured."""
    constant_relative_error: float
    """The same of always answering the mean measured loss."""
    seed_noise: float | None
    """Standard deviation between seeds of one subset, relative to the loss; None with one seed each."""
    spearman: float | None
    """None where nothing varies."""
    interval_coverage: float
    """Share of the subsets whose measured loss is in their interval."""
    seconds_estimating: float | None
    """Time of meta-training, gradients and estimates; None where an older curator made them."""
    seconds_fine_tuning: float
    """Time of all runs here."""
    subsets_estimated: int
    speedup: float | None
    """Time to fine-tune on as many subsets as were estimated, over the time of estimating them."""
    speedup_100: float | None
    """The same for 100 subsets."""
    comparison: tuple[ComparedMethod, ...] | None = None
    """The methods side by side, the current selection's first; None where nobody asked."""

    def points(self) -> list[VerifiedSubset]:
        """The subsets, in the order of their first runs."""
        runs: dict[tuple[str, ...], list[VerifiedRun]] = {}
        for run in self.runs:
            runs.setdefault(run.subset, []).append(run)
        return [
            VerifiedSubset(
                subset=subset,
                estimated_loss=of[0].estimated_loss,
                estimated_loss_low=of[0].estimated_loss_low,
                estimated_loss_high=of[0].estimated_loss_high,
                measured_loss=sum(run.measured_loss for run in of) / len(of),
                lowest_measured=min(run.measured_loss for run in of),
                highest_measured=max(run.measured_loss for run in of),
            )
            for subset, of in runs.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """As `curator verify --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "target": one_or_list(self.target),
            "runs": [asdict(run) | {"subset": list(run.subset)} for run in self.runs],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleInfluence:
    """What one training example does to the target's estimated loss."""

    row: int
    """Number of the row in its task, from 1."""
    file: str
    line: int
    """Line in the file, from 1; 0 where rows are not lines."""
    gain: float
    """Nats by which it lowers the target's loss, to first order around the current selection; < 0 where it harms."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplesReport(Shown):
    """The examples of a task, by what they do to the target's estimated loss."""

    _table: ClassVar[str] = "examples"

    task: str
    target: tuple[str, ...]
    selection: tuple[str, ...]
    """The tasks around which influence is taken."""
    calibrated_on: int
    examples: tuple[ExampleInfluence, ...]
    """Of most help first."""

    def to_json(self) -> dict[str, Any]:
        """As `curator examples --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "target": one_or_list(self.target),
            "calibrated": self.calibrated_on > 0,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPoint:
    """One subset of a budget curve."""

    subset: tuple[str, ...]
    tokens: int
    """Training tokens of its tasks, without the target's."""
    estimated_loss: float
    estimated_loss_low: float
    estimated_loss_high: float
    measured_loss: float | None
    on_front: bool
    """Whether no other subset of the curve is estimated lower at no more tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveReport(Shown):
    """What a budget of training tokens buys."""

    _table: ClassVar[str] = "points"

    target: tuple[str, ...]
    calibrated_on: int
    """Subsets that were really fine-tuned on and correct the estimates; 0: they are not calibrated."""
    points: tuple[BudgetPoint, ...]
    """By tokens."""

    @property
    def front(self) -> list[BudgetPoint]:
        """The subsets that no other one beats: each costs more than the one before, and is estimated lower."""
        return [point for point in self.points if point.on_front]

    def to_json(self) -> dict[str, Any]:
        """As `curator curve --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target": one_or_list(self.target),
            "calibrated": self.calibrated_on > 0,
            "points": [asdict(point) | {"subset": list(point.subset)} for point in self.points],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTask:
    """One task of an export."""

    name: str
    target: bool
    file: str
    """Where its rows are, in the export's folder; empty where its weight leaves none."""
    rows: int
    """Rows that are trained on in an epoch."""
    rows_in_file: int
    """Not the same where the trainer takes `rows` of them by itself."""
    tokens: int
    """Of the rows that are trained on, prompt and completion."""
    tokens_are_exact: bool
    """Whether they were counted; else they are scaled from those of the whole task."""
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport(Shown):
    """What an export writes."""

    _table: ClassVar[str] = "tasks"

    format: str
    folder: Path
    tasks: tuple[ExportedTask, ...]
    """The targets first."""
    form: str
    """How rows are written; empty where that is not decided yet."""
    rows_differing: int | None
    """Rows of which the trainer makes other tokens or another loss than curator; None where nobody can know."""
    configs: tuple[str, ...]
    """Files beside the data and the manifest."""
    command: str
    """What trains on it, from within the folder."""
    notes: tuple[str, ...]

    @property
    def files(self) -> tuple[tuple[str, int], ...]:
        """Name and rows of each data file."""
        return tuple((task.file, task.rows_in_file) for task in self.tasks if task.file)

    def to_json(self) -> dict[str, Any]:
        """As `curator export --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "folder": str(self.folder),
            "files": [{"name": name, "rows": rows} for name, rows in self.files],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTask:
    """One task that was trained on."""

    name: str
    target: bool
    weight: float
    """How often each of its examples was trained on."""
    examples: int
    """Examples that were trained on, each as often as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport(Shown):
    """An adapter: the base model fine-tuned on a selection, and what came of it."""

    _table: ClassVar[str] = "tasks"

    name: str
    """The selection's."""
    target: tuple[str, ...]
    method: str
    seed: int
    estimated_loss: float
    estimated_loss_low: float
    estimated_loss_high: float
    measured_loss: float
    """Of this very adapter, on the target's validation examples."""
    seconds: float
    """Time that training took."""
    base_model: str
    """What the adapter goes on: a folder, or a hub id."""
    adapter: Path
    """Folder that `PeftModel.from_pretrained` reads."""
    manifest: Path | None
    """File that the measured loss was written into; None where there is none but the adapter's own."""
    tasks: tuple[AppliedTask, ...]
    cached: bool

    def to_json(self) -> dict[str, Any]:
        """As `curator apply --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "target": one_or_list(self.target),
            "adapter": str(self.adapter),
            "manifest": None if self.manifest is None else str(self.manifest),
        }


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
class StatusReport(Shown):
    """Where a project stands."""

    _table: ClassVar[str] = "stages"

    project: str
    stages: tuple[StageStatus, ...]
    runs: tuple[dict[str, Any], ...] = field(default=())
    selections: tuple[dict[str, Any], ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As `curator status --json` prints it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult(Shown):
    """What SQL answers."""

    table: "pa.Table"
    """The rows, as Arrow has them."""
    total: int
    """How many there are in all; more than are here where only the first were asked for."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows, by column."""
        return [dict(row) for row in self.table.to_pylist()]

    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.table.column_names)

    def first(self, count: int) -> tuple[list[dict[str, Any]], int]:
        """The first rows, and how many there are in all."""
        return [dict(row) for row in self.table.slice(0, count).to_pylist()], self.total

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a data frame."""
        import pandas

        frame: pandas.DataFrame = self.table.to_pandas()
        return frame

    def to_json(self) -> dict[str, Any]:
        """As `curator sql --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "columns": [{"name": field.name, "type": str(field.type)} for field in self.table.schema],
            "rows": plain(self.rows()),
            "total": self.total,
        }


def one_or_list(names: tuple[str, ...]) -> str | list[str]:
    """One name as itself, several as a list."""
    return names[0] if len(names) == 1 else list(names)

"""Reports of the outputs: export, apply, SQL."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curator.core.interval import Interval
from curator.results.base import SCHEMA_VERSION, Estimated, Report
from curator.results.display import Shown, plain

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa


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
class ExportReport(Report, Shown):
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
        return Report.to_json(self) | {"files": [{"name": name, "rows": rows} for name, rows in self.files]}


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
class ApplyReport(Report, Estimated, Shown):
    """An adapter: the base model fine-tuned on a selection, and what came of it."""

    _table: ClassVar[str] = "tasks"

    name: str
    """The selection's."""
    target: tuple[str, ...]
    method: str
    seed: int
    estimate: Interval
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

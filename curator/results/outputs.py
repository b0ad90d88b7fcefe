"""Reports of `export`, `apply` and `sql`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curator.core.interval import Interval
from curator.results.base import SCHEMA_VERSION, Estimated, Report
from curator.results.display import Shown, plain
from curator.results.metrics import AppliedMetric

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTask:
    """One task of an export."""

    name: str
    target: bool
    file: str
    """Data file in the folder of the export. Empty if the weight leaves no row."""
    rows: int
    """Rows that one epoch trains on."""
    rows_in_file: int
    """Rows of the data file. Differs from `rows` if the trainer itself samples `rows` of them."""
    tokens: int
    """Prompt and completion tokens of `rows`."""
    tokens_are_exact: bool
    """Whether the tokens were counted. Otherwise they are scaled from those of the whole task."""
    weight: float
    rows_of_data: str = ""
    """File with the task's training rows in the form of the data, each row once. `curator init --from` reads it."""
    validation: str = ""
    """File with the held-out rows of a target. Empty for other tasks."""
    validation_rows: int = 0
    """Rows of that file."""
    validation_of_data: str = ""
    """File with the held-out rows in the form of the data. `curator init --from` reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport(Report, Shown):
    """Files, tasks and training command of an export."""

    _table: ClassVar[str] = "tasks"

    format: str
    folder: Path
    tasks: tuple[ExportedTask, ...]
    """Targets first."""
    form: str
    """Form of the rows. Empty before the form is known."""
    rows_differing: int | None
    """Rows with other tokens or another loss in the trainer than in curator. None if curator cannot know."""
    configs: tuple[str, ...]
    """Files other than data files and the manifest."""
    command: str
    """Command that trains on the export, to run in its folder."""
    notes: tuple[str, ...]

    @property
    def files(self) -> tuple[tuple[str, int], ...]:
        """Name and rows of each data file."""
        return tuple((task.file, task.rows_in_file) for task in self.tasks if task.file)

    @property
    def validation(self) -> str | list[str]:
        """Name of the file of held-out rows: one text for one target, a list for several, an empty text for none."""
        names = [task.validation for task in self.tasks if task.validation]
        return names if len(names) > 1 else "".join(names)

    def to_json(self) -> dict[str, Any]:
        """Return the document that `curator export --json` prints."""
        return Report.to_json(self) | {
            "files": [{"name": name, "rows": rows} for name, rows in self.files],
            "validation": self.validation,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTask:
    """One task that was trained on."""

    name: str
    target: bool
    weight: float
    """Number of times that each example was trained on."""
    examples: int
    """Examples that were trained on. Repeated examples count each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport(Report, Estimated, Shown):
    """An adapter that `apply` fine-tuned on a selection, and its losses."""

    _table: ClassVar[str] = "tasks"

    name: str
    """Name of the selection."""
    target: tuple[str, ...]
    method: str
    seed: int
    estimate: Interval
    measured_loss: float
    """Loss of this adapter on the target's validation examples."""
    seconds: float
    """Training time."""
    base_model: str
    """Base model of the adapter: a folder or a hub id."""
    adapter: Path
    """Folder that `PeftModel.from_pretrained` reads."""
    manifest: Path | None
    """Manifest file that now holds the measured loss. None if only the adapter's own manifest holds it."""
    tasks: tuple[AppliedTask, ...]
    cached: bool
    metric: AppliedMetric | None = None
    """The metric of this adapter, of the model before training, and of measured subsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptersReport(Report, Shown):
    """Adapters that one call fine-tuned on several selections."""

    _table: ClassVar[str] = "adapters"

    adapters: tuple[ApplyReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `curator apply A B --json` prints. Each adapter has the fields of `apply`."""
        documents = [adapter.to_json() for adapter in self.adapters]
        for document in documents:
            del document["schema_version"]
        return {"schema_version": SCHEMA_VERSION, "adapters": documents}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult(Shown):
    """Rows that an SQL query returned."""

    table: "pa.Table"
    """Returned rows, as an Arrow table."""
    total: int
    """Number of rows of the whole result. Exceeds the rows of `table` if a limit cut them."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows, by column."""
        return [dict(row) for row in self.table.to_pylist()]

    def columns(self) -> list[str]:
        """Return the names of the columns."""
        return list(self.table.column_names)

    def first(self, count: int) -> tuple[list[dict[str, Any]], int]:
        """Return the first `count` rows, and the number of rows of the whole result."""
        return [dict(row) for row in self.table.slice(0, count).to_pylist()], self.total

    def to_frame(self) -> "pandas.DataFrame":
        """Return the rows as a data frame."""
        import pandas

        frame: pandas.DataFrame = self.table.to_pandas()
        return frame

    def to_json(self) -> dict[str, Any]:
        """Return the document that `curator sql --json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "columns": [{"name": field.name, "type": str(field.type)} for field in self.table.schema],
            "rows": plain(self.rows()),
            "total": self.total,
        }

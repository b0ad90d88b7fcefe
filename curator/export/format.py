"""What a format is, and where to find one by its name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curator.data.repetition import repeated
from curator.export.data_files import DataFile
from curator.export.forms import Form
from curator.results.outputs import ExportedTask, ExportReport
from curator.select.manifest import Manifest, TargetEntry, TaskEntry

if TYPE_CHECKING:
    from curator.export.forms import Encoding
    from curator.export.spool import Spool


def _nothing(plan: "Plan") -> dict[str, str]:
    return {}


def _none(plan: "Plan") -> list[str]:
    return []


def _never(task: "PlannedTask") -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How to write for one trainer."""

    name: str
    trainer: str = ""
    """The trainer's name; empty where none is meant in particular, and nothing is promised."""
    tested: str = ""
    """What of it was tested, and in which version."""
    forms: tuple[Form, ...]
    """Ways to write the rows, from the most readable to the surest; the first is taken of which the trainer makes what
    curator made."""
    data_files: dict[str, DataFile]
    """Kind of data file, by form."""
    config_names: tuple[str, ...] = ()
    """Files beside the data."""
    files: Callable[["Plan"], dict[str, str]] = _nothing
    """Their text, by name."""
    command: str = ""
    """What trains, from within the folder."""
    samples: Callable[["PlannedTask"], bool] = _never
    """Whether the trainer's own mechanism takes just as many rows of a task as its weight says, none of them more
    often than it must, and the same ones every time."""
    notes: Callable[["Plan"], list[str]] = _none
    """What people should know of a plan."""
    plain: bool = False
    """Whether letters, digits and underscores are all that may stand in a task's name."""

    def data_file_of(self, form: Form | None) -> DataFile:
        """The kind of data file for a form; for the first one where it is not chosen yet."""
        return self.data_files[(form or self.forms[0]).name]


Entry = TaskEntry | TargetEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """One task of an export."""

    entry: Entry
    stem: str
    """Its file's name without the ending: valid and different on every system."""
    available: int
    """Rows that may be trained on."""
    rows: int
    """Rows that are trained on, each as often as it is; fewer or more than are available where it has a weight."""
    tokens: int
    """Of these."""
    about: bool
    """Whether `tokens` is scaled rather than counted."""
    native: bool = False
    """Whether the trainer itself takes `rows` of the rows in the file, which has each once."""

    @property
    def weight(self) -> float:
        """How much the task counts."""
        return weight_of(self.entry)

    @property
    def written(self) -> int:
        """Rows in its file."""
        return self.available if self.native else self.rows

    def sample(self, count: int) -> list[int]:
        """Which of `count` rows stand in the file, as places in their order."""
        places = range(count)
        return list(places) if self.native else repeated(places, self.rows, seed=self.entry.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that an export is made from."""

    manifest: Manifest
    here: Path
    """The folder that the manifest's paths are relative to."""
    format: "Format"
    folder: Path
    """Where to, absolute."""
    shown: Path
    """The same as it was asked for."""
    tasks: tuple[PlannedTask, ...]
    """The targets first."""
    form: "Form | None" = None
    """How a row is written, once that is chosen."""
    encoding: "Encoding | None" = None
    """The model's tokenizer, where it is needed."""
    spool: "Spool | None" = None
    """The rows, once they are read."""
    rows_differing: int | None = None
    """Rows of which the trainer would make something else than curator; None where that is not known."""
    allow_changed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def training(self) -> list[PlannedTask]:
        """The tasks of which there are rows."""
        return [task for task in self.tasks if task.rows]

    def file(self, task: PlannedTask) -> str:
        """Where a task's rows are, as seen from the export's folder; empty where there are none."""
        return self.format.data_file_of(self.form).path(task.stem) if task.rows else ""

    @property
    def configs(self) -> dict[str, str]:
        """Text of the files beside the data, by name."""
        return self.format.files(self)

    @property
    def report(self) -> ExportReport:
        """What it comes to."""
        return ExportReport(
            format=self.format.name,
            folder=self.shown,
            tasks=tuple(
                ExportedTask(
                    name=task.entry.name,
                    target=isinstance(task.entry, TargetEntry),
                    file=self.file(task),
                    rows=task.rows,
                    rows_in_file=task.written,
                    tokens=task.tokens,
                    tokens_are_exact=not task.about,
                    weight=task.weight,
                )
                for task in self.tasks
            ),
            form="" if self.form is None else self.form.name,
            rows_differing=self.rows_differing,
            configs=tuple(self.format.config_names),
            command=self.format.command,
            notes=self.notes,
        )


def weight_of(entry: Entry) -> float:
    """How much a task counts; the targets count once."""
    return getattr(entry, "weight", 1.0)

"""Describe an export format, and the plan of an export."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.data.repetition import repeated
from curator.export.data_files import DataFile
from curator.export.forms import PLAIN, Form
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


def _named(name: str, number: int, held_out: bool) -> str:
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Describe how to write for one trainer."""

    name: str
    trainer: str = ""
    """The trainer's name. Empty for a format without a trainer, for which curator promises no tokens."""
    tested: str = ""
    """Tested version of the trainer, and the tested parts."""
    forms: tuple[Form, ...]
    """Ways to write the rows, from the most readable to token ids. curator takes the first faithful form."""
    data_files: dict[str, DataFile]
    """Kind of data file, by name of the form."""
    config_names: tuple[str, ...] = ()
    """Names of the files that are not data."""
    stem: Callable[[str, int, bool], str] = _named
    """Returns the wanted file name of a task, from its name, its number, and whether the file holds held-out rows."""
    files: Callable[["Plan"], dict[str, str]] = _nothing
    """Returns the text of these files, by name."""
    command: str = ""
    """Command that trains. It runs in the folder of the export."""
    samples: Callable[["PlannedTask"], bool] = _never
    """Whether the trainer itself draws a reproducible sample for the weight of a task.

    The sample must have as many rows as the weight requires, and repeat no row more often than needed.
    """
    notes: Callable[["Plan"], list[str]] = _none
    """Returns notes for the reader, for example about rounding."""
    allowed: str = "-_. "
    """Characters that file names may hold besides letters and digits."""

    def data_file_of(self, form: Form | None) -> DataFile:
        """Return the kind of data file for a form. Without a form, use the first form."""
        return self.data_files[(form or self.forms[0]).name]


Entry = TaskEntry | TargetEntry
ROWS = DataFile("jsonl", "rows")
"""Kind of the files with rows in the form of the data, for `curator init --from`."""
TEMPLATE = "chat_template.jinja"
"""File of the chat template, if the project sets one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """Describe one task of an export."""

    entry: Entry
    stem: str
    """File name without the ending, valid and unique on every system."""
    available: int
    """Rows that may be trained on."""
    rows: int
    """Rows that are trained on. Repeated rows count each time. A weight makes them fewer or more than available."""
    tokens: int
    """Tokens of these rows."""
    about: bool
    """Whether `tokens` is an estimate."""
    held_out: bool = False
    """Whether these are held-out rows of a target, which no trainer trains on."""
    native: bool = False
    """Whether the file holds each row once, and the trainer draws `rows` of them."""

    @property
    def weight(self) -> float:
        """Weight of the task."""
        return weight_of(self.entry)

    @property
    def written(self) -> int:
        """Rows in the file."""
        return self.available if self.native else self.rows

    def sample(self, count: int) -> list[int]:
        """Return the places of the rows that the file holds, ascending, out of `count` rows."""
        places = range(count)
        return list(places) if self.native else repeated(places, self.rows, seed=self.entry.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Describe an export before it is written."""

    manifest: Manifest
    here: Path
    """Folder that the manifest's paths are relative to."""
    format: "Format"
    folder: Path
    """Folder of the export, absolute."""
    shown: Path
    """The same folder as the caller gave it."""
    tasks: tuple[PlannedTask, ...]
    """Targets first, then selected tasks."""
    validation: tuple[PlannedTask, ...] = ()
    """Held-out rows, one entry for each target that has some."""
    form: "Form | None" = None
    """Form of the rows. None until it is chosen."""
    encoding: "Encoding | None" = None
    """The model's tokenizer. None if it is not needed."""
    spool: "Spool | None" = None
    """The encoded rows. None until they are read."""
    rows_differing: int | None = None
    """Rows that the trainer reads with other tokens or another loss than curator. None if unknown."""
    allow_changed: bool = False
    """Whether changed data is accepted."""
    notes: tuple[str, ...] = ()

    @property
    def training(self) -> list[PlannedTask]:
        """Tasks with at least one row."""
        return [task for task in self.tasks if task.rows]

    @property
    def held_out(self) -> list[PlannedTask]:
        """Targets with at least one held-out row."""
        return [part for part in self.validation if part.rows]

    def file(self, task: PlannedTask) -> str:
        """Return the path of a task's rows, relative to the export. Return an empty text for a task without rows."""
        store = self.format.data_file_of(self.form)
        return store.path(task.stem, held_out=task.held_out) if task.rows else ""

    def rows_of_data(self, task: PlannedTask) -> str:
        """Return the path of a task's rows in the form of the data, each row once."""
        if not task.available:
            return ""
        whole = self.form is PLAIN and task.rows == task.available
        return self.file(task) if whole else ROWS.path(task.stem)

    @property
    def template(self) -> str:
        """Name of the file of the chat template. Empty if the project uses the model's own template."""
        return TEMPLATE if self.manifest.model.chat_template else ""

    @property
    def config_names(self) -> tuple[str, ...]:
        """Names of the files that are not data."""
        return (*self.format.config_names, *([self.template] if self.template else []))

    @property
    def configs(self) -> dict[str, str]:
        """Text of the files that are not data, by name."""
        template = {self.template: self.manifest.model.chat_template} if self.template else {}
        return self.format.files(self) | template

    @property
    def report(self) -> ExportReport:
        """The report of this plan."""
        held_out = {part.entry.name: part for part in self.held_out}
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
                    rows_of_data=self.rows_of_data(task),
                    **self._held_out(held_out.get(task.entry.name)),
                )
                for task in self.tasks
            ),
            form="" if self.form is None else self.form.name,
            rows_differing=self.rows_differing,
            configs=self.config_names,
            command=self.format.command,
            notes=self.notes,
        )

    def _held_out(self, part: PlannedTask | None) -> dict[str, Any]:
        """Return the fields of a task's report that describe its held-out rows."""
        if part is None:
            return {}
        return {
            "validation": self.file(part),
            "validation_rows": part.rows,
            "validation_of_data": self.rows_of_data(part),
        }


def weight_of(entry: Entry) -> float:
    """Return the weight of a task. Targets have the weight 1."""
    return getattr(entry, "weight", 1.0)

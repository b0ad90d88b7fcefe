"""What an export would write: names, rows, tokens and weights; and whether a folder may be written to."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.errors import ConfigError, DataError
from curator.export import FORMATS
from curator.files import file_names, located, refuse_endless, sha256_of
from curator.manifest import MANIFEST_NAME, Manifest, TargetEntry, TaskEntry, read_manifest
from curator.results import ExportedTask, ExportReport
from curator.weights import counts_of, repeated

if TYPE_CHECKING:
    from curator.export.format import Format
    from curator.export.forms import Encoding, Form

RECORD_NAME = "curator-export.json"

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
        return self.format.store_of(self.form).path(task.stem) if task.rows else ""

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


def first_plan(manifest: Manifest, here: Path, *, format: str, folder: Path) -> Plan:
    """What an export would be by the manifest alone.

    Raises:
        ConfigError: The format is unknown, or the folder holds something else.
    """
    from curator.export.format import find_format

    if format not in FORMATS:
        raise ConfigError(f"no export format {format!r}", hint=f"Formats: {', '.join(FORMATS)}.")
    found = find_format(format)
    absolute = folder.resolve() if folder.is_symlink() else folder.absolute()
    check_folder(absolute, manifest, here)
    taken = {MANIFEST_NAME, RECORD_NAME, *found.config_names, *(store.folder for store in found.stores.values())}
    named = name_tasks(exported(manifest), taken=taken, plain=found.plain)
    tasks = [
        PlannedTask(entry=entry, stem=stem, available=kept(entry), rows=0, tokens=entry.tokens, about=False)
        for stem, entry in named
    ]
    return Plan(
        manifest=manifest,
        here=here.absolute(),
        format=found,
        folder=absolute,
        shown=folder,
        tasks=weigh(tasks),
        form=found.forms[0] if len(found.forms) == 1 else None,
    )


def weigh(tasks: Sequence[PlannedTask]) -> tuple[PlannedTask, ...]:
    """Give every task the rows that its weight comes to, by the largest remainder; their tokens are scaled."""
    counts = counts_of({task.entry.name: (task.weight, task.available) for task in tasks})
    weighed = []
    for task in tasks:
        count = counts[task.entry.name]
        whole = task.available and count % task.available == 0
        tokens = task.entry.tokens * count / task.available if task.available else 0
        weighed.append(replace(task, rows=count, tokens=round(tokens), about=bool(count) and not whole))
    return tuple(weighed)


def exported(manifest: Manifest) -> list[Entry]:
    """The tasks that are trained on: the targets, then what was selected."""
    return [*manifest.targets, *(task for task in manifest.tasks if task.selected)]


def weight_of(entry: Entry) -> float:
    """How much a task counts; the targets count once."""
    return getattr(entry, "weight", 1.0)


def dropped(entry: Entry) -> set[int]:
    """Numbers of the rows that are not trained on."""
    return {number for numbers in entry.left_out.values() for number in numbers}


def kept(entry: Entry) -> int:
    """Rows that may be trained on, by the manifest."""
    return sum(file.rows for file in entry.files) - len(dropped(entry))


def name_tasks(entries: Sequence[Entry], *, taken: Collection[str], plain: bool = False) -> list[tuple[str, Entry]]:
    """A file name without its ending for each task.

    Args:
        entries: The tasks.
        taken: Names that are not to be had.
        plain: Whether letters, digits and underscores are all that may stand in it.
    """
    names = [entry.name for entry in entries]
    return list(zip(file_names(names, allowed="_" if plain else "-_. ", taken=taken), entries, strict=True))


# -- the folder ---------------------------------------------------------------------------------------------------


def check_folder(folder: Path, manifest: Manifest, here: Path) -> None:
    """Make sure that nothing is in a folder but an earlier export as it was, and that no data is read from it.

    Raises:
        ConfigError: Something else is there.
    """
    if not folder.exists():
        return
    choose = "Choose an empty or a new folder with -o."
    if not folder.is_dir():
        raise ConfigError(f"{folder} exists and is no folder", hint=choose)
    there = {path.name for path in folder.iterdir()}
    if not there:
        return
    ours = _earlier_export(folder)
    foreign = sorted(there - set(ours))
    if foreign:
        raise ConfigError(f"{folder} exists and is no export: it holds {foreign[0]!r}", hint=choose)
    for name, digest in ours.items():
        if digest and (folder / name).is_file() and sha256_of(folder / name) != digest:
            raise ConfigError(f"{folder} holds an export whose {name!r} was changed since", hint=choose)
    for entry in exported(manifest):
        for file in () if entry.source.get("hub") else entry.files:
            path = located(file.path, here)
            if isinstance(path, Path) and path.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"{folder} holds the data of task {entry.name!r}: {file.path}", hint=choose)


def _earlier_export(folder: Path) -> dict[str, str]:
    """Names of the files and folders that an earlier export put there, with the hash of each that people may edit."""
    try:
        refuse_endless(folder / RECORD_NAME)
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        written: dict[str, Any] = record["written"]
        return {MANIFEST_NAME: "", RECORD_NAME: ""} | {str(name): str(digest) for name, digest in written.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        pass
    try:
        # An older curator wrote no record; JSON Lines were all it knew.
        entries = exported(read_manifest(folder / MANIFEST_NAME))
    except DataError:
        return {}
    return {MANIFEST_NAME: "", **{f"{stem}.jsonl": "" for stem, _ in name_tasks(entries, taken=set())}}

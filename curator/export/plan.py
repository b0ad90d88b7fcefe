"""Plan an export: names, rows, tokens and weights of its tasks. Check the folder of the export."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, cast

from curator.core.errors import ConfigError, DataError
from curator.core.files import file_names, located, read_whole_text, sha256_of
from curator.core.folders import entries_below
from curator.data.left_out import VALIDATION as HELD_OUT
from curator.data.repetition import counts_of
from curator.export.data_files import VALIDATION
from curator.export.format import ROWS, TEMPLATE, Entry, Format, Plan, PlannedTask
from curator.export.names import FORMATS
from curator.export.sections import check_settings
from curator.select.manifest import MANIFEST_NAME, Manifest, TargetEntry, files_of, read_manifest

RECORD_NAME = "curator-export.json"


def find_format(name: str) -> Format:
    """Load a format by its name, one of `FORMATS`."""
    module = import_module(f"curator.export.trainers.{name.replace('-', '_')}")
    return cast(Format, module.FORMAT)


def first_plan(manifest: Manifest, here: Path, *, format: str, folder: Path) -> Plan:
    """Plan an export from the manifest alone.

    Args:
        manifest: The selection.
        here: Folder that the manifest's paths are relative to.
        format: Name of the format.
        folder: Folder of the export.

    Raises:
        ConfigError: The format is unknown, or the folder holds other files.
        DataError: A setting of the manifest is unknown or invalid.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown export format: {format!r}", hint=f"Use one of: {', '.join(FORMATS)}.")
    check_settings(manifest)
    found = find_format(format)
    absolute = folder.resolve() if folder.is_symlink() else folder.absolute()
    check_folder(absolute, manifest, here)
    folders = {ROWS.folder, *(store.folder for store in found.data_files.values())}
    taken = {MANIFEST_NAME, RECORD_NAME, TEMPLATE, *found.config_names, *folders}
    validation = plan_validation(manifest, found, taken=taken)
    entries = exported(manifest)
    stems = file_names(
        [found.stem(entry.name, number, False) for number, entry in enumerate(entries)],
        allowed=found.allowed,
        taken=taken | {part.stem for part in validation},
    )
    tasks = [
        PlannedTask(entry=entry, stem=stem, available=kept(entry), rows=0, tokens=entry.tokens, about=False)
        for stem, entry in zip(stems, entries, strict=True)
    ]
    return Plan(
        manifest=manifest,
        here=here.absolute(),
        format=found,
        folder=absolute,
        shown=folder,
        tasks=weigh(tasks),
        validation=tuple(validation),
        form=found.forms[0] if len(found.forms) == 1 else None,
    )


def weigh(tasks: Sequence[PlannedTask]) -> tuple[PlannedTask, ...]:
    """Give every task as many rows as its weight requires, by the largest remainder, and scale its tokens."""
    counts = counts_of({task.entry.name: (task.weight, task.available) for task in tasks})
    weighed = []
    for task in tasks:
        count = counts[task.entry.name]
        whole = task.available and count % task.available == 0
        tokens = task.entry.tokens * count / task.available if task.available else 0
        weighed.append(replace(task, rows=count, tokens=round(tokens), about=bool(count) and not whole))
    return tuple(weighed)


def exported(manifest: Manifest) -> list[Entry]:
    """Return the tasks that are trained on: the targets, then the selected tasks."""
    return [*manifest.targets, *(task for task in manifest.tasks if task.selected)]


def plan_validation(manifest: Manifest, format: Format, *, taken: Collection[str]) -> list[PlannedTask]:
    """Plan a file of held-out rows for each target that has some, according to the manifest.

    Args:
        manifest: The selection.
        format: Format of the export.
        taken: Names that other files have.
    """
    entries = [entry for entry in manifest.targets if held_out(entry)]
    joint = "-" if "-" in format.allowed else "_"
    names = [
        VALIDATION if len(entries) == 1 else f"{VALIDATION}{joint}{format.stem(entry.name, number, True)}"
        for number, entry in enumerate(entries)
    ]
    return [
        PlannedTask(
            entry=entry,
            stem=stem,
            available=held_out(entry),
            rows=held_out(entry),
            tokens=0,
            about=False,
            held_out=True,
        )
        for stem, entry in zip(file_names(names, allowed=format.allowed, taken=taken), entries, strict=True)
    ]


def held_out(entry: TargetEntry) -> int:
    """Return the number of held-out rows of a target, according to the manifest."""
    if entry.validation_files:
        return sum(file.rows for file in entry.validation_files) - len(entry.validation_left_out or ())
    return len(entry.left_out.get(HELD_OUT, ()))


def dropped(entry: Entry) -> set[int]:
    """Return the numbers of the rows that are not trained on, from 0."""
    return {number for numbers in entry.left_out.values() for number in numbers}


def kept(entry: Entry) -> int:
    """Return the number of rows that may be trained on, according to the manifest."""
    return sum(file.rows for file in entry.files) - len(dropped(entry))


# -- the folder ---------------------------------------------------------------------------------------------------


def check_folder(folder: Path, manifest: Manifest, here: Path, *, data: bool = False) -> None:
    """Check that a folder is missing, empty, or holds an unchanged export, and that no task is read from it.

    Args:
        folder: Folder of the export.
        manifest: The selection.
        here: Folder that the manifest's paths are relative to.
        data: Hash the data files too, which takes time. Configurations are always hashed.

    Raises:
        ConfigError: The folder holds other files, an edited file, or data of the manifest.
    """
    if not folder.exists():
        return
    choose = "Choose an empty or a new folder with -o."
    if not folder.is_dir():
        raise ConfigError(f"{folder} exists and is not a folder", hint=choose)
    there = {path.name for path in folder.iterdir()}
    if not there:
        return
    ours, configs = _earlier_export(folder)
    foreign = sorted(there - {name.partition("/")[0] for name in ours})
    if foreign:
        raise ConfigError(f"{folder} exists and is not an export: it holds {foreign[0]!r}", hint=choose)
    inside = sorted(path.relative_to(folder).as_posix() for path in entries_below(folder))
    # Early versions of curator recorded the names of folders only.
    foreign = [name for name in inside if name not in ours and name.partition("/")[0] not in ours]
    if foreign:
        raise ConfigError(f"{folder} holds an export with an added file: {foreign[0]!r}", hint=choose)
    for name, digest in ours.items():
        known = digest and (data or name in configs)
        if known and (folder / name).is_file() and sha256_of(folder / name) != digest:
            raise ConfigError(f"{folder} holds an export with an edited file: {name!r}", hint=choose)
    for entry in exported(manifest):
        for file in chain.from_iterable(files_of(entry).values()):
            path = located(file.path, here)
            if isinstance(path, Path) and path.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"{folder} holds the data of task {entry.name!r}: {file.path}", hint=choose)


def _earlier_export(folder: Path) -> tuple[dict[str, str], set[str]]:
    """Return the files of an earlier export with their hashes, and the names of the configurations among them."""
    try:
        record = json.loads(read_whole_text(folder / RECORD_NAME))
        written: dict[str, Any] = record["written"]
        ours = {MANIFEST_NAME: "", RECORD_NAME: ""} | {str(name): str(digest) for name, digest in written.items()}
        return ours, set(map(str, record["configs"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        pass
    try:
        # Early versions of curator wrote JSON Lines without a record.
        entries = exported(read_manifest(folder / MANIFEST_NAME))
    except DataError:
        return {}, set()
    stems = file_names([entry.name for entry in entries])
    return {MANIFEST_NAME: "", **{f"{stem}.jsonl": "" for stem in stems}}, set()

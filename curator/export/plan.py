"""What an export would write: names, rows, tokens and weights; and whether a folder may be written to."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from curator.core.errors import ConfigError, DataError
from curator.core.files import file_names, located, refuse_endless, sha256_of
from curator.data.repetition import counts_of
from curator.export.format import Entry, Format, Plan, PlannedTask
from curator.export.names import FORMATS
from curator.select.manifest import MANIFEST_NAME, Manifest, read_manifest

RECORD_NAME = "curator-export.json"


def find_format(name: str) -> Format:
    """A format by its name, one of `FORMATS`."""
    module = import_module(f"curator.export.trainers.{name.replace('-', '_')}")
    return cast(Format, module.FORMAT)


def first_plan(manifest: Manifest, here: Path, *, format: str, folder: Path) -> Plan:
    """What an export would be by the manifest alone.

    Raises:
        ConfigError: The format is unknown, or the folder holds something else.
    """
    if format not in FORMATS:
        raise ConfigError(f"no export format {format!r}", hint=f"Formats: {', '.join(FORMATS)}.")
    found = find_format(format)
    absolute = folder.resolve() if folder.is_symlink() else folder.absolute()
    check_folder(absolute, manifest, here)
    taken = {MANIFEST_NAME, RECORD_NAME, *found.config_names, *(store.folder for store in found.data_files.values())}
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

"""From a manifest to files that a trainer reads.

One frozen JSONL file per selected task, the training split of the target among them, and the manifest beside them. What
was left out of training is left out here.
"""

import json
import os
import random
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from curator.data import Source, read_task
from curator.errors import ConfigError, DataError, ManifestMismatch
from curator.files import partial_name, relative_to, remove_left_over
from curator.manifest import (
    MANIFEST_NAME,
    Manifest,
    TargetEntry,
    TaskEntry,
    TaskFile,
    check_files,
    read_manifest,
    render,
)
from curator.provenance import hash_of
from curator.results import ExportReport
from curator.rows import Row, content_hash, trainable

FORMATS = ("jsonl",)
# Windows opens devices by these names, whatever their ending.
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)}


def plan_export(manifest: Manifest, here: Path, *, format: str, folder: Path) -> ExportReport:
    """Say what an export would write, and make sure that it may; writes nothing.

    Args, Raises: As for `export`; changed files are not looked for.
    """
    if format not in FORMATS:
        raise ConfigError(f"no export format {format!r}", hint=f"Formats: {', '.join(FORMATS)}.")
    _check_folder(folder.resolve() if folder.is_symlink() else folder.absolute(), manifest, here)
    files = tuple((name, _kept(entry)) for name, entry in _names(_exported(manifest)))
    return ExportReport(format=format, folder=folder, files=files)


def export(manifest: Manifest, here: Path, *, format: str, folder: Path, allow_changed: bool = False) -> ExportReport:
    """Write the training files of a selection; all of them or none.

    Args:
        manifest: What was selected.
        here: The folder that its paths are relative to.
        format: `jsonl`.
        folder: Where to; made if need be. An earlier export there is replaced; anything else is refused.
        allow_changed: Export although files have changed since. Rows are left out by their number, as the manifest
            has it, which after a change may be another row's.

    Raises:
        ConfigError: The format is unknown, or the folder holds something else.
        DataError: Something cannot be read or written.
        ManifestMismatch: A file has changed.
    """
    shown, here = folder, here.absolute()
    plan_export(manifest, here, format=format, folder=folder)
    folder = folder.resolve() if folder.is_symlink() else folder.absolute()
    if not allow_changed:
        check_files(manifest, here)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(folder.parent, folder.name[:50])
        partial = folder.with_name(partial_name(folder.name[:50]))
        partial.mkdir(mode=0o700)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error}", hint="Choose another folder with -o.") from error
    try:
        files = [
            (name, _write_task(partial / name, entry, here, allow_changed))
            for name, entry in _names(_exported(manifest))
        ]
        (partial / MANIFEST_NAME).write_text(render(_moved(manifest, here, folder)), encoding="utf-8")
        partial.chmod(0o777 & ~_umask())
        _put_in_place(partial, folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}", hint="Is the disk full?") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportReport(format=format, folder=shown, files=tuple(files))


def _check_folder(folder: Path, manifest: Manifest, here: Path) -> None:
    """Make sure that nothing is in a folder but an earlier export, and that no data is read from it.

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
    try:
        ours = {MANIFEST_NAME, *(name for name, _ in _names(_exported(read_manifest(folder / MANIFEST_NAME))))}
    except DataError:
        ours = set()
    foreign = sorted(there - ours)
    if foreign:
        raise ConfigError(f"{folder} exists and is no export: it holds {foreign[0]!r}", hint=choose)
    for entry in _exported(manifest):
        for file in () if entry.source.get("hub") else entry.files:
            if (here / file.path).resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"{folder} holds the data of task {entry.name!r}: {file.path}", hint=choose)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Swap a finished export for the earlier one, which stays whole until the new one is there."""
    old = folder.with_name(partial_name(folder.name[:50], what=".old"))
    if folder.exists():
        folder.replace(old)
    try:
        partial.replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _exported(manifest: Manifest) -> list[TaskEntry | TargetEntry]:
    return [*manifest.targets, *(task for task in manifest.tasks if task.selected)]


def _kept(entry: TaskEntry | TargetEntry) -> int:
    """Rows of a task that are trained on, each as often as it is."""
    dropped = {n for numbers in entry.left_out.values() for n in numbers}
    return round(_weight(entry) * (sum(file.rows for file in entry.files) - len(dropped)))


def _weight(entry: TaskEntry | TargetEntry) -> float:
    return getattr(entry, "weight", 1.0)


def _weighted(rows: Sequence[Row], weight: float, seed: str) -> list[Row]:
    """A task's rows as often as its weight says; what is left of a whole number is a seeded sample, in their order."""
    whole, more = divmod(round(weight * len(rows)), max(len(rows), 1))
    extra = set(random.Random(seed).sample(range(len(rows)), more))
    return [row for number, row in enumerate(rows) for _ in range(whole + (number in extra))]


def _names(entries: Sequence[TaskEntry | TargetEntry]) -> list[tuple[str, TaskEntry | TargetEntry]]:
    """A file name for each task, its own where that is a plain one: valid and different on every system."""
    named, taken = [], set()
    for entry in entries:
        plain = "".join(c if c.isalnum() or c in "-_. " else "_" for c in entry.name)
        # A file name has room for 255 bytes; this leaves some for the number and the ending.
        plain = plain.encode()[:200].decode(errors="ignore").strip(". ") or "task"
        if plain.partition(".")[0].rstrip().upper() in _RESERVED:
            plain = f"_{plain}"
        name, number = f"{plain}.jsonl", 2
        while _folded(name) in taken:
            name, number = f"{plain}-{number}.jsonl", number + 1
        taken.add(_folded(name))
        named.append((name, entry))
    return named


def _folded(name: str) -> str:
    """What file systems that tell no case, or no spelling of an accent, take a name for."""
    return unicodedata.normalize("NFKC", name).casefold()


def _write_task(path: Path, entry: TaskEntry | TargetEntry, here: Path, allow_changed: bool) -> int:
    rows = _rows(entry, here)
    if entry.source.get("hub") and not allow_changed:
        found = hash_of(content_hash(row.content) for row in rows)
        if found != entry.files[0].sha256:
            raise ManifestMismatch(
                f"task {entry.name!r}: {entry.source['hub']} has changed: {entry.files[0].sha256[:12]} in the"
                f" manifest, {found[:12]} now",
                hint="Run `curator select` again, or pass --allow-changed.",
            )
    dropped = {number for numbers in entry.left_out.values() for number in numbers}
    kept = _weighted([row for row in rows if row.number not in dropped], _weight(entry), entry.name)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in kept:
            file.write(json.dumps(trainable(row.content), ensure_ascii=False) + "\n")
    return len(kept)


def _rows(entry: TaskEntry | TargetEntry, here: Path) -> list[Row]:
    source = entry.source
    paths = tuple(Path(os.path.normpath(here / file.path)) for file in entry.files)
    saved = bool(source.get("saved_dataset"))
    return read_task(
        Source(
            name=entry.name,
            files=() if source.get("hub") else paths,
            folder=Path(os.path.commonpath([path.parent for path in paths])) if saved else None,
            hub=source.get("hub", ""),
            config=source.get("config", ""),
            split=source.get("split", "train"),
            revision=source.get("revision", ""),
            column=source.get("column", ""),
            value=source.get("value"),
        )
    )


def _moved(manifest: Manifest, here: Path, there: Path) -> Manifest:
    """The manifest with its paths as seen from another folder."""

    def files(entry: TaskEntry | TargetEntry, files: tuple[TaskFile, ...]) -> tuple[TaskFile, ...]:
        if entry.source.get("hub"):
            return files
        return tuple(
            file.model_copy(update={"path": relative_to(os.path.normpath(here / file.path), there)}) for file in files
        )

    return manifest.model_copy(
        update={
            "targets": tuple(
                entry.model_copy(
                    update={
                        "files": files(entry, entry.files),
                        "validation_files": files(entry, entry.validation_files),
                    }
                )
                for entry in manifest.targets
            ),
            "tasks": tuple(entry.model_copy(update={"files": files(entry, entry.files)}) for entry in manifest.tasks),
        }
    )

"""From a manifest to files that a trainer reads.

One frozen JSONL file per selected task, the training split of the target among them, and the manifest beside them. What
was left out of training is left out here.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from curator.data import Row, Source, content_hash, read_task
from curator.errors import ConfigError, DataError, ManifestMismatch
from curator.manifest import (
    MANIFEST_NAME,
    Manifest,
    TargetEntry,
    TaskEntry,
    TaskFile,
    check_files,
    read_manifest,
    relative_to,
    render,
)
from curator.provenance import hash_of
from curator.results import ExportReport

FORMATS = ("jsonl",)


def export(manifest_path: Path, *, format: str, folder: Path, allow_changed: bool = False) -> ExportReport:
    """Write the training files of a selection; all of them or none.

    Args:
        manifest_path: A manifest that `curator select` wrote.
        format: `jsonl`.
        folder: Where to; made if need be. An earlier export there is replaced, other files are not touched.
        allow_changed: Export although files have changed since.

    Raises:
        ConfigError: The format is unknown, or the folder holds something else.
        DataError: Something cannot be read or written.
        ManifestMismatch: A file has changed.
    """
    if format not in FORMATS:
        raise ConfigError(f"no export format {format!r}", hint=f"Formats: {', '.join(FORMATS)}.")
    manifest = read_manifest(manifest_path)
    here = manifest_path.absolute().parent
    if not allow_changed:
        check_files(manifest, here)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST_NAME).exists())):
        raise ConfigError(f"{folder} exists and is no export", hint="Choose an empty or a new folder with -o.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        files = [
            (name, _write_task(partial / name, entry, here, allow_changed))
            for name, entry in _names([*manifest.targets, *(t for t in manifest.tasks if t.selected)])
        ]
        final = folder.absolute()
        (partial / MANIFEST_NAME).write_text(render(_moved(manifest, here, final)), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}", hint="Is the disk full?") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportReport(format=format, folder=folder, files=tuple(files))


def _names(entries: Sequence[TaskEntry | TargetEntry]) -> list[tuple[str, TaskEntry | TargetEntry]]:
    """A file name for each task: its own name where that is a plain one."""
    named, taken = [], {MANIFEST_NAME.lower()}
    for entry in entries:
        plain = "".join(c if c.isalnum() or c in "-_. " else "_" for c in entry.name).strip(". ")[:100] or "task"
        name, number = f"{plain}.jsonl", 2
        while name.lower() in taken:
            name, number = f"{plain}-{number}.jsonl", number + 1
        taken.add(name.lower())
        named.append((name, entry))
    return named


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
    kept = [row for row in rows if row.number not in dropped]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in kept:
            content = row.content
            if "instruction" in content:
                # The names that trainers know.
                content = {"instruction": content["instruction"], "output": content["response"]}
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
    return len(kept)


def _rows(entry: TaskEntry | TargetEntry, here: Path) -> list[Row]:
    source = entry.source
    paths = tuple(Path(os.path.normpath(here / file.path)) for file in entry.files)
    saved = not source.get("hub") and any(path.name in ("state.json", "dataset_dict.json") for path in paths)
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

"""What a manifest may name: files beside it, and data that a project of the user's own holds or names.

A manifest comes from anywhere, and says which files are read and copied into an export. Whoever wrote it may know the
place and the bytes of a file that is not theirs.
"""

from pathlib import Path

from curator.core.errors import CuratorError, DataError
from curator.core.files import CONFIG_NAME, File, located
from curator.core.load_config import load_config
from curator.data.discovery import find_tasks, find_validation
from curator.select.manifest import Manifest, TargetEntry, TaskEntry


def check_inside(manifest: Manifest, here: Path) -> None:
    """Make sure that a manifest names no file that it has no business with.

    A file may lie in the manifest's folder or in the folder of a project, links followed; or it is one that the
    `curator.toml` above the manifest names, as each that is elsewhere must be.

    Args:
        manifest: The manifest.
        here: The folder that its paths are relative to.

    Raises:
        DataError: A file lies elsewhere.
    """
    known = _project_above(here.resolve())
    roots = [here.resolve(), *([known] if known is not None else [])]
    named: set[Path | str] | None = None
    for name, path in _files(manifest, here):
        real = _real(path)
        if isinstance(real, Path) and (
            any(real.is_relative_to(root) for root in roots) or _project_above(real.parent) is not None
        ):
            continue
        if named is None:
            named = set() if known is None else _named_by(known)
        if real not in named:
            raise DataError(
                f"task {name!r}: {path} lies outside of the manifest's folder, and no project names it",
                hint="If you know the file, and whoever wrote the manifest, pass --allow-outside.",
            )


def _real(file: File) -> Path | str:
    """Where a file is, links followed; of one elsewhere its address."""
    return file.resolve() if isinstance(file, Path) else str(file)


def _files(manifest: Manifest, here: Path) -> list[tuple[str, File]]:
    entries: list[TaskEntry | TargetEntry] = [*manifest.targets, *manifest.tasks]
    return [
        (entry.name, located(file.path, here))
        for entry in entries
        if not entry.source.get("hub")
        for file in (*entry.files, *getattr(entry, "validation_files", ()))
    ]


def _project_above(folder: Path) -> Path | None:
    return next((place for place in (folder, *folder.parents) if (place / CONFIG_NAME).is_file()), None)


def _named_by(project: Path) -> set[Path | str]:
    """The files of all tasks of a project; none where its configuration cannot be used."""
    try:
        data = load_config(project / CONFIG_NAME).data
        held_out = [find_validation(data, name, project) for name in data.validation_files]
        sources = [*find_tasks(data, project), *held_out]
    except CuratorError:
        return set()
    return {_real(file) for source in sources if source is not None for file in source.files}

"""Check that a manifest names only files next to it, or files of a project of the user.

A manifest may have any author, and names the files that curator copies into an export. The author may know the path
and the hash of a private file of the user.
"""

from pathlib import Path

from curator.core.errors import CuratorError, DataError
from curator.core.files import CONFIG_NAME, File, located
from curator.core.load_config import load_config
from curator.data.discovery import find_tasks, find_validation
from curator.select.manifest import Manifest, TargetEntry, TaskEntry


def check_inside(manifest: Manifest, here: Path) -> None:
    """Check that a manifest names no file outside of its folder and of projects.

    A file may lie in the manifest's folder or in the folder of a project, after links are followed. The `curator.toml`
    above the manifest may name files elsewhere.

    Args:
        manifest: The manifest.
        here: Folder that the manifest's paths are relative to.

    Raises:
        DataError: A file lies elsewhere, and the `curator.toml` does not name it.
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
                f"task {name!r}: {path} lies outside of the manifest's folder and of projects",
                hint="Pass --allow-outside if you know the file and trust the author of the manifest.",
            )


def _real(file: File) -> Path | str:
    """Return the path of a local file with links followed, or the address of a remote file."""
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
    """Return the files of all tasks of a project. Return an empty set if its configuration is invalid."""
    try:
        data = load_config(project / CONFIG_NAME).data
        held_out = [find_validation(data, name, project) for name in data.validation_files]
        sources = [*find_tasks(data, project), *held_out]
    except CuratorError:
        return set()
    return {_real(file) for source in sources if source is not None for file in source.files}

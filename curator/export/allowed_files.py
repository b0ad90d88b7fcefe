"""Check that a manifest names only places that the user allows: files, data sets of the hub, and a model.

A manifest may have any author, and names the files that curator copies into an export. The author may know the path
and the hash of a private file of the user. A manifest also must not cause downloads.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from curator.core.config import ModelSection
from curator.core.errors import CuratorError, DataError
from curator.core.files import CONFIG_NAME, File, located
from curator.core.folders import entries_below
from curator.core.load_config import load_config
from curator.data.discovery import find_tasks, find_validation
from curator.data.sources import Source
from curator.select.manifest import Manifest, TargetEntry, TaskEntry

_ALLOW_FILE = "Pass --allow-outside if you know the file and trust the author of the manifest."
_ALLOW_DOWNLOAD = "Pass --allow-outside to download, if you trust the author of the manifest."


def row_source(entry: TaskEntry | TargetEntry, here: Path) -> Source:
    """Return the source of a task's rows. curator checks and reads this one object.

    Args:
        entry: The task.
        here: Folder that the manifest's paths are relative to.

    Raises:
        DataError: A saved data set has no local files.
    """
    return Source.described(entry.name, entry.source, [located(file.path, here) for file in entry.files])


def validation_source(entry: TargetEntry, here: Path) -> Source | None:
    """Return the source of a target's own held-out rows, as `row_source` does. None if the entry names no files."""
    if not entry.validation_files:
        return None
    files = [located(file.path, here) for file in entry.validation_files]
    return Source.described(entry.name, entry.validation_source, files)


@dataclass(frozen=True, slots=True)
class _Named:
    """Places that the configurations of projects name."""

    files: set[Path | str] = field(default_factory=set)
    hub: set[tuple[object, ...]] = field(default_factory=set)
    models: set[tuple[Path | str, str]] = field(default_factory=set)


class AllowedPlaces:
    """Decide which places a manifest may name.

    A file may lie in the manifest's folder or in the folder of a project, after links are followed. The
    `curator.toml` above the manifest, and that of the given project, may name files and data sets elsewhere.

    Args:
        here: Folder that the manifest's paths are relative to.
        project: Folder of the project in which the user works. None for none.
    """

    def __init__(self, here: Path, project: Path | None = None) -> None:
        self._here = here.resolve()
        above = _project_above(self._here)
        self._projects = list(dict.fromkeys(place.resolve() for place in (above, project) if place is not None))
        self._found: _Named | None = None

    def check(self, manifest: Manifest) -> None:
        """Check the places of all targets and tasks, also of tasks that are not selected.

        Raises:
            DataError: A file lies elsewhere, or a data set would be downloaded, and no configuration names it.
        """
        entries: list[TaskEntry | TargetEntry] = [*manifest.targets, *manifest.tasks]
        for entry in entries:
            self._check_source(row_source(entry, self._here))
            held_out = validation_source(entry, self._here) if isinstance(entry, TargetEntry) else None
            if held_out is not None:
                self._check_source(held_out)

    def check_model(self, section: ModelSection) -> bool:
        """Check the folder of a manifest's model. Return whether a model of the hub may be downloaded.

        Raises:
            DataError: The model is a folder elsewhere, and no configuration names it.
        """
        folder = self._here / section.name_or_path
        if not folder.is_dir():
            return (section.name_or_path, section.revision) in self._named.models
        real = folder.resolve()
        if not self._is_inside(real) and (real, section.revision) not in self._named.models:
            raise DataError(
                f"model folder {folder} lies outside of the manifest's folder and of projects", hint=_ALLOW_FILE
            )
        return False

    def _check_source(self, source: Source) -> None:
        if source.hub:
            if _download(source) not in self._named.hub:
                raise DataError(
                    f"task {source.name!r}: no curator.toml names the data set {source.hub!r} with these settings",
                    hint=_ALLOW_DOWNLOAD,
                )
            return
        for file in _files(source):
            real = file.resolve() if isinstance(file, Path) else file.address
            if not (isinstance(real, Path) and self._is_inside(real)) and real not in self._named.files:
                raise DataError(
                    f"task {source.name!r}: {file} lies outside of the manifest's folder and of projects",
                    hint=_ALLOW_FILE,
                )

    def _is_inside(self, real: Path) -> bool:
        roots = (self._here, *self._projects)
        return any(real.is_relative_to(root) for root in roots) or _project_above(real) is not None

    @property
    def _named(self) -> _Named:
        if self._found is None:
            self._found = _Named()
            for project in self._projects:
                _add_named(self._found, project)
        return self._found


def _files(source: Source) -> Iterator[File]:
    """Yield everything that reading a source without a hub id can read."""
    yield from source.files
    if source.folder is not None:
        yield source.folder
        yield from entries_below(source.folder)


def _download(source: Source) -> tuple[object, ...]:
    return source.hub, source.config, source.split, source.revision, source.streaming


def _project_above(folder: Path) -> Path | None:
    return next((place for place in (folder, *folder.parents) if (place / CONFIG_NAME).is_file()), None)


def _add_named(named: _Named, project: Path) -> None:
    """Add the places that a project's configuration names. Add none if the configuration is invalid."""
    # A task column has unknown values here. Reading them would read the whole collection.
    numbers = itertools.count()
    try:
        config = load_config(project / CONFIG_NAME)
        sources = find_tasks(config.data, project, values=lambda source, column: [f"any value {next(numbers)}"])
        held_out = [find_validation(config.data, name, project) for name in config.data.validation_files]
    except CuratorError:
        return
    for source in (*sources, *held_out):
        if source is not None and source.hub:
            named.hub.add(_download(source))
        elif source is not None:
            for file in _files(source):
                # A manifest holds an address without its secrets.
                named.files.update({file.resolve()} if isinstance(file, Path) else {file.address, str(file)})
    model = config.model
    folder = project / model.name_or_path
    named.models.add((folder.resolve() if folder.is_dir() else model.name_or_path, model.revision))

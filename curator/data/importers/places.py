"""Locate the data sets of a configuration: local files, remote files, or the hub."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.core.folders import matching
from curator.core.hub_ids import is_hub_id
from curator.core.remote import has_wildcards, is_remote
from curator.data.readers import is_saved_dataset, is_task_file, task_name

# Values of `path` that `datasets.load_dataset` reads as a format, not as a place.
_FORMATS = ("json", "csv", "parquet", "arrow")


class NotFoundError(Exception):
    """Report that a data set cannot be found or is not supported. `ImportedConfig.left_out` shows the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Describe the place of a data set with the arguments of `datasets.load_dataset`.

    Args:
        path: Format, file, folder or hub id.
        config: Configuration of a hub data set.
        files: Files in a folder or a hub data set.
        folder: Folder that holds `files`.
        split: Split to read.
        revision: Branch, tag or commit of a hub data set.
    """

    path: str
    config: str = ""
    files: Sequence[str] = ()
    folder: str = ""
    split: str = "train"
    revision: str = ""

    @property
    def name(self) -> str:
        """Return the name of a task at this place."""
        path = self.files[0] if self.path in _FORMATS and self.files else self.path
        return task_name(Path(path.rstrip("/*"))) or "task"

    def keys(self, base: Path) -> dict[str, Any]:
        """Return the keys of a `[[data.task]]` table that locate the data set.

        Args:
            base: Folder of the configuration. Relative paths refer to it.

        Raises:
            NotFoundError: A path does not exist, or curator cannot read the file type or the split.
        """
        here = local_path(self.path, base)
        if self.path in _FORMATS:
            if not self.files:
                raise NotFoundError(f"{self.path} without `data_files`")
            return self._here([os.path.join(self.folder, file) for file in self.files], base)
        if here is not None:
            if not self.files and not self.folder:
                return self._here([here], base)
            return self._here([os.path.join(here, self.folder, file) for file in self.files or [""]], base)
        if not _is_hub_id(self.path):
            raise NotFoundError(f"no such file or hub id: {self.path}")
        split = {"split": self.split} if self.split != "train" else {}
        if not self.files and not self.folder:
            return {"hub": self.path, "config": self.config, "revision": self.revision} | split
        if self.config or split:
            raise NotFoundError("unsupported combination of hub files with a configuration or a split")
        at = "/".join(part for part in (f"{self.path}{'@' * bool(self.revision)}{self.revision}", self.folder) if part)
        return {"path": _one([f"hf://datasets/{at}/{file}".rstrip("/") for file in self.files or [""]])}

    def _here(self, written: list[str], base: Path) -> dict[str, Any]:
        found = []
        for file in written:
            path = local_path(file, base)
            if path is None:
                raise NotFoundError(f"no such file: {file}")
            if not _is_readable(path):
                raise NotFoundError(f"unsupported file type: {path}")
            found.append(path)
        if self.split == "train":
            return {"path": _one(found)}
        # Files have one split, "train". Only folders that `save_to_disk` wrote can have more.
        if len(found) == 1 and is_saved_dataset(Path(found[0])):
            return {"path": found[0], "split": self.split}
        raise NotFoundError(f"no split {self.split!r} in files")


def local_path(written: str, base: Path) -> str | None:
    """Make a path of a configuration absolute. Return an address unchanged, and None if the path does not exist.

    Args:
        written: Path relative to `base`, or else to the working directory. Or an address.
        base: Folder of the configuration.
    """
    if is_remote(written):
        return written
    for folder in (base, Path.cwd()):
        try:
            path = Path(os.path.abspath(folder / Path(written).expanduser()))
            if path.exists() or (has_wildcards(written) and matching(path.name, path.parent)):
                return str(path)
        except (OSError, RuntimeError, ValueError):
            # The path is too long, its folder cannot be read, or its user or glob is not valid.
            continue
    return None


def _is_readable(path: str) -> bool:
    """Return whether curator supports a file type. Folders and globs pass, because `find_tasks` checks their files."""
    local = Path(path)
    return is_remote(path) or has_wildcards(path) or local.is_dir() or is_task_file(local)


def _is_hub_id(path: str) -> bool:
    return is_hub_id(path) and not is_task_file(Path(path))


def _one(paths: list[str]) -> Any:
    """Return a single path instead of a list with one path."""
    return paths[0] if len(paths) == 1 else paths

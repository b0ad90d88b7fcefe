"""Where a configuration's rows are: here, elsewhere, or on the hub."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.core.remote import has_wildcards, is_remote
from curator.data.readers import is_saved_dataset, is_task_file, task_name

# What `datasets.load_dataset` takes for a format rather than for a place.
_FORMATS = ("json", "csv", "parquet")


class NotFoundError(Exception):
    """Why rows cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a configuration says of where a data set is, as `datasets.load_dataset` has it.

    Args:
        path: A format, a file, a folder or a hub id.
        config: Configuration of a hub data set.
        files: Files in a folder or a hub data set.
        folder: Folder that these are in.
        split: The split.
        revision: Of the hub.
    """

    path: str
    config: str = ""
    files: Sequence[str] = ()
    folder: str = ""
    split: str = "train"
    revision: str = ""

    @property
    def name(self) -> str:
        """A task's name after the place."""
        path = self.files[0] if self.path in _FORMATS and self.files else self.path
        return task_name(Path(path.rstrip("/*"))) or "task"

    def keys(self, base: Path) -> dict[str, Any]:
        """Keys of a `[[data.task]]` table.

        Args:
            base: The configuration's folder.

        Raises:
            NotFoundError: Nothing is there, or nothing that curator can read.
        """
        here = local_path(self.path, base)
        if self.path in _FORMATS:
            if not self.files:
                raise NotFoundError(f"{self.path} without `data_files` is no data")
            return self._here([os.path.join(self.folder, file) for file in self.files], base)
        if here is not None:
            if not self.files and not self.folder:
                return self._here([here], base)
            return self._here([os.path.join(here, self.folder, file) for file in self.files or [""]], base)
        if not _is_hub_id(self.path):
            raise NotFoundError(f"{self.path} does not exist")
        split = {"split": self.split} if self.split != "train" else {}
        if not self.files and not self.folder:
            return {"hub": self.path, "config": self.config, "revision": self.revision} | split
        if self.config or split:
            raise NotFoundError("files of a hub data set together with a configuration or a split are not known")
        at = "/".join(part for part in (f"{self.path}{'@' * bool(self.revision)}{self.revision}", self.folder) if part)
        return {"path": _one([f"hf://datasets/{at}/{file}".rstrip("/") for file in self.files or [""]])}

    def _here(self, written: list[str], base: Path) -> dict[str, Any]:
        found = []
        for file in written:
            path = local_path(file, base)
            if path is None:
                raise NotFoundError(f"{file} does not exist")
            if not _is_readable(path):
                raise NotFoundError(f"{path} is no known kind of file")
            found.append(path)
        if self.split == "train":
            return {"path": _one(found)}
        # Files have one split, which is called train; only folders that `save_to_disk` wrote may have more.
        if len(found) == 1 and is_saved_dataset(Path(found[0])):
            return {"path": found[0], "split": self.split}
        raise NotFoundError(f"the split {self.split!r} of files is not known")


def local_path(written: str, base: Path) -> str | None:
    """A path in a configuration as an absolute one, an address as it is; None where there is nothing.

    Args:
        written: Relative to the configuration's folder or, where that has none, to the present one.
        base: The configuration's folder.
    """
    if is_remote(written):
        return written
    for folder in (base, Path.cwd()):
        path = Path(os.path.abspath(folder / Path(written).expanduser()))
        if path.exists() or (has_wildcards(written) and any(path.parent.glob(path.name))):
            return str(path)
    return None


def _is_readable(path: str) -> bool:
    """Whether curator knows the kind of a file; a folder or a glob is looked into later."""
    there = Path(path)
    return is_remote(path) or has_wildcards(path) or there.is_dir() or is_task_file(there)


def _is_hub_id(path: str) -> bool:
    plain = path.count("/") <= 1 and not path.startswith((".", "/", "~"))
    return plain and bool(path) and not is_task_file(Path(path)) and not has_wildcards(path)


def _one(paths: list[str]) -> Any:
    """A path alone rather than in a list of one."""
    return paths[0] if len(paths) == 1 else paths

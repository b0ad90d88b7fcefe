"""Describe the source of one task's rows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from curator.core.errors import DataError
from curator.core.figures import first_of
from curator.core.files import File

Value = str | int | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Name the files, the saved data set or the hub data set of one task, and the rows to read."""

    name: str
    files: tuple[File, ...] = ()
    """Files in reading order."""
    folder: Path | None = None
    """Folder of a saved data set, which `datasets.load_from_disk` reads. `files` are then its parts."""
    hub: str = ""
    config: str = ""
    split: str = "train"
    revision: str = ""
    streaming: bool | None = None
    column: str = ""
    value: Value = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of the rows by curator's field name. Dots lead into a column: `data.question`."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Role by speaker."""
    rows: str = ""
    """Path to the list of rows inside a JSON object or a nested row."""
    csv: Mapping[str, Any] = field(default_factory=dict)
    """`delimiter`, `header` and `quoting` of CSV files, each if it is set."""
    tags: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return all settings that decide which rows are read. Settings with default values are omitted."""
        described: dict[str, Any] = {}
        if self.hub:
            described = {"hub": self.hub, "config": self.config, "revision": self.revision}
        if self.folder is not None:
            described["saved_dataset"] = True
        if self.split != "train":
            described["split"] = self.split
        described = {key: value for key, value in described.items() if value != ""}
        if self.streaming is not None:
            described["streaming"] = self.streaming
        described |= self.filter
        if self.columns:
            described["columns"] = dict(self.columns)
        if self.roles:
            described["roles"] = dict(self.roles)
        if self.rows:
            described["rows"] = self.rows
        if self.csv:
            described["csv"] = dict(self.csv)
        return described

    @property
    def filter(self) -> dict[str, Any]:
        """Return the column and the value that select the task's rows, or an empty dict."""
        return {"column": self.column, "value": self.value} if self.column else {}

    @classmethod
    def described(cls, name: str, description: Mapping[str, Any], files: Sequence[File]) -> Self:
        """Rebuild a source from the result of `describe`, for example from a manifest.

        Args:
            name: Name of the task.
            description: Result of `describe`.
            files: Files of the source in reading order.

        Raises:
            DataError: A saved data set has no local files.
        """
        rest = dict(description)
        saved = rest.pop("saved_dataset", False)
        parents = [file.parent for file in files if isinstance(file, Path)]
        if saved and len(parents) < max(len(files), 1):
            raise DataError(f"task {name!r}: a saved data set needs local files", hint="Do not use this manifest.")
        return cls(
            name=name,
            files=() if rest.get("hub") else tuple(files),
            folder=Path(os.path.commonpath(parents)) if saved else None,
            **rest,
        )

    @property
    def place(self) -> str:
        """Return the place of the rows for error messages."""
        return self.hub or str(self.folder or first_of(self.files, 3))

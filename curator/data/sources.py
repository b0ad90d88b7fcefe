"""Where the rows of one task come from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from curator.core.files import File

Value = str | int | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one task's rows come from."""

    name: str
    files: tuple[File, ...] = ()
    """Files, in the order in which they are read."""
    folder: Path | None = None
    """A folder that `datasets.load_from_disk` reads; `files` are then its parts."""
    hub: str = ""
    config: str = ""
    split: str = "train"
    revision: str = ""
    streaming: bool | None = None
    column: str = ""
    value: Value = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """What curator calls a field → the column that holds it."""
    roles: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What decides which rows are read, beside the bytes of the files; only what is not as usual."""
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
        return described

    @property
    def filter(self) -> dict[str, Any]:
        """The column and its value, where only some of the rows are the task's."""
        return {"column": self.column, "value": self.value} if self.column else {}

    @classmethod
    def described(cls, name: str, description: Mapping[str, Any], files: Sequence[File]) -> Self:
        """The source that `describe` has described: as a manifest has it, with where its files are now."""
        rest = dict(description)
        saved = rest.pop("saved_dataset", False)
        parents = [file.parent for file in files if isinstance(file, Path)]
        return cls(
            name=name,
            files=() if rest.get("hub") else tuple(files),
            folder=Path(os.path.commonpath(parents)) if saved else None,
            **rest,
        )

    @property
    def place(self) -> str:
        """Where the rows are, for messages."""
        return self.hub or str(self.folder or ", ".join(map(str, self.files[:3])))

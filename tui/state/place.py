"""The user's place in a project, kept between sessions.

`Remembered` reads and writes small JSON files. `Place` is one of them, `tui.settings.Settings` is the other.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from curator.core.files import read_small_json, write_whole
from curator.core.text import clean
from tui.state.filters import SORTS

_VERSION = 1
_LONGEST = 1000


@dataclass(slots=True, kw_only=True)
class Remembered:
    """Values in a small JSON file. A subclass names the fields and their defaults."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. A value that is missing, damaged or of another version keeps its default."""
        made = cls()
        try:
            values = read_small_json(path)
            if values.pop("version") != _VERSION:
                return made
            for known in fields(made):
                if made.fits(known.name, values.get(known.name)):
                    setattr(made, known.name, values[known.name])
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            pass
        return made

    def fits(self, name: str, value: object) -> bool:
        """Return whether a field accepts a value: the type matches, and every text is short and printable."""
        if type(value) is not type(getattr(self, name)):
            return False
        if isinstance(value, dict):
            return all(_is_short(word) for pair in value.items() for word in pair)
        if isinstance(value, list):
            return all(_is_short(word) for word in value)
        return not isinstance(value, str) or _is_short(value)

    def write(self, path: Path) -> None:
        """Write the file completely or not at all. Errors of the disk are ignored."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps({"version": _VERSION, **asdict(self)}, indent=1).encode())
        except OSError:
            return


@dataclass(slots=True, kw_only=True)
class Place(Remembered):
    """The screen, task, filter and order that the user saw last in a project."""

    mode: str = "home"
    task: str = ""
    """Name of the task under the cursor."""
    filter: str = ""
    sort: str = "affinity"
    descending: bool = True
    compared: list[Any] = field(default_factory=list)
    """Names of the compared selections."""

    def fits(self, name: str, value: object) -> bool:
        """Return whether a field accepts a value. The sort column must exist."""
        # A bare `super()` fails in a dataclass with slots.
        return Remembered.fits(self, name, value) and (name != "sort" or value in SORTS)


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and clean(value) == value

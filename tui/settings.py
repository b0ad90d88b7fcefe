"""What the interface remembers between sessions: settings of the person, and where she was in each project."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from curator.core.files import read_small_json, write_whole
from curator.core.text import clean
from tui.state.filters import SORTS

_VERSION = 1
_LONGEST = 1000


@dataclass(slots=True, kw_only=True)
class _Remembered:
    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it; what is missing, damaged or of another version is as it was at first."""
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
        """Whether a field can take a value that was read: it is of its type, and words are such as can be shown."""
        if type(value) is not type(getattr(self, name)):
            return False
        if isinstance(value, dict):
            return all(_is_short(word) for pair in value.items() for word in pair)
        if isinstance(value, list):
            return all(_is_short(word) for word in value)
        return not isinstance(value, str) or _is_short(value)

    def write(self, path: Path) -> None:
        """Write it, whole or not at all; a disk that is full or read-only is no reason to stop."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps({"version": _VERSION, **asdict(self)}, indent=1).encode())
        except OSError:
            return


@dataclass(slots=True, kw_only=True)
class Settings(_Remembered):
    """What a person likes, on all projects."""

    theme: str = ""
    """"" picks one that fits the terminal."""
    mouse: bool = True
    motion: bool = True
    """Whether scrolling and the like may be animated; never over SSH."""
    keys: dict[str, str] = field(default_factory=dict)
    """Keys by action, where they differ from the registry's: `{"toggle": "x"}`."""

    @staticmethod
    def place() -> Path:
        """Where settings live, as the XDG convention has it."""
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(base) / "curator" / "tui.json"


@dataclass(slots=True, kw_only=True)
class Place(_Remembered):
    """Where somebody was in a project."""

    mode: str = "home"
    task: str = ""
    """Under the cursor."""
    filter: str = ""
    sort: str = "affinity"
    descending: bool = True
    compared: list[Any] = field(default_factory=list)
    """Names of the selections that were compared."""

    def fits(self, name: str, value: object) -> bool:
        """As everywhere, and the tasks can be sorted by it."""
        # A base class of a dataclass with slots is not found by a bare `super()`.
        return _Remembered.fits(self, name, value) and (name != "sort" or value in SORTS)


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and clean(value) == value

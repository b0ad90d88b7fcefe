"""What the interface remembers between sessions: settings of the person, and where she was in each project."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from curator.files import write_whole

_VERSION = 1


@dataclass(slots=True, kw_only=True)
class _Remembered:
    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it; what is missing, damaged or of another version is as it was at first."""
        made = cls()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("version") != _VERSION:
                return made
            for known in fields(made):
                if isinstance(values.get(known.name), type(getattr(made, known.name))):
                    setattr(made, known.name, values[known.name])
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            pass
        return made

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

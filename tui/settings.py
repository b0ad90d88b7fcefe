"""The user's preferences, kept between sessions and shared by all projects."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from tui.state.place import Remembered


@dataclass(slots=True, kw_only=True)
class Settings(Remembered):
    """The user's preferences, the same for all projects."""

    theme: str = ""
    """Name of the theme. The empty text selects a theme that fits the terminal."""
    mouse: bool = True
    motion: bool = True
    """Whether Textual animates scrolling. Animation is always off over SSH."""
    keys: dict[str, str] = field(default_factory=dict)
    """Keys by action that replace those of `tui.actions`: `{"toggle": "x"}`."""

    @staticmethod
    def place() -> Path:
        """Return the path of the settings file, by the XDG convention."""
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(base) / "curator" / "tui.json"

"""The preferences of the user, kept between sessions and shared by all projects."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from tui.state.place import Remembered


@dataclass(slots=True, kw_only=True)
class Settings(Remembered):
    """The preferences of the user, the same for all projects."""

    theme: str = ""
    """Name of the theme. The empty text selects a theme that fits the terminal."""
    mouse: bool = True
    motion: bool = True
    """Whether Textual animates scrolling. Animation is always off over SSH."""
    columns: list[str] = field(default_factory=list)
    """Columns of the table of tasks, as in `tui.widgets.task_columns`. The empty list shows as many as fit."""
    keys: dict[str, str] = field(default_factory=dict)
    """Keys by action that replace those of `tui.actions`: `{"toggle_task": "x"}`."""

    @staticmethod
    def place() -> Path:
        """Return the path of the settings file, by the XDG convention."""
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(base) / "curator" / "tui.json"

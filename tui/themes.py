"""Two color themes, and the choice of a theme for a terminal."""

from collections.abc import Container

from textual.theme import Theme

THEMES = (
    Theme(
        name="curator-dark",
        primary="#7aa2f7",
        secondary="#9d7cd8",
        accent="#e0af68",
        success="#8fc16a",
        warning="#e0af68",
        error="#f7768e",
        foreground="#c8d0e8",
        background="#16181f",
        surface="#1b1e27",
        panel="#2a2f3f",
        dark=True,
    ),
    Theme(
        name="curator-light",
        primary="#2953b8",
        secondary="#6b3fa0",
        accent="#8a5a00",
        success="#2f6f1e",
        warning="#8a5a00",
        error="#b3261e",
        foreground="#1d2330",
        background="#fbfbf8",
        surface="#f1f2ee",
        panel="#dcdfe6",
        dark=False,
    ),
)


def fitting_theme(color_system: str | None, available: Container[str]) -> str:
    """Choose a theme that the terminal can show: `curator-dark` with true color, else a theme of the terminal.

    Args:
        color_system: Color system as named by Rich: `truecolor`, `256`, `standard` or None.
        available: Names of the available themes.
    """
    if color_system == "truecolor":
        return "curator-dark"
    return "ansi-dark" if "ansi-dark" in available else "textual-dark"

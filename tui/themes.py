"""Color themes, and the choice of a theme for a terminal."""

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
    Theme(
        # 16 colors of the terminal, on its own background. Dark blue is too dark on black.
        name="curator-16",
        ansi=True,
        primary="ansi_bright_cyan",
        secondary="ansi_magenta",
        accent="ansi_yellow",
        success="ansi_green",
        warning="ansi_yellow",
        error="ansi_red",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        boost="ansi_default",
        dark=True,
        variables={
            "ansi-background": "ansi_black",
            "ansi-foreground": "ansi_white",
            "border": "ansi_cyan",
            "border-blurred": "ansi_default",
            "block-cursor-foreground": "ansi_black",
            "block-cursor-background": "ansi_white",
            "input-cursor-background": "ansi_white",
            "input-cursor-foreground": "ansi_black",
            "input-cursor-text-style": "none",
            "input-selection-background": "ansi_cyan",
            "input-selection-foreground": "ansi_black",
            "screen-selection-background": "ansi_cyan",
            "screen-selection-foreground": "ansi_black",
            "scrollbar": "ansi_cyan",
            "scrollbar-hover": "ansi_cyan",
            "scrollbar-active": "ansi_bright_cyan",
            "footer-key-foreground": "ansi_cyan",
            "link-color": "ansi_cyan",
            "markdown-h3-color": "ansi_cyan",
        },
    ),
)


def fitting_theme(color_system: str | None) -> str:
    """Choose a theme that the terminal can show: `curator-dark` with 256 or more colors, else `curator-16`.

    Args:
        color_system: Color system as named by Rich: `truecolor`, `256`, `standard` or None.
    """
    return "curator-dark" if color_system in ("truecolor", "256") else "curator-16"

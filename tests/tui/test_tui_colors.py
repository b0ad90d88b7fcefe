"""Colors in real terminals with 256 and with 16 colors, read from the escape sequences that tmux keeps."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.color import Color, ColorSystem
from textual.pilot import Pilot
from tui_pilot import App, drive
from tui_tmux import Tmux, needs_tmux, tmux

import curator
from tui.colors import downgraded
from tui.themes import fitting_theme
from tui.widgets.matrix import Matrix

__all__ = ["tmux"]
DrawnProject = Callable[..., Path]

_SEQUENCE = re.compile(r"\x1b\[([\d;]*)m")


def _open(tmux: Tmux, project: Path, terminal: str, mode: str) -> None:
    """Open a screen in a terminal without COLORTERM."""
    tmux.type(f"env -u COLORTERM TERM={terminal} {sys.executable} -m curator tui -p {project}")
    tmux.keys("Enter")
    tmux.until(lambda shown: "? help" in shown and "reading …" not in shown)
    tmux.keys(mode)
    tmux.until(lambda shown: f"[{mode} " in shown)


def _numbers(pane: str) -> list[list[str]]:
    """Return the numbers of each sequence of a screen."""
    return [found[1].split(";") for found in _SEQUENCE.finditer(pane)]


def test_downgraded_dark_gray_stays_gray() -> None:
    found = [downgraded(Color.parse(name), ColorSystem.EIGHT_BIT).number for name in ("#16181f", "#2a2f3f", "#c8d0e8")]
    assert found == [234, 236, 252]


@pytest.mark.parametrize(
    ("system", "theme"),
    [("truecolor", "curator-dark"), ("256", "curator-dark"), ("standard", "curator-16"), (None, "curator-16")],
)
def test_fitting_theme_color_system_is_one_that_it_shows(system: str | None, theme: str) -> None:
    assert fitting_theme(system) == theme


@needs_tmux
def test_terminal_without_colorterm_shows_dark_theme_in_256_colors(drawn_project: DrawnProject, tmux: Tmux) -> None:
    _open(tmux, drawn_project(), "xterm-256color", "2")
    tmux.until(lambda shown: "▌" in shown and "≈" not in shown)
    pane = tmux.pane(colors=True)
    numbers = _numbers(pane)
    backgrounds = {int(code[code.index("48") + 2]) for code in numbers if "48" in code}
    assert "2" not in {code[code.index("48") + 1] for code in numbers if "48" in code}, "no true color"
    # The background of the theme, and the row of the cursor: grays, not black or blue.
    assert {234, 236} <= backgrounds
    assert 17 not in backgrounds
    tmux.quit()


@needs_tmux
def test_terminal_with_16_colors_shows_no_dark_blue_and_no_reverse(drawn_project: DrawnProject, tmux: Tmux) -> None:
    _open(tmux, drawn_project(), "xterm", "2")
    tmux.until(lambda shown: "▌" in shown and "≈" not in shown)
    for keys, shows in (("2", "[2 "), ("1", "[1 "), ("3", "[3 "), ("5", "[5 "), ("4", "[4 "), ("?", "filter")):
        tmux.keys(keys)
        tmux.until(lambda shown, shows=shows: shows in shown)  # type: ignore[misc]
        pane = tmux.pane(colors=True)
        codes = {number for code in _numbers(pane) for number in code}
        assert codes & {"34", "38", "48"} == set(), f"dark blue or other colors on screen {keys}"
        # Scrollbars are reversed, such as that of the help. The row of the cursor is not.
        rows = "\n".join(line for line in pane.splitlines() if "▌" in line and keys != "?")
        assert "7" not in {number for code in _numbers(rows) for number in code}, f"reversed row on screen {keys}"
    tmux.keys("Escape")
    tmux.until(lambda shown: "─ help ─" not in shown)
    tmux.quit()


@needs_tmux
def test_terminal_with_16_colors_bar_keeps_sense_under_cursor(drawn_project: DrawnProject, tmux: Tmux) -> None:
    _open(tmux, drawn_project(), "xterm", "2")
    tmux.until(lambda shown: "▌" in shown and "≈" not in shown)
    line = next(line for line in tmux.pane(colors=True).splitlines() if "▌" in line and "│" in line)
    front, back, of_bar = "39", "49", set()
    for place, text in re.findall(r"\x1b\[([\d;]*)m([^\x1b]*)", line):
        for code in place.split(";"):
            if code in ("", "0"):
                front, back = "39", "49"
            elif re.fullmatch("[39]\\d", code):
                front = code
            elif re.fullmatch("4\\d|10\\d", code):
                back = code
        if "█" in text or "▐" in text:
            of_bar.add((front, back))
    helps = "█" in line.partition("│")[2]
    assert of_bar == {("32" if helps else "35", "47")}, "green or purple on the white row, not reversed"
    tmux.quit()


@needs_tmux
def test_terminal_difference_above_noise_is_red_if_worse(drawn_project: DrawnProject, tmux: Tmux) -> None:
    project = drawn_project()
    curator.Project.open(project).select(name="best", k=3)
    _open(tmux, project, "xterm", "2")
    tmux.until(lambda shown: "vs best same" in shown and "≈" not in shown)
    found = set()
    # All tasks are worse than the best ones, so leaving them one by one gives differences of both kinds.
    tmux.keys("a")
    for _ in range(12):
        tmux.until(lambda shown: re.search(r"vs best [+−]\d", shown) and "≈" not in shown)
        for start, number, noise in re.findall(r"vs best ((?:\x1b\[[\d;]*m)*)([+−][\d.]+)(~?)", tmux.pane(colors=True)):
            colored = {code for part in _SEQUENCE.findall(start) for code in part.split(";")} & {"31", "32", "91", "92"}
            found.add(("noise" if noise else number[0], *colored))
        tmux.keys("Space", "j")
        time.sleep(0.3)
    assert found <= {("+", "31"), ("+", "91"), ("−", "32"), ("−", "92"), ("noise",)}
    assert "+" in {kind for kind, *_ in found}
    tmux.quit()


def _luminance(color: Color) -> float:
    parts = [part / 255 for part in color.get_truecolor()]
    red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["curator-dark", "curator-light"])
@pytest.mark.parametrize("system", [ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT])
def test_matrix_help_and_harm_have_equal_contrast(
    drawn_project: DrawnProject, theme: str, system: ColorSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    async def story(app: App, pilot: Pilot[None]) -> dict[str, float]:
        app.theme = theme
        await pilot.press("3")
        await pilot.pause()
        matrix = app.screen.query_one(Matrix)
        contrast = {}
        for name in ("good", "harm"):
            style = matrix._layers(name, "")
            assert style.color is not None
            assert style.bgcolor is not None
            pair = sorted(_luminance(downgraded(color, system)) for color in (style.color, style.bgcolor))
            contrast[name] = (pair[1] + 0.05) / (pair[0] + 0.05)
        return contrast

    found = drive(drawn_project(), story)
    assert min(found.values()) >= 4.5, found
    assert max(found.values()) / min(found.values()) <= 1.6, found

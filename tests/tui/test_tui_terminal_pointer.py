"""Pointer, palette, panes, columns, dead keys and the report, in a real terminal."""

import re
from collections.abc import Callable
from pathlib import Path

from tui_tmux import Tmux, has, needs_tmux, tmux

import curator

__all__ = ["tmux"]
pytestmark = needs_tmux
DrawnProject = Callable[..., Path]


def _footer(shown: str) -> str:
    return shown.rstrip().splitlines()[-1]


def test_pointer_palette_zoom_columns_and_dead_keys_answer_in_terminal(drawn_project: DrawnProject, tmux: Tmux) -> None:
    project = drawn_project()
    opened = curator.Project.open(project)
    opened.select(name="old", k=2)
    opened.select(name="new", k=4)
    tmux.open(project, "1")
    tmux.until(has("★ new", "better than"))

    # Tabs and hints react to the pointer.
    tmux.click_on(" 3 ", 0)
    tmux.until(has("[3 Matrix]", "order: cluster"))
    tmux.press("4", has("[4 Jobs]", "no jobs yet"))
    footer = _footer(tmux.pane())
    assert not re.search(r"open|pane|copy|stop|resume", footer), "without a job, the footer offers none of its keys"
    assert "R run" in footer
    tmux.press("2", lambda shown: "[2 Tasks]" in shown and "enter open" in _footer(shown))
    tmux.click_on("space toggle", -1)
    tmux.until(has("1 changed"))
    tmux.press("u", has("✓ saved"))
    tmux.click_on("enter open", -1)
    tmux.until(has("of its examples", "space mark"))
    tmux.press("Escape", has("helps by ▼"))

    # A dead key says why.
    tmux.press("r", has("r does nothing here. It means `rename` on Home, `resume` on Jobs."))
    tmux.press("J", has("J does nothing here. ? lists the keys."))

    # A pane can be zoomed.
    tmux.press("1 Tab", has("[1 Home]", "selections"))
    tmux.press("z", lambda shown: "z all panes" in _footer(shown) and "needs attention" in shown and "★" not in shown)
    tmux.press("z", lambda shown: "z all panes" not in _footer(shown) and "★ new" in shown)

    # Columns can be chosen.
    tmux.press("2", has("if flipped", "helps by ▼"))
    tmux.press("C", has("○ source", "file or id on the hub", "space choose"))
    tmux.press("G k Space Enter", lambda shown: "00004.jsonl" in shown and "if flipped" not in shown)
    tmux.press("C c Enter", lambda shown: "if flipped" in shown and "00004.jsonl" not in shown)

    # Selections, jobs and themes are in the palette.
    tmux.press(":", has("🔎"))
    tmux.type("old")
    tmux.until(lambda shown: re.search(r"[Ll]oad.* old\b", shown))
    tmux.press("Enter", has("vs old same", "2/12 in"))
    tmux.press(":", has("🔎"))
    tmux.type("curator-light")
    tmux.until(has("Use theme curator-light"))
    before = tmux.pane(colors=True)
    tmux.press("Enter", lambda shown: "🔎" not in shown)
    light = "48;5;25[45]|48;2;2[2-5][0-9]"
    assert not re.search(light, before)
    assert re.search(light, tmux.pane(colors=True)), "a light background"

    # The key of the report writes a file that opens without network, and names its selection.
    tmux.press("g Space", has("1 changed"))
    tmux.press("E", has("report of old as saved, without the edits since: "))
    tmux.quit()
    page = (project / "curator-report.html").read_text()
    assert not re.search(r"""(?:src|href|srcset|data|action)\s*=\s*["']?\s*(?:https?:)?//|url\(|@import|<link""", page)
    assert "old" in page

"""Every screen at two sizes, cell by cell.

`CURATOR_UPDATE_SNAPSHOTS=1 pytest tests/tui/test_tui_layout.py` overwrites the expected screens. Read the diff.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from tui_pilot import App, drive, is_solved, masked, until

SNAPSHOTS = Path(__file__).parent / "snapshots"
# What leads to each screen, from wherever the one before left off.
SCREENS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("home", ("1",), "pipeline"),
    ("tasks", ("2", "j", "p", "j", "space", "m"), "Δflip"),
    ("filter", ("slash", *"tag:math|aff>0", "enter"), "tag:math"),
    ("task", ("escape", "escape", "g", "enter"), "influence"),
    ("matrix", ("escape", "3", "j", "right", "right"), "synergy"),
    ("runs", ("4",), "R"),
    ("compare", ("5",), "Jaccard"),
    ("help", ("2", "question_mark"), "on tasks"),
    ("fill", ("escape", "f"), "fill up"),
    ("save", ("escape", "w"), "save selection"),
    ("order", ("escape", "b"), "least"),
)


def _machine(line: str) -> str:
    return re.sub(r"[\d▁▂▃▄▅▆▇█]", "#", line) if re.search(r"cpu|ram |disk|store", line) else line


def _steady(app: App) -> str:
    """What is the same on every machine and every day."""
    shown = masked(app)
    lines = [_machine(line) for line in shown.splitlines()]
    # An estimate of ten milliseconds takes a cell more than one of nine.
    lines = [re.sub(r" *✓ #+ ms", lambda found: "✓ # ms".rjust(len(found[0])), line) for line in lines]
    shown = re.sub(r"/\S*/drawn-12", lambda found: "~" * len(found[0]), "\n".join(lines))
    return shown.rstrip() + "\n"


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_layout(
    size: tuple[int, int], drawn_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    async def story(app: App, pilot: Pilot[None]) -> dict[str, str]:
        found = {}
        for name, keys, sign in SCREENS:
            await pilot.press(*keys)
            await until(pilot, lambda sign=sign: is_solved(app) and sign in masked(app))
            last = ""
            while (shown := _steady(app)) != last or not shown.split("\n", 1)[0]:
                last = shown
                # Textual draws what lies under a dialog or not, as it happens to be asked.
                app.screen.refresh()
                # What is said for a while is said for longer on a slow machine.
                app.flash_line = ()
                app.show_flash()
                await pilot.pause(0.2)
            found[name] = shown
        return found

    width, height = size
    for name, shown in drive(drawn_project(), story, size).items():
        path = SNAPSHOTS / f"{name}-{width}x{height}.txt"
        if os.environ.get("CURATOR_UPDATE_SNAPSHOTS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(shown, encoding="utf-8")
        assert shown == path.read_text(encoding="utf-8"), f"{name} looks otherwise"

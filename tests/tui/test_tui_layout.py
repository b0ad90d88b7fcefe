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
# Name of each screen, keys that open it from the previous screen, and texts that it shows when it is complete.
SCREENS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("home", ("1",), "pipeline"),
    ("tasks", ("2", "j", "p", "j", "space", "m"), "if flipped"),
    ("filter", ("slash", *"tag:math|aff>0", "enter"), "tag:math"),
    ("task", ("escape", "escape", "g", "enter"), "hurts | help: "),
    ("matrix", ("escape", "3", "j", "right", "right"), "synergy"),
    ("runs", ("4",), "no jobs yet"),
    ("compare", ("5",), "Jaccard"),
    ("help", ("2", "question_mark"), "this screen"),
    ("fill", ("escape", "f"), "fill up"),
    ("save", ("escape", "w"), "save selection"),
    ("order", ("escape", "b"), "least"),
)


def _machine(line: str) -> str:
    return re.sub(r"[\d▁▂▃▄▅▆▇█]", "#", line) if re.search(r"cpu|ram |disk|store", line) else line


def _steady(app: App) -> str:
    """Return the screen without values that depend on machine or time."""
    shown = masked(app)
    lines = [_machine(line) for line in shown.splitlines()]
    # The duration of an estimate has one or two digits.
    lines = [re.sub(r" *✓ #+ ms", lambda found: "✓ # ms".rjust(len(found[0])), line) for line in lines]
    shown = re.sub(r"/\S*/drawn-12", lambda found: "~" * len(found[0]), "\n".join(lines))
    return shown.rstrip() + "\n"


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_layout_every_screen_equals_its_snapshot(
    size: tuple[int, int], drawn_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    async def story(app: App, pilot: Pilot[None]) -> dict[str, str]:
        found = {}
        for name, keys, sign in SCREENS:
            await pilot.press(*keys)
            await until(pilot, lambda sign=sign: is_solved(app) and all(s in masked(app) for s in sign.split(" | ")))
            last = ""
            while (shown := _steady(app)) != last or not shown.split("\n", 1)[0]:
                last = shown
                # Textual does not always draw the screen below a dialog.
                app.screen.refresh()
                # The flash line stays for a time that depends on the machine.
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
        assert shown == path.read_text(encoding="utf-8"), f"{name} differs from its snapshot"

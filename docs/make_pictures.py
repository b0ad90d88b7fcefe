"""Draw the pictures of the terminal interface for README and docs.

    python docs/make_pictures.py PROJECT

PROJECT is a copy of sample_data. Run `curator select` and `curator select --method ensemble --name ensemble` on PROJECT
first. The script starts the application on PROJECT and presses keys as a user would, which edits PROJECT.
"""

import asyncio
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tui.app import CuratorApp
from tui.settings import Settings

FOLDER = Path(__file__).parent / "pictures"
# Name, width, height, and the keys that open the screen after the start.
PICTURES: tuple[tuple[str, int, int, Sequence[str]], ...] = (
    ("tasks", 120, 32, ("2", "g", "j", "j", "p", "G", "space", "u", "g", "j", "j", "j", "j", "j", "space", "k")),
    ("home", 100, 26, ("1",)),
    ("task", 120, 32, ("2", "g", "enter")),
    ("matrix", 120, 41, ("3", "j", "l", "l")),
    ("compare", 100, 26, ("5",)),
    ("order", 100, 26, ("2", "b")),
)
_SECONDS = 30.0


async def _draw(root: Path, name: str, width: int, height: int, keys: Sequence[str]) -> None:
    app = CuratorApp(root, Settings(theme="curator-dark", motion=False))
    async with app.run_test(size=(width, height)) as pilot:
        deadline = time.monotonic() + _SECONDS
        while app.estimate is None or not app.estimate.solved.all():
            assert time.monotonic() < deadline, "the project has no estimates"
            await pilot.pause(0.1)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.3)
        app.flash_line = ()
        app.show_flash()
        await pilot.pause(2.0)
        picture = app.export_screenshot(title=f"curator tui · {name}")
        # Web fonts would need a network.
        picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.svg").write_text(picture, encoding="utf-8")
        await app.leave()


def main() -> None:
    """Draw all pictures."""
    root = Path(sys.argv[1])
    for name, width, height, keys in PICTURES:
        asyncio.run(_draw(root, name, width, height, keys))
        print(f"{name}.svg")


if __name__ == "__main__":
    main()

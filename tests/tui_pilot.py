"""Drives the terminal interface in tests: opens a project, waits, and reads the screen as text."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from tui.app import CuratorApp
from tui.memory import Settings

App = CuratorApp
Drive = Callable[[CuratorApp, Pilot[None]], Awaitable[Any]]


def grid(app: CuratorApp) -> list[str]:
    """The screen, row by row."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip) for strip in strips]


def text(app: CuratorApp) -> str:
    """The screen as one text."""
    return "\n".join(grid(app))


def masked(app: CuratorApp) -> str:
    """The screen without what differs from run to run, each row as wide as before."""
    shown = text(app)
    for pattern in (
        r"\b\d\d:\d\d\b(:\d\d)?",
        r"✓ +\d+ ms",
        r"\d[\d.]* ?[kMGT]?B",
        r"\d[\d.,]* (ms|s|min)( \d\d s)?\b",
        r"\d+%",
        r"pid \d+",
        r"[▁▂▃▄▅▆▇█]{6,}",
    ):
        shown = re.sub(pattern, lambda found: re.sub(r"[\d▁▂▃▄▅▆▇█]", "#", found[0]), shown)
    return shown


async def until(pilot: Pilot[None], test: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "it did not come to be\n" + text(pilot.app)  # type: ignore[arg-type]
        await pilot.pause(0.02)
    await pilot.pause()


def is_solved(app: CuratorApp) -> bool:
    """Whether the newest selection is estimated, with every flip that is solved in full."""
    if app.workspace is None:
        return False
    if app.workspace.answers is None or app.session is None:
        return True
    outlook = app.outlook
    full = len(app.session.names) <= 300
    return outlook is not None and outlook.revision == app.session.revision and bool(outlook.solved.all() or not full)


@asynccontextmanager
async def opened(
    root: Path, size: tuple[int, int] = (80, 24), **settings: Any
) -> AsyncIterator[tuple[CuratorApp, Pilot[None]]]:
    """The interface on a project, when everything that it reads at first is there."""
    app = CuratorApp(root, Settings(theme="curator-dark", motion=False, **settings))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.trouble is not None or is_solved(app))
        await pilot.pause()
        yield app, pilot
        if app.is_running:
            await app.leave()


def drive(root: Path, story: Drive, size: tuple[int, int] = (80, 24), **settings: Any) -> Any:
    """Open a project and do something with it."""

    async def main() -> Any:
        async with opened(root, size, **settings) as (app, pilot):
            return await story(app, pilot)

    return asyncio.run(main())

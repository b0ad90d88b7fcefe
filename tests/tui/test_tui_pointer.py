"""Tabs and hints react to the pointer, and a dead key says why."""

from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot
from tui_pilot import App, drive, grid, text, until

DrawnProject = Callable[..., Path]


def test_pointer_on_tab_and_hint_acts_and_dead_key_says_why(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("1")
        await until(pilot, lambda: app.current_mode == "home")
        await pilot.click("#top", offset=(grid(app)[0].index(" 3 ") + 1, 0))
        await until(pilot, lambda: app.current_mode == "matrix")
        await pilot.press("2")
        await until(pilot, lambda: "enter open" in grid(app)[-1])
        await pilot.click("#hints", offset=(grid(app)[-1].index("enter open") + 1, 0))
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("escape", "2")
        await until(pilot, lambda: "space toggle" in grid(app)[-1])
        before = app.session.revision if app.session is not None else 0
        await pilot.click("#hints", offset=(grid(app)[-1].index("space toggle"), 0))
        await until(pilot, lambda: app.session is not None and app.session.revision == before + 1)
        await pilot.press("r")
        await until(pilot, lambda: "r does nothing here. It means `rename` on Home, `resume` on Jobs." in text(app))
        await pilot.press("J")
        await until(pilot, lambda: "J does nothing here. ? lists the keys." in text(app))

    drive(drawn_project("12"), story)

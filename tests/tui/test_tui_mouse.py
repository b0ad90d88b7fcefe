"""Mouse clicks, and the rows of the Home screen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from tui_pilot import App, drive, is_solved, until

from tui.screens.home import Attention, Selections
from tui.state.filters import SORTS
from tui.widgets.task_table import TaskTable, TaskTitle

DrawnProject = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_user_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_mouse_click_on_glyph_toggles_and_on_title_sorts(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(pilot, lambda: is_solved(app))
        session, table = app.session, app.screen.query_one(TaskTable)
        assert session is not None
        task = int(table.view[3])
        before = session.state(task)
        await pilot.click(TaskTable, offset=(2, 3))
        await until(pilot, lambda: is_solved(app) and session.state(task) != before)
        assert table.cursor == 3
        # A click on the name only moves the cursor.
        await pilot.click(TaskTable, offset=(8, 5))
        await until(pilot, lambda: table.cursor == 5)
        assert len(session.history) == 1

        left = 4
        for column, cells in table.columns(table.size.width):
            wanted = {"bar": "affinity", "rank": "affinity"}.get(column, column)
            sort, descending = app.place.sort, app.place.descending
            await pilot.click(TaskTitle, offset=(left + cells // 2, 0))
            if wanted not in SORTS:
                await pilot.pause()
                assert (app.place.sort, app.place.descending) == (sort, descending), f"{column} has no order"
                left += cells
                continue
            await until(pilot, lambda wanted=wanted: app.place.sort == wanted)
            assert sort != wanted or app.place.descending != descending, "a second click reverses the order"
            left += cells
        # A click before the first column does not sort.
        sort = app.place.sort
        await pilot.click(TaskTitle, offset=(1, 0))
        await pilot.pause()
        assert app.place.sort == sort

    drive(drawn_project(), story, (140, 40))


def test_mouse_double_click_opens_task(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(pilot, lambda: is_solved(app))
        await pilot.click(TaskTable, offset=(8, 2), times=2)
        await until(pilot, lambda: type(app.screen).__name__ == "TaskScreen")

    drive(drawn_project(), story)


def test_home_screen_problem_opens_place_to_fix_it(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        assert app.snapshot is not None
        name = app.snapshot.names[4]
        ends: list[tuple[str, Callable[[], bool]]] = [
            ("runs", lambda: app.current_mode == "runs"),
            ("start", lambda: type(app.screen).__name__ == "RunDialog"),
            ("verify", lambda: type(app.screen).__name__ == "VerifyDialog"),
            (f"task:{name}", lambda: app.current_mode == "tasks" and app.place.task == name),
            ("task:removed since", lambda: app.current_mode == "home"),
            ("", lambda: app.current_mode == "home"),
        ]
        for way, is_there in ends:
            await pilot.press("1")
            await until(pilot, lambda: app.current_mode == "home")
            rows = app.screen.query_one(Attention)
            rows.items, rows.cursor = [("warn", "a problem", way)], 0
            rows.focus()
            await pilot.press("enter")
            await until(pilot, is_there)
            if type(app.screen).__name__.endswith("Dialog"):
                await pilot.press("escape")

    drive(drawn_project(), story)


def test_home_screen_other_selection_is_loaded(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        async def open_first() -> None:
            await pilot.press("1")
            await until(pilot, lambda: is_solved(app) and bool(app.screen.query_one(Selections).items))
            rows = app.screen.query_one(Selections)
            rows.cursor = [item.name for item in rows.items].index("")
            rows.focus()
            await pilot.press("enter")
            await until(pilot, lambda: app.current_mode == "tasks" and is_solved(app))

        session = app.session
        assert session is not None
        await pilot.press("2", "space")
        await until(pilot, lambda: session.is_changed)
        await open_first()
        assert session.mask.all(), "the changed selection is all tasks again"
        edits = len(session.history)
        await open_first()
        assert len(session.history) == edits, "the loaded selection is not loaded again"
        await pilot.press("1")
        rows = app.screen.query_one(Selections)
        rows.items = []
        rows.focus()
        await pilot.press("enter")
        await pilot.pause()
        assert app.current_mode == "home"

    drive(drawn_project(), story)


def test_tasks_screen_unreadable_project_accepts_every_key(make_project: Any) -> None:
    """The configuration is invalid, so that the session never begins."""
    root = make_project()
    (root / "curator.toml").write_text("[nonsense]\nx = 1\n")

    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        for key in ("space", "a", "A", "i", "p", "m", "v", "v", "f", "o", "b", "u", "U", "w", "e", "enter", "s", "S"):
            await pilot.press(key)
            await pilot.pause()
        assert app.session is None
        assert app.is_running

    drive(root, story)

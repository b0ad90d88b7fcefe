"""What a mouse does, and what the rows of the first screen lead to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from tui_pilot import App, drive, is_solved, until

from tui.screens.home import Attention, Selections
from tui.widgets.task_table import TaskTable, TaskTitle

DrawnProject = Callable[..., Path]


@pytest.fixture(autouse=True)
def _settings_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_click_on_a_glyph_toggles_and_one_on_a_title_sorts(drawn_project: DrawnProject) -> None:
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
        # Its name is only gone to.
        await pilot.click(TaskTable, offset=(8, 5))
        await until(pilot, lambda: table.cursor == 5)
        assert len(session.history) == 1

        left = 4
        for column, cells in table.columns(table.size.width):
            wanted = {"bar": "affinity"}.get(column, column)
            sort, descending = app.place.sort, app.place.descending
            await pilot.click(TaskTitle, offset=(left + cells // 2, 0))
            await until(pilot, lambda wanted=wanted: app.place.sort == wanted)
            assert sort != wanted or app.place.descending != descending, "a second click turns it round"
            left += cells
        # Before the first column there is nothing to sort by.
        sort = app.place.sort
        await pilot.click(TaskTitle, offset=(1, 0))
        await pilot.pause()
        assert app.place.sort == sort

    drive(drawn_project(), story, (140, 40))


def test_a_double_click_opens_a_task(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(pilot, lambda: is_solved(app))
        await pilot.click(TaskTable, offset=(8, 2), times=2)
        await until(pilot, lambda: type(app.screen).__name__ == "TaskScreen")

    drive(drawn_project(), story)


def test_what_needs_attention_leads_to_where_it_is_mended(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        assert app.snapshot is not None
        name = app.snapshot.names[4]
        ends: list[tuple[str, Callable[[], bool]]] = [
            ("runs", lambda: app.current_mode == "runs"),
            ("start", lambda: type(app.screen).__name__ == "RunDialog"),
            ("verify", lambda: type(app.screen).__name__ == "VerifyDialog"),
            (f"task:{name}", lambda: app.current_mode == "tasks" and app.place.task == name),
            ("task:gone since", lambda: app.current_mode == "home"),
            ("", lambda: app.current_mode == "home"),
        ]
        for way, is_there in ends:
            await pilot.press("1")
            await until(pilot, lambda: app.current_mode == "home")
            rows = app.screen.query_one(Attention)
            rows.items, rows.cursor = [("warn", "what it says", way)], 0
            rows.focus()
            await pilot.press("enter")
            await until(pilot, is_there)
            if type(app.screen).__name__.endswith("Dialog"):
                await pilot.press("escape")

    drive(drawn_project(), story)


def test_a_selection_on_the_first_screen_is_loaded_if_it_is_another(drawn_project: DrawnProject) -> None:
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
        assert session.mask.all(), "what was changed is all tasks again"
        edits = len(session.history)
        await open_first()
        assert len(session.history) == edits, "what is there already is not loaded again"
        await pilot.press("1")
        rows = app.screen.query_one(Selections)
        rows.items = []
        rows.focus()
        await pilot.press("enter")
        await pilot.pause()
        assert app.current_mode == "home"

    drive(drawn_project(), story)


def test_every_key_of_the_tasks_is_pressed_where_there_are_none(make_project: Any) -> None:
    """Before anything is read, and where nothing can be."""
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

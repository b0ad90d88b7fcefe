"""The whole interface: every action, every screen, all sizes, resumed sessions, and errors."""

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HOSTILE, MakeProject
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import Input
from tui_pilot import App, drive, grid, is_solved, opened, text, until

from curator.core.text import clean
from curator.estimate.whatif import estimate_selection
from curator.export import FORMATS
from curator.project.project import Project
from curator.select.manifest import read_manifest
from curator.workspace.store.records import StoredEdit
from curator.workspace.store.tables import Store
from tui.actions import ACTIONS, actions_of, bindings_of, key_name
from tui.app import CuratorApp
from tui.dialogs.help import help_lines
from tui.screens.base import MODES
from tui.settings import Settings
from tui.state.place import Place
from tui.state.session import State
from tui.widgets.rows import Rows

DrawnProject = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_user_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


# -- the registry -------------------------------------------------------------------------------------------------


def _classes() -> dict[str, Any]:
    from tui.screens.task import TaskScreen

    screens = {mode: CuratorApp.MODES[mode] for mode in MODES}
    return {mode: made() if not isinstance(made, type) else made for mode, made in screens.items()} | {
        "task": TaskScreen,
        "list": Rows,
    }


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_actions_every_action_is_bound_implemented_and_in_help(action: Any) -> None:
    for place in action.places:
        for where in MODES if place == "any" else [place]:
            assert callable(getattr(_classes()[where], f"action_{action.id}")), f"{where} does not do {action.id}"
        bound = [b for b in bindings_of(place) if isinstance(b, Binding) and b.action == action.id]
        assert [b.key for b in bound] == [",".join(action.keys)]
        shown = ["".join(part if isinstance(part, str) else part[0] for part in line) for line in help_lines(place)]
        assert any(action.help in line and key_name(action.keys[0]) in line for line in shown)


def test_actions_help_is_one_line_of_80_columns() -> None:
    """The help dialog cuts longer lines."""
    assert [action.id for action in ACTIONS if len(action.help) > 57] == []


@pytest.mark.parametrize("place", [*MODES, "task"])
def test_actions_key_on_screen_has_one_meaning(place: str) -> None:
    keys = [key for where in (place, "any", "list") for a in actions_of(where) for key in a.keys]
    own = {key for a in actions_of(place) for key in a.keys}
    # The matrix moves its own cursor with the keys of lists.
    assert not [key for key in own if keys.count(key) > 1 and place != "matrix"]


# -- stories for every action -------------------------------------------------------------------------------------

Step = Callable[[App, Pilot[None]], Any]


async def _press(app: App, pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()
    await until(pilot, lambda: is_solved(app))


def _is_dialog(app: App, name: str) -> bool:
    return type(app.screen).__name__ == name


async def _story_tasks(app: App, pilot: Pilot[None]) -> set[str]:
    await _press(app, pilot, "2")
    session, screen = app.session, app.screen
    assert session is not None
    table = screen.table  # type: ignore[attr-defined]
    first, second = int(table.view[0]), int(table.view[1])

    # Down, toggle, undo, redo.
    loss = app.estimate.target_loss.loss  # type: ignore[union-attr]
    await _press(app, pilot, "j", "space")
    assert session.state(second) == State.OUT
    assert app.estimate is not None
    assert app.estimate.target_loss.loss != loss
    assert f"{app.estimate.target_loss.loss:.4f}" in text(app)
    await _press(app, pilot, "u")
    assert session.state(second) == State.IN
    assert app.estimate.target_loss.loss == pytest.approx(loss, abs=1e-9)
    await _press(app, pilot, "U")
    assert session.state(second) == State.OUT
    await _press(app, pilot, "u")

    # A range, marks, all shown, pins.
    await _press(app, pilot, "g", "v", "j", "space")
    assert [session.state(row) for row in (first, second)] == [State.OUT, State.OUT]
    await _press(app, pilot, "escape", "u", "g", "m", "m", "p")
    assert [session.state(row) for row in (first, second)] == [State.PINNED_IN, State.PINNED_IN]
    await _press(app, pilot, "escape", "A")
    assert [session.names[row] for row in np.flatnonzero(session.mask)] == sorted(
        session.names[r] for r in (first, second)
    )
    await _press(app, pilot, "i")
    assert session.mask.all()
    await _press(app, pilot, "A", "a")
    assert session.mask.all()

    # Filter, sort.
    await _press(app, pilot, "slash", *"tag:math")
    assert 0 < table.count < len(session.names)
    await _press(app, pilot, "enter", "i")
    assert int(session.mask.sum()) == len(session.names) - (
        table.count - sum(int(r) in (first, second) for r in table.view)
    )
    await _press(app, pilot, "u", "escape")
    assert table.count == len(session.names)
    before = app.place.sort, list(table.view)
    await _press(app, pilot, "s")
    assert app.place.sort != before[0]
    await _press(app, pilot, "S")
    await _press(app, pilot, *["s"] * 6)
    assert app.place.sort == before[0]

    # Fill up, the best order, save, load.
    await _press(app, pilot, "A", "f")
    assert _is_dialog(app, "FillDialog")
    await pilot.press("enter")
    await until(pilot, lambda: app.screen is screen and is_solved(app))
    filled = session.mask
    assert filled[[first, second]].all(), "pins are kept"
    assert session.done[-1].kind == "fill" or "nothing to change" in str(app.flash_line)
    await pilot.press("b")
    await until(pilot, lambda: "least" in text(app))
    await _press(app, pilot, "g", "j", "enter")
    assert "best order, 3 tasks" in session.done[-1].label
    assert int(session.mask.sum()) == 3, "the pinned tasks and the best task"
    await _press(app, pilot, "u", "b")
    await until(pilot, lambda: "least" in text(app))
    await _press(app, pilot, "escape")
    await _press(app, pilot, "w")
    assert _is_dialog(app, "SaveDialog")
    app.screen.query_one(Input).value = "by hand"
    await pilot.press("enter")
    await until(
        pilot, lambda: app.snapshot is not None and app.snapshot.selection("by hand") and not session.is_changed
    )
    await _press(app, pilot, "a", "o", "enter")
    assert (session.mask == filled).all()
    assert session.base == "by hand"
    assert session.pinned(State.PINNED_IN) == [session.names[row] for row in sorted((first, second))]

    # A note, a report.
    await _press(app, pilot, "n")
    assert _is_dialog(app, "NoteDialog")
    await _press(app, pilot, "escape", "E")
    await until(pilot, lambda: "report of " in text(app))

    # Columns.
    await _press(app, pilot, "C")
    assert _is_dialog(app, "ColumnsDialog")
    await _press(app, pilot, "space", "enter")
    assert Settings.read(Settings.place()).columns == ["examples"]
    assert "if flipped" not in text(app)
    await _press(app, pilot, "C", "c", "enter")
    assert "if flipped" in text(app)

    # Verify, compare, export, open.
    await _press(app, pilot, "V")
    assert _is_dialog(app, "VerifyDialog")
    await _press(app, pilot, "escape", "M")
    assert _is_dialog(app, "MeasureDialog")
    await _press(app, pilot, "escape", "c")
    assert app.current_mode == "compare"
    await _press(app, pilot, "2", "e")
    assert _is_dialog(app, "ExportDialog")
    assert "by hand" in text(app)
    await _press(app, pilot, "escape", "enter")
    assert _is_dialog(app, "TaskScreen")
    await _press(app, pilot, "escape")
    return {
        "columns",
        "note",
        "report",
        "toggle_task", "undo", "redo", "range", "mark", "pin", "drop_shown", "invert_shown", "take_shown", "filter",
        "sort", "reverse", "fill", "order", "save", "selections", "verify", "measure", "compare", "export",
    }  # fmt: skip


async def _story_list(app: App, pilot: Pilot[None]) -> set[str]:
    await _press(app, pilot, "2")
    table = app.screen.table  # type: ignore[attr-defined]
    for keys, cursor in (("j", 1), ("k", 0), ("G", 11), ("g", 0)):
        await _press(app, pilot, keys)
        assert table.cursor == cursor
    await _press(app, pilot, "ctrl+d")
    assert table.cursor == min(table.size.height - 1, 11)
    await _press(app, pilot, "ctrl+u")
    assert table.cursor == 0
    await _press(app, pilot, "enter")
    assert _is_dialog(app, "TaskScreen")
    await _press(app, pilot, "escape")
    return {"down", "up", "page_down", "page_up", "first", "last", "open"}


async def _story_any(app: App, pilot: Pilot[None]) -> set[str]:
    for number, mode in enumerate(MODES, 1):
        await _press(app, pilot, str(number))
        assert app.current_mode == mode
        assert "does nothing here" not in text(app)
    await _press(app, pilot, "colon")
    assert _is_dialog(app, "CommandPalette")
    await pilot.press(*"Tasks:")
    await pilot.pause(0.3)
    await pilot.press("enter")
    await pilot.press("enter")
    await until(pilot, lambda: app.current_mode == "tasks")
    await _press(app, pilot, "question_mark")
    assert _is_dialog(app, "HelpDialog")
    await _press(app, pilot, "escape", "f2")
    assert _is_dialog(app, "SettingsDialog")
    await _press(app, pilot, "j")
    theme = app.theme
    await _press(app, pilot, "escape")
    assert app.theme != theme, "escape restores the theme"
    await _press(app, pilot, "f2", "j", "enter")
    assert app.theme == theme
    assert Settings.read(Settings.place()).theme == theme
    before = app.snapshot
    await pilot.press("ctrl+l")
    await until(pilot, lambda: app.snapshot is not before)
    await _press(app, pilot, "R")
    assert _is_dialog(app, "RunDialog")
    assert "curator select -p" in text(app)
    await _press(app, pilot, "escape", "ctrl+o")
    assert _is_dialog(app, "SessionsDialog")
    await until(pilot, lambda: "one window at a time" in text(app))
    await _press(app, pilot, "escape", "1", "z")
    assert "needs attention" not in text(app)
    assert "z all panes" in grid(app)[-1]
    await _press(app, pilot, "z")
    assert "needs attention" in text(app)
    await pilot.press("q")
    await until(pilot, lambda: not app.is_running)
    screens = {f"go_{mode}" for mode in MODES}
    return screens | {"back", "zoom_pane", "palette", "help", "sessions", "settings", "reload", "start", "quit"}


async def _story_home(app: App, pilot: Pilot[None]) -> set[str]:
    await _press(app, pilot, "2", "space", "1", "u")
    assert app.session is not None
    assert app.session.mask.all()
    await _press(app, pilot, "U")
    assert not app.session.mask.all()
    focused = app.focused
    await _press(app, pilot, "tab")
    assert app.focused is not focused
    await _press(app, pilot, "w")
    assert _is_dialog(app, "SaveDialog")
    await _press(app, pilot, "escape", "e")
    assert "save the selection first" in text(app)
    await _press(app, pilot, "E")
    assert "a report describes a saved selection" in text(app)
    await _press(app, pilot, "n")
    assert "to write a note about it" in text(app)
    await _press(app, pilot, "V")
    assert _is_dialog(app, "VerifyDialog")
    await _press(app, pilot, "escape", "M")
    assert _is_dialog(app, "SaveDialog"), "a changed selection is saved before it is measured"
    # All tasks are in the list, but are not a saved selection.
    await _press(app, pilot, "escape", "r")
    await _press(app, pilot, "x")
    assert _is_dialog(app, "HomeScreen"), "all tasks cannot be renamed or deleted"
    await _press(app, pilot, "o")
    assert _is_dialog(app, "SelectionsDialog")
    await _press(app, pilot, "escape", "c")
    assert app.current_mode == "compare"
    done = {"undo", "redo", "next_pane", "save", "export", "compare", "verify", "report", "note"}
    return done | {"measure", "rename", "delete", "selections"}


STORIES: dict[str, Any] = {"tasks": _story_tasks, "list": _story_list, "any": _story_any, "home": _story_home}


@pytest.mark.parametrize("place", STORIES)
def test_app_every_action_of_place_does_what_it_says(place: str, drawn_project: DrawnProject) -> None:
    done = drive(drawn_project(), STORIES[place])
    assert done == {action.id for action in actions_of(place)}, "an action has no story"


# -- sizes, names, numbers of tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 12), (60, 16), (140, 40)])
def test_screens_any_size_fit_the_terminal(size: tuple[int, int], drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        for number in range(1, 6):
            await _press(app, pilot, str(number))
            shown = grid(app)
            assert len(shown) == size[1]
            if size == (40, 12):
                assert "too small" in text(app)
                continue
            assert shown[0].startswith("curator")
            assert "? help" in shown[-1]
        # The screen appears again when the terminal grows.
        await pilot.resize_terminal(80, 24)
        await _press(app, pilot, "2")
        await until(pilot, lambda: "task0" in text(app) and "too small" not in text(app))
        await pilot.resize_terminal(30, 5)
        await until(pilot, lambda: "too small" in text(app))

    drive(drawn_project(), story, size)


def test_app_store_written_by_other_process_keeps_estimates(drawn_project: DrawnProject) -> None:
    """A job that writes into the store again and again must not reset the flips."""

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press(app, pilot, "2")
        before, estimate = app.snapshot, app.estimate
        assert before is not None
        before.project.store.put_artifact("task", "elsewhere", {}, {})
        await until(pilot, lambda: app.snapshot is not before)
        await pilot.pause(0.3)
        assert app.estimate is estimate

    drive(drawn_project("100"), story)


def test_home_selection_of_other_process_gets_its_estimate(drawn_project: DrawnProject) -> None:
    root = drawn_project()

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press(app, pilot, "1")
        loss = Project.open(root).select(name="elsewhere", k=2).estimated_loss
        await until(pilot, lambda: f"2 in {loss:.4f}" in text(app))

    drive(root, story)


@pytest.mark.parametrize("kind", ["0", "1", "100"])
def test_app_any_number_of_tasks_works(kind: str, drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        for number in range(1, 6):
            await _press(app, pilot, str(number))
        await _press(app, pilot, "2", "G")
        if kind != "0":
            table = app.screen.table  # type: ignore[attr-defined]
            (row,) = [line for line in grid(app) if line.startswith("▌")]
            assert app.session.names[table.task_row] in row, "the cursor is on the screen"  # type: ignore[union-attr]
        await _press(app, pilot, "g", "space", "v", "G", "p", "m", "i", "s", "S", "u", "U", "escape", "g")
        assert app.session is not None
        assert app.estimate is not None
        expected = estimate_selection(app.snapshot.answers.estimator, app.session.mask).loss  # type: ignore[union-attr]
        assert app.estimate.target_loss.loss == pytest.approx(expected)

    drive(drawn_project(kind), story)


def test_app_hostile_names_stay_text(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        for number in (1, 2, 3, 4, 5, 2):
            await _press(app, pilot, str(number))
            _is_harmless(text(app))
        for row in range(len(HOSTILE)):
            await _press(app, pilot, "2", "g", *["j"] * row, "space")
            _is_harmless(text(app))
            await _press(app, pilot, "enter")
            _is_harmless(text(app))
            await _press(app, pilot, "escape")
        await _press(app, pilot, "w")
        app.screen.query_one(Input).value = HOSTILE[0] + HOSTILE[1]
        await pilot.press("enter")
        await until(pilot, lambda: app.snapshot is not None and app.snapshot.selections and is_solved(app))
        for keys in (["o"], ["escape", "1"], ["e"], ["escape", "5"], ["p"], ["escape", "colon", "r", "e", "d"]):
            await pilot.press(*keys)
            await pilot.pause(0.2)
            _is_harmless(text(app))

    drive(drawn_project("hostile"), story)


def _is_harmless(shown: str) -> None:
    assert clean(shown, lines=True) == shown


@pytest.mark.parametrize(
    "variables", [{"NO_COLOR": "1"}, {"TEXTUAL_COLOR_SYSTEM": "256"}, {"TEXTUAL_COLOR_SYSTEM": "standard"}]
)
def test_app_any_color_system_shows_states(
    variables: dict[str, str], drawn_project: DrawnProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def story(app: App, pilot: Pilot[None]) -> None:
        for number in range(1, 6):
            await _press(app, pilot, str(number))
        await _press(app, pilot, "2", "j", "p", "v", "j", "j")
        shown = text(app)
        assert {"●", "◆", "▌"} <= set(shown), "states are visible without color"

    drive(drawn_project(), story, (140, 40))


def test_app_every_theme_draws_screen(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press(app, pilot, "2")
        for theme in app.available_themes:
            app.theme = theme
            await pilot.pause()
            assert "task0" in text(app)

    drive(drawn_project(), story)


# -- storage ------------------------------------------------------------------------------------------------------


def test_app_restart_resumes_session_and_place(drawn_project: DrawnProject) -> None:
    root = drawn_project()

    async def first(app: App, pilot: Pilot[None]) -> tuple[list[int], str]:
        await _press(app, pilot, "2", "j", "j", "space", "j", "p", "s", "slash", "t", "a", "s", "k", "enter")
        assert app.session is not None
        return app.session.states.tolist(), app.place.task

    async def second(app: App, pilot: Pilot[None]) -> None:
        assert app.session is not None
        assert (app.session.states.tolist(), app.place.task) == states
        assert app.current_mode == "tasks"
        assert app.place.filter == "task"
        assert app.screen.table.task_row == app.session.names.index(states[1])  # type: ignore[attr-defined]
        await _press(app, pilot, "u", "u")
        assert app.session.mask.all()

    states = drive(root, first)
    drive(root, second)


def _stored(store: Store) -> list[StoredEdit]:
    """Return the history of the session that was changed last."""
    return [edit for session in store.sessions("target")[:1] for edit in session.edits]


def test_app_edits_are_stored_before_quit(drawn_project: DrawnProject) -> None:
    root = drawn_project()

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press(app, pilot, "2", "space", "j", "space")
        store = Project.open(root).store
        await until(pilot, lambda: len(_stored(store)) == 2)
        losses = lambda: [e.loss for e in _stored(store)]  # noqa: E731
        await until(pilot, lambda: None not in losses())

    drive(root, story)


def test_app_second_interface_has_separate_session(drawn_project: DrawnProject) -> None:
    root = drawn_project()

    async def main() -> None:
        async with opened(root) as (app, pilot):
            await _press(app, pilot, "2", "space")
            await until(pilot, lambda: not app._keeping and app.session is not None and not app.session._unsaved)
            async with opened(root) as (other, second):
                assert other.session is not None
                assert app.session is not None
                assert other.session_id != app.session_id
                assert other.session.mask.all(), "nothing is saved: the second window does not see the edit"
                assert not app.session.mask.all()
                await _press(other, second, "2", "j", "space")
                assert other.session.mask.tolist() != app.session.mask.tolist()

    asyncio.run(main())


def test_export_dialog_saved_selection_exports_its_tasks(drawn_project: DrawnProject, tmp_path: Path) -> None:
    root, out = drawn_project(), tmp_path / "out"

    async def story(app: App, pilot: Pilot[None]) -> list[str]:
        await _press(app, pilot, "2", "space", "j", "space", "w", "enter")
        await until(pilot, lambda: app.snapshot is not None and app.snapshot.selection("mine"))
        await until(pilot, lambda: app.session is not None and app.session.base == "mine")
        await _press(app, pilot, "e", "down", "down")
        assert "--format hf" in app.screen.command  # type: ignore[attr-defined]
        await _press(app, pilot, "up", "up")
        app.screen.query_one("#folder", Input).value = str(root)
        await pilot.pause()
        assert "✗" in text(app)
        app.screen.query_one("#folder", Input).value = str(out)
        await pilot.pause()
        assert "will be created" in text(app)
        assert all(format in text(app) for format in FORMATS), "all fit on the smallest terminal"
        assert re.search(r"preview out/ +\d+ rows, [\d,]+ tokens", text(app))
        command = app.screen.command  # type: ignore[attr-defined]
        assert command.startswith("curator export mine --format jsonl")
        await pilot.press("f3")
        assert app.clipboard == command
        await pilot.press("enter")
        await until(pilot, lambda: out.exists() and "exported" in text(app))
        assert app.session is not None
        return [app.session.names[row] for row in np.flatnonzero(app.session.mask)]

    selected = drive(root, story)
    manifest = read_manifest(out / "curator-manifest.json")
    assert [task.name for task in manifest.tasks if task.selected] == selected
    assert len(selected) == 10
    assert [(edit.selected, edit.by) for edit in manifest.edits] == [(False, "curator tui")] * 2
    assert {path.stem for path in out.glob("*.jsonl")} == {"target", "validation", *selected}


def test_settings_remapped_key_replaces_default(drawn_project: DrawnProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press(app, pilot, "2", "y")
        assert app.session is not None
        assert not app.session.mask.all()
        await _press(app, pilot, "space")
        assert int(app.session.mask.sum()) == len(app.session.names) - 1

    drive(drawn_project(), story, keys={"toggle_task": "y"})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 99}', '{"version": 1, "mode": 3, "sort": "x"}'])
def test_place_damaged_file_gives_defaults(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tui.json"
    path.write_text(content)
    assert Place.read(path).mode == "home"
    assert Settings.read(path).mouse
    kept = Place(mode="tasks", filter="x")
    kept.write(path)
    assert Place.read(path) == kept
    kept.write(Path("/proc/nowhere/tui.json"))


# -- errors -------------------------------------------------------------------------------------------------------


def test_app_project_without_results_names_next_step(make_project: MakeProject) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        for number in (1, 2, 3, 4, 5):
            await _press(app, pilot, str(number))
            await _press(app, pilot, "2", "space", "f", "b", "w", "e", "u", "enter", "escape")
        assert "press R" in text(app)

    drive(make_project(), story)


def test_app_broken_config_is_shown_and_read_again(make_project: MakeProject) -> None:
    root = make_project()
    good = (root / "curator.toml").read_text()
    (root / "curator.toml").write_text(good + "\n[nonsense]\nx = 1\n")

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press_quietly(pilot, "1")
        assert "nonsense" in text(app)
        await _press_quietly(pilot, "2", "space", "3", "4", "5", "1")
        # No key is needed.
        (root / "curator.toml").write_text(good)
        await until(pilot, lambda: app.snapshot is not None and app.trouble is None)

    async def _press_quietly(pilot: Pilot[None], *keys: str) -> None:
        await pilot.press(*keys)
        await pilot.pause()

    drive(root, story)


def test_app_changed_task_file_makes_estimates_stale_at_once(make_project: MakeProject) -> None:
    root = make_project()
    Project.open(root).corpus(("target",))
    file = root / "tasks" / "alpha.jsonl"

    async def story(app: App, pilot: Pilot[None]) -> None:
        assert app.snapshot is not None
        assert app.snapshot.corpus is not None
        with file.open("a") as rows:
            rows.write('{"prompt": "one more", "completion": " row"}\n')
        await until(pilot, lambda: app.snapshot is not None and app.snapshot.corpus is None)
        assert "files are new or changed" in app.missing()

    drive(root, story)


def test_app_changed_task_file_with_saved_selection_hides_tasks_until_it_is_read(drawn_project: DrawnProject) -> None:
    root = drawn_project()
    file = min((root / "tasks").iterdir())
    before = file.read_bytes()

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press(app, pilot, "2", "space", "w", "enter")
        await until(pilot, lambda: app.session is not None and app.session.has_base and not app.session.is_changed)
        await _press(app, pilot, "j", "space")
        assert app.session is not None
        mask, edits = app.session.mask, len(app.session.history)
        file.write_bytes(before + b'{"prompt": "one more", "completion": " row"}\n')
        await until(pilot, lambda: app.snapshot is not None and app.snapshot.corpus is None)
        for place in ("1", "2", "3", "4", "5", "2"):
            await pilot.press(place)
            await pilot.pause()
            assert not [words for words in ("0 of 0 ", "0/0 in", " 0 in", "● 1 changed") if words in _without_list(app)]
            assert "✓ saved" not in text(app)
        await pilot.press("a", "i", "u", "o", "enter")
        await pilot.pause()
        assert "files are new or changed" in text(app)
        file.write_bytes(before)
        Project.open(root).corpus(("target",))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.snapshot is not None and app.snapshot.corpus is not None)
        assert (app.session.mask == mask).all()
        assert len(app.session.history) == edits

    drive(root, story)


def _without_list(app: App) -> str:
    """Return the screen without the line above a list, which counts its rows."""
    return "\n".join(line for line in grid(app) if not line.startswith("─"))


def test_app_busy_store_delays_edits_but_not_keys(drawn_project: DrawnProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curator.workspace.store.locks._LOCK_SECONDS", 0.2)
    root = drawn_project()

    async def story(app: App, pilot: Pilot[None]) -> None:
        store = Project.open(root).store
        with store.write():
            await _press(app, pilot, "2", "space")
            await until(pilot, lambda: "edits are not stored yet" in text(app))
            await _press(app, pilot, "j", "space")
        await until(pilot, lambda: len(_stored(store)) == 2)

    drive(root, story)


def test_app_changed_tasks_keep_session(drawn_project: DrawnProject) -> None:
    root = drawn_project()

    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press(app, pilot, "2", "space")
        assert app.session is not None
        out = app.session.names[int(np.flatnonzero(~app.session.mask)[0])]
        config = (root / "curator.toml").read_text()
        entry = config.rindex("[[data.task]]")
        (root / "curator.toml").write_text(config[:entry])
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.session is not None and len(app.session.names) == 11)
        assert [app.session.names[row] for row in np.flatnonzero(~app.session.mask)] in ([out], [])
        await pilot.pause(0.3)
        assert "cannot" not in text(app)

    drive(root, story)


def test_app_fast_keys_never_show_estimate_of_other_selection(drawn_project: DrawnProject) -> None:
    # Press keys without waiting. A loss on the screen must belong to the selection on the screen.
    async def story(app: App, pilot: Pilot[None]) -> None:
        await _press(app, pilot, "2")
        assert app.session is not None
        estimator = app.snapshot.answers.estimator  # type: ignore[union-attr]
        seen = 0
        for number in range(20):
            await pilot.press("j" if number % 3 else "g", "space")
            shown = grid(app)[1]
            if "loss 0" in shown or "loss 1" in shown:
                seen += 1
                assert f"{estimate_selection(estimator, app.session.mask).loss:.4f}" in shown
        await until(pilot, lambda: is_solved(app))
        assert f"{estimate_selection(estimator, app.session.mask).loss:.4f}" in text(app)

    drive(drawn_project(), story)


def test_app_import_loads_no_engine_before_first_frame() -> None:
    import subprocess
    import sys

    code = (
        "import sys, tui.app; heavy = {'torch', 'transformers', 'duckdb', 'pydantic', 'pyarrow', 'datasets', 'scipy'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_place_write_leaves_one_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "tui.json"
    Place(filter="a | b").write(path)
    assert json.loads(path.read_text())["filter"] == "a | b"
    assert [p.name for p in tmp_path.iterdir()] == ["tui.json"]

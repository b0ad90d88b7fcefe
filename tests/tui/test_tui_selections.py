"""Rename, delete, restore and annotate saved selections by keys."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tui_pilot import opened, text, until

import curator
from tui.dialogs.note import NoteDialog
from tui.dialogs.rename import RenameDialog
from tui.dialogs.selections import SelectionsDialog

DrawnProject = Callable[..., Path]


@pytest.fixture
def root(drawn_project: DrawnProject) -> Path:
    """Return a project with the selections `old` and `new`."""
    root = drawn_project("12")
    project = curator.Project.open(root)
    project.select(name="old", k=2)
    project.select(name="new", k=4)
    return root


def _saved(root: Path) -> set[str]:
    return {entry.name for entry in curator.Project.open(root).saved_selections().selections if not entry.deleted}


def test_selections_dialog_renames_annotates_deletes_and_undoes(root: Path) -> None:
    async def story() -> None:
        async with opened(root) as (app, pilot):
            assert app.session is not None
            assert app.snapshot is not None
            assert app.session.base == "new"
            await pilot.press("2", "o")
            await until(pilot, lambda: isinstance(app.screen, SelectionsDialog))
            await pilot.press("r")
            await until(pilot, lambda: isinstance(app.screen, RenameDialog))
            await pilot.press("ctrl+u", *"old", "enter")
            await until(pilot, lambda: "another selection has this name" in text(app))
            await pilot.press("ctrl+u", *"first", "enter")
            await until(pilot, lambda: _saved(root) >= {"old", "first"})
            await until(pilot, lambda: app.session.base == "first" and app.session.has_base)
            await pilot.press("n")
            await until(pilot, lambda: isinstance(app.screen, NoteDialog))
            await pilot.press(*"good", "enter")
            await until(pilot, lambda: "note: good" in text(app))
            await pilot.press("x")
            await until(pilot, lambda: "first" not in _saved(root))
            await until(pilot, lambda: app.snapshot.selection("first") is None)
            assert not any("another process" in words for words, _ in app.flash_line)
            await pilot.press("u")
            await until(pilot, lambda: "first" in _saved(root) and app.session.has_base)
            await pilot.press("u")
            await until(pilot, lambda: "new" in _saved(root) and app.session.base == "new")
            await pilot.press("escape", "U")
            await until(pilot, lambda: app.session.base == "first" and app.session.has_base)

    asyncio.run(story())


def test_deleted_selection_is_restored_by_undo_in_next_window(root: Path) -> None:
    async def delete() -> None:
        async with opened(root) as (app, pilot):
            await pilot.press("1", "x")
            await until(pilot, lambda: "new" not in _saved(root) and "deleted new" in text(app))
            await pilot.press("2", "space")
            await until(pilot, lambda: app.session is not None and len(app.session.done) == 3)

    async def restore() -> None:
        async with opened(root) as (app, pilot):
            await pilot.press("2", "u", "u")
            await until(pilot, lambda: "new" in _saved(root))
            assert app.session is not None
            await until(pilot, lambda: app.session.has_base)

    asyncio.run(delete())
    asyncio.run(restore())

"""Notes on tasks, examples and selections: the store, the command and the key."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import run_cli
from tui_pilot import opened, text, until

import curator
from curator.core.errors import ConfigError
from tui.dialogs.note import NoteDialog
from tui.screens.task import TaskScreen

DrawnProject = Callable[..., Path]


def test_note_is_kept_replaced_and_removed(drawn_project: DrawnProject) -> None:
    root = drawn_project("12")
    project = curator.Project.open(root)
    digest = project.corpus(("target",)).auxiliary[1].version.index.hashes[2]
    project.note("read this", task="task0001")
    project.note("wrong label", task="task0001", example=digest)
    found = project.note("read it again", task="task0001").notes
    assert [(note.kind, note.name, note.sha256, note.text) for note in found] == [
        ("task", "task0001", "", "read it again")
    ]
    assert [note.text for note in project.note().notes] == ["wrong label", "read it again"]
    project.note("", task="task0001", example=digest)
    assert [note.text for note in curator.Project.open(root).note().notes] == ["read it again"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"task": "missing"}, "unknown task: 'missing'"),
        ({"selection": "missing"}, "unknown selection: 'missing'"),
        ({"task": "task0001", "example": "0"}, "has the hash '0'"),
        ({"example": "0"}, "do not name one"),
        ({"task": "task0001", "selection": "x"}, "do not name one"),
        ({}, "do not name one"),
    ],
)
def test_note_about_something_unknown_is_refused(
    drawn_project: DrawnProject, names: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        curator.Project.open(drawn_project("12")).note("x", **names)


def test_note_command_writes_prints_and_cleans(drawn_project: DrawnProject) -> None:
    root = drawn_project("12")
    assert run_cli("note", "\x1b[31mred", "--task", "task0001", "-p", root).check(0).out.startswith("task task0001")
    document = json.loads(run_cli("note", "--json", "-p", root).check(0).out)
    assert [note["text"] for note in document["notes"]] == ["\x1b[31mred"]
    assert run_cli("note", "x", "-p", root).check(2).out == ""


def test_task_screen_notes_are_written_and_shown(drawn_project: DrawnProject) -> None:
    async def main() -> None:
        root = drawn_project("12")
        async with opened(root) as (app, pilot):
            app.open_task(1, np.arange(12))
            await until(pilot, lambda: isinstance(app.screen, TaskScreen) and app.screen.is_mounted)
            screen = app.screen
            assert isinstance(screen, TaskScreen)
            await until(pilot, lambda: screen.rows.values is not None)
            await pilot.press("n")
            await until(pilot, lambda: isinstance(app.screen, NoteDialog))
            await pilot.press(*"odd", "enter")
            await until(pilot, lambda: "note: odd" in text(app))
            await pilot.press("N")
            await until(pilot, lambda: isinstance(app.screen, NoteDialog))
            await pilot.press(*"all", "enter")
            await until(pilot, lambda: "note on the task: all" in text(app))
            assert screen.shown is not None
            number = screen.rows.number
            assert number is not None
            digest = screen.shown.version.index.hashes[number]
            found = {(note.kind, note.sha256): note.text for note in curator.Project.open(root).note().notes}
            assert found == {("example", digest): "odd", ("task", ""): "all"}

    asyncio.run(main())

"""The command palette finds saved selections, jobs and themes."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.command import Command, CommandList, CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input
from tui_pilot import App, opened, until

import curator
from tui.dialogs.rename import RenameDialog
from tui.settings import Settings

DrawnProject = Callable[..., Path]


async def _command(app: App, pilot: Pilot[None], wanted: str) -> None:
    """Type the words of a command, and run the command that the palette finds first."""
    await pilot.press("colon")
    await until(pilot, lambda: isinstance(app.screen, CommandPalette))
    app.screen.query_one(Input).value = wanted

    def first() -> str:
        found = app.screen.query_one(CommandList)
        option = found.get_option_at_index(0) if found.option_count else None
        return option.hit.text or "" if isinstance(option, Command) and found.highlighted == 0 else ""

    await until(pilot, lambda: first().startswith(wanted), 20)
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(app.screen, CommandPalette))


def _write_job(root: Path, number: int) -> None:
    folder = root / ".curator" / "runs" / str(number)
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("")
    facts = {
        "command": "curator train",
        "arguments": ["train"],
        "cwd": str(root),
        "host": "elsewhere",
        "pid": 1,
        "started": f"2026-01-0{number}T12:00:00+00:00",
        "ended": f"2026-01-0{number}T12:01:00+00:00",
        "state": "done",
        "message": "",
    }
    (folder / "run.json").write_text(json.dumps(facts))


def test_palette_names_of_selections_jobs_and_themes_act(
    drawn_project: DrawnProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    root = drawn_project()
    project = curator.Project.open(root)
    project.select(name="old", k=2)
    project.select(name="new", k=4)
    for number in (1, 2):
        _write_job(root, number)

    async def story() -> None:
        async with opened(root) as (app, pilot):
            assert app.session is not None
            await _command(app, pilot, "Load selection old")
            await until(pilot, lambda: app.session.base == "old")
            assert int(app.session.mask.sum()) == 2
            await _command(app, pilot, "Rename selection old")
            await until(pilot, lambda: isinstance(app.screen, RenameDialog))
            await pilot.press("escape")
            await _command(app, pilot, "Delete selection old")
            await until(pilot, lambda: app.snapshot is not None and app.snapshot.selection("old") is None)
            assert app.snapshot is not None
            assert app.snapshot.selection("new") is not None
            await until(pilot, lambda: len(app.jobs) == 2)
            # The first job is not the newest, so the cursor must move to it.
            await _command(app, pilot, "Open job train of 2026-01-01")
            await until(pilot, lambda: app.current_mode == "runs")
            assert app.screen.job_view.job.id == "1"  # type: ignore[attr-defined]
            await _command(app, pilot, "Use theme curator-light")
            await until(pilot, lambda: app.theme == "curator-light")
            assert Settings.read(Settings.place()).theme == "curator-light"

    asyncio.run(story())

"""Exports go to a folder of their format, and replace another one only after a question."""

from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot
from tui_pilot import App, drive, text, until

import curator
from tui.dialogs.confirm import ConfirmDialog
from tui.dialogs.export import ExportDialog

DrawnProject = Callable[..., Path]


def test_export_folder_follows_format_and_asks_before_replacing(drawn_project: DrawnProject) -> None:
    root = drawn_project("12")
    curator.Project.open(root).select(name="mine", k=2)
    first = root / "exports" / "mine-jsonl"

    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2", "e")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog) and "mine-jsonl" in text(app))
        await pilot.press("j")
        await until(pilot, lambda: "mine-jsonl" not in text(app))
        await pilot.press("k")
        await until(pilot, lambda: "mine-jsonl" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: (first / "curator-manifest.json").exists() and not _is_open(app))
        before = (first / "curator-export.json").stat().st_ino
        for key in ("escape", "y"):
            await pilot.press("e")
            await until(pilot, lambda: isinstance(app.screen, ExportDialog) and "asks before" in text(app))
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
            assert "an export of mine as jsonl" in " ".join(text(app).split())
            await pilot.press(key)
            if key == "escape":
                await until(pilot, lambda: isinstance(app.screen, ExportDialog))
                assert (first / "curator-export.json").stat().st_ino == before
                await pilot.press("escape")
            await until(pilot, lambda: not _is_open(app))
        assert (first / "curator-export.json").stat().st_ino != before

    drive(root, story)


def _is_open(app: App) -> bool:
    return isinstance(app.screen, ExportDialog | ConfirmDialog)

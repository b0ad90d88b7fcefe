"""Measure the selection in hand, race by runs, and the methods and limits of the dialogs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from tui_pilot import App, drive, text, until

import curator
from tui.dialogs.base import Choices
from tui.dialogs.fill import FillDialog
from tui.dialogs.measure import MeasureDialog
from tui.dialogs.run import RunDialog
from tui.dialogs.save import SaveDialog

DrawnProject = Callable[..., Path]


def _set(app: App, field: str, value: str) -> None:
    app.screen.query_one(field, Input).value = value


@pytest.fixture
def root(drawn_project: DrawnProject) -> Path:
    """Return a project with the selection `mine`."""
    root = drawn_project("12")
    curator.Project.open(root).select(name="mine", k=3)
    return root


def test_measure_key_shows_runs_and_time_then_starts_verify(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[list[str] | None] = []

    async def story(app: App, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "launch", launched.append)
        await pilot.press("2", "M")
        await until(pilot, lambda: isinstance(app.screen, MeasureDialog))
        await until(pilot, lambda: "1 run, " in text(app) and "on this machine" in text(app))
        assert "measure mine" in text(app)
        _set(app, "#seeds", "2")
        await pilot.press("j")
        # Two seeds on the selection and on all tasks.
        await until(pilot, lambda: "4 runs, " in text(app))
        _set(app, "#seeds", "0")
        await until(pilot, lambda: "at least 1" in text(app))
        await pilot.press("enter")
        assert launched == []
        _set(app, "#seeds", "2")
        await until(pilot, lambda: "4 runs, " in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: bool(launched))
        assert launched == [["verify", "--selections", "mine,all", "--seeds", "2"]]

    drive(root, story)


def test_measure_changed_selection_is_saved_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        await pilot.press("2", "space", "M")
        await until(pilot, lambda: isinstance(app.screen, SaveDialog))
        _set(app, "#name", "hand")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MeasureDialog))
        assert "measure hand" in text(app)
        await pilot.press("escape", "o")
        await until(pilot, lambda: "saved selections" in text(app))
        await pilot.press("G", "M")
        await until(pilot, lambda: "measure all tasks" in text(app))

    drive(root, story)


@pytest.mark.parametrize(
    ("stage", "keys", "fields", "command"),
    [
        ("race", (), {"#subsets": "6", "#max-tokens": "900"}, "select --runs 6 --max-tokens 900 --name race"),
        ("select", ("right",) * 4, {"#max-tasks": "3"}, "select --method ensemble --k 3"),
        (
            "select",
            ("right",) * 5,
            {"#max-tokens": "900", "#max-tasks": "3"},
            "select --method mixture --max-tokens 900",
        ),
        ("select", (), {}, "select"),
    ],
)
def test_run_dialog_method_runs_and_budgets_make_command(
    root: Path, monkeypatch: pytest.MonkeyPatch, stage: str, keys: tuple[str, ...], fields: dict[str, str], command: str
) -> None:
    launched: list[list[str] | None] = []

    async def story(app: App, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "launch", launched.append)
        await app.push_screen(RunDialog(stage), app.launch)
        await until(pilot, lambda: "run a stage" in text(app))
        await pilot.press("tab", *keys)
        for field, value in fields.items():
            _set(app, field, value)
        await pilot.pause()
        assert f"curator {command} -p" in " ".join(text(app).split())
        await pilot.press("shift+tab", "enter")
        await until(pilot, lambda: bool(launched))

    drive(root, story)
    assert launched == [command.split()]


def test_fill_by_ensemble_takes_positive_affinities_within_limits(root: Path) -> None:
    async def story(app: App, pilot: Pilot[None]) -> None:
        assert app.session is not None
        assert app.snapshot is not None
        await pilot.press("2", "f")
        await until(pilot, lambda: isinstance(app.screen, FillDialog))
        app.screen.query_one("#methods", Choices).cursor = 3
        _set(app, "#most-tasks", "2")
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, FillDialog))
        affinity: Any = app.snapshot.affinity
        best = np.argsort(-affinity / app.snapshot.tokens)[:2] if (affinity > 0).sum() > 1 else affinity > 0
        assert set(np.flatnonzero(app.session.mask)) == set(np.asarray(best).tolist())

    drive(root, story)


def test_fill_by_mixture_starts_job_with_pins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[list[str] | None] = []

    async def story(app: App, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "launch", launched.append)
        assert app.snapshot is not None
        await pilot.press("2", "p", "f")
        await until(pilot, lambda: isinstance(app.screen, FillDialog))
        app.screen.query_one("#methods", Choices).cursor = 4
        _set(app, "#most-tokens", "5000")
        _set(app, "#most-tasks", "2")
        await pilot.press("enter")
        await until(pilot, lambda: "a mixture takes max tokens only" in text(app))
        _set(app, "#most-tasks", "")
        await pilot.press("enter")
        await until(pilot, lambda: bool(launched))

    drive(root, story)
    (words,) = launched
    assert words is not None
    assert words[:5] == ["select", "--method", "mixture", "--name", "mixture"]
    assert words[5] == "--include"
    assert words[-2:] == ["--max-tokens", "5000"]

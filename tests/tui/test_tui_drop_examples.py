"""Examples are marked, dropped and restored on the Task screen, and the header says what that changes."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot
from tui_pilot import opened, text, until

import curator
from curator.data.dropped import Dropped, without
from curator.estimate.reduced import ReducedEstimates
from curator.estimate.whatif import difference, estimate_selection
from curator.select.manifest import Manifest
from curator.select.selections import dropped_by
from curator.training.fine_tune import recipe_key, subset_content
from curator.verify.measure import run_seeds
from tui.app import CuratorApp
from tui.dialogs.drop import DropDialog
from tui.screens.compare import CompareScreen
from tui.screens.task import TaskScreen
from tui.state.session import Session

MakeProject = Callable[..., Path]


_made: dict[str, Path] = {}


@pytest.fixture
def root(make_project: MakeProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a project with three auxiliary tasks of eight rows, all selected."""
    if not _made:
        folder = make_project("made", estimate={"method": "trajectory"})
        curator.Project.open(folder).select(include=["alpha", "beta", "gamma"])
        _made["ready"] = Path(shutil.copytree(folder, tmp_path_factory.mktemp("ready") / "p", symlinks=True))
    return Path(shutil.copytree(_made["ready"], tmp_path / "p", symlinks=True))


async def _open(app: CuratorApp, pilot: Pilot[None], task: int) -> TaskScreen:
    assert app.snapshot is not None
    app.open_task(task, np.arange(len(app.snapshot.names)))
    await until(pilot, lambda: isinstance(app.screen, TaskScreen) and app.screen.is_mounted)
    screen = app.screen
    assert isinstance(screen, TaskScreen)
    await until(pilot, lambda: screen.rows.values is not None)
    return screen


def _header(app: CuratorApp) -> str:
    return next((line for line in text(app).splitlines() if line.startswith(" Without")), "")


def _expected(app: CuratorApp, task: int, numbers: list[int]) -> str:
    """Return the header from the estimates of the engine."""
    assert app.snapshot is not None
    assert app.session is not None
    answers = app.snapshot.answers
    assert answers is not None
    index = answers.tasks[task].version.index.hashes
    name = app.snapshot.names[task]
    reduced = ReducedEstimates(answers, Dropped.of((name, index[number]) for number in numbers))
    before = estimate_selection(answers.estimator, app.session.mask)
    after = estimate_selection(reduced.estimator, app.session.mask)
    change = difference(reduced.estimator, after, before, dropped=reduced.share_dropped([name]))
    words = "within noise" if change.is_noise else "not noise"
    return (
        f"{before.loss:.4f} → {after.loss:.4f} ±{(after.high - after.low) / 2:.4f}  {change.value:+.4f}".replace(
            "-", "−"
        )
        + f" ±{change.noise:.4f}, {words}"
    )


def test_task_screen_drops_marked_examples_and_says_what_changes(root: Path) -> None:
    async def main() -> None:
        async with opened(root) as (app, pilot):
            screen = await _open(app, pilot, 1)
            rows, session = screen.rows, app.session
            assert session is not None
            await pilot.press("s", "g", "space", "space")
            assert rows.marks == set(rows.order[:2].tolist())
            marked = sorted(rows.marks)
            await until(pilot, lambda: "noise" in _header(app))
            assert _header(app).startswith(" Without 2 marked rows: ")
            assert _expected(app, 1, marked) in _header(app)
            before = app.estimate
            assert before is not None
            await pilot.press("x")
            await until(pilot, lambda: "dropped" in _header(app) and "noise" in _header(app))
            assert rows.dropped == set(marked)
            assert rows.marks == set()
            assert _expected(app, 1, marked) in _header(app)
            assert "dropped 2 examples of beta" in text(app)
            assert "● 2 changed" in text(app)
            # The estimate of the whole selection is without the rows too.
            await until(pilot, lambda: app.estimate is not None and app.estimate.revision == session.revision)
            assert app.estimate is not None
            assert f"{app.estimate.target_loss.loss:.4f}" in _header(app)
            assert app.estimate.target_loss.loss != before.target_loss.loss
            await pilot.press("u")
            assert session.dropped == {}
            assert _header(app) == ""
            await pilot.press("U")
            assert rows.dropped == set(marked)

        # The edits, their undo and their redo survive the end of the program.
        async with opened(root) as (app, pilot):
            screen = await _open(app, pilot, 1)
            assert screen.rows.dropped == set(marked)
            await pilot.press("u")
            assert app.session is not None
            assert app.session.dropped == {}

    asyncio.run(main())


def test_task_screen_range_filter_and_worst_examples_are_dropped(root: Path) -> None:
    async def main() -> None:
        async with opened(root) as (app, pilot):
            screen = await _open(app, pilot, 2)
            rows, session = screen.rows, app.session
            assert session is not None
            await pilot.press("g", "v", "j", "j")
            assert rows.chosen() == rows.order[:3].tolist()
            await pilot.press("escape")
            assert rows.chosen(cursor=False) == []
            await pilot.press("g", "v", "j", "v")
            assert rows.marks == set(rows.order[:2].tolist())
            await pilot.press("d")
            assert rows.values is not None
            harmful = [n for n in range(8) if rows.values[n] < 0]
            # The most harmful example is first, and its own text is below the list.
            assert rows.order.tolist() == sorted(harmful, key=lambda n: float(rows.values[n]))  # type: ignore[index]
            assert "most harmful first" in text(app)
            assert rows.examples is not None
            first = rows.examples.text(int(rows.order[0]))
            shown = ["".join(p if isinstance(p, str) else p[0] for p in line) for line in screen.reader.lines]
            assert first.split()[:2] == " ".join(shown).split()[:2]
            await pilot.press("d")
            assert sorted(rows.order.tolist()) == sorted(rows.marks)
            await pilot.press("d", "d", "escape")
            assert rows.count == 8
            # The row under the cursor, without marks. The same key restores it.
            await pilot.press("g", "x")
            assert rows.dropped == {int(rows.order[0])}
            await pilot.press("x")
            assert rows.dropped == set()
            await until(pilot, lambda: rows.values is not None)
            worst = [int(n) for n in np.argsort(rows.values) if rows.values[n] < 0]
            assert worst, "the drawn task has a harmful example"
            await pilot.press("X")
            await until(pilot, lambda: isinstance(app.screen, DropDialog))
            await pilot.press("9", "enter")
            assert f"from 1 to {len(worst)}" in text(app)
            await pilot.press("ctrl+u", "1", "enter")
            await until(pilot, lambda: app.screen is screen)
            assert rows.dropped == {worst[0]}
            # Examples of the target are never dropped.
            await _open(app, pilot, 3)
            await pilot.press("x")
            assert "the target trains on all of its examples" in text(app)
            assert set(session.dropped) == {"gamma"}

    asyncio.run(main())


def _store_run(app: CuratorApp, manifest: Manifest) -> None:
    """Store a run on a selection without its dropped examples."""
    assert app.snapshot is not None
    assert app.snapshot.corpus is not None
    kept = without(app.snapshot.corpus, dropped_by(manifest))
    chosen = [task.name for task in manifest.tasks if task.selected]
    config, store = app.snapshot.project.config, app.snapshot.project.store
    seed = run_seeds(config, 1)[0]
    store.put_measurement(
        recipe_key(config, kept), "target", subset_content(kept, chosen), seed=seed, loss=0.125, seconds=1.0
    )


def test_saved_selection_keeps_dropped_examples_and_loads_them(root: Path) -> None:
    async def main() -> None:
        async with opened(root) as (app, pilot):
            await _open(app, pilot, 2)
            await pilot.press("x")
            session = app.session
            assert session is not None
            dropped = session.dropped
            assert len(dropped["gamma"]) == 1
            await until(pilot, lambda: app.estimate is not None and app.estimate.revision == session.revision)
            app.save("less")
            await until(pilot, lambda: app.snapshot is not None and app.snapshot.selection("less") is not None)
            await until(pilot, lambda: not session.is_changed)
            assert app.snapshot is not None
            saved = app.snapshot.selection("less")
            assert saved is not None
            assert saved.dropped == dropped
            # A run on the whole tasks is not a run on this selection.
            assert app.snapshot.measured_loss(session.mask, session.dropped) is None
            _store_run(app, saved.manifest)
            app.read_snapshot()
            await until(pilot, lambda: bool(app.snapshot and app.snapshot.measured_without))
            assert app.snapshot.measured_loss(session.mask, session.dropped) == 0.125
            assert app.snapshot.measured_loss(session.mask) is None, "no run with all examples"
            app.go("tasks")
            await until(pilot, lambda: "✗ 7" in text(app))
            assert "23 examples" in text(app)
            await pilot.press("M")
            await until(pilot, lambda: "these seeds are measured already" in text(app))
            await pilot.press("escape")
            app.go("compare")
            await until(pilot, lambda: isinstance(app.screen, CompareScreen) and app.screen.is_mounted)
            screen = app.screen
            assert isinstance(screen, CompareScreen)
            await until(pilot, lambda: screen.estimates is not None and screen.estimates.is_complete)
            assert screen.estimates is not None
            assert app.estimate is not None
            losses = [loss.loss for loss in screen.estimates.target_losses]
            assert losses[0] == pytest.approx(app.estimate.target_loss.loss)
            assert losses[0] == losses[1] == pytest.approx(saved.manifest.estimated_loss, abs=1e-6)
            assert losses[2] != losses[0], "all tasks with all examples"
            app.load("")
            assert session.dropped == {}
            app.load("less")
            assert session.dropped == dropped
            assert not session.is_changed
            await pilot.press("u")
            assert session.dropped == {}

    asyncio.run(main())


def test_session_drop_toggles_and_replays() -> None:
    session = Session(["a", "b"])
    session.drop("a", {"1", "2"})
    session.drop("b", {"3"})
    # Of dropped and other examples together, the others are dropped.
    session.drop("a", {"2", "4"})
    assert session.dropped == {"a": frozenset("124"), "b": frozenset("3")}
    session.drop("a", {"1", "4"})
    assert session.dropped["a"] == frozenset("2")
    assert (session.changed_count, session.is_changed) == (2, True)
    assert session.drop("a", set()) is None
    session.load("best", np.array([True, False]), dropped={"b": frozenset("5")})
    assert session.dropped == {"b": frozenset("5")}
    assert session.is_changed, "the selection is not saved"
    session.saved_masks, session.saved_drops = {"best": session.mask}, {"best": {"b": frozenset("5")}}
    assert not session.is_changed
    # Another window saves the selection with another dropped example.
    session.saved_drops = {"best": {"b": frozenset("56")}}
    assert (session.changed_count, session.is_changed) == (1, True)
    assert [dropped for _, _, dropped in session.past(2)] == [(("a", "2"), ("b", "3")), (("b", "5"),)]
    session.undo()
    assert session.dropped == {"a": frozenset("2"), "b": frozenset("3")}
    again = Session.replay(["a", "b"], [edit.stored() for edit in session.history])
    assert again.dropped == session.dropped
    again.redo()
    assert again.dropped == {"b": frozenset("5")}

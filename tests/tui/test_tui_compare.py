"""The Compare screen shows the estimates of the current selections."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HOSTILE
from textual.pilot import Pilot
from tui_pilot import (
    FakeAnswers,
    drive_fake,
    fake_names,
    fake_selection,
    fake_snapshot,
    grid,
    read_fake,
    text,
    until,
)

from curator.estimate.whatif import LossDifference, difference, estimate_selection, flips
from tui.app import CuratorApp
from tui.dialogs.pick import PickDialog
from tui.screens.compare import CompareScreen
from tui.state.comparison import ALL, NONE, NOW, Chosen, Estimates, estimates, which_rows
from tui.widgets.answer import answer_bars
from tui.widgets.compare_table import table_lines, verdict
from tui.widgets.rows import Rows


def _screen(app: CuratorApp) -> CompareScreen:
    assert isinstance(app.screen, CompareScreen)
    return app.screen


def _snapshot(count: int = 6, *, answers: bool = True) -> Any:
    rows = np.arange(count)
    selections = [fake_selection("best", rows % 2 == 0, 0.8388), fake_selection("other", rows % 3 == 0)]
    return fake_snapshot(
        FakeAnswers(count) if answers else None, fake_names(count), selections=selections if count else []
    )


async def _complete(app: CuratorApp, pilot: Pilot[None]) -> Estimates:
    screen = _screen(app)

    def known() -> bool:
        found = screen._known(screen.chosen())
        return found is not None and found.is_complete

    await until(pilot, known)
    assert screen.estimates is not None
    return screen.estimates


def test_which_rows_each_kind_returns_its_tasks() -> None:
    masks = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=bool)
    assert which_rows(masks, "all").tolist() == [0, 1, 2, 3]
    assert which_rows(masks, "different").tolist() == [1, 2]
    assert which_rows(masks, "only A").tolist() == [1]
    assert which_rows(masks, "only B").tolist() == [2]
    assert which_rows(masks[:1], "different").tolist() == []


def test_compare_screen_shows_values_of_estimator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = _snapshot()
    copied: list[str] = []
    exported: list[str] = []

    async def at_first(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        await _complete(app, pilot)
        # The current selection, its base, and all tasks.
        assert screen.picks() == [NOW, "best", ALL]
        assert "A and B hold the same tasks" in text(app)
        # Removed selections are ignored.
        app.place.compared = ["removed", "other"]
        assert screen.picks() == ["other"]
        app.place.compared = ["removed", 3]  # type: ignore[list-item]
        assert screen.picks() == [NOW, "best", ALL]

    async def nothing_old(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        old = await _complete(app, pilot)
        assert app.session is not None
        app.session.toggle(np.array([0]))
        app.edited("")
        assert screen._known(screen.chosen()) is None
        screen.post_message(CompareScreen.Estimated(old))
        await pilot.pause()
        assert screen._known(screen.chosen()) is not old
        new = await _complete(app, pilot)
        assert new.target_losses[0].loss == pytest.approx(
            estimate_selection(snapshot.answers.estimator, app.session.mask).loss
        )
        await pilot.press("u")
        again = await _complete(app, pilot)
        assert again.target_losses[0].loss == pytest.approx(old.target_losses[0].loss)

    async def pick_swap_which_sort(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        await pilot.press("p")
        assert isinstance(app.screen, PickDialog)
        # Unpick the current selection, and pick the other one.
        await pilot.press("space", "j", "j", "space", "enter")
        assert app.place.compared == ["best", ALL, "other"]
        await pilot.press("X")
        assert app.place.compared == [ALL, "best", "other"]
        await pilot.press("X")
        await _complete(app, pilot)
        counts = {}
        for _ in range(4):
            counts[screen._which] = screen.differences.count
            await pilot.press("d")
        assert counts == {"different": 5, "only A": 0, "only B": 3, "all": 6}
        screen._which = "all"
        orders = set()
        for _ in range(3):
            await pilot.press("s")
            orders.add(tuple(screen.differences.view))
            await pilot.press("S")
            orders.add(tuple(screen.differences.view))
        assert len(orders) > 3
        await pilot.press("y")
        assert "Jaccard" in copied[0]
        assert "task0001" in copied[0]
        await pilot.press("V")
        assert "curator verify" in text(app)
        await pilot.press("escape", "e", "X", "e")
        assert exported == ["best"]
        assert "not a saved selection" in text(app)

    async def figures(app: CuratorApp, pilot: Pilot[None], found: Estimates) -> None:
        screen, estimator = _screen(app), snapshot.answers.estimator
        first, second = (estimate_selection(estimator, s.mask([])) for s in snapshot.selections)
        gap = difference(estimator, second, first)
        assert [j.loss for j in found.target_losses[:2]] == pytest.approx([first.loss, second.loss])
        assert (found.versus_first[1].value, found.versus_first[1].noise) == pytest.approx((gap.value, gap.noise))
        assert found.target_losses[2].loss == pytest.approx(estimator.all_tasks_loss)
        assert found.changes == pytest.approx(flips(estimator, first, np.arange(6)))
        assert found.solved.all()
        shown = text(app)
        for words in (f"{first.loss:.4f}", f"{second.loss:.4f}", "A best", "B other", "C all tasks", "D target only"):
            assert words in shown
        assert "◎ 0.8388" in shown
        assert "A∩B 1 · A∪B 4 · Jaccard 0.250" in shown
        assert ("not a reliable difference" in shown) == gap.is_noise
        assert screen.differences.count == 6
        row = screen.differences.line(0, 79)
        assert "".join(part if isinstance(part, str) else part[0] for part in row)[:8].strip()

    async def story(app: CuratorApp, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        monkeypatch.setattr(app, "export", exported.append)
        await at_first(app, pilot)
        await nothing_old(app, pilot)
        await pick_swap_which_sort(app, pilot)
        _screen(app)._picked(["best", "other", ALL, NONE])
        found = await _complete(app, pilot)
        for size in ((80, 24), (140, 40)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: len(grid(app)) == size[1] and "task" in text(app))
            await figures(app, pilot, found)

    drive_fake(monkeypatch, tmp_path, snapshot, story, mode="compare")


def test_compare_screen_any_number_of_tasks_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def story(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        rows = screen.differences
        # Without estimates, the screen shows the next step and the known values.
        await pilot.press("d", "s", "X", "y", "enter")
        assert app.missing() in text(app)
        assert "A∩B" in text(app)
        app.place.compared = []

        for count, size in ((0, (80, 24)), (1, (140, 40)), (2, (20, 5)), (300, (60, 16))):
            await read_fake(monkeypatch, app, pilot, _snapshot(count))
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: screen._known(screen.chosen()) is not None)
            await pilot.press("d", "s", "S", "G", "X", "y")
            assert len(grid(app)) == size[1]

        # A long list scrolls.
        screen._which = "different"
        screen._picked(["best", ALL])
        assert rows.count == 150
        await pilot.press("G")
        await until(pilot, lambda: rows.cursor in rows.visible_rows)
        assert rows.cursor == 149
        assert rows.visible_rows.start > 0

    drive_fake(monkeypatch, tmp_path, _snapshot(answers=False), story, mode="compare")


def test_compare_screen_hostile_names_stay_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    copied: list[str] = []
    answers: list[list[str] | None] = []
    names = ["", *HOSTILE]
    mask = np.arange(len(names)) % 2 == 0
    selections = [fake_selection(name, mask) for name in ("\x1b[31m[b]", "\u202e" + "名" * 40)]
    snapshot = fake_snapshot(FakeAnswers(len(names)), names, selections=selections)

    async def story(app: CuratorApp, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        _screen(app)._picked([*(s.name for s in selections), NONE])
        await _complete(app, pilot)
        for size in ((80, 24), (140, 40)):
            await pilot.resize_terminal(*size)
            await pilot.press("d", "y")
            shown = [text(app), copied.pop()]
            await pilot.press("p")
            shown.append(text(app))
            await pilot.press("escape")
            for words in shown:
                assert not set(words) & {"\x1b", "\x07", "\x00", "\u202e", "\t"}

        # The dialog accepts one to four selections.
        choices = [(str(n), name, "") for n, name in enumerate(names)]
        app.push_screen(PickDialog(choices, ["1"]), answers.append)
        await pilot.pause()
        await pilot.press("j", "space", "enter")
        assert isinstance(app.screen, PickDialog)
        assert "at least one" in text(app)
        for row in range(1, 6):
            app.screen.query_one(Rows).cursor = row
            app.screen.action_pick()
        await pilot.pause()
        assert "at most 4" in text(app)
        await pilot.press("enter")
        assert answers == [["1", "2", "3", "4"]]

    drive_fake(monkeypatch, tmp_path, snapshot, story, mode="compare")


def test_verdict_and_base_see_dropped_examples_of_the_same_tasks() -> None:
    """A selection of all tasks that drops examples is not the base."""
    answers, every = FakeAnswers(3), np.ones(3, dtype=bool)
    chosen = [Chosen(NOW, "now", every, dropped=(("task0000", "digest"),)), Chosen(ALL, "all tasks", every)]
    (found, *_) = estimates(answers.estimator, np.stack([every, every]), ("key", b""))
    other = replace(found, versus_first=[LossDifference(0.0, 0.0), LossDifference(0.002, 0.004)])
    snapshot = replace(_snapshot(3), corpus=None)
    assert "gap 0.0020 is within the noise" in str(verdict(chosen, other, wide=False))
    assert "the same tasks and examples" in str(verdict([chosen[1], chosen[1]], other, wide=False))
    (line,) = [line for line in table_lines(chosen, other, snapshot, 80) if "vs all" in str(line[0])]
    assert [str(part).count("base") for part in line].count(1) == 1


def test_weighted_selection_is_named_unweighted_where_estimates_count_each_task_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mix = fake_selection("mix", np.arange(6) < 2, 0.5, is_weighted=True)
    snapshot = fake_snapshot(FakeAnswers(6), fake_names(6), selections=[mix])

    async def story(app: CuratorApp, pilot: Pilot[None]) -> None:
        assert app.session is not None
        assert app.session.base == "mix"
        await _complete(app, pilot)
        assert "mix, unweighted" in text(app)
        # The measured loss is that of the weights.
        assert "0.5000" not in text(app)
        assert answer_bars(app)[-1].name == "mix, unweighted (2 tasks)"
        assert app.base_name == "mix, unweighted"

    drive_fake(monkeypatch, tmp_path, snapshot, story, mode="compare", size=(120, 30))

"""The Matrix screen shows current estimates at every size."""

import time
from pathlib import Path

import numpy as np
import pytest
from conftest import HOSTILE
from textual.pilot import Pilot
from textual.widgets import Input
from tui_pilot import FakeAnswers, drive_fake, fake_names, fake_snapshot, grid, read_fake, text, until

from curator.core.interval import NORMAL_90
from curator.estimate.whatif import estimate_selection
from tui.app import CuratorApp
from tui.screens import matrix as module
from tui.screens.matrix import MOST_SHOWN, MatrixScreen
from tui.state.arrangement import share_beyond
from tui.state.transfer import Cell, together
from tui.widgets.lines import Lines
from tui.widgets.matrix import glyph, label


def _screen(app: CuratorApp) -> MatrixScreen:
    assert isinstance(app.screen, MatrixScreen)
    return app.screen


def test_glyph_shows_sign_and_size_without_color() -> None:
    helps = [glyph(value, 1.0) for value in np.linspace(0, 1.5, 50)]
    hurts = [glyph(-value, 1.0) for value in np.linspace(0, 1.5, 50)]
    for found, signs in ((helps, " ░▒▓█"), (hurts, " ▂▄▇")):
        places = [signs.index(sign) for sign in found]
        assert places == sorted(places)
        assert set(places) == set(range(len(signs)))
    assert not (set(helps) & set(hurts)) - {" "}
    assert glyph(0.1, 0.0) == " "
    assert glyph(float("nan"), 1.0) == "?"


def test_label_any_number_of_tasks_is_unique() -> None:
    for count in (1, 52, 53, MOST_SHOWN):
        labels = [label(number, count) for number in range(count)]
        assert len(set(labels)) == count
        assert len({len(name) for name in labels}) == 1


def test_together_two_tasks_gives_four_estimates() -> None:
    estimator = FakeAnswers(5).estimator
    mask = np.array([True, False, True, False, True])
    found = together(estimator, mask, Cell("one", 0, 0, 1))

    def loss(first: bool, second: bool) -> float:
        return estimate_selection(estimator, np.array([first, second, True, False, True])).loss

    both, giver, taker, neither = loss(True, True), loss(True, False), loss(False, True), loss(False, False)
    assert [j.loss for j in (found.both, found.giver, found.taker, found.neither)] == pytest.approx(
        [both, giver, taker, neither]
    )
    expected = (both - neither) - (giver - neither) - (taker - neither)
    assert found.synergy.value == pytest.approx(expected)
    # The noise is that of the four losses, in each part of meta-training too.
    parts = found.both.readings + found.neither.readings - found.giver.readings - found.taker.readings
    each = found.both.each + found.neither.each - found.giver.each - found.taker.each
    weights = estimator.validation_weights
    spread = NORMAL_90 * float(estimator.reading_noise(parts))
    chance = NORMAL_90 * float(np.sqrt(((weights * (each - each @ weights)) ** 2).sum()))
    assert found.synergy.noise == pytest.approx(np.hypot(spread, chance))


def test_share_beyond_counts_pairs_of_different_tasks() -> None:
    values = np.array([[9.0, 1.0, -3.0], [1.0, 9.0, 1.0], [np.nan, 2.0, 9.0]])
    assert share_beyond(values, 1.5) == pytest.approx(2 / 5)
    assert share_beyond(values[:1, :1], 0.0) == 0


def test_matrix_screen_shows_values_of_estimator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = FakeAnswers(12)
    snapshot = fake_snapshot(answers, fake_names(12))

    async def figures(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen, values = _screen(app), answers.estimator.transfer()
        await until(pilot, lambda: screen.together and screen.together.cell == screen._wanted_cell())
        matrix, found = screen.matrix, screen.together
        assert found is not None
        giver, taker = pair = matrix.cell or (0, 0)
        shown = text(app)
        assert f"{values[giver, taker]:+.4f}".replace("-", "−") in shown
        rank = int((np.delete(values[giver], giver) > values[giver, taker]).sum()) + 1
        assert f"rank {rank} of 11" in shown
        assert f"{found.both.loss:.4f}" in shown
        assert "synergy" in shown
        for _ in range(2):
            line = matrix.line(matrix.cursor, 200)
            drawn = line[line.index(("[", "accent")) + 1][0]
            assert drawn == glyph(values[giver, taker], matrix.scale) * len(drawn)
            # After the transposition, the cursor stays on its pair.
            await pilot.press("t")
            assert matrix.cell == pair

    async def filter_toggle_and_order(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        matrix = screen.matrix
        await pilot.press("slash", *"aff>0", "enter")
        positive = set(np.flatnonzero(snapshot.affinity > 0).tolist())
        assert set(matrix.tasks.tolist()) == positive
        await pilot.press("o")
        assert (np.diff(snapshot.affinity[matrix.tasks]) <= 0).all()
        await pilot.press("o")
        assert matrix.tasks.tolist() == sorted(positive)
        await pilot.press("escape", "space")
        assert matrix.count == 12
        task = matrix.row_task
        assert task is not None
        assert app.session is not None
        assert not app.session.mask[task]
        assert app.place.task == snapshot.names[task]
        await pilot.press("slash")
        screen.query_one("#filter", Input).value = "aff>x"
        await pilot.press("enter")
        assert "✗" in text(app)
        await pilot.press("escape")

    async def nothing_old(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        if screen.matrix.column == screen.matrix.cursor:
            await pilot.press("l" if screen.matrix.column == 0 else "h")
        await until(pilot, lambda: screen.together and screen.together.cell == screen._wanted_cell())
        old = screen.together
        assert old is not None
        await pilot.press("space")
        assert app.session is not None
        assert old.cell.revision != app.session.revision
        assert "synergy" not in text(app) or screen.together is not old
        screen.post_message(MatrixScreen.Estimated(old))
        await pilot.pause()
        await until(pilot, lambda: screen.together is not old)
        assert screen.together is not None
        assert screen.together.cell == screen._wanted_cell()
        # Other gradients: values of the old gradients disappear at once.
        await read_fake(monkeypatch, app, pilot, fake_snapshot(FakeAnswers(12, key="two"), snapshot.names))
        assert screen.matrix.count == 0 or screen.transfer.key == "two"  # type: ignore[union-attr]
        await until(pilot, lambda: screen.transfer is not None and screen.transfer.key == "two")

    async def story(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: _screen(app).matrix.count)
        for size in ((80, 24), (140, 40)):
            await pilot.resize_terminal(*size)
            await figures(app, pilot)
        await pilot.resize_terminal(20, 5)
        await pilot.press("plus", "l", "minus", "k")
        assert "too small" in text(app)
        await pilot.resize_terminal(80, 24)
        await filter_toggle_and_order(app, pilot)
        await nothing_old(app, pilot)

    drive_fake(monkeypatch, tmp_path, snapshot, story, mode="matrix")


def test_matrix_screen_any_number_of_tasks_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def story(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        matrix = screen.matrix
        # Without estimates, the screen shows the next step.
        await pilot.press("l", "t", "space", "enter")
        assert app.missing() in text(app)

        for count, size in ((0, (140, 40)), (1, (80, 24)), (2, (60, 16))):
            await read_fake(monkeypatch, app, pilot, fake_snapshot(FakeAnswers(count), fake_names(count)))
            await pilot.resize_terminal(*size)
            await until(pilot, lambda count=count: screen._known is not None and matrix.count == count)
            await pilot.press("l", "t", "o", "plus", "space", "G", "slash", "escape", "enter")
            assert len(text(app).splitlines()) == size[1]
        await pilot.resize_terminal(80, 24)

        # The next reading of the project repeats a failed computation.
        answers = FakeAnswers(30, broken=1)
        monkeypatch.setattr(module, "MOST_SHOWN", 10)
        await read_fake(monkeypatch, app, pilot, fake_snapshot(answers, fake_names(30)))
        await until(pilot, lambda: "ctrl+l" in text(app))
        assert matrix.count == answers.broken == 0
        await pilot.press("ctrl+l")
        # With too many tasks, the screen shows the first tasks and their number.
        await until(pilot, lambda: matrix.count == 10)
        assert "the first 10 of 30" in text(app)
        monkeypatch.setattr(module, "MOST_SHOWN", MOST_SHOWN)

        # Many tasks scroll in both directions and draw fast.
        await read_fake(monkeypatch, app, pilot, fake_snapshot(FakeAnswers(300), fake_names(300)))
        await until(pilot, lambda: matrix.count == 300)
        began = time.process_time()
        for row in range(40):
            matrix.cursor, matrix.column = row, 2 * row
            screen._moved()
        assert (time.process_time() - began) / 40 < 0.02
        await pilot.press("G", "pageup")
        await until(pilot, lambda: matrix.cursor in matrix.visible_rows)
        assert matrix.visible_rows.start > 0
        assert matrix.column in matrix.shown_columns
        matrix.column = 299
        await pilot.pause()
        assert matrix.shown_columns.stop == 300
        assert label(299, 300)[1] in screen.query_one("#matrix-head", Lines).text.splitlines()[1]
        began = time.process_time()
        for row in range(20):
            matrix.line(row, 80)
        assert (time.process_time() - began) / 20 < 0.01

    opened = drive_fake(monkeypatch, tmp_path, fake_snapshot(None, fake_names(3)), story, mode="matrix")
    # Enter opens a task only in the projects with one task and with two tasks.
    assert len(opened) == 2


def test_matrix_screen_hostile_names_stay_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    names = ["", *HOSTILE]

    async def story(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        await until(pilot, lambda: screen.together is not None)
        for size in ((80, 24), (140, 40)):
            await pilot.resize_terminal(*size)
            for key in ("j", "plus", "t"):
                await pilot.press(key)
                assert not set(text(app)) & {"\x1b", "\x07", "\x00", "\u202e", "\t"}
                assert len(grid(app)) == size[1]
        assert "[bold red]" in text(app)

    tags = ["[b]x", "\x1b", *[""] * (len(names) - 2)]
    snapshot = fake_snapshot(FakeAnswers(len(names)), names, tags=tags)
    drive_fake(monkeypatch, tmp_path, snapshot, story, mode="matrix")

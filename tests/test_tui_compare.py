"""Compare: what is shown is what the estimator says of the selections as they are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_tui_matrix import HOSTILE, Answers, drive, grid, until, workspace_of
from textual.pilot import Pilot

from curator.whatif import difference, flips, judge
from tui.app import CuratorApp
from tui.modals.pick import PickDialog
from tui.screens.compare import ALL, NONE, NOW, CompareScreen, Estimates, which_rows


def _saved(name: str, mask: np.ndarray, measured: float | None = None) -> Any:
    manifest = SimpleNamespace(measured_loss=measured, tasks=[], options={}, edits=(), estimated_loss=1.0, reference={})
    return SimpleNamespace(name=name, method="forward", manifest=manifest, mask=lambda names: mask.copy())


def _screen(app: CuratorApp) -> CompareScreen:
    assert isinstance(app.screen, CompareScreen)
    return app.screen


def _workspace(count: int = 6, name: str = "best") -> Any:
    mask = np.arange(count) % 2 == 0
    other = np.arange(count) % 3 == 0
    selections = [_saved(name, mask, 0.8388), _saved("other", other)] if count else []
    return workspace_of(Answers(count), [f"task{n:04d}" for n in range(count)], selections=selections)


async def _complete(app: CuratorApp, pilot: Pilot[None]) -> Estimates:
    screen = _screen(app)

    def known() -> bool:
        found = screen._known(screen.chosen())
        return found is not None and found.is_complete

    await until(pilot, known)
    assert screen.estimates is not None
    return screen.estimates


def test_which_rows() -> None:
    masks = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=bool)
    assert which_rows(masks, "all").tolist() == [0, 1, 2, 3]
    assert which_rows(masks, "different").tolist() == [1, 2]
    assert which_rows(masks, "only A").tolist() == [1]
    assert which_rows(masks, "only B").tolist() == [2]
    assert which_rows(masks[:1], "different").tolist() == []


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (20, 5)])
def test_what_is_shown_is_what_the_estimator_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: tuple[int, int]
) -> None:
    workspace = _workspace()

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        _screen(app)._picked(["best", "other", ALL, NONE])
        found = await _complete(app, pilot)
        screen, estimator = _screen(app), workspace.answers.estimator
        first, second = (judge(estimator, s.mask([])) for s in workspace.selections)
        gap = difference(estimator, second, first)
        assert [j.loss for j in found.judgements[:2]] == pytest.approx([first.loss, second.loss])
        assert (found.versus_first[1].value, found.versus_first[1].noise) == pytest.approx((gap.value, gap.noise))
        assert found.judgements[2].loss == pytest.approx(estimator.all_tasks_loss)
        assert found.changes == pytest.approx(flips(estimator, first, np.arange(6)))
        assert found.solved.all()
        if size not in ((80, 24), (140, 40)):
            return
        text = grid(app)
        for words in (f"{first.loss:.4f}", f"{second.loss:.4f}", "A best", "B other", "C all tasks", "D target only"):
            assert words in text
        assert "◎ 0.8388" in text
        assert "A∩B 1 · A∪B 4 · Jaccard 0.250" in text
        assert ("not a reliable difference" in text) == gap.is_noise
        assert screen.differences.count == 6
        row = screen.differences.line(0, 79)
        assert "".join(part if isinstance(part, str) else part[0] for part in row)[:8].strip()

    drive(monkeypatch, tmp_path, workspace, do, mode="compare", size=size)


def test_at_first_it_is_now_its_base_and_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        await _complete(app, pilot)
        assert screen.picks() == [NOW, "best", ALL]
        assert "A and B hold the same tasks" in grid(app)
        # What was picked and is gone is left out.
        app.place.compared = ["gone", "other"]
        assert screen.picks() == ["other"]
        app.place.compared = ["gone", 3]
        assert screen.picks() == [NOW, "best", ALL]

    drive(monkeypatch, tmp_path, _workspace(), do, mode="compare")


def test_pick_swap_which_sort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copied: list[str] = []

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        screen = _screen(app)
        await _complete(app, pilot)
        await pilot.press("p")
        assert isinstance(app.screen, PickDialog)
        # Leave now, take the other one.
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
        await pilot.press("d", "d", "d")
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
        assert "curator verify" in grid(app)
        exported: list[str] = []
        monkeypatch.setattr(app, "export", exported.append)
        await pilot.press("e")
        await pilot.press("X", "e")
        assert exported == ["best"]
        assert "not a saved selection" in grid(app)

    drive(monkeypatch, tmp_path, _workspace(), do, mode="compare")


def test_at_most_four_are_picked_and_at_least_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers: list[list[str] | None] = []

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        choices = [(str(n), name, "") for n, name in enumerate(HOSTILE)]
        app.push_screen(PickDialog(choices, ["1"]), answers.append)
        await pilot.pause()
        await pilot.press("j", "space", "enter")
        assert isinstance(app.screen, PickDialog)
        assert "at least one" in grid(app)
        for _ in range(5):
            await pilot.press("space", "j")
        assert "at most 4" in grid(app)
        await pilot.press("enter")
        assert answers == [["1", "2", "3", "4"]]

    drive(monkeypatch, tmp_path, _workspace(), do, mode="compare")


def test_nothing_old_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
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
        assert new.judgements[0].loss == pytest.approx(judge(app.workspace.answers.estimator, app.session.mask).loss)  # type: ignore[union-attr]
        await pilot.press("u")
        again = await _complete(app, pilot)
        assert again.judgements[0].loss == pytest.approx(old.judgements[0].loss)

    drive(monkeypatch, tmp_path, _workspace(), do, mode="compare")


@pytest.mark.parametrize(("count", "size"), [(0, (80, 24)), (1, (140, 40)), (2, (80, 24)), (300, (60, 16))])
def test_any_number_of_tasks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, size: tuple[int, int]
) -> None:
    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = _screen(app)
        await until(pilot, lambda: screen.estimates is not None)
        await pilot.press("d", "d", "d", "s", "S", "j", "G", "enter", "X", "y")
        assert len(grid(app).splitlines()) == size[1]

    drive(monkeypatch, tmp_path, _workspace(count), do, mode="compare", size=size)


def test_without_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workspace = _workspace()
    workspace.answers = None

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        await pilot.press("d", "s", "X", "y", "j", "enter")
        assert app.missing() in grid(app)
        assert "A∩B" in grid(app)

    drive(monkeypatch, tmp_path, workspace, do, mode="compare")


@pytest.mark.parametrize(("size", "colour"), [((80, 24), "1"), ((140, 40), "")])
def test_hostile_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: tuple[int, int], colour: str) -> None:
    if colour:
        monkeypatch.setenv("NO_COLOR", colour)
    copied: list[str] = []
    mask = np.arange(len(HOSTILE)) % 2 == 0
    selections = [_saved(name, mask) for name in ("\x1b[31m[b]", "‮" + "名" * 40)]
    workspace = workspace_of(Answers(len(HOSTILE)), HOSTILE, selections=selections)

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        _screen(app)._picked([*(s.name for s in selections), NONE])
        await _complete(app, pilot)
        await pilot.press("d", "y")
        texts = [grid(app)]
        await pilot.press("p")
        texts.append(grid(app))
        for text in [*texts, copied[0]]:
            assert not set(text) & {"\x1b", "\x07", "‮", "\t"}

    drive(monkeypatch, tmp_path, workspace, do, mode="compare", size=size)


def test_a_long_list_scrolls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        rows = _screen(app).differences
        await until(pilot, lambda: rows.count == 150)
        await pilot.press("G")
        await until(pilot, lambda: rows.cursor in rows.visible_rows)
        assert rows.visible_rows.start > 0

    drive(monkeypatch, tmp_path, _workspace(300), do, mode="compare")

"""Matrix: what is drawn is what the estimator says, at every size, and nothing old is shown."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from curator.estimate import ExampleSet, PointGradients, TargetEstimator
from curator.whatif import judge
from tui.app import CuratorApp
from tui.memory import Settings
from tui.screens.matrix import MOST_SHOWN, Cell, MatrixScreen, glyph, label, together

HOSTILE = ("[/red]bold", "\x1b[31mred\x1b]52;c;AAAA\x07", "‮gnp.exe", "名前" * 30, "", "a\nb\tc", "x" * 300)


class Answers:
    """Random gradients of as many tasks as wanted; counts who asks."""

    def __init__(self, count: int, *, key: str = "one", wait: float = 0.0) -> None:
        self.key, self.count, self.wait = key, count, wait

    @cached_property
    def estimator(self) -> TargetEstimator:
        rng = np.random.default_rng(self.count)
        time.sleep(self.wait)

        def examples(count: int, *, validation: bool = False) -> ExampleSet:
            weights = np.full(count, 1 / count) if validation else rng.uniform(1, 20, count)
            return ExampleSet(
                losses=rng.uniform(0.2, 2, count), gradients=rng.standard_normal((count, 6)), weights=weights
            )

        point = PointGradients(
            share=1.0,
            tasks=[examples(3) for _ in range(self.count)],
            target=examples(4),
            validation=examples(8, validation=True),
        )
        return TargetEstimator([point], rng.uniform(0.5, 1.5, 8), [5.0], method="quadratic")


def workspace_of(
    answers: Answers | None, names: Sequence[str], *, selections: Sequence[Any] = (), tags: Sequence[str] | None = None
) -> Any:
    """A workspace without files."""
    count = len(names)
    rng = np.random.default_rng(1)
    project = SimpleNamespace(
        name="fake",
        folder=Path("/nonexistent"),
        store=SimpleNamespace(put_edits=lambda *_: None),
        config=None,
    )
    project.store.path = Path("/nonexistent")
    made = SimpleNamespace(
        project=project,
        target="target",
        status=SimpleNamespace(stages=()),
        corpus=SimpleNamespace(target_tasks=[]),
        answers=answers,
        names=list(names),
        tags=list(tags or [""] * count),
        sources=[""] * count,
        examples=np.full(count, 10.0),
        tokens=np.arange(count) + 100.0,
        affinity=rng.standard_normal(count) * 0.01,
        affinity_error=np.full(count, 0.001),
        selections=tuple(selections),
        problems=(),
        last_session=None,
    )
    made.selection = lambda name: next((s for s in made.selections if s.name == name), None)
    return made


def drive(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    workspace: Any,
    do: Callable[[CuratorApp, Pilot[None]], Awaitable[None]],
    *,
    mode: str = "matrix",
    size: tuple[int, int] = (80, 24),
) -> None:
    """Run the application on a workspace that is not on disk."""
    import tui.workspace

    monkeypatch.setattr(tui.workspace, "load_workspace", lambda *_: workspace)

    async def main() -> None:
        app = CuratorApp(root, Settings())
        app.place.mode = mode
        # The screen of a task reads its examples from files.
        app.opened = []  # type: ignore[attr-defined]
        monkeypatch.setattr(app, "open_task", lambda task, view: app.opened.append(task))  # type: ignore[attr-defined]
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.workspace is not None)
            await do(app, pilot)

    asyncio.run(main())


async def until(pilot: Pilot[None], wanted: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it does not come"
        await pilot.pause(0.02)
    await pilot.pause()


def grid(app: CuratorApp) -> str:
    """The screen as text."""
    return "\n".join("".join(seg.text for seg in strip) for strip in app.screen._compositor.render_strips())


def screen_of(app: CuratorApp) -> MatrixScreen:
    assert isinstance(app.screen, MatrixScreen)
    return app.screen


def _names(count: int) -> list[str]:
    return [f"task{n:04d}" for n in range(count)]


def test_glyphs_say_sign_and_size_without_colour() -> None:
    helps = [glyph(value, 1.0) for value in np.linspace(0, 1.5, 50)]
    hurts = [glyph(-value, 1.0) for value in np.linspace(0, 1.5, 50)]
    for found, signs in ((helps, " ░▒▓█"), (hurts, " ╌╍━")):
        places = [signs.index(sign) for sign in found]
        assert places == sorted(places)
        assert set(places) == set(range(len(signs)))
    assert not (set(helps) & set(hurts)) - {" "}
    assert glyph(0.1, 0.0) == " "
    assert glyph(float("nan"), 1.0) == "?"


def test_labels_are_different() -> None:
    for count in (1, 52, 53, MOST_SHOWN):
        labels = [label(number, count) for number in range(count)]
        assert len(set(labels)) == count
        assert len({len(text) for text in labels}) == 1


def test_two_tasks_together_are_four_estimates() -> None:
    estimator = Answers(5).estimator
    mask = np.array([True, False, True, False, True])
    found = together(estimator, mask, Cell("one", 0, 0, 1))

    def loss(first: bool, second: bool) -> float:
        return judge(estimator, np.array([first, second, True, False, True])).loss

    both, giver, taker, neither = loss(True, True), loss(True, False), loss(False, True), loss(False, False)
    assert [j.loss for j in (found.both, found.giver, found.taker, found.neither)] == pytest.approx(
        [both, giver, taker, neither]
    )
    expected = (both - neither) - (giver - neither) - (taker - neither)
    assert found.synergy.value == pytest.approx(expected)


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (20, 5)])
def test_what_is_drawn_is_what_the_estimator_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: tuple[int, int]
) -> None:
    answers, names = Answers(12), _names(12)

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = screen_of(app)
        await until(pilot, lambda: screen.matrix.count and screen.together)
        matrix, values = screen.matrix, answers.estimator.transfer()
        giver, taker = matrix.cell or (0, 0)
        assert matrix.value(matrix.cursor, matrix.column) == values[giver, taker]
        text = grid(app)
        if size in ((80, 24), (140, 40)):
            assert f"{values[giver, taker]:+.4f}".replace("-", "−") in text
            rank = int((np.delete(values[giver], giver) > values[giver, taker]).sum()) + 1
            assert f"rank {rank} of 11" in text
            assert screen.together is not None
            assert f"{screen.together.both.loss:.4f}" in text
            assert "synergy" in text
            shown = matrix.line(matrix.cursor, 200)
            assert ("[", "accent") in shown
        await pilot.press("t")
        assert matrix.cell == (giver, taker)
        assert matrix.value(matrix.cursor, matrix.column) == values[giver, taker]
        await pilot.press("plus", "l", "minus", "o", "k")

    drive(monkeypatch, tmp_path, workspace_of(answers, names), do, size=size)


@pytest.mark.parametrize(("count", "size"), [(0, (140, 40)), (1, (80, 24)), (2, (60, 16))])
def test_few_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = screen_of(app)
        await until(pilot, lambda: screen.transfer is not None)
        await pilot.press("j", "l", "t", "o", "plus", "space", "enter", "h", "k", "G", "slash", "escape")
        assert screen.matrix.count == count
        assert len(app.opened) == min(count, 1)  # type: ignore[attr-defined]
        grid(app)

    drive(monkeypatch, tmp_path, workspace_of(Answers(count), _names(count)), do, size=size)


def test_without_answers_the_way_to_them_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        await pilot.press("j", "l", "t", "space", "enter")
        assert app.missing() in grid(app)

    drive(monkeypatch, tmp_path, workspace_of(None, _names(3)), do)


def test_many_tasks_scroll_both_ways_and_stay_quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = screen_of(app)
        await until(pilot, lambda: screen.matrix.count == 300)
        matrix = screen.matrix
        await pilot.press("l", "j")
        began = time.process_time()
        for row in range(40):
            matrix.cursor, matrix.column = row, 2 * row
            screen._moved()
        assert (time.process_time() - began) / 40 < 0.02
        await pilot.press("G")
        await pilot.press("pageup")
        await until(pilot, lambda: matrix.cursor in matrix.visible_rows)
        assert matrix.visible_rows.start > 0
        assert matrix.column in matrix.shown_columns
        matrix.column = 299
        await pilot.pause()
        assert matrix.shown_columns.stop == 300
        assert label(299, 300)[1] in screen.query_one("#matrix-head").text.splitlines()[1]  # type: ignore[attr-defined]
        began = time.process_time()
        for row in range(20):
            matrix.line(row, 80)
        assert (time.process_time() - began) / 20 < 0.01

    drive(monkeypatch, tmp_path, workspace_of(Answers(300), _names(300)), do)


def test_beyond_the_most_the_first_are_shown_and_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import tui.screens.matrix as module

    monkeypatch.setattr(module, "MOST_SHOWN", 10)

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: screen_of(app).matrix.count == 10)
        assert "the first 10 of 30" in grid(app)

    drive(monkeypatch, tmp_path, workspace_of(Answers(30), _names(30)), do)


def test_filter_toggle_and_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workspace = workspace_of(Answers(8), _names(8))

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = screen_of(app)
        await until(pilot, lambda: screen.matrix.count == 8)
        await pilot.press("slash", *"aff>0", "enter")
        positive = set(np.flatnonzero(workspace.affinity > 0).tolist())
        assert set(screen.matrix.tasks.tolist()) == positive
        await pilot.press("o")
        affinity = workspace.affinity[screen.matrix.tasks]
        assert (np.diff(affinity) <= 0).all()
        await pilot.press("o")
        assert screen.matrix.tasks.tolist() == sorted(positive)
        await pilot.press("escape")
        assert screen.matrix.count == 8
        task = screen.matrix.row_task
        assert task is not None
        assert app.session is not None
        await pilot.press("space")
        assert not app.session.mask[task]
        assert app.place.task == workspace.names[task]
        await pilot.press("slash", *"aff>x", "enter")
        assert "✗" in grid(app)
        await pilot.press("escape")

    drive(monkeypatch, tmp_path, workspace, do)


def test_nothing_old_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = screen_of(app)
        await until(pilot, lambda: screen.together is not None)
        old = screen.together
        assert old is not None
        await pilot.press("space")
        assert app.session is not None
        assert old.cell.revision != app.session.revision
        assert "synergy" not in grid(app) or screen.together is not old
        screen.post_message(MatrixScreen.Estimated(old))
        await pilot.pause()
        assert screen.together is not None
        await until(pilot, lambda: screen.together is not old)
        assert screen.together.cell == screen._wanted_cell()
        # Other answers: what was known of those before is gone at once.
        assert app.workspace is not None
        app.workspace.answers = Answers(6, key="two")  # type: ignore[misc, assignment]
        app.tell("workspace")
        await pilot.pause()
        assert screen.matrix.count == 0 or screen.transfer.key == "two"  # type: ignore[union-attr]
        await until(pilot, lambda: screen.transfer is not None and screen.transfer.key == "two")

    drive(monkeypatch, tmp_path, workspace_of(Answers(6), _names(6)), do)


@pytest.mark.parametrize(("size", "colour"), [((80, 24), "1"), ((140, 40), "")])
def test_hostile_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: tuple[int, int], colour: str) -> None:
    if colour:
        monkeypatch.setenv("NO_COLOR", colour)

    async def do(app: CuratorApp, pilot: Pilot[None]) -> None:
        screen = screen_of(app)
        await until(pilot, lambda: screen.together is not None)
        for key in ("j", "plus", "t"):
            await pilot.press(key)
            text = grid(app)
            assert not set(text) & {"\x1b", "\x07", "‮", "\t"}
            assert len(text.splitlines()) == size[1]
        assert "[/red]" in text

    tags = ["[b]x", "\x1b", "", "", "", "", ""]
    drive(monkeypatch, tmp_path, workspace_of(Answers(7), HOSTILE, tags=tags), do, size=size)

"""The Task screen: order of influences, marked parts, search, tokens, and hostile text."""

import asyncio
import shutil
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HOSTILE as HOSTILE_NAMES
from textual.pilot import Pilot
from tui_pilot import grid, opened, text, until

from curator.core.text import clean
from curator.data.left_out import LEAKED
from curator.project.project import Project
from curator.workspace.store.tables import Store
from tui.app import CuratorApp
from tui.screens.task import TaskScreen
from tui.settings import Settings
from tui.state.examples import REASONS
from tui.widgets.lines import Line

DrawnProject = Callable[..., Path]
Task = tuple[CuratorApp, TaskScreen, Pilot[None]]

# Texts of the first two tasks of the project with hostile names. Each task has four rows.
HOSTILE = (
    "\x1b[31mred\x1b]52;c;aGk=\x07",
    "[bold]x[/foo] [@click=app.quit]y[/",
    "nul\x00 tab\there",
    "one\r\ntwo\rthree\n",
    "汉字" * 80,
    "👩‍👩‍👧 ❤️ é 🇩🇪 a\u202eb\u2066c",
    "w" * 10_000,
    "",
)


@asynccontextmanager
async def _opened(root: Path, task: int = 1, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Task]:
    """Open the screen of a task, and wait for examples and influences."""
    async with opened(root, size) as (app, pilot):
        assert app.snapshot is not None
        app.open_task(task, np.arange(len(app.snapshot.names)))
        await until(pilot, lambda: isinstance(app.screen, TaskScreen) and app.screen.is_mounted)
        screen = app.screen
        assert isinstance(screen, TaskScreen)
        await until(pilot, lambda: screen.rows.values is not None)
        yield app, screen, pilot


def _words(lines: list[Line], style: str | None = None) -> str:
    found = [part if isinstance(part, tuple) else (part, "") for line in lines for part in line]
    return "".join(text for text, its_style in found if style is None or its_style == style)


def _read(screen: TaskScreen) -> str:
    return _words(screen.reader.lines)


def _here(screen: TaskScreen) -> tuple[str, tuple[int, ...]]:
    """Return text and spans of the example under the cursor."""
    examples, number = screen.rows.examples, screen.rows.number
    assert examples is not None
    assert number is not None
    return examples.text(number), examples.spans_of(number)


def test_task_screen_several_tasks_show_their_values(
    drawn_project: DrawnProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        root = drawn_project("12")
        async with _opened(root) as (app, screen, pilot):
            await _influences_are_the_estimators(app, screen, pilot)
            app.open_task(1, np.arange(12))
            await until(pilot, lambda: screen.rows.values is not None)
            await _old_influences_are_not_shown_after_an_edit(app, screen, pilot)
            await _next_and_previous_keep_to_the_view(app, screen, pilot)
            await _toggle_is_about_the_task(app, screen, pilot)
            app.open_task(1, np.arange(12))
            await until(pilot, lambda: screen.rows.values is not None)
            await _loss_is_marked(screen, pilot)
            await _copying_is_capped(app, screen, pilot, monkeypatch)
            await _tokens_are_marked(root, screen, pilot)

    asyncio.run(main())


async def _influences_are_the_estimators(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
    snapshot, session, rows = app.snapshot, app.session, screen.rows
    assert snapshot is not None
    assert snapshot.answers is not None
    assert snapshot.corpus is not None
    assert session is not None
    estimator, splits = snapshot.answers.estimator, {task.name: task.split for task in snapshot.corpus.tasks}
    for number, name in [*list(enumerate(snapshot.names))[:3], (len(snapshot.names), "target")]:
        app.open_task(number, np.arange(len(snapshot.names)))
        await until(pilot, lambda: rows.values is not None)
        expected, train = estimator.gains_of(number, session.mask), splits[name].train
        assert rows.values is not None
        assert np.allclose(rows.values[list(train)], expected)
        best = [train[n] for n in np.argsort(-expected, kind="stable")]
        assert rows.order[: len(best)].tolist() == best
        assert rows.number == best[0]
        assert np.isnan(rows.values[rows.order[len(best) :]]).all()
    await pilot.press("s")
    worst = [train[n] for n in np.argsort(expected, kind="stable")]
    assert rows.order[: len(worst)].tolist() == worst
    await pilot.press("S")
    assert rows.order[: len(best)].tolist() == best
    await pilot.press("s", "s", "s", "s")
    assert rows.order.tolist() == sorted(rows.order.tolist())
    await pilot.press("s", "s")


async def _old_influences_are_not_shown_after_an_edit(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
    requests: list[Any] = []
    real = screen._weigh
    screen._weigh = lambda *given: requests.append(given)  # type: ignore[assignment,method-assign]
    number, influence = screen.rows.number, screen.influence
    assert number is not None
    assert influence is not None
    before, title = screen.rows.influence_part(number)[0], f" {influence.unit.name} · most helpful first"
    assert before in text(app)
    assert title in text(app)
    await pilot.press("i")
    assert app.session is not None
    assert len(requests) == 1
    assert "…" in screen.rows.influence_part(number)[0]
    assert before not in text(app)
    assert title not in text(app)
    # A result of an older request is ignored.
    assert screen._gains is not None
    screen._have_influence((requests[0][1][0], app.session.revision - 1, 1), screen._gains[1], None)
    assert screen.rows.values is None
    real(*requests[0])
    await until(pilot, lambda: screen.rows.values is not None)
    assert screen.rows.number == number
    answers = app.snapshot.answers  # type: ignore[union-attr]
    assert answers is not None
    assert screen.influence is not None
    assert np.allclose(screen.influence.gains, answers.estimator.gains_of(1, app.session.mask))
    await pilot.press("u")
    assert screen.rows.values is None
    del screen._weigh


async def _next_and_previous_keep_to_the_view(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
    assert app.snapshot is not None
    names, view = app.snapshot.names, [5, 0, 3]
    app.open_task(0, np.array(view))
    seen = []
    for _ in range(4):
        assert screen.shown is not None
        seen.append(screen.shown.name)
        await pilot.press("right_square_bracket")
    assert seen == [names[0], names[3], "target", names[5]]
    assert screen.shown is not None
    assert screen.shown.name == seen[0]
    await pilot.press("left_square_bracket")
    assert screen.shown.name == seen[-1]


async def _toggle_is_about_the_task(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
    assert app.session is not None
    app.open_task(2, np.array([2, 5]))
    assert app.screen is screen
    mask = app.session.mask
    await pilot.press("i")
    assert np.flatnonzero(app.session.mask != mask).tolist() == [2]
    await pilot.press("p")
    assert app.session.state(2).pinned
    app.open_task(12, np.arange(12))
    mask = app.session.mask
    await pilot.press("i", "p")
    assert np.allclose(app.session.mask, mask)
    assert "always in" in text(app)


async def _loss_is_marked(screen: TaskScreen, pilot: Pilot[None]) -> None:
    for row in range(screen.rows.count):
        screen.rows.cursor = row
        await pilot.pause()
        words, spans = _here(screen)
        assert words[spans[0] : spans[1]] == _words(screen.reader.lines, "loss") != ""
        assert _read(screen) == words[: spans[0]] + "▸" + words[spans[0] :]


async def _copying_is_capped(
    app: CuratorApp, screen: TaskScreen, pilot: Pilot[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    app.copy_to_clipboard = copied.append  # type: ignore[assignment,method-assign]
    await pilot.press("y")
    words, _ = _here(screen)
    assert copied == [words]
    assert "sent to the terminal" in text(app)
    monkeypatch.setattr("tui.screens.task._CLIPBOARD", 3)
    await pilot.press("y")
    assert copied[-1] == words[:3]


async def _tokens_are_marked(root: Path, screen: TaskScreen, pilot: Pilot[None]) -> None:
    await pilot.press("g", "t")
    await until(pilot, lambda: "│" in _read(screen))
    words, spans = _here(screen)
    assert _words(screen.reader.lines, "loss token") == words[spans[0] : spans[1]] + "</s>"
    assert _read(screen).replace("│", "").replace("▸", "") == words + "</s>"
    await pilot.press("j")
    await until(pilot, lambda: "│" in _read(screen))
    assert _here(screen)[0] in _read(screen).replace("│", "").replace("▸", "")
    assert _here(screen)[0] != words
    await pilot.press("t")
    assert "│" not in _read(screen)
    (root / "model" / "tokenizer.json").unlink()
    await pilot.press("t")
    await until(pilot, lambda: "│" in _read(screen))
    assert _read(screen).replace("▸", "").replace("│", "").isdigit()


def _put_hostile_texts(root: Path) -> None:
    with Store(root / ".curator" / "store.duckdb").write() as connection:
        for place, words in enumerate(HOSTILE):
            connection.execute(
                "UPDATE examples SET text = ?, spans = ? WHERE task = ? AND number = ?",
                [words, [len(words) // 2, len(words)], HOSTILE_NAMES[place // 4], place % 4],
            )


def _assert_clean(app: CuratorApp, size: tuple[int, int]) -> None:
    rows = grid(app)
    assert len(rows) == size[1]
    unsafe = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not {c for row in rows for c in row if unicodedata.category(c) in unsafe and clean(c) != c}


def test_task_screen_hostile_text_stays_text_and_is_found(drawn_project: DrawnProject) -> None:
    async def main() -> None:
        root = drawn_project("hostile")
        _put_hostile_texts(root)
        async with _opened(root, 0) as (app, screen, pilot):
            assert app.snapshot is not None
            tasks = [app.snapshot.names.index(name) for name in HOSTILE_NAMES[:2]]
            for size in ((80, 24), (140, 40), (20, 5)):
                await pilot.resize_terminal(*size)
                for task in tasks:
                    app.open_task(task, np.arange(len(app.snapshot.names)))
                    await until(pilot, lambda: screen.rows.values is not None)
                    await _is_clean(app, screen, pilot, size)
            await pilot.resize_terminal(80, 24)
            app.open_task(tasks[0], np.arange(len(app.snapshot.names)))
            await _is_found(app, screen, pilot)

    asyncio.run(main())


async def _is_clean(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None], size: tuple[int, int]) -> None:
    warnings = 0
    screen.rows.focus()
    for keys in ((), ("t", "tab"), ("t",)) if size == (80, 24) else ((),):
        await pilot.press(*keys)
        for row in range(screen.rows.count if size[0] >= 60 else 1):
            screen.rows.cursor = row
            await pilot.pause()
            _assert_clean(app, size)
            warnings += "control" in text(app)
    await pilot.press("G")
    _assert_clean(app, size)
    assert warnings or size[0] < 60 or app.place.task != HOSTILE_NAMES[0]


async def _is_found(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
    rows = screen.rows
    rows.focus()
    await pilot.press("slash", *"[/FOO")
    await until(pilot, lambda: rows.count == 1)
    assert "[/foo]" in _read(screen)
    await pilot.press("enter")
    assert rows.has_focus
    assert rows.words == "[/FOO"
    await pilot.press("slash", "end", "q")
    await until(pilot, lambda: rows.count == 0)
    assert "none of 4" in text(app)
    await pilot.press("escape")
    assert rows.count == 4
    assert rows.words == ""
    assert app.screen is screen
    await pilot.press("tab", "escape")
    assert rows.has_focus
    await pilot.press("escape")
    assert app.screen is not screen


def test_task_screen_removed_task_closes_screen(drawn_project: DrawnProject) -> None:
    async def main() -> None:
        root = drawn_project("12")
        async with _opened(root, 11) as (app, screen, pilot):
            await _says_why_rows_are_left_out(app, screen, pilot)
            config = (root / "curator.toml").read_text(encoding="utf-8")
            (root / "curator.toml").write_text(config[: config.rindex("[[data.task]]")], encoding="utf-8")
            shown: list[str] = []
            app.flash = lambda words, style="dim": shown.append(words)  # type: ignore[assignment,method-assign]
            app.read_snapshot()
            await until(pilot, lambda: app.screen is not screen)
            assert "task was removed: task0011" in shown

    asyncio.run(main())


async def _says_why_rows_are_left_out(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
    snapshot = app.snapshot
    assert snapshot is not None
    assert snapshot.corpus is not None
    tasks = tuple(
        replace(task, split=replace(task.split, train=(), left_out={LEAKED: tuple(range(4))}))
        if task.name == snapshot.names[11]
        else task
        for task in snapshot.corpus.tasks
    )
    app.snapshot = replace(snapshot, corpus=replace(snapshot.corpus, tasks=tasks))
    app.notify_screens("snapshot")
    # The header and the rows are drawn one after the other.
    await until(pilot, lambda: f"not trained on: {LEAKED}" in text(app) and "1 of 4" in text(app))
    await until(pilot, lambda: text(app).count(f" {REASONS[LEAKED]} ") == 4)


def test_task_screen_without_estimates_shows_examples(drawn_project: DrawnProject) -> None:
    async def main() -> None:
        root = drawn_project("12")
        shutil.rmtree(root / ".curator")
        Project.open(root).check()
        app = CuratorApp(root, Settings())
        async with app.run_test(size=(80, 24)) as pilot:
            # Open the task before the project is read.
            app.open_task(0, np.arange(1))
            await until(pilot, lambda: isinstance(app.screen, TaskScreen) and app.screen.is_mounted)
            screen = app.screen
            assert isinstance(screen, TaskScreen)
            await until(pilot, lambda: "file order" in text(app))
            assert "no estimates yet" in text(app)
            assert screen.rows.order.tolist() == [0, 1, 2, 3]
            await pilot.press("i", "t", "s", "j", "s", "S")
            assert "shortest first" in text(app)
            await app.leave()

    asyncio.run(main())

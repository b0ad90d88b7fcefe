"""The screen of one task: order and freshness of influences, what is marked, search, tokens, and hostile text."""

import asyncio
import shutil
import unicodedata
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import pair_rows, toml_of, write_rows
from textual.pilot import Pilot

from curator.project import Project
from curator.splits import LEAKED
from tui.app import CuratorApp
from tui.memory import Settings
from tui.screens.task import TaskScreen
from tui.widgets.lines import Line

EVIL = "ev\x1b[31mil [bold]\u202e汉 [@click=app.quit]"
HOSTILE = [
    "\x1b[31mred\x1b]52;c;aGk=\x07",
    "[bold]x[/foo] [@click=app.quit]y[/",
    "nul\x00 tab\there",
    "one\r\ntwo\rthree\n",
    "a\u202eb\u2066c",
    "汉字" * 80,
    "👩‍👩‍👧 ❤️ é 🇩🇪",
    "w" * 10_000,
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    """A project on which everything has run."""
    folder = tmp_path_factory.mktemp("tui-task") / "project"
    shutil.copytree(tiny_llama_folder, folder / "model")
    for task, count in (("target", 12), ("alpha", 8), ("beta", 10)):
        write_rows(folder / "tasks" / f"{task}.jsonl", pair_rows(task, count))
    rows = [{"prompt": text + " =", "completion": " " + text[:20]} for text in HOSTILE]
    write_rows(folder / "tasks" / f"{EVIL}.jsonl", [*rows, {"prompt": "empty", "completion": ""}])
    values: dict[str, dict[str, Any]] = {
        "project": {"name": "project"},
        "model": {"name_or_path": "model"},
        "lora": {"r": 2, "alpha": 4},
        "data": {"tasks": "tasks/*.jsonl", "target": "target", "validation": 0.3, "max_length": 96},
        "train": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3},
        "gradients": {"projection_dim": 16, "points": [1.0]},
        "select": {"subsets": 20},
    }
    (folder / "curator.toml").write_text(toml_of(values), encoding="utf-8")
    Project.open(folder).select()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(made, tmp_path / "p")
    return tmp_path / "p"


Play = Callable[[CuratorApp, TaskScreen, Pilot[None]], Awaitable[None]]


async def _until(pilot: Pilot[None], test: Callable[[], bool]) -> None:
    for _ in range(400):
        if test():
            return
        await pilot.pause(0.02)
    raise AssertionError("it does not happen")


def _play(folder: Path, play: Play, *, task: str = "beta", size: tuple[int, int] = (80, 24)) -> None:
    async def main() -> None:
        app = CuratorApp(folder, Settings())
        async with app.run_test(size=size) as pilot:
            await _until(pilot, lambda: app.outlook is not None)
            assert app.workspace is not None
            names = [*app.workspace.names, *app.workspace.corpus.targets]  # type: ignore[union-attr]
            app.open_task(names.index(task), np.arange(len(app.workspace.names)))
            await pilot.pause()
            screen = app.screen
            assert isinstance(screen, TaskScreen)
            await _until(pilot, lambda: screen.by_row() is not None)
            await pilot.pause()
            await play(app, screen, pilot)

    asyncio.run(main())


def _grid(app: CuratorApp) -> str:
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


def _words(lines: list[Line], style: str | None = None) -> str:
    found = [part if isinstance(part, tuple) else (part, "") for line in lines for part in line]
    return "".join(text for text, its_style in found if style is None or its_style == style)


def _assert_clean(app: CuratorApp, size: tuple[int, int]) -> None:
    rows = _grid(app).split("\n")
    assert len(rows) == size[1]
    unsafe = {c for row in rows for c in row if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert not unsafe


def test_influences_are_the_estimators(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        workspace, session = app.workspace, app.session
        assert workspace is not None
        assert workspace.answers is not None
        assert workspace.corpus is not None
        assert session is not None
        estimator, view = workspace.answers.estimator, np.arange(len(workspace.names))
        gains = estimator.gains(session.mask)
        for number, name in enumerate([*workspace.names, "target"]):
            app.open_task(number, view)
            await _until(pilot, lambda: screen.by_row() is not None)
            expected = estimator.gains_of(number, gains)
            found = screen.by_row()
            assert found is not None
            split = next(t.split for t in workspace.corpus.tasks if t.name == name)
            assert np.array_equal(found[0][list(split.train)], expected)
            best = [split.train[n] for n in np.argsort(-expected, kind="stable")]
            assert screen.rows.order[: len(best)].tolist() == best
            assert screen.rows.number == best[0]
            assert np.isnan(found[0][screen.rows.order[len(best) :]]).all()
        await pilot.press("s")
        worst = [split.train[n] for n in np.argsort(expected, kind="stable")]
        assert screen.rows.order[: len(worst)].tolist() == worst
        await pilot.press("S")
        assert screen.rows.order[: len(best)].tolist() == best
        await pilot.press("s", "s", "s", "s")
        assert screen.rows.order.tolist() == sorted(screen.rows.order.tolist())

    _play(folder, play)


def test_old_influences_are_not_shown_after_an_edit(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        asked: list[Any] = []
        real = screen._influence
        screen._influence = lambda *given: asked.append(given)  # type: ignore[assignment,method-assign]
        number = screen.rows.number
        assert number is not None
        before = screen.influence_part(number)
        await pilot.press("space")
        assert app.session is not None
        assert len(asked) == 1
        assert "…" in screen.influence_part(number)[0]
        assert before[0] not in _grid(app)
        assert "mnat" not in _grid(app)
        # An answer to an older question is not taken for the newer one.
        assert screen._gains is not None
        screen._have_influence((asked[0][1][0], app.session.revision - 1), screen._gains[2])
        assert screen.by_row() is None
        real(*asked[0])
        await _until(pilot, lambda: screen.by_row() is not None)
        assert screen.rows.number == number
        answers = app.workspace.answers  # type: ignore[union-attr]
        assert answers is not None
        gains = answers.estimator.gains(app.session.mask)
        assert screen.gains is not None
        assert np.array_equal(screen.gains, answers.estimator.gains_of(screen._number, gains))
        await pilot.press("u")
        assert screen.by_row() is None

    _play(folder, play)


def test_the_text_is_marked_where_loss_is(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        examples = screen.examples
        assert examples is not None
        for row in range(len(examples)):
            screen.rows.cursor = row
            await pilot.pause()
            number = screen.rows.number
            assert number is not None
            text, spans = examples.text(number), examples.spans_of(number)
            expected = "".join(text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True))
            assert _words(screen.reader.lines, "loss") == expected
            assert _words(screen.reader.lines) == text[: spans[0]] + "▸" + text[spans[0] :]

    _play(folder, play)


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (20, 5)])
def test_hostile_text_does_nothing(folder: Path, size: tuple[int, int]) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        for key in ("", "t", "tab"):
            if key:
                await pilot.press(key)
            for row in range(screen.rows.count):
                screen.rows.cursor = row
                await pilot.pause()
                _assert_clean(app, size)
        await pilot.press("G")
        _assert_clean(app, size)
        if size[0] >= 80:
            assert "control" in _grid(app)

    _play(folder, play, task=EVIL, size=size)


def test_search_filters_and_escape_goes_back(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"[/FOO")
        await _until(pilot, lambda: screen.rows.count == 1)
        assert "[/foo]" in _words(screen.reader.lines)
        await pilot.press("enter")
        assert screen.rows.has_focus
        assert screen.words == "[/FOO"
        await pilot.press("slash", "end", "q")
        await _until(pilot, lambda: screen.rows.count == 0)
        assert "none of 9" in _grid(app)
        await pilot.press("escape")
        assert screen.rows.count == 9
        assert screen.words == ""
        assert app.screen is screen
        await pilot.press("tab", "escape")
        assert screen.rows.has_focus
        await pilot.press("escape")
        assert app.screen is not screen

    _play(folder, play, task=EVIL)


def test_tokens_are_shown_and_marked(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        await pilot.press("t")
        await _until(pilot, lambda: "│" in _words(screen.reader.lines))
        examples, number = screen.examples, screen.rows.number
        assert examples is not None
        assert number is not None
        spans = examples.spans_of(number)
        marked = _words(screen.reader.lines, "loss token")
        assert examples.text(number)[spans[0] : spans[1]].strip() in marked
        assert _words(screen.reader.lines).startswith("│<s>│")
        await pilot.press("j")
        await _until(pilot, lambda: "│" in _words(screen.reader.lines))
        await pilot.press("t")
        assert "│" not in _words(screen.reader.lines)

    _play(folder, play)


def test_tokens_without_a_tokenizer_are_numbers(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        (folder / "model" / "tokenizer.json").unlink()
        await pilot.press("t")
        await _until(pilot, lambda: "│" in _words(screen.reader.lines))
        assert _words(screen.reader.lines).replace("▸", "│").strip("│").replace("│", "").isdigit()

    _play(folder, play)


def test_next_and_previous_keep_to_the_view_and_toggle_is_about_the_task(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        assert app.workspace is not None
        assert app.session is not None
        names = app.workspace.names
        seen = []
        for _ in range(len(names) + 1):
            task = screen.shown
            assert task is not None
            seen.append(task.name)
            await pilot.press("right_square_bracket")
            await _until(pilot, lambda: screen.by_row() is not None)
        assert sorted(seen) == sorted([*names, "target"])
        assert screen.shown is not None
        assert screen.shown.name == seen[0]
        await pilot.press("left_square_bracket")
        assert screen.shown.name == seen[-1]
        app.open_task(names.index("alpha"), np.array([names.index("alpha"), names.index("beta")]))
        assert app.screen is screen
        mask = app.session.mask
        await pilot.press("space")
        assert np.flatnonzero(app.session.mask != mask).tolist() == [names.index("alpha")]
        await pilot.press("p")
        assert app.session.state(names.index("alpha")).pinned
        app.open_task(len(names), np.arange(len(names)))
        mask = app.session.mask
        await pilot.press("space", "p")
        assert np.array_equal(app.session.mask, mask)
        assert "always in" in _grid(app)

    _play(folder, play)


def test_copying_is_capped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        copied: list[str] = []
        app.copy_to_clipboard = copied.append  # type: ignore[assignment,method-assign]
        await pilot.press("y")
        examples, number = screen.examples, screen.rows.number
        assert examples is not None
        assert number is not None
        assert copied == [examples.text(number)]
        assert "copied" in _grid(app)
        monkeypatch.setattr("tui.screens.task._CLIPBOARD", 3)
        await pilot.press("y")
        assert copied[-1] == examples.text(number)[:3]

    _play(folder, play)


def test_a_task_whose_rows_are_all_left_out_says_why(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        workspace = app.workspace
        assert workspace is not None
        assert workspace.corpus is not None
        tasks = tuple(
            replace(task, split=replace(task.split, train=(), left_out={LEAKED: tuple(range(10))}))
            if task.name == "beta"
            else task
            for task in workspace.corpus.tasks
        )
        app.workspace = replace(workspace, corpus=replace(workspace.corpus, tasks=tasks))
        app.tell("workspace")
        await _until(pilot, lambda: screen.examples is not None and len(screen.examples.reasons) == 10)
        await pilot.pause(0.1)
        grid = _grid(app)
        assert grid.count("leaked") == screen.rows.size.height
        assert f"not trained on: {LEAKED}" in grid
        assert "1 of 10" in grid

    _play(folder, play)


def test_without_estimates_the_examples_are_there(folder: Path) -> None:
    async def main() -> None:
        shutil.rmtree(folder / ".curator")
        Project.open(folder).check()
        app = CuratorApp(folder, Settings())
        async with app.run_test(size=(80, 24)) as pilot:
            app.open_task(0, np.arange(1))
            await pilot.pause()
            assert isinstance(app.screen, TaskScreen)
            await _until(pilot, lambda: app.workspace is not None)
            screen = app.screen
            assert isinstance(screen, TaskScreen)
            await _until(pilot, lambda: screen.examples is not None)
            await pilot.pause(0.1)
            assert "no estimates yet" in _grid(app)
            assert "as in the file" in _grid(app)
            assert screen.rows.order.tolist() == list(range(screen.rows.count))
            await pilot.press("space", "t", "s", "S", "j")

    asyncio.run(main())


def test_a_task_that_goes_away_closes_its_screen(folder: Path) -> None:
    async def play(app: CuratorApp, screen: TaskScreen, pilot: Pilot[None]) -> None:
        (folder / "tasks" / "beta.jsonl").unlink()
        app.read_workspace()
        await _until(pilot, lambda: app.screen is not screen)
        assert "is no task any more" in _grid(app)

    _play(folder, play)

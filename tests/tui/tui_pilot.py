"""Helpers that open a project in the interface, press keys, wait, and read the screen as text."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from curator.core.errors import CuratorError
from curator.estimate.estimator import CheckpointSums, ExampleSet, TargetEstimator
from curator.estimate.task_sums import TaskSums
from tui.app import CuratorApp
from tui.settings import Settings
from tui.state.snapshot import Snapshot

App = CuratorApp
Drive = Callable[[CuratorApp, Pilot[None]], Awaitable[Any]]


def grid(app: CuratorApp) -> list[str]:
    """Return the rows of the screen."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip) for strip in strips]


def text(app: CuratorApp) -> str:
    """Return the screen as one text."""
    return "\n".join(grid(app))


def masked(app: CuratorApp) -> str:
    """Return the screen with values that differ between runs replaced by `#`."""
    shown = text(app)
    for pattern in (
        r"\b\d\d:\d\d\b(:\d\d)?",
        r"✓ +\d+ ms",
        r"\d[\d.]* ?[kMGT]?B",
        r"\d[\d.,]* (ms|s|min)( \d\d s)?\b",
        r"\d+%",
        r"pid \d+",
        r"[▁▂▃▄▅▆▇█]{6,}",
    ):
        shown = re.sub(pattern, lambda found: re.sub(r"[\d▁▂▃▄▅▆▇█]", "#", found[0]), shown)
    return shown


async def until(pilot: Pilot[None], test: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a test succeeds."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "the wait timed out\n" + text(pilot.app)  # type: ignore[arg-type]
        await pilot.pause(0.02)
    await pilot.pause()


def is_solved(app: CuratorApp) -> bool:
    """Return whether the current selection and its flips are estimated."""
    if app.snapshot is None:
        return False
    if app.snapshot.answers is None or app.session is None:
        return True
    estimate = app.estimate
    full = len(app.session.names) <= 300
    return (
        estimate is not None and estimate.revision == app.session.revision and bool(estimate.solved.all() or not full)
    )


@asynccontextmanager
async def opened(
    root: Path, size: tuple[int, int] = (80, 24), **settings: Any
) -> AsyncIterator[tuple[CuratorApp, Pilot[None]]]:
    """Open the interface on a project, and wait for the first reading."""
    app = CuratorApp(root, Settings(theme="curator-dark", motion=False, **settings))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.trouble is not None or is_solved(app))
        await pilot.pause()
        yield app, pilot
        if app.is_running:
            await app.leave()


def drive(root: Path, story: Drive, size: tuple[int, int] = (80, 24), **settings: Any) -> Any:
    """Open a project, and run a story on it."""

    async def main() -> Any:
        async with opened(root, size, **settings) as (app, pilot):
            return await story(app, pilot)

    return asyncio.run(main())


# -- snapshots without files ----------------------------------------------------------------------------------------


class FakeAnswers:
    """Random gradients that replace `curator.estimate.target.TargetEstimates`.

    Args:
        count: Number of tasks.
        key: Identity of the gradients.
        broken: Number of failed reads before the first success.
    """

    def __init__(self, count: int, *, key: str = "", broken: int = 0) -> None:
        self.key, self.count, self.broken = key or f"of {count}", count, broken

    @cached_property
    def estimator(self) -> TargetEstimator:
        """Return an estimator on random gradients."""
        if self.broken:
            self.broken -= 1
            raise CuratorError("cannot read gradients")
        rng = np.random.default_rng(self.count)

        def examples(count: int, *, validation: bool = False) -> ExampleSet:
            weights = np.full(count, 1 / count) if validation else rng.uniform(1, 20, count)
            return ExampleSet(
                losses=rng.uniform(0.2, 2, count), gradients=rng.standard_normal((count, 6)), weights=weights
            )

        sets = [*(examples(3) for _ in range(self.count)), examples(4)]
        point = CheckpointSums(
            share=1.0,
            sums=TaskSums.of(sets),
            validation=examples(8, validation=True),
            read=lambda tasks: [sets[task] for task in tasks],
        )
        return TargetEstimator([point], rng.uniform(0.5, 1.5, 8), [5.0], method="quadratic")


def fake_names(count: int) -> list[str]:
    """Return names of `count` tasks."""
    return [f"task{n:04d}" for n in range(count)]


def fake_selection(name: str, mask: Any, measured: float | None = None, *, is_weighted: bool = False) -> Any:
    """Create a saved selection without files."""
    manifest = SimpleNamespace(
        measured_loss=measured, tasks=[], options={}, edits=(), estimated_loss=1.0, reference={}, started_from=""
    )
    return SimpleNamespace(
        name=name,
        method="forward",
        manifest=manifest,
        mask=lambda names: mask.copy(),
        is_weighted=is_weighted,
        unweighted_name=f"{name}, unweighted" if is_weighted else name,
        measured_loss=lambda config: measured,
        dropped={},
    )


def fake_snapshot(
    answers: FakeAnswers | None,
    names: Sequence[str],
    *,
    selections: Sequence[Any] = (),
    tags: Sequence[str] | None = None,
) -> Snapshot:
    """Create a snapshot without files: names, sizes, affinities and selections."""
    count, nowhere = len(names), Path("/nonexistent")
    parts: dict[str, Any] = {
        "project": SimpleNamespace(
            name="fake", folder=nowhere, store=SimpleNamespace(put_edits=lambda *_: None, path=nowhere), config=None
        ),
        "status": SimpleNamespace(stages=()),
        "corpus": SimpleNamespace(target_tasks=[], tasks=[]),
        "answers": answers,
    }
    return Snapshot(
        **parts,
        target="target",
        names=list(names),
        tags=list(tags or [""] * count),
        sources=[""] * count,
        examples=np.full(count, 10.0),
        tokens=np.arange(count) + 100.0,
        affinity=np.random.default_rng(1).standard_normal(count) * 0.01,
        affinity_error=np.full(count, 0.001),
        selections=tuple(selections),
        problems=(),
    )


def drive_fake(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    snapshot: Any,
    story: Drive,
    *,
    mode: str,
    size: tuple[int, int] = (80, 24),
) -> list[int]:
    """Run a story on a snapshot without files, and return the opened tasks.

    The Task screen stays closed, because it reads examples from files. No thread estimates flips, because every key
    press would wait for the thread.
    """
    monkeypatch.setattr("tui.state.snapshot.load_snapshot", lambda *_: snapshot)
    seen: list[int] = []

    async def main() -> None:
        app = CuratorApp(root, Settings(theme="curator-dark", motion=False))
        app.place.mode = mode
        monkeypatch.setattr(app, "open_task", lambda task, _: seen.append(task))
        monkeypatch.setattr(app, "_start_estimator", lambda _: None)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.snapshot is not None)
            await story(app, pilot)

    asyncio.run(main())
    return seen


async def read_fake(monkeypatch: pytest.MonkeyPatch, app: CuratorApp, pilot: Pilot[None], snapshot: Any) -> None:
    """Replace the open snapshot, as if the project had changed and was read again."""
    monkeypatch.setattr("tui.state.snapshot.load_snapshot", lambda *_: snapshot)
    app.read_snapshot()
    await until(pilot, lambda: app.snapshot is snapshot)

"""The Jobs screen shows real processes, and stops and resumes them."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from curator.core.events import Event, EventLog, Note, StageProgress, StageStarted
from curator.core.figures import span
from curator.workspace.job_log import read_jobs
from tui.actions import actions_of
from tui.app import CuratorApp
from tui.background.machine import Gpu, Machine
from tui.background.run_watcher import JobView
from tui.screens.runs import RunsScreen
from tui.settings import Settings
from tui.widgets.job_detail import machine_lines, pace
from tui.widgets.job_rows import JobRows
from tui.widgets.lines import Lines
from tui.widgets.plot import LinePlot

MakeProject = Callable[..., Path]
Watch = Callable[[CuratorApp, Pilot[None]], Awaitable[None]]
# A training of many minutes. Tests stop or kill its jobs.
ENDLESS = {"epochs": 2000, "batch_size": 2}
START = 1767225600.0


@pytest.fixture
def project(make_project: MakeProject) -> Iterator[Path]:
    """Create a tiny project, and kill its running jobs at the end."""
    root = make_project(train=ENDLESS)
    yield root
    for run in read_jobs(root / ".curator" / "runs"):
        if run.state == "running":
            os.kill(run.pid, signal.SIGKILL)


def show(root: Path, watch: Watch, *, size: tuple[int, int] = (80, 24)) -> None:
    """Open the Jobs screen, and run a story on it."""

    async def main() -> None:
        app = CuratorApp(root, Settings())
        async with app.run_test(size=size) as pilot:
            app.go("runs")
            await pilot.pause(0.1)
            await watch(app, pilot)

    asyncio.run(main())


async def until(pilot: Pilot[None], wanted: Callable[[], Any], seconds: float = 30) -> None:
    for _ in range(int(seconds / 0.05)):
        await pilot.pause(0.05)
        if wanted():
            return
    raise AssertionError(grid(pilot.app))


def grid(app: Any) -> str:
    return "\n".join("".join(part.text for part in strip) for strip in app.screen._compositor.render_strips())


def screen_of(app: CuratorApp) -> RunsScreen:
    assert isinstance(app.screen_stack[0], RunsScreen)
    return app.screen_stack[0]


def view_of(app: CuratorApp) -> JobView:
    view = screen_of(app).job_view
    assert view is not None
    return view


def write(root: Path, name: str, events: list[Event], words: str = "", **facts: Any) -> Path:
    """Write the folder of a job that has ended."""
    folder = root / ".curator" / "runs" / name
    folder.mkdir(parents=True)
    log = EventLog(folder / "events.jsonl")
    for event in events:
        log(event)
    log.close()
    known = {
        "command": "curator train",
        "arguments": ["train"],
        "cwd": str(root),
        "host": "elsewhere",
        "pid": 1,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:01:00+00:00",
        "state": "done",
        "message": "",
    }
    (folder / "run.json").write_text(json.dumps(known | facts))
    if words:
        (folder / "output.txt").write_text(words)
    return folder


def training(steps: int, total: int = 100) -> list[Event]:
    begins: list[Event] = [StageStarted(stage="train", total=total, unit="steps", time=START)]
    return begins + [
        StageProgress(
            stage="train", done=n, total=total, unit="steps", rate=2.0, seconds_left=9, loss=9 / n, time=START + 5 * n
        )
        for n in range(1, steps + 1)
    ]


def test_jobs_screen_without_jobs_accepts_every_key(project: Path) -> None:
    async def watch(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "no jobs yet" in grid(app))
        for action in actions_of("runs"):
            if action.id not in ("start",):
                await pilot.press(action.keys[0])
        await pilot.press("escape", "j", "G", "enter")
        assert "no jobs yet" in grid(app)

    show(project, watch)


@pytest.mark.parametrize("size", [(80, 24), (60, 16), (40, 8), (200, 18)])
def test_jobs_screen_any_size_shows_state_and_loss(project: Path, size: tuple[int, int]) -> None:
    write(project, "2", training(50), words="Killed\n", state="running", ended=None)
    write(project, "1", training(100))

    async def watch(app: CuratorApp, pilot: Pilot[None]) -> None:
        if size[0] < 60:
            assert "too small" in grid(app)
            return
        await until(pilot, lambda: "Killed" in grid(app))
        assert "◌ lost" in grid(app)
        assert "50/100 steps" in grid(app)
        assert "loss 0.1800" in grid(app)
        assert ("this machine" in grid(app)) == (size[0] >= 120)
        await until(pilot, lambda: size[1] < 20 or "MB/s" in grid(app))
        await pilot.press("j")
        await until(pilot, lambda: "✓ train · done" in grid(app))
        await pilot.resize_terminal(90, 30)
        await pilot.pause()
        assert "✓ train · done" in grid(app)

    show(project, watch, size=size)


def test_jobs_screen_launched_job_is_followed_to_its_end(project: Path) -> None:
    write(project, "1", training(100))

    async def watch(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.watched == "1")
        app.launch(["check"])
        await until(pilot, lambda: len(app.jobs) == 2)
        # The cursor moves from the other job to the started job.
        run = app.jobs[0].job
        assert run.state == "running"
        await until(pilot, lambda: view_of(app).job.id == run.id)
        assert run.arguments == ("check", "-p", str(project))
        await until(pilot, lambda: view_of(app).job.state == "done")
        await until(pilot, lambda: "✓ data " in grid(app) and " · done " in grid(app))
        assert "100%" in grid(app)
        assert "data: done in" in grid(app)

    show(project, watch)


def test_jobs_screen_job_is_stopped_resumed_and_killed(project: Path) -> None:
    run = ""

    async def begin(app: CuratorApp, pilot: Pilot[None]) -> None:
        nonlocal run
        app.launch(["train"])
        await until(pilot, lambda: screen_of(app).job_view is not None and view_of(app).losses, 60)
        run = view_of(app).job.id
        assert f"pid {view_of(app).job.pid}" in grid(app)
        assert "survives disconnect" in grid(app)
        assert "▶ running" in grid(app)
        await pilot.press("r")
        await until(pilot, lambda: "the job is running" in grid(app))

    async def resume(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: screen_of(app).job_view is not None and view_of(app).losses)
        first = view_of(app)
        assert first.job.id == run
        assert first.losses[0][0] < first.done
        await until(pilot, lambda: view_of(app).done > first.done)
        for answer in ("n", "y"):
            assert view_of(app).job.state == "running"
            await pilot.press("x")
            await until(pilot, lambda: "stop the job?" in grid(app))
            await pilot.press(answer)
            await until(pilot, lambda: "stop the job?" not in grid(app))
        await until(pilot, lambda: "■ interrupted" in grid(app))
        assert view_of(app).job.id == run

        await pilot.press("r")
        await until(pilot, lambda: view_of(app).job.id != run)
        second = view_of(app).job
        assert (second.state, second.arguments, second.cwd) == ("running", first.job.arguments, first.job.cwd)
        with (project / ".curator" / "runs" / second.id / "output.txt").open("a") as output:
            output.write("out of luck [/foo]\n")
        os.kill(second.pid, signal.SIGKILL)
        await until(pilot, lambda: view_of(app).job.state == "lost")
        await until(pilot, lambda: "out of luck [/foo]" in grid(app))
        assert "◌ lost" in grid(app)
        await pilot.press("x")
        await until(pilot, lambda: "cannot stop: the job is lost" in grid(app))

    show(project, begin)
    # The first interface has ended, but the job still runs.
    show(project, resume, size=(140, 40))


def test_jobs_screen_new_jobs_keep_cursor_on_its_job(project: Path) -> None:
    for number in range(3, 8):
        write(project, f"{number}", training(number))

    async def watch(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.jobs)
        await pilot.press("j", "j")
        rows = screen_of(app).query_one(JobRows)
        assert (view_of(app).job.id, rows.cursor, app.watched) == ("5", 2, "5")
        write(project, "9", training(9))
        await until(pilot, lambda: rows.count == 6)
        assert (view_of(app).job.id, rows.cursor, app.watched) == ("5", 3, "5")
        for path in (project / ".curator" / "runs" / "5").iterdir():
            path.unlink()
        await until(pilot, lambda: rows.count == 5)
        assert view_of(app).job.id == app.watched != "5"

    show(project, watch)


def test_job_log_follows_end_until_cursor_moves(project: Path) -> None:
    folder = write(project, "1", training(40))
    (folder / "run.json").write_text((folder / "run.json").read_text().replace('"done"', '"running"'))
    log = EventLog(folder / "events.jsonl")

    async def watch(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.jobs)
        rows = screen_of(app).log_rows
        await until(pilot, lambda: rows.cursor == 40)
        log(Note(message="new"))
        await until(pilot, lambda: "info: new" in grid(app))
        assert rows.cursor == rows.count - 1
        await pilot.press("enter", "k", "k")
        assert not rows.following
        entry, top = rows.entry, rows.scroll_offset.y
        log(Note(message="newer"))
        await until(pilot, lambda: rows.count == 43)
        assert (rows.entry, rows.scroll_offset.y) == (entry, top)
        for number in range(470):
            log(Note(message=f"note {number}"))
        await until(pilot, lambda: rows.entries[-1][1].endswith("469"))
        assert len(rows.entries) == 500
        # The cursor stays on its entry after older entries are removed.
        assert rows.entry == (entry or 0) - 13
        await pilot.press("f")
        assert rows.following
        assert rows.cursor == rows.count - 1
        await pilot.press("f", "tab")
        assert not rows.following
        await pilot.press("slash", *"note 46", "enter")
        assert rows.entries[rows.entry or 0][1] == "info: note 469"
        await pilot.press("N")
        assert rows.entries[rows.entry or 0][1] == "info: note 468"
        await pilot.press("n", "n")
        assert rows.entries[rows.entry or 0][1] == "info: note 46"
        assert "note 46 11" in grid(app)
        await pilot.press("y")
        assert app.clipboard == "info: note 46"
        await pilot.press("escape", "escape", "y")
        assert app.clipboard == "curator train"
        await pilot.press("L")
        assert screen_of(app).query_one(LinePlot).log_y

    show(project, watch)
    log.close()


def test_jobs_screen_resume_with_fresh_asks_for_confirmation(project: Path) -> None:
    write(project, "2", training(3), arguments=None, command="curator train")
    write(project, "1", training(3), arguments=["train", "--fresh"], cwd="/nowhere")

    async def watch(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.jobs)
        await pilot.press("r")
        assert "not recorded" in grid(app)
        await pilot.press("j", "r")
        await until(pilot, lambda: "run the job again?" in grid(app))
        await pilot.press("y")
        await until(pilot, lambda: "cannot start the job" in grid(app))
        assert len(read_jobs(project / ".curator" / "runs")) == 2

    show(project, watch)


HOSTILE = "\x1b]52;c;AAAA\x07 [/foo] [@click=app.quit]x \u202eevil \x9b31m [link=https://x"


@pytest.mark.parametrize(("size", "color"), [((80, 24), "1"), ((140, 40), "")])
def test_jobs_screen_hostile_text_stays_text(
    project: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], color: str
) -> None:
    monkeypatch.setenv("NO_COLOR", color)
    begins = StageStarted(stage=HOSTILE, total=3, unit=HOSTILE, time=START)
    moved = StageProgress(
        stage=HOSTILE, done=1, total=3, unit=HOSTILE, rate=1.0, seconds_left=2.0, loss=1.0, time=START + 1
    )
    write(
        project,
        "1",
        [begins, moved, Note(message=HOSTILE, level="warning", time=START + 2)],
        words=f"{HOSTILE}\n{HOSTILE}\n",
        command=f"curator {HOSTILE}\n{HOSTILE}",
        arguments=[HOSTILE, "日本語\n名前"],
        state="failed",
        message=f"{HOSTILE}\n{HOSTILE}",
        host=HOSTILE,
        cwd=f"/{HOSTILE}",
    )

    async def watch(app: CuratorApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "[/foo]" in grid(app))
        assert not set(grid(app)) & set("\x1b\x07\x9b\u202e")
        assert all(len(line) <= size[0] for line in grid(app).split("\n"))
        await pilot.press("y", "tab", "g", "y", "r")
        await pilot.pause(0.3)
        assert not set(grid(app)) & set("\x1b\x07\x9b\u202e")
        assert not set(app.clipboard) & set("\x1b\x07\x9b\u202e\n")
        assert app.is_running

    show(project, watch, size=size)


def test_machine_lines_many_gpus_are_summarised() -> None:
    gpus = tuple(Gpu(name=f"gpu{n}", percent=97, used_gb=61, total_gb=80) for n in range(8))
    machine = Machine(cpu=14, memory_used_gb=21, memory_total_gb=256, disk_mb_s=38, disk_free_gb=100, gpus=gpus)
    lines = Lines(machine_lines(machine, {"cpu": [0.1, 0.2]}, 50, 7)).text.split("\n")
    assert len(lines) == 7
    assert "97% 61/80 GB" in lines[0]
    assert "5 more GPUs" in lines[3]
    assert len(machine_lines(machine, {}, 50, 20)) == 11


def test_span_and_pace_format_short_texts() -> None:
    spans = {0.0: "0.0s", 9.96: "9s", 59.0: "59s", 130.0: "2m10s", 3725.0: "1h02m", 273600.0: "3d04h"}
    assert {seconds: span(seconds) for seconds in spans} == spans
    assert span(float("inf")) == "?"
    assert [pace(0.05), pace(2.0), pace(31000.0)] == ["3/min", "2.0/s", "31.0k/s"]

"""The watcher reads the state of jobs from their logs, for logs of any length and jobs in any state."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import DataError
from curator.core.events import (
    Event,
    EventLog,
    Note,
    Reporter,
    StageFinished,
    StageProgress,
    StageStarted,
    log_line,
    read_events,
)
from curator.workspace.job_log import JobLog, read_jobs
from tui.background.machine import MachineReader, parse_gpus
from tui.background.run_watcher import Curve, JobWatcher


def progress(
    done: int, *, stage: str = "train", total: int = 100, loss: float | None = None, moment: float = 0.0
) -> StageProgress:
    return StageProgress(
        stage=stage, done=done, total=total, unit="steps", rate=done / 2, seconds_left=1.0, loss=loss, time=moment
    )


def write(folder: Path, name: str, events: list[Event], **facts: Any) -> Path:
    """Write the folder of a job that has ended."""
    (folder / name).mkdir(parents=True)
    log = EventLog(folder / name / "events.jsonl")
    for event in events:
        log(event)
    log.close()
    known = {
        "command": "curator select",
        "pid": 1,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:01:00+00:00",
        "state": "done",
        "message": "",
    }
    (folder / name / "run.json").write_text(json.dumps(known | facts))
    return folder / name


def test_job_watcher_without_folder_finds_no_jobs(tmp_path: Path) -> None:
    assert JobWatcher(tmp_path / "nowhere").read() == ()


def test_job_watcher_running_job_shows_progress(tmp_path: Path) -> None:
    watcher = JobWatcher(tmp_path)
    with JobLog(tmp_path) as log:
        reporter = Reporter(log)
        train = reporter.stage("train", 3, "steps")
        (view,) = watcher.read()
        assert (view.job.state, view.stage, view.done, view.total) == ("running", "train", 0, 3)
        assert view.stages == (("train", "running", None),)
        train.advance(loss=2.0)
        (view,) = watcher.read()
        assert (view.done, view.unit, view.losses) == (1, "steps", ((1, 2.0),))
        assert view.rate > 0
        assert view.seconds_left is not None
        train.advance_to(3, loss=1.0)
        train.finish("fine")
        reporter.cached("gradients", "there")
        (view,) = watcher.read()
        assert (view.stage, view.losses) == ("gradients", ((1, 2.0), (3, 1.0)))
        assert [(name, state) for name, state, _ in view.stages] == [("train", "done"), ("gradients", "cached")]
        estimate = reporter.stage("estimate", 9, "subsets")
        estimate.advance()
        (view,) = watcher.read()
        assert (view.stage, view.done, view.total, view.unit) == ("estimate", 1, 9, "subsets")
        # The curve of training stays until another stage has losses.
        assert view.losses == ((1, 2.0), (3, 1.0))
        assert len(view.rates) == 1
        assert view.elapsed >= 0
        assert view.words == ()
        select = reporter.stage("select", 0, "steps")
        select.advance(loss=0.5)
    (view,) = watcher.read()
    assert view.job.state == "done"
    assert view.losses == ((1, 0.5),)
    assert view.whole
    assert watcher.read()[0] is view
    # A new watcher reads the same state.
    assert JobWatcher(tmp_path).read(view.job.id) == (view,)


def test_job_watcher_time_left_passes_between_events(tmp_path: Path) -> None:
    with JobLog(tmp_path) as log:
        event = StageProgress(
            stage="verify", done=1, total=9, unit="runs", rate=0.01, seconds_left=90.0, time=time.time() - 60
        )
        Reporter(log).stage("verify", 9, "runs")
        log(event)
        (view,) = JobWatcher(tmp_path).read()
        assert view.seconds_left == pytest.approx(30, abs=5)
        log(replace(event, time=time.time() - 900))
        assert JobWatcher(tmp_path).read()[0].seconds_left == 0


def test_job_watcher_failed_and_lost_jobs_have_states(tmp_path: Path) -> None:
    def fail() -> None:
        with JobLog(tmp_path) as log:
            Reporter(log).stage("train", 1, "steps")
            raise DataError("no disk")

    with pytest.raises(DataError):
        fail()
    (run,) = read_jobs(tmp_path)
    (tmp_path / run.id / "output.txt").write_text("a\nb\n")
    lost = write(tmp_path, "10000101T000000-1", [progress(5, moment=1767225630.0)], state="running", ended=None)
    (lost / "output.txt").write_text("Killed\n")
    silent = write(tmp_path, "10000101T000000-0", [], state="running", ended=None)
    views = JobWatcher(tmp_path).read()
    assert [view.job.state for view in views] == ["failed", "lost", "lost"]
    assert [view.words for view in views] == [("a", "b"), ("Killed",), ()]
    assert [view.job.id for view in views] == [run.id, lost.name, silent.name]
    assert views[0].stages == (("train", "running", None),)
    assert views[1].elapsed == 30.0
    assert views[1].seconds_left is None
    assert (views[2].elapsed, views[2].stage) == (0.0, "")


def test_job_watcher_unreadable_log_hides_no_other_job(tmp_path: Path) -> None:
    for name in ("1-1", "2-1", "3-1"):
        write(tmp_path, name, [progress(5)])
    for name in ("2-1", "3-1"):
        (tmp_path / name / "events.jsonl").unlink()
    os.mkfifo(tmp_path / "2-1" / "events.jsonl")
    (tmp_path / "3-1" / "events.jsonl").mkdir()
    assert [(view.job.id, view.done) for view in JobWatcher(tmp_path).read()] == [("3-1", 0), ("2-1", 0), ("1-1", 5)]


def test_job_watcher_frequent_progress_logs_few_lines(tmp_path: Path) -> None:
    begins = StageStarted(stage="train", total=100, unit="steps", time=100.0)
    steps = [progress(step, moment=100.0 + step / 10) for step in range(1, 101)]
    ends = StageFinished(stage="train", seconds=10.0, summary="", time=110.1)
    write(tmp_path, "1-1", [begins, *steps, Note(message="hm", time=110.05), ends])
    (view,) = JobWatcher(tmp_path).read()
    shown = [begins, steps[49], steps[99], Note(message="hm", time=110.05), ends]
    assert list(view.log) == [(event.time, log_line(event)) for event in shown]
    assert view.rates == tuple(event.rate for event in steps[-20:])


def test_job_watcher_stage_asked_for_again_is_listed_once(tmp_path: Path) -> None:
    def cached(stage: str) -> Event:
        return StageFinished(stage=stage, seconds=0.0, summary="", cached=True, time=1.0)

    begins = StageStarted(stage="verify", total=2, unit="tokens", time=2.0)
    ends = StageFinished(stage="verify", seconds=3.0, summary="", time=5.0)
    write(tmp_path, "1-1", [cached("train"), begins, ends, cached("train")])
    (view,) = JobWatcher(tmp_path).read()
    assert view.stages == (("train", "cached", 0.0), ("verify", "done", 3.0))
    assert view.stage == "verify"


def test_job_watcher_long_log_reads_only_the_end(tmp_path: Path) -> None:
    steps: list[Event] = [progress(n, total=100_000, loss=1 / n, moment=n / 10) for n in range(1, 20_001)]
    begins = StageStarted(stage="train", total=100_000, unit="steps", time=0.0)
    for name in ("1-1", "2-1"):
        write(tmp_path, name, [begins, *steps], state="interrupted")
    watcher = JobWatcher(tmp_path)
    start = time.perf_counter()
    brief = watcher.read()
    quick = time.perf_counter() - start
    assert [view.whole for view in brief] == [False, False]
    assert all((view.stage, view.done, view.total, view.elapsed) == ("train", 20_000, 100_000, 60) for view in brief)
    assert all(view.stages == (("train", "running", None),) for view in brief)
    start = time.perf_counter()
    views = watcher.read("1-1")
    slow = time.perf_counter() - start
    assert quick < slow
    assert views[0] is brief[0]
    assert views[1].whole
    assert 500 <= len(views[1].losses) <= 1000
    assert views[1].losses[0] == (1, 1.0)
    assert views[1].losses[-1] == (20_000, 1 / 20_000)
    # A log of more than 2 MB holds fewer progress events.
    assert 390 <= len(views[1].log) <= 401
    assert watcher.read()[1] is views[1]


def test_job_watcher_many_jobs_returns_newest(tmp_path: Path) -> None:
    for number in range(203):
        write(tmp_path, f"20260101T000000-{number:03}", [])
    names = [view.job.id[-3:] for view in JobWatcher(tmp_path).read()]
    assert names == [f"{number:03}" for number in range(202, 2, -1)]


def test_job_watcher_job_of_other_process_is_running_then_lost(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from curator.workspace.job_log import JobLog\n"
        "from curator.core.events import *\n"
        "with JobLog(Path(sys.argv[1])) as log:\n"
        "    stage = Reporter(log).stage('train', 2, 'x')\n"
        "    for line in sys.stdin:\n"
        "        stage.advance(loss=float(line)); print(flush=True)\n"
    )
    watcher = JobWatcher(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for done, loss in ((1, 2.0), (2, 1.0)):
            print(loss, file=process.stdin, flush=True)
            process.stdout.readline()
            (view,) = watcher.read()
            assert (view.job.pid, view.job.state, view.done) == (process.pid, "running", done)
            assert view.losses[-1] == (done, loss)
        process.kill()
        process.wait()
    (view,) = watcher.read()
    assert (view.job.state, view.done) == ("lost", 2)
    assert len(list(read_events(tmp_path / view.job.id / "events.jsonl"))) == 3


@given(st.lists(st.floats()), st.integers(4, 40))
def test_curve_any_values_keeps_extremes_and_last_point(values: list[float], limit: int) -> None:
    curve = Curve(limit)
    for x, y in enumerate(values):
        curve.add(x, y)
    points = [(x, y) for x, y in enumerate(values) if abs(y) < float("inf")]
    kept = curve.points()
    assert len(kept) <= limit
    assert set(kept) <= set(points)
    assert list(kept) == sorted(kept)
    if points:
        assert kept[-1] == points[-1]
        assert min(y for _, y in kept) == min(y for _, y in points)
        assert max(y for _, y in kept) == max(y for _, y in points)
    if len(points) < limit // 2:
        assert list(kept) == points


def test_machine_reader_any_driver_output_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert MachineReader(tmp_path).read().gpus == ()
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho '97, 62464, 81920'\necho '0, 1, 81920'\n")
    script.chmod(0o755)
    machine = MachineReader(tmp_path).read()
    assert [(gpu.name, gpu.percent, gpu.used_gb, gpu.total_gb) for gpu in machine.gpus] == [
        ("gpu0", 97, 62464 * 2**20 / 1e9, 81920 * 2**20 / 1e9),
        ("gpu1", 0, 2**20 / 1e9, 81920 * 2**20 / 1e9),
    ]
    assert 0 <= machine.cpu <= 100
    assert 0 < machine.memory_used_gb < machine.memory_total_gb
    assert machine.disk_mb_s >= 0
    assert machine.disk_free_gb > 0
    for broken in ("exit 9", "echo '[N/A], [N/A], [N/A]'", "echo Failed to initialize", "kill -9 $$"):
        script.write_text(f"#!/bin/sh\n{broken}\n")
        assert MachineReader(tmp_path).read().gpus == ()
    assert MachineReader(tmp_path / "nowhere").read().disk_free_gb == 0
    assert parse_gpus("") == ()


def test_run_watcher_import_loads_no_heavy_module() -> None:
    code = "import sys, tui.background.run_watcher, tui.background.machine; print(*sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=os.environ
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"textual", "torch", "transformers", "duckdb", "numpy", "rich", "typer"}

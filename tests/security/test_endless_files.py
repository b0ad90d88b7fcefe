"""Files without end, logs that grow, locks of other users, and temporary files of other machines."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import MakeProject
from hostile import run_cli

from curator.core import events
from curator.core.errors import DataError
from curator.core.events import EventLog, EventTail, Note, StageFinished, StageProgress, StageStarted, read_events
from curator.core.files import open_regular, partial_name, remove_left_over, write_whole
from curator.gradients.visits import Visits
from curator.workspace.job_log import JobLog, read_jobs

KINDS = ["pipe", "device"]


def make_endless(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "jsonl.gz"])
def test_check_data_file_without_end_exits_with_code_3(make_project: MakeProject, kind: str, ending: str) -> None:
    folder = make_project(data={"tasks": None})
    text = (folder / "curator.toml").read_text()
    tables = "".join(
        f'[[data.task]]\nname = "{name}"\npath = "tasks/{name}.{end}"\n'
        for name, end in (("target", "jsonl"), ("endless", ending))
    )
    (folder / "curator.toml").write_text(text + tables)
    make_endless(folder / "tasks" / f"endless.{ending}", kind)
    assert "endless" in run_cli("check", "-p", folder, "-q").check(3).err


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_commands_configuration_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make_endless(tmp_path / "curator.toml", kind)
    monkeypatch.chdir(tmp_path)
    for command in (("status",), ("check", "-p", tmp_path), ("tui",), ("export", "x", "-o", "out")):
        assert "not a file, or a broken link: " in run_cli(*command).check(2).err


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["model.safetensors.index.json", "tokenizer_config.json", "x.safetensors", "chat_template.jinja"]
)
def test_check_model_file_without_end_does_not_wait(make_project: MakeProject, kind: str, name: str) -> None:
    """The old code waited for the pipe for ever, and read the device until the memory was used up."""
    folder = make_project()
    make_endless(folder / "model" / name, kind)
    run_cli("check", "-p", folder, "-q").check(0, 3)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["run.yaml", "dataset_info.json"])
def test_init_configuration_without_end_exits_with_code_3(tmp_path: Path, kind: str, name: str) -> None:
    make_endless(tmp_path / name, kind)
    run_cli("init", tmp_path / "project", "--from", tmp_path / name).check(2, 3)


def test_open_regular_path_replaced_by_a_pipe_does_not_wait(tmp_path: Path) -> None:
    """A check before the opening is not enough: the path may lead elsewhere by then."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_event_log_of_a_month_stays_small(tmp_path: Path) -> None:
    """The old log took every event: 4 GB in a month."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log(StageStarted(stage="train", total=10**9, unit="steps"))
    # An event every 13 seconds, to keep the test short.
    for number in range(200_000):
        log(
            StageProgress(
                stage="train",
                done=number,
                total=10**9,
                unit="steps",
                rate=1.0,
                seconds_left=1.0,
                time=1e9 + 13 * number,
            )
        )
    log(StageFinished(stage="train", seconds=1.0, summary="end"))
    log.close()
    assert path.stat().st_size < 25_000_000
    found = list(read_events(path))
    assert isinstance(found[-1], StageFinished)
    assert len(found) > 5000


def test_event_log_of_endless_notes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LARGEST_LOG", 100_000)
    log = EventLog(tmp_path / "events.jsonl")
    for _ in range(3000):
        log(Note(message="x" * 100))
    log.close()
    assert (tmp_path / "events.jsonl").stat().st_size <= 100_000


def test_event_tail_of_a_huge_log_reads_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`EventLog` writes at most 64 MB. A log of another program can be larger, also later."""
    monkeypatch.setattr(events, "_LARGEST_LOG", 10_000)
    path = tmp_path / "events.jsonl"
    line = json.dumps({"event": "Note", "message": "x" * 60, "time": 1.0}) + "\n"
    path.write_text(line * 1000)
    tail = EventTail(path)
    assert 0 < len(tail.read()) <= 10_000 // len(line)
    with path.open("a") as file:
        file.write(line * 1000 + json.dumps({"event": "Note", "message": "last", "time": 1.0}) + "\n")
    *rest, last = tail.read()
    assert isinstance(last, Note)
    assert last.message == "last"
    assert 0 < len(rest) <= 10_000 // len(line)
    assert tail.read() == []


def test_visits_huge_list_of_examples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "visits-0000.bin").touch()
    with (tmp_path / "examples.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="larger than 67108864 bytes"):
        Visits(tmp_path, dim=2, rank=1, groups=[], names=[]).unvisited([0], (0, 1))


def test_write_whole_left_over_with_an_impossible_process_is_removed(tmp_path: Path) -> None:
    """No process has this number. The old code raised an error of Python for it."""
    for name in (f".name.{10**30}.partial", f".run.json.{10**30}.partial"):
        (tmp_path / name).write_text("x")
    write_whole(tmp_path / "name", b"whole")
    remove_left_over(tmp_path, "run.json")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


@pytest.fixture
def foreign_lock(tmp_path: Path) -> Path:
    """Return a log that another process locks, which a right to read it allows."""
    path = tmp_path / "runs" / "20260101T000000-1" / "events.jsonl"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_event_log_foreign_lock_does_not_stop_the_job(foreign_lock: Path) -> None:
    """The old code waited for the lock for ever."""
    with foreign_lock.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        log = EventLog(foreign_lock)
        assert time.monotonic() - began < 10
        log(Note(message="x"))
        log.close()
    assert len(list(read_events(foreign_lock))) == 1


def test_read_jobs_ended_job_with_foreign_lock_is_lost(foreign_lock: Path) -> None:
    """Otherwise a process that holds the log open lets the job look alive for ever."""
    program = (
        "import sys, pathlib\nfrom curator.core.events import StageStarted\n"
        "from curator.workspace.job_log import JobLog\nlog = JobLog(pathlib.Path(sys.argv[1])).__enter__()\n"
        "log(StageStarted(stage='x', total=1, unit='u'))\nimport os; os._exit(9)\n"
    )
    runs = foreign_lock.parents[1]
    assert subprocess.run([sys.executable, "-c", program, str(runs)], check=False).returncode == 9
    (job,) = read_jobs(runs)
    with (runs / job.id / "events.jsonl").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert [found.state for found in read_jobs(runs)] == ["lost"]


def test_read_jobs_running_job_is_running(tmp_path: Path) -> None:
    with JobLog(tmp_path) as log:
        log(StageStarted(stage="x", total=1, unit="u"))
        assert [job.state for job in read_jobs(tmp_path)] == ["running"]


def test_remove_left_over_of_other_machines_waits_a_week(tmp_path: Path) -> None:
    """A process of another machine can have the number of a process here, alive or not."""
    other = f".name.{'0' * 8}-{os.getpid()}.partial"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone, fresh, folder = other, f".name.{'0' * 8}-{dead.pid}.partial", f".name.{'1' * 8}-7.old.partial"
    ours = partial_name("name").replace(f"-{os.getpid()}.", f"-{dead.pid}.")
    for name in (gone, fresh, ours):
        (tmp_path / name).write_text("x")
    (tmp_path / folder).mkdir()
    old = time.time() - 8 * 24 * 3600
    for name in (gone, folder):
        os.utime(tmp_path / name, (old, old))
    remove_left_over(tmp_path, "name")
    assert [path.name for path in tmp_path.iterdir()] == [fresh]
    write_whole(tmp_path / "name", b"whole")
    assert (tmp_path / "name").read_bytes() == b"whole"


def test_read_jobs_other_machine_keeps_its_state(foreign_lock: Path) -> None:
    facts = {
        "command": "curator train",
        "host": "elsewhere",
        "pid": 2**30,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": None,
        "state": "running",
        "message": "",
    }
    (foreign_lock.parent / "run.json").write_text(json.dumps(facts))
    with foreign_lock.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert [job.state for job in read_jobs(foreign_lock.parents[1])] == ["running"]

"""Jobs as processes: launch, stop, resume, and the records that they leave."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from curator.core.errors import ConfigError, DataError
from curator.core.events import Event, EventTail, StageFinished, StageProgress, StageStarted, is_written
from curator.workspace.job_log import LAUNCHED, Job, JobLog, read_jobs
from curator.workspace.jobs import last_words, launch, stop

MakeProject = Callable[..., Path]
# Training that would take minutes. The tests kill it.
ENDLESS = {"epochs": 2000, "batch_size": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return `.curator/runs` of the project `project`. Jobs that still run after the test are killed."""
    runs = tmp_path / "project" / ".curator" / "runs"
    yield runs
    for job in read_jobs(runs):
        if job.state == "running":
            os.kill(job.pid, signal.SIGKILL)


def find_job(folder: Path, job_id: str) -> Job:
    return next(job for job in read_jobs(folder) if job.id == job_id)


def wait_for_end(folder: Path, job_id: str) -> Job:
    deadline = time.monotonic() + 60
    while (job := find_job(folder, job_id)).state == "running":
        assert time.monotonic() < deadline, last_words(folder, job_id)
        time.sleep(0.02)
    return job


def wait_for(folder: Path, job_id: str, wanted: Callable[[Event], bool]) -> list[Event]:
    tail, seen = EventTail(folder / job_id / "events.jsonl"), list[Event]()
    deadline = time.monotonic() + 60
    while not any(wanted(event) for event in seen):
        assert time.monotonic() < deadline, last_words(folder, job_id)
        assert find_job(folder, job_id).state == "running", last_words(folder, job_id)
        seen += tail.read()
        time.sleep(0.02)
    return seen


def trains(event: Event) -> bool:
    return isinstance(event, StageProgress) and event.stage == "train"


def test_launch_check_records_whole_job(make_project: MakeProject, folder: Path, tmp_path: Path) -> None:
    project = make_project()
    # Files in the working folder are data, not code.
    (project / "random.py").write_text("raise SystemExit('imported from the working folder')")
    job_id = launch(folder, ["check", "--json"], cwd=project)
    job = find_job(folder, job_id)
    assert (job.state, job.arguments, job.cwd) == ("running", ("check", "--json"), str(project))
    assert job.command == "curator check --json"
    assert job.pid != os.getpid()
    assert job.host == os.uname().nodename
    events = wait_for(folder, job_id, lambda event: isinstance(event, StageStarted))
    assert isinstance(events[0], StageStarted)
    job = wait_for_end(folder, job_id)
    assert (job.state, job.arguments, job.cwd) == ("done", ("check", "--json"), str(project))
    assert isinstance(EventTail(folder / job_id / "events.jsonl").read()[-1], StageFinished)
    # The process prints its result after the job has ended.
    deadline = time.monotonic() + 20
    while last_words(folder, job_id)[-1] != "}" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert last_words(folder, job_id)[-1] == "}"
    assert not [path for path in (folder / job_id).iterdir() if "partial" in path.name]
    # A launched job is recorded even if every stage is cached.
    again = launch(folder, ["check", "-q"], cwd=project)
    assert wait_for_end(folder, again).state == "done"
    assert [job.id for job in read_jobs(folder)] == [again, job_id]
    with pytest.raises(ConfigError, match="job has already ended"):
        stop(folder, find_job(folder, again))


def test_stop_running_job_can_be_resumed(make_project: MakeProject, folder: Path) -> None:
    project = make_project(train={"epochs": 5, "batch_size": 2})
    job_id = launch(folder, ["train", "-q"], cwd=project)
    wait_for(folder, job_id, trains)
    elsewhere = dataclasses.replace(find_job(folder, job_id), host="elsewhere")
    with pytest.raises(ConfigError, match="another machine: elsewhere"):
        stop(folder, elsewhere)
    stop(folder, find_job(folder, job_id))
    job = wait_for_end(folder, job_id)
    assert job.state == "interrupted"
    assert job.arguments is not None
    again = launch(folder, job.arguments, cwd=Path(job.cwd))
    assert wait_for_end(folder, again).state == "done"
    assert again != job_id


def test_launch_job_outlives_launcher_and_is_lost_when_killed(make_project: MakeProject, folder: Path) -> None:
    project = make_project(train=ENDLESS)
    code = (
        "import sys; from pathlib import Path; from curator.workspace.jobs import launch\n"
        "print(launch(Path(sys.argv[1]), ['train'], cwd=Path(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(project)], capture_output=True, text=True, check=True
    )
    job_id = done.stdout.strip()
    assert is_written(folder / job_id / "events.jsonl")
    wait_for(folder, job_id, trains)
    job = find_job(folder, job_id)
    assert os.getsid(job.pid) != os.getsid(0)
    os.kill(job.pid, signal.SIGKILL)
    assert wait_for_end(folder, job_id).state == "lost"
    assert any("train: started" in line for line in last_words(folder, job_id))
    with pytest.raises(ConfigError, match="job has already ended"):
        stop(folder, job)


def test_launch_invalid_config_is_lost_with_output(make_project: MakeProject, folder: Path) -> None:
    project = make_project(train={"epochs": -1})
    job = wait_for_end(folder, launch(folder, ["train"], cwd=project))
    assert (job.state, job.arguments) == ("lost", ("train",))
    words = "\n".join(last_words(folder, job.id))
    assert "error: " in words
    assert "epochs" in words


def test_launch_impossible_command_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot start `curator "):
        launch(tmp_path / "runs", ["check"], cwd=tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot start `curator "):
        launch(tmp_path / "runs", ["a\0b"], cwd=tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write "):
        launch(tmp_path / "file", ["check"], cwd=tmp_path)


@pytest.mark.parametrize("value", ["", "x", "x:y", "../..:0", "run:0", "run:99999", ":1"])
def test_job_log_invalid_variable_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").touch()
    monkeypatch.setenv(LAUNCHED, value)
    with JobLog(tmp_path):
        assert LAUNCHED not in os.environ
    assert read_jobs(tmp_path) == []


def test_last_words_returns_last_lines(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    output = tmp_path / "run" / "output.txt"
    assert last_words(tmp_path, "run") == []
    output.write_bytes(b"")
    assert last_words(tmp_path, "run") == []
    output.write_bytes(b"a\r\n\xffb\n\nc")
    assert last_words(tmp_path, "run") == ["a\r", "\ufffdb", "", "c"]
    assert last_words(tmp_path, "run", lines=2) == ["", "c"]
    assert last_words(tmp_path, "run", lines=0) == []
    output.write_bytes(b"0123456789\n" * 100_000)
    assert last_words(tmp_path, "run", lines=10**9) == ["0123456789"] * (64 * 1024 // 11)
    output.write_bytes(b"x" * 100_000)
    assert last_words(tmp_path, "run") == ["x" * 64 * 1024]


def test_last_words_pipe_is_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "output.txt")
    assert last_words(tmp_path, "run") == []

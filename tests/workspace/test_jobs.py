"""Launched runs are processes of their own, and what becomes of them is told rightly."""

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
# Training that would take minutes: what is launched on it is killed.
ENDLESS = {"epochs": 2000, "batch_size": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """`.curator/runs` of the project `project`; what still runs there at the end is killed."""
    runs = tmp_path / "project" / ".curator" / "runs"
    yield runs
    for run in read_jobs(runs):
        if run.state == "running":
            os.kill(run.pid, signal.SIGKILL)


def the_run(folder: Path, run_id: str) -> Job:
    return next(run for run in read_jobs(folder) if run.id == run_id)


def wait_for_end(folder: Path, run_id: str) -> Job:
    deadline = time.monotonic() + 60
    while (run := the_run(folder, run_id)).state == "running":
        assert time.monotonic() < deadline, last_words(folder, run_id)
        time.sleep(0.02)
    return run


def wait_for(folder: Path, run_id: str, wanted: Callable[[Event], bool]) -> list[Event]:
    tail, seen = EventTail(folder / run_id / "events.jsonl"), list[Event]()
    deadline = time.monotonic() + 60
    while not any(wanted(event) for event in seen):
        assert time.monotonic() < deadline, last_words(folder, run_id)
        assert the_run(folder, run_id).state == "running", last_words(folder, run_id)
        seen += tail.read()
        time.sleep(0.02)
    return seen


def trains(event: Event) -> bool:
    return isinstance(event, StageProgress) and event.stage == "train"


def test_a_run_from_beginning_to_end(make_project: MakeProject, folder: Path, tmp_path: Path) -> None:
    project = make_project()
    # What lies in the working folder is data, not code.
    (project / "random.py").write_text("raise SystemExit('imported from the working folder')")
    run_id = launch(folder, ["check", "--json"], cwd=project)
    run = the_run(folder, run_id)
    assert (run.state, run.arguments, run.cwd) == ("running", ("check", "--json"), str(project))
    assert run.command == "curator check --json"
    assert run.pid != os.getpid()
    assert run.host == os.uname().nodename
    events = wait_for(folder, run_id, lambda event: isinstance(event, StageStarted))
    assert isinstance(events[0], StageStarted)
    run = wait_for_end(folder, run_id)
    assert (run.state, run.arguments, run.cwd) == ("done", ("check", "--json"), str(project))
    assert isinstance(EventTail(folder / run_id / "events.jsonl").read()[-1], StageFinished)
    # The result is printed when the run is over.
    deadline = time.monotonic() + 20
    while last_words(folder, run_id)[-1] != "}" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert last_words(folder, run_id)[-1] == "}"
    assert not [path for path in (folder / run_id).iterdir() if "partial" in path.name]
    # Nothing is left to do: a launched run is recorded all the same.
    again = launch(folder, ["check", "-q"], cwd=project)
    assert wait_for_end(folder, again).state == "done"
    assert [run.id for run in read_jobs(folder)] == [again, run_id]
    with pytest.raises(ConfigError, match="job has already ended"):
        stop(folder, the_run(folder, again))


def test_stop_and_resume(make_project: MakeProject, folder: Path) -> None:
    project = make_project(train={"epochs": 5, "batch_size": 2})
    run_id = launch(folder, ["train", "-q"], cwd=project)
    wait_for(folder, run_id, trains)
    elsewhere = dataclasses.replace(the_run(folder, run_id), host="elsewhere")
    with pytest.raises(ConfigError, match="another machine: elsewhere"):
        stop(folder, elsewhere)
    stop(folder, the_run(folder, run_id))
    run = wait_for_end(folder, run_id)
    assert run.state == "interrupted"
    assert run.arguments is not None
    again = launch(folder, run.arguments, cwd=Path(run.cwd))
    assert wait_for_end(folder, again).state == "done"
    assert again != run_id


def test_a_run_outlives_who_launched_it_and_is_lost_when_killed(make_project: MakeProject, folder: Path) -> None:
    project = make_project(train=ENDLESS)
    code = (
        "import sys; from pathlib import Path; from curator.workspace.jobs import launch\n"
        "print(launch(Path(sys.argv[1]), ['train'], cwd=Path(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(project)], capture_output=True, text=True, check=True
    )
    run_id = done.stdout.strip()
    assert is_written(folder / run_id / "events.jsonl")
    wait_for(folder, run_id, trains)
    run = the_run(folder, run_id)
    assert os.getsid(run.pid) != os.getsid(0)
    os.kill(run.pid, signal.SIGKILL)
    assert wait_for_end(folder, run_id).state == "lost"
    assert any("train: started" in line for line in last_words(folder, run_id))
    with pytest.raises(ConfigError, match="job has already ended"):
        stop(folder, run)


def test_a_run_that_never_began(make_project: MakeProject, folder: Path) -> None:
    project = make_project(train={"epochs": -1})
    run = wait_for_end(folder, launch(folder, ["train"], cwd=project))
    assert (run.state, run.arguments) == ("lost", ("train",))
    words = "\n".join(last_words(folder, run.id))
    assert "error: " in words
    assert "epochs" in words


def test_what_cannot_be_launched_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot start `curator "):
        launch(tmp_path / "runs", ["check"], cwd=tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot start `curator "):
        launch(tmp_path / "runs", ["a\0b"], cwd=tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write "):
        launch(tmp_path / "file", ["check"], cwd=tmp_path)


@pytest.mark.parametrize("value", ["", "x", "x:y", "../..:0", "run:0", "run:99999", ":1"])
def test_a_variable_that_means_nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").touch()
    monkeypatch.setenv(LAUNCHED, value)
    with JobLog(tmp_path):
        assert LAUNCHED not in os.environ
    assert read_jobs(tmp_path) == []


def test_last_words(tmp_path: Path) -> None:
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


def test_a_pipe_in_place_of_what_was_printed_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "output.txt")
    assert last_words(tmp_path, "run") == []

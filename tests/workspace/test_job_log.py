"""Records of jobs: writing them, and reading damaged or hostile records."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curator.core.errors import DataError
from curator.core.events import Note, Reporter, read_events
from curator.workspace.job_log import JobLog, read_jobs


def record(folder: Path, error: BaseException | None = None) -> None:
    with JobLog(folder) as log:
        Reporter(log).stage("train", 1, "steps").finish("done")
        if error is not None:
            raise error


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "done"), (DataError("no \udcff disk"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_job_log_end_of_job_is_recorded(tmp_path: Path, error: BaseException | None, state: str) -> None:
    with contextlib.suppress(DataError, KeyboardInterrupt):
        record(tmp_path, error)
    (job,) = read_jobs(tmp_path)
    assert (job.state, job.pid) == (state, os.getpid())
    # A lone surrogate cannot be encoded as UTF-8 later.
    assert job.message == ("" if error is None else str(error).replace("\udcff", "?"))
    assert job.ended is not None
    assert job.started <= job.ended
    assert len(list(read_events(tmp_path / job.id / "events.jsonl"))) == 2


def test_job_log_cached_stages_leave_no_record(tmp_path: Path) -> None:
    with JobLog(tmp_path / "runs") as log:
        Reporter(log).cached("train", "was there")
        log(Note(message="hm"))
    assert not (tmp_path / "runs").exists()
    assert read_jobs(tmp_path / "runs") == []


def test_job_log_jobs_within_a_second_have_own_folders(tmp_path: Path) -> None:
    for _ in range(3):
        record(tmp_path)
    jobs = read_jobs(tmp_path)
    assert len(jobs) == 3
    assert all(len(list(read_events(tmp_path / job.id / "events.jsonl"))) == 2 for job in jobs)


def test_read_jobs_killed_job_is_lost(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from curator.workspace.job_log import JobLog\n"
        "from curator.core.events import *\n"
        "with JobLog(Path(sys.argv[1])) as log:\n"
        "    Reporter(log).stage('train', 1, 'x'); print('there', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        (job,) = read_jobs(tmp_path)
        assert (job.state, job.pid, job.ended) == ("running", process.pid, None)
    finally:
        process.kill()
        process.wait()
    assert [job.state for job in read_jobs(tmp_path)] == ["lost"]
    # Another process may have reused the process id.
    path = tmp_path / job.id / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": os.getpid()}))
    assert [job.state for job in read_jobs(tmp_path)] == ["lost"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"state": "running"}', '{"state": "odd"}', "\xff", "[" * 100_000]
)
def test_read_jobs_damaged_record_is_skipped(tmp_path: Path, content: str) -> None:
    record(tmp_path)
    (tmp_path / "99999999T999999-1").mkdir()
    (tmp_path / "99999999T999999-1" / "run.json").write_text(content, encoding="latin-1")
    assert len(read_jobs(tmp_path)) == 1


def facts_of(**changed: Any) -> str:
    known = {"command": "x", "pid": 1, "started": "2026-01-01T00:00:00+00:00", "ended": None, "state": "done"}
    return json.dumps(known | {"message": "m"} | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"pid": float("inf")},
        {"pid": 1e3},
        {"pid": True},
        {"pid": -1},
        {"pid": 10**30},
        {"ended": 0},
        {"ended": False},
        {"ended": ""},
        {"started": None},
        {"started": "2026-01-01T00:00:00"},
        {"started": "0001-01-01T00:00:00+14:00"},
        {"ended": "9999-12-31T23:59:59-14:00"},
        {"command": ["x"]},
        {"message": None},
        {"host": 1},
        {"cwd": {}},
        {"state": ["done"]},
    ],
    ids=str,
)
def test_read_jobs_invalid_value_is_skipped(tmp_path: Path, changed: dict[str, Any]) -> None:
    for name, content in (("1", facts_of()), ("2", facts_of(**changed))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    assert [job.id for job in read_jobs(tmp_path)] == ["1"]


def test_read_jobs_surrogates_are_replaced(tmp_path: Path) -> None:
    for name in (b"a", b"\xff"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        (folder / "run.json").write_text(facts_of(message="\ud800", command="\udcff", arguments=["\udcff"]))
    (job,) = read_jobs(tmp_path)
    assert (job.message, job.command) == ("?", "?")
    assert job.arguments == ("\udcff",), "an argument may be the name of a file"


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "large", "/"])
def test_read_jobs_large_or_special_file_is_skipped(tmp_path: Path, target: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text(facts_of(message="m" * 1_000_000))
    (tmp_path / "runs" / "1").mkdir(parents=True)
    (tmp_path / "runs" / "1" / "run.json").symlink_to(tmp_path / target)
    assert read_jobs(tmp_path / "runs") == []


def test_read_jobs_pipe_as_log_is_lost(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "run.json").write_text(facts_of(state="running"))
    os.mkfifo(tmp_path / "1" / "events.jsonl")
    assert [job.state for job in read_jobs(tmp_path)] == ["lost"]


def test_job_log_full_disk_keeps_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def run() -> None:
        with JobLog(tmp_path) as log:
            Reporter(log).stage("train", 1, "steps")
            monkeypatch.setattr(Path, "write_text", full)
            raise DataError("the real one")

    with pytest.raises(DataError, match="the real one"):
        run()

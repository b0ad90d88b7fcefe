"""Full and read-only disks: exit code 3, a useful hint, no partial files, and a resume afterwards."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import run_cli

from curator.core.errors import DataError, ExitCode
from curator.core.events import Reporter
from curator.export import export
from curator.project.project import Project
from curator.select.manifest import MANIFEST_NAME, read_manifest
from curator.workspace.job_log import JobLog, read_jobs
from curator.workspace.store.tables import Store

MakeProject = Callable[..., Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("the program `mount` is missing")
    if done.returncode:
        pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, free: int = 0) -> Path:
    """Fill the disk up to `free` bytes. Returns the file to delete afterwards."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        for _ in range(0, max(shutil.disk_usage(disk).free - free, 0), 4096):
            file.write(bytes(4096))
    return ballast


def leavings(folder: Path) -> list[str]:
    """List partial files and incomplete checkpoints, which a failed command must not leave."""
    return [
        path.name
        for path in folder.rglob("*")
        if "partial" in path.name or (path.name.startswith("checkpoint-") and not (path / "complete").exists())
    ]


def test_stages_full_disk_fail_cleanly_and_resume(
    make_project: MakeProject, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error in each stage, the repeated stages give the results of an undisturbed project."""
    monkeypatch.setattr("curator.training.trainer._CHECKPOINT_SECONDS", 0.0)
    # Large gradients: the store's file must grow.
    config: dict[str, Any] = {"project": {"name": "p"}, "gradients": {"projection_dim": 512}}
    folder = Path(shutil.copytree(make_project(**config), disk / "project"))
    project = Project.open(folder)
    verbs: list[tuple[Callable[[], object], int]] = [
        (project.check, 0),
        (project.train, 200_000),
        (project.gradients, 0),
        (project.select, 0),
    ]
    for verb, free in verbs:
        ballast = fill(disk, free)
        with pytest.raises(DataError, match=r"cannot (write|create|be written|be made)|No space") as caught:
            verb()
        assert re.search("free disk space|disk full", caught.value.hint)
        assert not leavings(folder)
        ballast.unlink()
        verb()
        assert not leavings(folder)
    other = Project.open(make_project("undisturbed", **config))
    other.select()
    kept = [json.loads((p.root / MANIFEST_NAME).read_text()) | {"created": ""} for p in (project, other)]
    assert kept[0] == kept[1]

    manifest = read_manifest(folder / MANIFEST_NAME)
    for there in (disk / "exported", disk / "exported"):
        ballast = fill(disk)
        before = sorted(path.name for path in there.rglob("*"))
        with pytest.raises(DataError, match="No space"):
            export(manifest, folder, format="jsonl", folder=there)
        assert sorted(path.name for path in there.rglob("*")) == before
        assert not list(disk.glob(".*"))
        ballast.unlink()
        export(manifest, folder, format="jsonl", folder=there)


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """Limit the size of files, as a full disk would. A test without root can set the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_commands_file_size_limit_fail_cleanly_and_resume(make_project: MakeProject) -> None:
    folder = make_project(project={"name": "p"})
    commands: list[list[str | Path]] = [
        ["check"],
        ["train"],
        ["gradients"],
        ["select", "-o", folder / "chosen.json"],
        ["export", folder / "chosen.json", "-o", folder / "exported"],
    ]
    for command in commands:
        with small_files(2048):
            failed = run_cli(*command, "-p", folder, "-q").check(ExitCode.DATA)
        assert re.search("free disk space|disk full", failed.err), command
        assert not leavings(folder), command
        run_cli(*command, "-p", folder, "-q").check(ExitCode.DONE)
    undisturbed = make_project("undisturbed", project={"name": "p"})
    run_cli("select", "-p", undisturbed, "-o", undisturbed / "chosen.json").check(ExitCode.DONE)
    texts = [json.loads((project / "chosen.json").read_text()) | {"created": ""} for project in (folder, undisturbed)]
    assert texts[0] == texts[1]


def test_check_out_of_memory_exits_with_code_3(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask_for_much(_: Project) -> None:
        np.empty(2**50)

    monkeypatch.setattr(Project, "check", ask_for_much)
    failed = run_cli("check", "-p", make_project()).check(ExitCode.DATA)
    assert failed.err.startswith("error: out of memory: Unable to allocate")


def test_job_log_file_size_limit_names_file(tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def write_log() -> None:
        with JobLog(runs) as log:
            reporter = Reporter(log)
            reporter.stage("train", 1, "steps")
            with small_files(4096):
                for _ in range(1000):
                    reporter.warn("words")

    with pytest.raises(DataError, match=r"cannot write .*runs/.*: .*too large") as caught:
        write_log()
    assert "free disk space" in caught.value.hint
    (job,) = read_jobs(runs)
    assert job.state == "failed"


def test_job_log_full_disk_after_the_work_warns(disk: Path) -> None:
    """An error kept `verify` from printing its report. The same command then measured another subset."""
    warnings: list[str] = []
    with JobLog(disk / "runs", warnings.append) as log:
        Reporter(log).stage("verify", 1, "runs").finish("1 run")
        ballast = fill(disk)
    (words,) = warnings
    assert "cannot write " in words
    assert "No space left on device. The work is done, but this job will be listed as lost." in words
    ballast.unlink()
    assert [job.state for job in read_jobs(disk / "runs")] == ["lost"]
    assert not leavings(disk)


def test_outputs_full_disk_leave_old_files_unchanged(disk: Path, make_project: MakeProject) -> None:
    """Outputs outside the project: a picture, a new project and the log of a job."""
    project = Project.open(make_project())
    project.select()
    picture, earlier = disk / "curve.svg", b"an earlier picture"
    picture.write_bytes(earlier)
    from curator.project.new_project import write_project
    from curator.results.plots import plot_curve

    ballast = fill(disk)
    with pytest.raises(DataError, match="cannot write"):
        plot_curve(project.curve(), picture)
    assert picture.read_bytes() == earlier
    with pytest.raises(DataError, match="cannot write"):
        write_project(disk / "new", [], model="m", target="t")
    assert not (disk / "new" / "curator.toml").exists()
    with pytest.raises(DataError, match="cannot write "), JobLog(disk / "runs") as log:
        Reporter(log).stage("train", 1, "steps")
    assert not leavings(disk)
    ballast.unlink()
    plot_curve(project.curve(), picture)
    assert picture.read_bytes() != earlier
    write_project(disk / "new", [], model="m", target="t")


def test_project_read_only_can_be_read(make_project: MakeProject, disk: Path) -> None:
    folder = Path(shutil.copytree(make_project(), disk / "project"))
    project = Project.open(folder)
    project.select()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    # Stored results can be read.
    stages = Project.open(folder).status().stages
    assert {stage.state for stage in stages if stage.stage not in ("verify", "apply")} == {"done"}
    assert Store(folder / ".curator" / "store.duckdb").selections()
    done = subprocess.run(
        [sys.executable, "-m", "curator", "train", "--fresh", "-p", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert Project.open(folder).select().cached


def test_select_and_export_remove_files_of_killed_process(make_project: MakeProject, tmp_path: Path) -> None:
    project = Project.open(make_project())
    project.select()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = project.root
    mine, theirs = folder / f".{MANIFEST_NAME}.{dead.pid}.partial", folder / f".{MANIFEST_NAME}.{os.getppid()}.partial"
    mine.write_text("half")
    theirs.write_text("still being written")
    for name in (f".out.{dead.pid}.partial", f".out.{dead.pid}.old.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text("half")
    project.select(k=1)
    project.export(MANIFEST_NAME, output=tmp_path / "out")
    assert not mine.exists()
    assert theirs.exists()
    assert [path.name for path in tmp_path.glob(".out*")] == []

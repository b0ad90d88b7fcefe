"""`status` shows the stage that runs, with its progress and time left."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import curator
from curator.core.events import Event, EventLog, Reporter, StageFinished, StageProgress, StageStarted
from curator.project.status import with_running
from curator.results import StageStatus
from curator.workspace.job_log import EVENTS_NAME, Job, JobLog

MakeProject = Callable[..., Path]
STAGES = (
    StageStatus(stage="train", state="missing", detail="run `curator train`"),
    StageStatus(stage="gradients", state="missing", detail="waits for train"),
)
STARTED = StageStarted(stage="train", total=40, unit="steps", done=4, time=100.0)
PROGRESS = StageProgress(
    stage="train", done=10, total=40, unit="steps", rate=0.5, seconds_left=60.0, loss=1.25, time=112.0
)
FINISHED = StageFinished(stage="train", seconds=80.0, summary="", time=180.0)
JOB = Job(id="job", command="curator select", pid=1, started=datetime.now(UTC), ended=None, state="running", message="")


def _shown(folder: Path, events: list[Event], *, now: float, job: Job = JOB) -> dict[str, StageStatus]:
    log = EventLog(folder / job.id / EVENTS_NAME)
    for event in events:
        log(event)
    log.close()
    return {stage.stage: stage for stage in with_running(STAGES, [job], folder, now=now)}


def test_with_running_progress_shows_share_and_time_left(tmp_path: Path) -> None:
    shown = _shown(tmp_path, [STARTED, PROGRESS], now=122.0)
    assert shown["train"] == StageStatus(
        stage="train",
        state="running",
        detail="10/40 steps · 0.5/s · loss 1.250 · 50 s left",
        progress=0.25,
        seconds_left=50.0,
    )
    assert shown["gradients"] == STAGES[1]


def test_with_running_start_shows_finished_units(tmp_path: Path) -> None:
    train = _shown(tmp_path, [STARTED], now=101.0)["train"]
    assert (train.state, train.detail, train.progress, train.seconds_left) == ("running", "4/40 steps", 0.1, None)


def test_with_running_between_stages_changes_nothing(tmp_path: Path) -> None:
    assert tuple(_shown(tmp_path, [STARTED, PROGRESS, FINISHED], now=181.0).values()) == STAGES


def test_with_running_ended_job_changes_nothing(tmp_path: Path) -> None:
    shown = _shown(tmp_path, [STARTED, PROGRESS], now=122.0, job=replace(JOB, state="lost"))
    assert tuple(shown.values()) == STAGES


def test_with_running_other_stage_is_added_last(tmp_path: Path) -> None:
    shown = _shown(tmp_path, [StageStarted(stage="curve", total=0, unit="steps")], now=1.0)
    assert list(shown) == ["train", "gradients", "curve"]
    assert (shown["curve"].state, shown["curve"].detail) == ("running", "started")


def test_status_during_training_shows_running_stage(make_project: MakeProject) -> None:
    folder = make_project()
    seen: list[StageStatus] = []

    def look(event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage == "train" and event.done == event.total:
            seen.extend(curator.Project.open(folder).status().stages)

    with JobLog(folder / ".curator" / "runs") as log:
        curator.Project.open(folder, reporter=Reporter(log, look)).train()
    (train,) = [stage for stage in seen if stage.stage == "train"]
    assert train.state == "running"
    assert train.progress == pytest.approx(1.0)
    after = {stage.stage: stage.state for stage in curator.Project.open(folder).status().stages}
    assert after["train"] == "done"

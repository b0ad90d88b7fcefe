"""Report the state of every stage of a project, and why a stage is stale. Compute nothing."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from curator.core.events import Event, EventTail, StageFinished, StageProgress, StageStarted, describe
from curator.core.figures import first_of, fixed
from curator.core.provenance import Inputs, input_changes, key_of
from curator.data.corpus import Corpus
from curator.estimate.calibration import LEAST_RUNS
from curator.estimate.target import TargetEstimates
from curator.export.adapter import run_inputs
from curator.gradients.example_groups import training_groups
from curator.gradients.segment_sets import completeness_inputs, segment_sets, sets_in_use
from curator.gradients.stage import wanted_hashes
from curator.results.stages import StageStatus, StatusReport
from curator.select.fitting import fitting_selections, selections_by_name
from curator.training.meta_init import MetaInit, find_meta_init, train_inputs
from curator.workspace.job_log import EVENTS_NAME, Job, read_jobs
from curator.workspace.store.records import Artifact
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace

_LISTED = 10
# Part of a job's log that is read. It holds hundreds of events.
_LAST_BYTES = 64 * 1024


def status(workspace: Workspace, corpus: Corpus | None) -> StatusReport:
    """Report on every stage, the selections and the last jobs.

    Args:
        workspace: The project.
        corpus: Examples of the project. None if some files are not read yet.
    """
    store = workspace.store
    stages: list[StageStatus] = []
    if corpus is None:
        stages.append(
            StageStatus(stage="data", state=_state(store, "task"), detail="new or changed files are not read yet")
        )
        stages += [
            StageStatus(stage=stage, state=_state(store, name), detail="waits for data")
            for stage, name in (
                ("train", "train"),
                ("gradients", "gradients"),
                ("estimate", "estimate"),
                ("select", "select"),
                ("verify", "verify"),
            )
        ]
    else:
        examples = sum(len(task.split.train) + len(task.split.validation) for task in corpus.tasks)
        stages.append(StageStatus(stage="data", state="done", detail=f"{len(corpus.tasks)} tasks, {examples} examples"))
        meta = find_meta_init(workspace, corpus)
        stages.append(_train(workspace, corpus, meta))
        if meta is None:
            stages += [
                StageStatus(stage=stage, state=_state(store, stage), detail="waits for train")
                for stage in ("gradients", "estimate", "select", "verify")
            ]
        else:
            stages += _after_train(workspace, corpus, meta)
        stages += _applied(workspace, corpus)
    jobs = read_jobs(workspace.folder / "runs")
    return StatusReport(
        project=workspace.name,
        stages=with_running(stages, jobs, workspace.folder / "runs", now=time.time()),
        runs=tuple(
            {
                "id": job.id,
                "command": job.command,
                "pid": job.pid,
                "state": job.state,
                "started": job.started.isoformat(),
                "message": job.message,
                "ended": None if job.ended is None else job.ended.isoformat(),
            }
            for job in jobs[:_LISTED]
        ),
        selections=tuple(
            {
                "name": kept.name,
                "target": kept.target,
                "method": kept.method,
                "loss": kept.loss,
                "created": kept.created.isoformat(timespec="seconds"),
            }
            for kept in store.selections()[:_LISTED]
        ),
    )


def with_running(
    stages: Sequence[StageStatus], jobs: Sequence[Job], folder: Path, *, now: float
) -> tuple[StageStatus, ...]:
    """Replace the state of the stages that run at this moment.

    Args:
        stages: States by what the store holds.
        jobs: Jobs of the project.
        folder: `.curator/runs`.
        now: Time in seconds since the epoch.

    Returns:
        The stages in their order. A running stage that is not among them is the last.
    """
    running: dict[str, StageStatus] = {}
    for job in jobs:
        found = None if job.state != "running" else _running(_last_events(folder, job), now)
        if found is not None:
            running.setdefault(found.stage, found)
    shown = [running.pop(stage.stage, stage) for stage in stages]
    return (*shown, *running.values())


def _last_events(folder: Path, job: Job) -> list[Event]:
    """Return the last events of a job. The log of a long job is large."""
    return EventTail(folder / job.id / EVENTS_NAME, last=_LAST_BYTES).read()


def _running(events: Sequence[Event], now: float) -> StageStatus | None:
    """Return the stage that a running job works on, or None between two stages."""
    last: StageStarted | StageProgress | None = None
    for event in events:
        if isinstance(event, StageStarted | StageProgress):
            last = event
        elif isinstance(event, StageFinished):
            last = None
    if last is None:
        return None
    left = None
    if isinstance(last, StageProgress) and last.seconds_left is not None:
        left = max(last.seconds_left - max(now - last.time, 0.0), 0.0)
    detail = (
        describe(replace(last, seconds_left=left))
        if isinstance(last, StageProgress)
        else f"{last.done}/{last.total} {last.unit}"
        if last.total
        else "started"
    )
    return StageStatus(
        stage=last.stage,
        state="running",
        detail=detail,
        progress=last.done / last.total if last.total else None,
        seconds_left=left,
    )


def _train(workspace: Workspace, corpus: Corpus, meta: MetaInit | None) -> StageStatus:
    if meta is not None:
        unseen = (
            (f"the meta-initialization has not seen: {', '.join(meta.unseen)} (--fresh trains on all)",)
            if meta.unseen
            else ()
        )
        captures = workspace.config.captures
        places = (
            f"{len(segment_sets(workspace.config, meta))} segments" if captures else f"{len(meta.checkpoints)} points"
        )
        detail = f"{meta.examples} examples, {places}"
        return StageStatus(stage="train", state="done", detail=detail, reasons=unseen)
    now = train_inputs(workspace.config, corpus)
    last = _closest(workspace.store.artifacts("train"), now)
    if last is None:
        return StageStatus(stage="train", state="missing", detail="run `curator train` or `curator select`")
    return StageStatus(
        stage="train", state="stale", detail=f"made {last.created:%Y-%m-%d %H:%M} UTC", reasons=_reasons(last, now)
    )


def _after_train(workspace: Workspace, corpus: Corpus, meta: MetaInit) -> list[StageStatus]:
    store = workspace.store
    gradients = _gradients(workspace, corpus, meta)
    estimates = TargetEstimates(workspace, corpus, meta)
    estimate = _by_key(store, "estimate", estimates.inputs, "affinities of every task")
    return [gradients, estimate, _select(store, estimates), _verify(estimates)]


def _select(store: Store, estimates: TargetEstimates) -> StageStatus:
    """Name the saved selections of the target that the present estimates fit. Deleted selections do not count."""
    saved, fitting = selections_by_name(store, estimates), fitting_selections(store, estimates)
    if fitting:
        return StageStatus(stage="select", state="done", detail=", ".join(sorted(kept.name for kept in fitting)))
    if saved:
        return StageStatus(
            stage="select", state="stale", detail=f"{len(saved)} made before", reasons=("the estimates have changed",)
        )
    return StageStatus(stage="select", state="missing", detail="run `curator select`")


def _gradients(workspace: Workspace, corpus: Corpus, meta: MetaInit) -> StageStatus:
    store, config = workspace.store, workspace.config
    sets = sets_in_use(config, meta)
    inputs = completeness_inputs(config, sets, corpus)
    if config.captures:
        groups = [group.content for group in training_groups(corpus)]
        there = sum(content in found for found in (store.segment_contents(s.key) for s in sets) for content in groups)
        total = len(groups) * len(sets)
        complete = store.artifact("gradients", key_of(inputs)) is not None
        detail = f"{there} of {total} sums over tasks in {len(sets)} segments"
    else:
        wanted = wanted_hashes(corpus)
        there = sum(len(wanted & store.gradient_hashes(s.key)) for s in sets)
        total = len(wanted) * len(sets)
        complete = there == total
        detail = f"{there} of {total} gradients at {len(sets)} points"
    if complete:
        return StageStatus(stage="gradients", state="done", detail=detail)
    if there:
        return StageStatus(
            stage="gradients", state="partial", detail=detail, reasons=("missing gradients are computed when needed",)
        )
    last = _closest(store.artifacts("gradients"), inputs)
    return StageStatus(
        stage="gradients",
        state="stale" if last else "missing",
        detail=detail,
        reasons=_reasons(last, inputs) if last else (),
    )


def _verify(estimates: TargetEstimates) -> StageStatus:
    count = len(estimates.measured)
    if count >= LEAST_RUNS:
        return StageStatus(stage="verify", state="done", detail=f"{count} subsets measured")
    if count:
        return StageStatus(stage="verify", state="partial", detail=f"{count} of {LEAST_RUNS} subsets measured")
    return StageStatus(stage="verify", state="missing", detail="run `curator verify`")


def _applied(workspace: Workspace, corpus: Corpus) -> list[StageStatus]:
    """Report on applied adapters. Return no stage if none was made, because `apply` is optional."""
    made = [
        (a, run_inputs(workspace.config, corpus, a.inputs["weights"], a.inputs["seed"]))
        for a in workspace.store.artifacts("apply")
    ]
    fitting = [artifact.outputs for artifact, now in made if artifact.key == key_of(now)]
    if fitting:
        found = [f"{run['name']}: loss {fixed(run['loss'])}" for run in fitting]
        return [StageStatus(stage="apply", state="done", detail=first_of(found, _LISTED))]
    return [
        StageStatus(
            stage="apply", state="stale", detail=f"made {last.created:%Y-%m-%d %H:%M} UTC", reasons=_reasons(last, now)
        )
        for last, now in made[:1]
    ]


def _by_key(store: Store, stage: str, inputs: Inputs, detail: str) -> StageStatus:
    if store.artifact(stage, key_of(inputs)) is not None:
        return StageStatus(stage=stage, state="done", detail=detail)
    last = _closest(store.artifacts(stage), inputs)
    if last is None:
        return StageStatus(stage=stage, state="missing", detail="made by `curator select`")
    return StageStatus(
        stage=stage, state="stale", detail=f"made {last.created:%Y-%m-%d %H:%M} UTC", reasons=_reasons(last, inputs)
    )


def _closest(artifacts: list[Artifact], now: Inputs) -> Artifact | None:
    """Return the artifact that differs in the fewest fields. The newest of equals wins."""
    return min(artifacts, key=lambda artifact: len(input_changes(artifact.inputs, now)), default=None)


def _reasons(last: Artifact, now: Inputs) -> tuple[str, ...]:
    found = [str(change) for change in input_changes(last.inputs, now)]
    more = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
    return tuple(found[:_LISTED] + more)


def _state(store: Store, stage: str) -> Any:
    return "stale" if store.artifacts(stage) else "missing"

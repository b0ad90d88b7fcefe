"""Build the manifest of a selection, with its settings, estimates and files."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from curator.core.arrays import Mask
from curator.core.interval import Interval
from curator.core.version import __version__
from curator.data.corpus import Corpus, Task, TaskVersion
from curator.data.dropped import dropped_rows
from curator.estimate.affinity import Affinities
from curator.estimate.calibration import Calibration
from curator.estimate.loss_estimator import LossEstimator
from curator.estimate.reduced import ReducedEstimates
from curator.estimate.target import TargetEstimates
from curator.estimate.whatif import SelectionEstimate, difference, estimate_selection, estimate_selections
from curator.gradients.stage import projection
from curator.results.base import rounded, rounded_if_known
from curator.select import baselines
from curator.select.considered import considered_with
from curator.select.manifest import (
    DroppedExample,
    EntryT,
    Manifest,
    ModelIdentity,
    TargetEntry,
    TaskEntry,
    TaskFile,
    now,
    rebased,
)
from curator.select.methods import Request
from curator.select.search import Constraints, Selection
from curator.select.selected_interval import selected_interval, uncalibrated


def manifest_of(
    estimates: TargetEstimates,
    request: Request,
    name: str,
    selection: Selection,
    affinities: Affinities,
    *,
    constraints: Constraints | None = None,
) -> Manifest:
    """Build the manifest of a selection. Its paths are those of the corpus.

    The interval of a selection by estimates accounts for the choice (selected_interval.py). Baselines and people do
    not choose by estimates, so their interval is that of any subset.

    Args:
        estimates: Estimates of the target's loss.
        request: Method and options of the selection.
        name: Name of the selection.
        selection: The selected tasks, and the steps of the method.
        affinities: Affinities of all tasks.
        constraints: Limits that the selection kept. None if a person made it.
    """
    config, corpus = estimates.workspace.config, estimates.corpus
    whole = estimates.whole
    chosen = estimate_selection(estimates.estimator, selection.mask)
    others = _references(whole.estimator, selection.mask)
    is_chosen = chooses_by_estimates(request.method)
    if is_chosen:
        chosen = replace(
            chosen, estimate=interval_for_selected(estimates, selection.mask, chosen.estimate, constraints)
        )
    selected = {task.name for task, inside in zip(estimates.tasks, selection.mask, strict=True) if inside}
    share = 0.0
    if isinstance(estimates, ReducedEstimates):
        share = estimates.share_dropped(selected)
        others["with_dropped"] = estimate_selection(whole.estimator, selection.mask)
    measured = next((m.mean for m in estimates.measured if m.subset == selected), None)
    if selection.weights is not None:
        shift = selection.loss - chosen.loss
        weighted = Interval(selection.loss, max(chosen.low + shift, min(selection.loss, 0.0)), chosen.high + shift)
        chosen = replace(chosen, estimate=weighted, each=chosen.each + shift)
        measured = None
    return Manifest(
        created=now(),
        curator_version=__version__,
        project=estimates.workspace.name,
        name=name,
        target=corpus.targets[0] if len(corpus.targets) == 1 else corpus.targets,
        method=request.method,
        options=_plain(request.options()),
        model=ModelIdentity.of(config.model, corpus.model),
        lora=config.lora.model_dump(mode="json"),
        train=config.train.model_dump(mode="json"),
        data=config.data.model_dump(
            mode="json", include={"validation", "max_length", "max_examples_per_task", "seed", "target_weights"}
        ),
        gradients={
            "projection_dim": config.gradients.projection_dim,
            "projection_seed": config.gradients.projection_seed,
            "projection": projection(config).kind,
            "points": [s.checkpoint.share for s in estimates.sets],
        },
        estimate={
            "method": config.estimate.method,
            "ridge": [rounded(ridge) for ridge in estimates.estimator.ridges],
            "calibrated": estimates.calibration is not None,
            "measured_subsets": len(whole.measured),
            "interval": _interval_words(estimates.calibration, is_chosen=is_chosen),
            "interval_accounts_for_selection": is_chosen,
        },
        targets=tuple(
            TargetEntry(
                name=task.name,
                examples=len(task.split.train),
                tokens=task.tokens,
                validation_examples=len(task.split.validation),
                files=_files(task.version),
                **_held_out(task),
                left_out=task.split.left_out,
                source=task.version.source,
            )
            for task in corpus.target_tasks
        ),
        tasks=tuple(
            TaskEntry(
                name=task.name,
                selected=bool(selection.mask[number]),
                weight=1.0 if selection.weights is None else rounded(selection.weights[number]),
                examples=len(task.split.train),
                tokens=task.tokens,
                files=_files(task.version),
                affinity=rounded(affinities.values[number]),
                affinity_standard_error=_finite(affinities.standard_errors[number]),
                left_out=task.split.left_out,
                source=task.version.source,
            )
            for number, task in enumerate(estimates.tasks)
        ),
        estimated_loss=rounded(chosen.loss),
        estimated_loss_low=rounded(chosen.low),
        estimated_loss_high=rounded(chosen.high),
        measured_loss=rounded_if_known(measured),
        reference={name: rounded(judged.loss) for name, judged in others.items()},
        indistinguishable=tuple(
            name
            for name, judged in others.items()
            if difference(estimates.estimator, chosen, judged, dropped=share).is_noise
        ),
        steps=tuple(
            {"change": s.change, "tasks": [estimates.tasks[t].name for t in s.tasks], "loss": rounded(s.loss)}
            for s in selection.steps
        ),
        dropped_examples=_dropped(estimates),
    )


def _interval_words(calibration: Calibration | None, *, is_chosen: bool) -> str:
    """Say how the interval of a selection is made."""
    has_errors = calibration is not None and calibration.half_width is not None
    words = "90 % conformal over the measured subsets" if has_errors else "90 % over the validation examples"
    if not is_chosen:
        return words
    return words + f", {'widened' if calibration is None else 'simulated'} for the selected subset"


def _references(estimator: LossEstimator, mask: Mask) -> dict[str, SelectionEstimate]:
    """Estimate all tasks, and the target alone, with all examples."""
    every, none = estimate_selections(estimator, np.stack([np.ones_like(mask), np.zeros_like(mask)]))
    return {"all_tasks": every, "target_only": none}


def _dropped(estimates: TargetEstimates) -> tuple[DroppedExample, ...]:
    """Return the dropped rows of all tasks."""
    if not isinstance(estimates, ReducedEstimates):
        return ()
    rows = dropped_rows(estimates.whole.corpus, estimates.workspace.store, estimates.dropped)
    return tuple(DroppedExample.model_validate(asdict(row)) for row in rows)


def chooses_by_estimates(method: str) -> bool:
    """Return whether a method chooses the subset of least estimate. Baselines and people do not."""
    return method not in baselines.NAMES and method != "manual"


def interval_for_selected(
    estimates: TargetEstimates, mask: Mask, plain: Interval, constraints: Constraints | None
) -> Interval:
    """Return the interval of a subset that was selected for its estimate."""
    # Runs on whole tasks calibrate the estimates without dropped examples, too.
    measured, evidence, calibration = estimates.whole.measured, estimates.evidence, estimates.calibration
    if evidence is None or calibration is None:
        return uncalibrated(plain)
    row = list(evidence.scales).index(calibration.scale)
    evidence = replace(evidence, changes=evidence.changes[[row]], scales=[calibration.scale])
    found = selected_interval(
        plain.value,
        considered_with(estimates, mask, constraints),
        known=estimates.estimator.all_tasks_loss,
        evidence=evidence,
        runs=np.array([len(m.runs) for m in measured], dtype=np.float64),
        calibration=calibration,
        seed=estimates.workspace.config.select.seed,
    )
    if calibration.half_width is not None:
        return found
    # Without enough runs, the interval of any subset is the least.
    return Interval(plain.value, min(plain.low, found.low), max(plain.high, found.high))


def seen_from(folder: Path, manifest: Manifest, corpus: Corpus, root: Path) -> Manifest:
    """Return a manifest with the present files of its tasks, and with paths relative to a folder.

    Args:
        folder: Folder that the new paths are relative to.
        manifest: Manifest of a selection of tasks of the corpus.
        corpus: Holds the present files of the tasks.
        root: Folder of the project, which the model's path is relative to.
    """
    tasks = {task.name: task for task in corpus.tasks}
    present = manifest.model_copy(
        update={
            "targets": tuple(with_files(entry, tasks[entry.name]) for entry in manifest.targets),
            "tasks": tuple(with_files(entry, tasks[entry.name]) for entry in manifest.tasks),
        }
    )
    return rebased(present, root, folder)


def with_files(entry: EntryT, task: Task) -> EntryT:
    """Return a task's entry with the present files and source of the corpus, and with the corpus's paths."""
    update: dict[str, Any] = {"files": _files(task.version), "source": task.version.source}
    if isinstance(entry, TargetEntry):
        update |= _held_out(task)
    return entry.model_copy(update=update)


def _held_out(task: Task) -> dict[str, Any]:
    """Return the fields of a target's entry that describe its validation files."""
    version = task.validation_version
    if version is None:
        return {"validation_files": (), "validation_source": {}, "validation_left_out": None}
    used = set(task.split.validation)
    return {
        "validation_files": _files(version),
        "validation_source": version.source,
        "validation_left_out": tuple(n for n in range(len(version.index.hashes)) if n not in used),
    }


def _files(version: TaskVersion | None) -> tuple[TaskFile, ...]:
    if version is None:
        return ()
    return tuple(TaskFile(path=path, sha256=digest, rows=rows) for path, digest, rows in version.files)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _finite(error: float) -> float | None:
    return rounded(error) if np.isfinite(error) else None

"""Fine-tune the base model on selections, by the recipe of the project, and keep the adapters.

The runs are parts of one work. So a pool with several workers makes them side by side.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from curator.core import distributed
from curator.core.errors import NumericalError
from curator.core.events import Event, Note, StageProgress
from curator.core.figures import fixed
from curator.core.interval import Interval
from curator.core.provenance import Inputs, key_of
from curator.data.corpus import Corpus
from curator.export.adapter import Applied, find_applied, run_inputs, weights_of, write_adapter
from curator.export.adapter_metric import values_of_adapter
from curator.metrics.measuring import Measurer
from curator.results.base import rounded
from curator.select.manifest import Manifest, is_same_selection, stored_manifest
from curator.training.fine_tune import example_counts, recipe_key, subset_content
from curator.training.meta_init import LoadModel
from curator.training.trainer import remove_run, steps_done, training_steps
from curator.workers.fine_tuning import FineTuning, RunPart, RunResult
from curator.workers.joined import JoinedWorks
from curator.workers.pool import Follow, Pool, in_order
from curator.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One selection to apply.

    Attributes:
        workspace: The project.
        corpus: Tasks of the project, split for the manifest's targets. They include the selected tasks.
        manifest: The selection.
        seed: Seed of initialization and of the order of examples.
        folder: Folder of the adapter, which `check_folder` has checked.
        measurer: The metric.
    """

    workspace: Workspace
    corpus: Corpus
    manifest: Manifest
    seed: int
    folder: Path
    measurer: Measurer

    @cached_property
    def inputs(self) -> Inputs:
        """All that the adapter depends on."""
        return run_inputs(self.workspace.config, self.corpus, self.weights, self.seed)

    @cached_property
    def key(self) -> str:
        """Key of the run. Selections of equal tasks have equal keys."""
        return key_of(self.inputs)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each selected task."""
        return weights_of(self.manifest)

    @property
    def estimate(self) -> Interval:
        """Estimated loss of the selection."""
        found = self.manifest
        return Interval(found.estimated_loss, found.estimated_loss_low, found.estimated_loss_high)

    @property
    def steps(self) -> int:
        """Number of optimizer steps of the run."""
        named = self.weights | dict.fromkeys(self.corpus.targets, 1.0)
        counts = example_counts([task for task in self.corpus.tasks if task.name in named], self.weights)
        return training_steps(sum(counts.values()), self.workspace.config.train)


def apply_all(
    workspace: Workspace,
    wanted: Sequence[Wanted],
    *,
    work: Path,
    load: LoadModel,
    pool: Pool,
    fresh: bool,
    keep: Callable[[int, Applied], None],
) -> None:
    """Fine-tune on selections, measure loss and metric, and save the adapters. Resume interrupted runs.

    Adapters are stored in the order of the selections. A run that diverges does not stop the others.

    Args:
        workspace: The project.
        wanted: The selections. Their folders differ.
        work: Folder for checkpoints.
        load: Loads the model.
        pool: Place of the runs.
        fresh: Train again even if an adapter or a checkpoint exists.
        keep: Receives the number and the result of each selection.

    Raises:
        NumericalError: A loss or the metric is not finite.
        DataError: A file cannot be written, the metric cannot be measured, or a worker died too often.
    """
    there = [(None, None) if fresh else _find(one) for one in wanted]
    there = distributed.from_main(there)
    # Selections of equal tasks share one run.
    runs: dict[str, int] = {}
    for number, (one, kept) in enumerate(zip(wanted, there, strict=True)):
        if None in kept:
            runs.setdefault(one.key, number)
    numbers = list(runs.values())
    for number, kept in enumerate(there):
        if None not in kept:
            keep(number, _kept_adapter(wanted[number], kept, load))
    if fresh and distributed.is_main():
        for key in runs:
            remove_run(work / key)
    distributed.wait()
    failed = _make([wanted[number] for number in numbers], workspace, work, pool, lambda n, a: keep(numbers[n], a))
    for number, kept in enumerate(there):
        if None in kept and number not in numbers and wanted[number].key not in failed:
            keep(number, _kept_adapter(wanted[number], distributed.from_main(_find(wanted[number])), load))
    for error in failed.values():
        raise error


def _find(one: Wanted) -> tuple[dict[str, Any] | None, Path | None]:
    return find_applied(one.workspace, one.corpus, one.manifest, seed=one.seed, folder=one.folder)


def _kept_adapter(one: Wanted, kept: tuple[dict[str, Any] | None, Path | None], load: LoadModel) -> Applied:
    """Return an adapter that exists. Copy it to the folder of the selection."""
    known, source = kept
    assert known is not None
    assert source is not None
    if source != one.folder and distributed.is_main():
        write_adapter(one.workspace, one.corpus, one.manifest, source=source, folder=one.folder, loss=known["loss"])
    distributed.wait()
    words = f"adapter of {one.manifest.name!r}, seed {one.seed}: loss {fixed(known['loss'])}"
    one.workspace.reporter.cached("apply", words)
    values = values_of_adapter(one.workspace, one.key, one.inputs, known, source, one.measurer, load)
    return Applied(loss=known["loss"], seconds=known["seconds"], folder=one.folder, cached=True, values=values)


def _make(
    wanted: Sequence[Wanted], workspace: Workspace, work: Path, pool: Pool, keep: Callable[[int, Applied], None]
) -> Mapping[str, NumericalError]:
    """Make the runs, and store each adapter. Return the errors of the runs that diverged, by key."""
    if not wanted:
        return {}
    parts = [_part(one, work / one.key) for one in wanted]
    works = tuple(
        FineTuning(workspace=workspace, corpus=one.corpus, metric=one.measurer.metric_name, used=frozenset(one.weights))
        for one in wanted
    )
    follow, finish = _progress(workspace, wanted, parts)
    failed: dict[str, NumericalError] = {}
    with closing(pool.run(JoinedWorks(works=works), list(enumerate(parts)), follow)) as ended:
        for number, result in in_order(ended):
            one = wanted[number]
            try:
                done = _stored(one, parts[number], result)
            except NumericalError as error:
                failed[one.key] = error
                if len(wanted) > 1:
                    workspace.reporter.warn(f"{one.manifest.name}: {error}")
                continue
            keep(number, done)
            if len(wanted) > 1:
                workspace.reporter.note(f"{one.manifest.name}: loss {fixed(done.loss)}")
    finish()
    return failed


def _part(one: Wanted, place: Path) -> RunPart:
    parameters = {"selection": one.manifest.name, "seed": one.seed, "weights": one.weights}
    return RunPart(
        subset=frozenset(one.weights),
        seed=one.seed,
        folder=place,
        stage="apply",
        weights=one.weights,
        tracked=(f"apply {one.manifest.name} seed {one.seed}", parameters),
        expected=one.estimate,
        adapter=place / "adapter",
    )


def _progress(
    workspace: Workspace, wanted: Sequence[Wanted], parts: Sequence[RunPart]
) -> tuple[Follow, Callable[[], None]]:
    """Return what receives the progress of runs, and what ends the stage. One run reports the stage itself."""
    reporter = workspace.reporter
    if len(wanted) == 1:
        return lambda _, event: reporter.emit(event), lambda: None
    steps = [one.steps for one in wanted]
    done = [steps_done(part.folder) for part in parts]
    stage = reporter.stage("apply", sum(steps), "steps", done=sum(done))

    def follow(number: int, event: Event) -> None:
        if isinstance(event, StageProgress):
            done[number] = event.done
            stage.advance_to(sum(done), loss=event.loss)
        elif isinstance(event, Note):
            reporter.emit(event)

    return follow, lambda: stage.finish(f"{len(wanted)} adapters")


def _stored(one: Wanted, part: RunPart, result: RunResult) -> Applied:
    """Save the adapter of a finished run, and remove its checkpoints.

    Raises:
        NumericalError: The run diverged.
        DataError: A file cannot be written.
    """
    found, values = result.found, result.values
    if result.diverged is not None:
        raise result.diverged
    if not math.isfinite(found.loss):
        raise NumericalError(f"loss after training is not finite: {found.loss}", hint="Lower train.learning_rate.")
    if distributed.is_main():
        assert part.adapter is not None
        write_adapter(one.workspace, one.corpus, one.manifest, source=part.adapter, folder=one.folder, loss=found.loss)
        outputs = {"name": one.manifest.name, "loss": found.loss, "seconds": found.seconds, "sha256": result.sha256}
        outputs |= {"values": [asdict(value) for value in values], "folder": str(one.folder)}
        one.workspace.store.put_artifact("apply", one.key, one.inputs, outputs)
        remove_run(part.folder)
    distributed.wait()
    return Applied(loss=found.loss, seconds=found.seconds, folder=one.folder, cached=False, values=values)


def keep_measured(one: Wanted, applied: Applied, *, unchanged: bool) -> None:
    """Save a measured loss with its selection, and among the measured subsets.

    A weighted selection is not a subset, so its loss must not calibrate estimates. A run with the seed of
    meta-training may equal meta-training, and must not calibrate estimates either.

    Args:
        one: The applied selection.
        applied: The run.
        unchanged: Whether project and manifest agree. If not, the loss does not belong to the selection.
    """
    store, config, corpus = one.workspace.store, one.workspace.config, one.corpus
    if one.seed != config.train.seed and all(weight == 1.0 for weight in one.weights.values()):
        content, target, recipe = subset_content(corpus, one.weights), corpus.target_label, recipe_key(config, corpus)
        store.put_metrics(recipe, target, content, seed=one.seed, values=applied.values)
        store.put_measurement(recipe, target, content, seed=one.seed, loss=applied.loss, seconds=applied.seconds)
    for kept in store.selections() if unchanged else ():
        if kept.name != one.manifest.name:
            continue
        there = stored_manifest(kept.manifest)
        if is_same_selection(there, one.manifest):
            loss = rounded(applied.loss)
            store.put_manifest(kept.key, there.model_copy(update={"measured_loss": loss}).model_dump_json())

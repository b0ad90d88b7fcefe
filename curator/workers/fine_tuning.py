"""Fine-tuning runs as parts of a work, for this process and for workers."""

import json
import math
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from curator.core import distributed
from curator.core.errors import DataError, NumericalError
from curator.core.events import Reporter
from curator.core.interval import Interval
from curator.core.metric_name import COMMAND, MetricName
from curator.data.corpus import Corpus
from curator.data.model_files import ModelFiles
from curator.metrics.measuring import PARTS, Measurer
from curator.training.fine_tune import FineTuned, fine_tune, with_epochs
from curator.training.forgetting import compared, task_losses
from curator.training.meta_init import LoadModel
from curator.training.model import TunedModel, load_project_model
from curator.training.tracking import estimate_numbers, tracked_run
from curator.workers.pool import Perform, Pool, Report
from curator.workspace.store.held import HeldExamples
from curator.workspace.store.measured import TaskLoss
from curator.workspace.store.metric_values import StoredMetric
from curator.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPart:
    """One fine-tuning run.

    Attributes:
        subset: Names of the auxiliary tasks.
        seed: Seed of the run.
        folder: Folder for checkpoints. A worker that starts the run again resumes from them.
        stage: Name of the stage in events.
        weights: Number of times that a task's examples are repeated, by task name.
        epochs: Epochs of the run, instead of those of the recipe.
        early: Measure the loss also after 25 % and 50 % of the steps.
        tracked: Name and parameters for the experiment tracker. None if the caller encloses the run.
        expected: Estimate from before the run, for the tracker.
        adapter: Folder to save the adapter to. None saves no adapter.
    """

    subset: frozenset[str]
    seed: int
    folder: Path
    stage: str = "fine-tune"
    weights: Mapping[str, float] | None = None
    epochs: float | None = None
    early: bool = False
    tracked: tuple[str, Mapping[str, object]] | None = None
    expected: Interval | None = None
    adapter: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Result of one fine-tuning run.

    Attributes:
        found: Loss and cost. The loss of a run that diverged is infinite.
        lost: Losses on each task's own rows, before and after the run.
        values: Values of the metric, and the loss on the test part.
        diverged: Why the run diverged. None if it did not.
        sha256: Hash of the saved adapter's weights.
    """

    found: FineTuned
    lost: Mapping[str, TaskLoss] = field(default_factory=dict)
    values: tuple[StoredMetric, ...] = ()
    diverged: NumericalError | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """Fine-tuning runs of one project. A part is a `RunPart`, or None for the model before training.

    Attributes:
        workspace: The project. That of a worker holds examples instead of the store.
        corpus: Tasks of the project.
        metric: The metric. None measures the loss only.
        forgetting: Measure the loss on rows of every task too, before and after each run.
        used: Names of the auxiliary tasks that the runs train on. None for all.
        key: Name of this work.
    """

    workspace: Workspace
    corpus: Corpus
    metric: MetricName | None
    forgetting: bool = False
    used: frozenset[str] | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, load: LoadModel | None) -> Perform:
        """Prepare runs in this process, as `Work.start` says.

        Raises:
            DataError: This machine cannot read the folder of the project.
        """
        if load is None and not self.workspace.root.is_dir():
            raise DataError(
                f"a worker cannot read the project folder {self.workspace.root}",
                hint="Put the project on a file system that every node mounts at the same path.",
            )
        return _Runs(self, load)

    def without_store(self) -> "FineTuning":
        """Return the same work for other processes. It holds the examples of its tasks."""
        corpus = self.corpus
        keys = [
            t.version.key
            for t in corpus.tasks
            if self.forgetting or self.used is None or t.name in self.used or t.name in corpus.targets
        ]
        held_out = [task.held_out(part)[0].key for task in corpus.target_tasks for part in PARTS]
        texts = held_out if self.metric is not None and self.metric.kind == COMMAND else []
        store = HeldExamples.of(self.workspace.store, [*keys, *held_out], with_texts=texts)
        return replace(self, workspace=self.workspace.away(store))


class _Runs:
    """Do the runs of one work in this process. The first run prepares the model, the metric and the base's losses."""

    def __init__(self, work: FineTuning, load: LoadModel | None) -> None:
        self._work, self._load = work, load

    def __call__(self, part: RunPart | None, report: Report) -> RunResult | list[StoredMetric]:
        return self._before_training() if part is None else self._run(part, report)

    @property
    def _tuned(self) -> TunedModel:
        work = self._work
        return kept_model(work.workspace, work.corpus.model) if self._load is None else self._load()

    @cached_property
    def _measurer(self) -> Measurer | None:
        work = self._work
        return None if work.metric is None else Measurer(work.workspace, work.corpus, work.metric)

    @cached_property
    def _base(self) -> dict[str, float]:
        """Losses of the base model on rows of every task. A new adapter changes nothing."""
        work = self._work
        if not work.forgetting:
            return {}
        self._tuned.reset(work.workspace.config.train.seed)
        return task_losses(work.workspace, work.corpus, self._tuned)

    def _before_training(self) -> list[StoredMetric]:
        assert self._measurer is not None
        return self._measurer.measure_base(self._tuned)

    def _run(self, part: RunPart, report: Report) -> RunResult:
        work, base, tuned = self._work, self._base, self._tuned
        name, parameters = part.tracked or ("", {})
        with tracked_run(work.workspace, name, parameters, again=part.tracked is None) as log:
            if part.expected is not None:
                log(estimate_numbers(part.expected))
            try:
                found = fine_tune(
                    with_epochs(work.workspace, part.epochs).reporting_to(Reporter(report)),
                    work.corpus,
                    part.subset,
                    seed=part.seed,
                    tuned=tuned,
                    folder=part.folder,
                    weights=part.weights,
                    stage=part.stage,
                    early=part.early,
                )
                after = task_losses(work.workspace, work.corpus, tuned) if work.forgetting else {}
                lost = compared(work.corpus, part.subset, base, after) if work.forgetting else {}
                log({"measured_loss": found.loss, "seconds": found.seconds})
            except NumericalError as error:
                return RunResult(found=FineTuned(loss=math.inf, seconds=0.0), diverged=error)
        # A metric that fails leaves the checkpoints, so that the next call resumes at the end of the run.
        finite = math.isfinite(found.loss)
        values = tuple(self._measurer.of_run(tuned, found)) if self._measurer is not None and finite else ()
        sha256 = ""
        if part.adapter is not None and finite and distributed.is_main():
            sha256 = tuned.save_adapter(part.adapter)
        return RunResult(found=found, lost=lost, values=values, sha256=sha256)


_models: dict[str, TunedModel] = {}


def kept_model(workspace: Workspace, model: ModelFiles) -> TunedModel:
    """Return the model of a project, and keep it for the next part. Only workers call this function.

    Args:
        workspace: The project.
        model: Files of the model.

    Raises:
        ConfigError: The configuration does not suit the model.
        DataError: The model cannot be read, or changed after it was hashed.
    """
    config = workspace.config
    settings = [config.model.model_dump(mode="json"), config.lora.model_dump(mode="json")]
    key = json.dumps([model.sha256, str(model.folder), *settings])
    if key not in _models:
        # Another model may fill the memory of the device.
        _models.clear()
        _models[key] = load_project_model(workspace, model)
    return _models[key]


def values_before(pool: Pool, workspace: Workspace, corpus: Corpus, measurer: Measurer) -> list[StoredMetric]:
    """Return the values of the model before training. Measure them once, and store them.

    Args:
        pool: Place to measure.
        workspace: The project.
        corpus: Tasks of the project.
        measurer: The metric.

    Raises:
        DataError: The model or rows cannot be read, or a command fails.
        NumericalError: A value is not finite.
    """
    known = measurer.known_before()
    if known is not None:
        return known
    work = FineTuning(workspace=workspace, corpus=corpus, metric=measurer.metric_name, used=frozenset())
    with closing(pool.run(work, [None], lambda _number, _event: None)) as found:
        _, values = next(found)
    measurer.keep_before(values)
    return list(values)

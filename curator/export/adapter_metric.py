"""Measure the metric of an applied adapter, and compare it with that of other models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curator import results
from curator.core import distributed
from curator.core.metric_name import LOSS
from curator.core.provenance import Inputs
from curator.data.corpus import Corpus
from curator.metrics.measuring import Measurer
from curator.metrics.readings import reading, subset_reading
from curator.metrics.stored import RunValues
from curator.results.base import rounded
from curator.training.fine_tune import measured_subsets, recipe_key
from curator.training.meta_init import LoadModel
from curator.workspace.store.metric_values import StoredMetric
from curator.workspace.workspace import Workspace


def values_of_adapter(
    workspace: Workspace,
    key: str,
    inputs: Inputs,
    known: Mapping[str, Any],
    source: Path,
    measurer: Measurer,
    load: LoadModel,
) -> tuple[StoredMetric, ...]:
    """Return the values of a kept adapter. Measure those that are missing, and add them to its artifact.

    Args:
        workspace: The project.
        key: Key of the artifact.
        inputs: Inputs of the artifact.
        known: Outputs of the artifact.
        source: Folder of the adapter.
        measurer: The metric.
        load: Returns the model. Its adapter is replaced if a value is missing.

    Raises:
        DataError: The adapter cannot be read, or the metric cannot be measured.
        NumericalError: The metric is not finite.
    """
    there = [StoredMetric(**value) for value in known.get("values", ())]
    have = {(value.metric, value.part, value.version) for value in there}
    missing = [(m, part) for m, part in measurer.wanted() if (m.name, part, measurer.version(m, part)) not in have]
    if missing:
        tuned = load()
        tuned.load_adapter(source, sha256=known["sha256"])
        there += measurer.measure(tuned, missing)
        if distributed.is_main():
            outputs = {**known, "values": [asdict(value) for value in there]}
            workspace.store.put_artifact("apply", key, inputs, outputs)
    now: dict[tuple[str, str], str] = {(m.name, part): measurer.version(m, part) for m, part in measurer.kept()}
    return tuple(value for value in there if now.get((value.metric, value.part)) == value.version)


def applied_metric(
    workspace: Workspace,
    corpus: Corpus,
    loss: float,
    own: Sequence[StoredMetric],
    measurer: Measurer,
    before: Sequence[StoredMetric],
) -> results.AppliedMetric:
    """Return the metric of an adapter, of the base model, of all tasks and of the target alone.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        loss: Validation loss of the adapter, nats per target token.
        own: Values of the adapter.
        measurer: The metric.
        before: Values of the model before training.
    """
    name = measurer.name
    measured = measured_subsets(corpus, workspace.store.measurements(recipe_key(workspace.config, corpus)))
    values = RunValues(workspace, corpus, measurer)
    every = [task.name for task in corpus.auxiliary]
    loss, applied = rounded(loss), reading(own, name, runs=1)
    if applied is None:
        applied = results.MetricReading(
            loss=loss, value=loss if name == LOSS else None, standard_error=None, examples=0, runs=1
        )
    return results.AppliedMetric(
        name=name,
        higher_is_better=measurer.metric.higher_is_better,
        applied=applied,
        before=reading(before, name, runs=0),
        all_tasks=subset_reading(every, measured, values, name),
        target_only=subset_reading((), measured, values, name),
    )

"""Read the metric values of stored fine-tuning runs."""

from collections.abc import Collection

from curator.data.corpus import Corpus
from curator.metrics.base import Metric, Part
from curator.metrics.measuring import Measurer
from curator.training.fine_tune import MeasuredSubset, recipe_key
from curator.workspace.store.metric_values import StoredMetric
from curator.workspace.workspace import Workspace

Run = tuple[frozenset[str], int]
"""Subset and seed of one fine-tuning run."""


class RunValues:
    """Values of one measurer's metrics for the stored runs whose tasks and rows are unchanged.

    Args:
        workspace: The project.
        corpus: Tasks of the project, split for the targets.
        measurer: The metric.
    """

    def __init__(self, workspace: Workspace, corpus: Corpus, measurer: Measurer) -> None:
        self._measurer = measurer
        now = {task.name: task.content for task in corpus.auxiliary}
        wanted: dict[tuple[str, str], str] = {(m.name, part): measurer.version(m, part) for m, part in measurer.kept()}
        self._values: dict[tuple[frozenset[str], int, str, str], StoredMetric] = {}
        for subset, seed, value in workspace.store.metrics(recipe_key(workspace.config, corpus)):
            same = all(now.get(task) == content for task, content in subset.items())
            if same and wanted.get((value.metric, value.part)) == value.version:
                self._values[frozenset(subset), seed, value.metric, value.part] = value

    def value(self, subset: Collection[str], seed: int, metric: str, part: Part) -> StoredMetric | None:
        """Return a value of one run, or None if it is not measured.

        Args:
            subset: Names of the auxiliary tasks.
            seed: Seed of the run.
            metric: Name of the metric, or `loss`.
            part: Part of the held-out rows.
        """
        return self._values.get((frozenset(subset), seed, metric, part))

    def incomplete(self, measured: Collection[MeasuredSubset]) -> list[Run]:
        """Return the stored runs that lack a value. Only another run with the same seed gives the value.

        Args:
            measured: Measured subsets with their runs.
        """
        wanted: list[tuple[Metric, Part]] = self._measurer.wanted()
        return [
            (m.subset, run.seed)
            for m in measured
            for run in m.runs
            if any(self.value(m.subset, run.seed, metric.name, part) is None for metric, part in wanted)
        ]

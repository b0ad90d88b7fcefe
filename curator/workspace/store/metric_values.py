"""The table of metric values: what a metric said about the model after one fine-tuning run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curator.workspace.store.access import Database, subset_of
from curator.workspace.store.schema import utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMetric:
    """Value of one metric on one part of the held-out rows."""

    metric: str
    """Name as in `[verify] metric`."""
    part: str
    """`validation` or `test`."""
    version: str
    """Hash of what decides the value besides the model: the rows, and the way to measure."""
    value: float
    standard_error: float | None
    """None if the metric does not say."""
    examples: int
    """Number of measured rows. 0 if the metric does not say."""
    higher_is_better: bool


class MetricValues(Database):
    """Store and read metric values of fine-tuning runs."""

    def put_metrics(
        self, recipe: str, target: str, subset: Mapping[str, str], *, seed: int, values: Sequence[StoredMetric]
    ) -> None:
        """Store the metric values of one run. Values that are already stored are replaced.

        Args:
            recipe: Hash of everything that determines a run except the subset and the seed.
            target: Name of the target.
            subset: Hash of the training examples of each auxiliary task, by the task's name.
            seed: Seed of the run.
            values: Finite values of the run.
        """
        text, now = json.dumps(dict(subset), sort_keys=True), utc_now()
        with self.write() as connection:
            for v in values:
                connection.execute(
                    "INSERT OR REPLACE INTO metric_values VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        *(recipe, target, text, seed, v.metric, v.part, v.version),
                        *(v.value, v.standard_error, v.examples, v.higher_is_better, now),
                    ],
                )

    def metrics(self, recipe: str) -> list[tuple[dict[str, str], int, StoredMetric]]:
        """Return subset, seed and value of each metric value of a recipe, oldest first."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT subset, seed, metric, part, version, value, standard_error, examples, higher_is_better"
                " FROM metric_values WHERE recipe = ? ORDER BY made, subset, seed, metric, part",
                [recipe],
            ).fetchall()
        return self.decoded(
            rows,
            lambda subset, seed, metric, part, version, value, error, examples, higher: (
                subset_of(subset),
                seed,
                StoredMetric(
                    metric=metric,
                    part=part,
                    version=version,
                    value=value,
                    standard_error=error,
                    examples=examples,
                    higher_is_better=higher,
                ),
            ),
        )

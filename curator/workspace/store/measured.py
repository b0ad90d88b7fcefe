"""The table of measured losses: target losses after fine-tuning on a subset of tasks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from curator.workspace.store.access import Database
from curator.workspace.store.schema import utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Target's validation loss after one fine-tuning run."""

    subset: Mapping[str, str]
    """Hash of the training examples of each auxiliary task in the subset, by the task's name."""
    seed: int
    loss: float
    """Nats per target token. Infinite if training diverged."""
    seconds: float
    """Duration of fine-tuning, without the measurement."""
    made: datetime


class Measured(Database):
    """Store and read measured losses. A stored loss never changes."""

    def put_measurement(
        self, recipe: str, target: str, subset: Mapping[str, str], *, seed: int, loss: float, seconds: float
    ) -> None:
        """Store the measured loss of one run. A loss that is already stored stays unchanged.

        Args:
            recipe: Hash of everything that determines a run except the subset and the seed.
            target: Name of the target.
            subset: Hash of the training examples of each auxiliary task, by the task's name.
            seed: Seed of the adapter's initialization and of the order of examples.
            loss: Nats per target token. Infinite if training diverged.
            seconds: Duration of fine-tuning.
        """
        with self.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?)",
                [recipe, target, json.dumps(dict(subset), sort_keys=True), seed, loss, seconds, utc_now()],
            )

    def measurements(self, recipe: str) -> list[Measurement]:
        """Return all measurements of a recipe, oldest first."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT subset, seed, loss, seconds, made FROM measurements"
                " WHERE recipe = ? ORDER BY made, subset, seed",
                [recipe],
            ).fetchall()
        return [
            Measurement(subset=json.loads(s), seed=seed, loss=loss, seconds=seconds, made=made.replace(tzinfo=UTC))
            for s, seed, loss, seconds, made in rows
        ]

"""The table of measured losses: what really came of fine-tuning on a subset of tasks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from curator.workspace.store.access import Database
from curator.workspace.store.schema import utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One fine-tuning run, and the target's validation loss after it."""

    subset: Mapping[str, str]
    """Hash of the training examples of each auxiliary task in the subset, by the task's name."""
    seed: int
    loss: float
    """Nats per target token; infinity where training diverged."""
    seconds: float
    """Time that fine-tuning took, without measuring."""
    made: datetime


class Measured(Database):
    """The part of the store that keeps measured losses; one that was put in is never changed."""

    def put_measurement(
        self, recipe: str, target: str, subset: Mapping[str, str], *, seed: int, loss: float, seconds: float
    ) -> None:
        """Store what came of one run.

        Args:
            recipe: Hash of all that decides a run beside the subset and the seed.
            target: The target's name.
            subset: As in `Measurement`.
            seed: Of initialization and order.
            loss: Nats per target token; infinity where training diverged.
            seconds: Time that fine-tuning took.
        """
        with self.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?)",
                [recipe, target, json.dumps(dict(subset), sort_keys=True), seed, loss, seconds, utc_now()],
            )

    def measurements(self, recipe: str) -> list[Measurement]:
        """What was measured by a recipe, oldest first."""
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

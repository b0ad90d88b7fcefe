"""The tables of measured losses: target losses after fine-tuning on a subset of tasks, and details of these runs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from curator.core.interval import Interval
from curator.workspace.store.access import Database, subset_of
from curator.workspace.store.schema import utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoss:
    """Loss on rows of one task before and after a run, nats per token."""

    before: float
    """Loss of the base model."""
    after: float
    trained: bool
    """Whether the run trained on the task."""
    held_out: bool
    """Whether the run trained on none of the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """Cost, course and earlier estimate of one fine-tuning run. None stands for an unknown value."""

    loss_quarter: float | None = None
    """Target's validation loss after 25 % of the steps, nats per target token."""
    loss_half: float | None = None
    """Target's validation loss after 50 % of the steps, nats per target token."""
    tokens: int | None = None
    """Tokens that the run trained on, over all epochs."""
    peak_bytes: int | None = None
    """Largest memory of the process during the run. On a GPU, the largest memory of the GPU."""
    machine: str = ""
    """Processor or GPU of the run."""
    task_losses: Mapping[str, TaskLoss] = field(default_factory=dict)
    """Losses on rows of each task, by its name. Empty if they were not measured."""
    estimated_before: Interval | None = None
    """Estimate that was made before the run, with its 90 % interval."""
    calibrated_on: int | None = None
    """Number of measured subsets that calibrated this estimate."""


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
    details: RunDetails = field(default_factory=RunDetails)
    """Cost, course and earlier estimate. Older runs and adapters have none."""


class Measured(Database):
    """Store and read measured losses. A stored loss never changes."""

    def put_measurement(
        self,
        recipe: str,
        target: str,
        subset: Mapping[str, str],
        *,
        seed: int,
        loss: float,
        seconds: float,
        details: RunDetails | None = None,
    ) -> None:
        """Store the measured loss of one run. A loss that is already stored stays unchanged, with its details.

        Args:
            recipe: Hash of everything that determines a run except the subset and the seed.
            target: Name of the target.
            subset: Hash of the training examples of each auxiliary task, by the task's name.
            seed: Seed of the adapter's initialization and of the order of examples.
            loss: Nats per target token. Infinite if training diverged.
            seconds: Duration of fine-tuning.
            details: Cost, course and earlier estimate of the run.
        """
        content = json.dumps(dict(subset), sort_keys=True)
        with self.write() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING seed",
                [recipe, target, content, seed, loss, seconds, utc_now()],
            ).fetchall()
            if added and details is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO run_details VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [recipe, content, seed, *_row(details)],
                )

    def measurements(self, recipe: str) -> list[Measurement]:
        """Return all measurements of a recipe, oldest first."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT m.subset, m.seed, m.loss, m.seconds, m.made, d.loss_quarter, d.loss_half, d.tokens,"
                " d.peak_bytes, d.machine, d.task_losses, d.estimated_before, d.estimated_before_low,"
                " d.estimated_before_high, d.calibrated_on"
                " FROM measurements m LEFT JOIN run_details d USING (recipe, subset, seed)"
                " WHERE m.recipe = ? ORDER BY m.made, m.subset, m.seed",
                [recipe],
            ).fetchall()
        return self.decoded(
            rows,
            lambda s, seed, loss, seconds, made, *rest: Measurement(
                subset=subset_of(s),
                seed=seed,
                loss=float(loss),
                seconds=seconds,
                made=made.replace(tzinfo=UTC),
                details=_details(*rest),
            ),
        )


def _task_loss(before: float, after: float, trained: bool, held_out: bool) -> TaskLoss:
    return TaskLoss(before=float(before), after=float(after), trained=bool(trained), held_out=bool(held_out))


def _row(details: RunDetails) -> list[object]:
    before = details.estimated_before
    return [
        details.loss_quarter,
        details.loss_half,
        details.tokens,
        details.peak_bytes,
        details.machine,
        json.dumps({name: asdict(found) for name, found in details.task_losses.items()}, sort_keys=True),
        *((None, None, None) if before is None else (before.value, before.low, before.high)),
        details.calibrated_on,
    ]


def _details(
    loss_quarter: float | None,
    loss_half: float | None,
    tokens: int | None,
    peak_bytes: int | None,
    machine: str | None,
    task_losses: str | None,
    value: float | None,
    low: float | None,
    high: float | None,
    calibrated_on: int | None,
) -> RunDetails:
    known = value is not None and low is not None and high is not None
    return RunDetails(
        loss_quarter=loss_quarter,
        loss_half=loss_half,
        tokens=tokens,
        peak_bytes=peak_bytes,
        machine=machine or "",
        task_losses={name: _task_loss(**found) for name, found in json.loads(task_losses or "{}").items()},
        estimated_before=Interval(value, low, high) if known else None,  # type: ignore[arg-type]
        calibrated_on=calibrated_on,
    )

"""Log runs to the experiment tracker that `[train] report_to` names.

The transformers Trainer logs the loss of every step. A tracked run encloses the Trainer, so that curator's own numbers
appear in the same run: estimates before a run, and the measured loss after it. Nothing is logged by default.
"""

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.core import distributed
from curator.core.errors import ConfigError
from curator.core.interval import Interval
from curator.workspace.workspace import Workspace

Log = Callable[[Mapping[str, float]], None]
"""Logs numbers by name to the current run."""

# Variable by which the Trainer and TensorBoard's users name the folder of the logs.
_TENSORBOARD_FOLDER = "TENSORBOARD_LOGGING_DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunName:
    """Name of the current run, and of the project that the tracker lists the run under."""

    name: str
    project: str


_current: ContextVar[RunName | None] = ContextVar("current tracked run", default=None)


def current_run() -> RunName | None:
    """Return the name of the tracked run that encloses the caller, or None."""
    return _current.get()


def check_tracker(tracker: str) -> None:
    """Check that the package of a tracker is installed.

    Args:
        tracker: Value of `[train] report_to`.

    Raises:
        ConfigError: The package is missing.
    """
    if tracker == "none":
        return
    found = importlib.util.find_spec(tracker)
    # A folder of logs with the tracker's name has no origin.
    if found is None or found.origin is None:
        raise ConfigError(
            f"train.report_to = {tracker!r} needs the package {tracker}",
            hint=f'Install {tracker}, or set report_to = "none" under [train].',
        )


def estimate_numbers(estimate: Interval) -> dict[str, float]:
    """Return an estimate and the ends of its interval, by the names of the reports."""
    return {
        "estimated_loss": estimate.value,
        "estimated_loss_low": estimate.low,
        "estimated_loss_high": estimate.high,
    }


@contextmanager
def tracked_run(
    workspace: Workspace, name: str, parameters: Mapping[str, Any], *, again: bool = False
) -> Iterator[Log]:
    """Enclose work in one run of the configured tracker. Do nothing without a tracker, and in secondary processes.

    Args:
        workspace: The project.
        name: Name of the run.
        parameters: Settings to record with the run.
        again: Whether the result is cached, so that an earlier call has logged the run.

    Yields:
        A function that logs numbers.

    Raises:
        ConfigError: The tracker's package is missing.
    """
    tracker = workspace.config.train.report_to
    if tracker == "none" or again or not distributed.is_main():
        yield lambda _: None
        return
    check_tracker(tracker)
    run = RunName(name=name, project=workspace.name)
    token = _current.set(run)
    try:
        with _OPEN[tracker](run, workspace.folder / "tensorboard", dict(parameters)) as log:
            yield log
    finally:
        _current.reset(token)


@contextmanager
def _tensorboard(run: RunName, folder: Path, parameters: dict[str, Any]) -> Iterator[Log]:
    # The module has types only where TensorBoard is installed.
    tensorboard: Any = importlib.import_module("torch.utils.tensorboard")
    before = os.environ.get(_TENSORBOARD_FOLDER)
    root = Path(before).expanduser() if before else folder
    place, number = root / re.sub(r"[^\w.+=-]+", "_", run.name)[:100], 1
    # An equal name is another run, whose steps start again.
    while (place if number == 1 else place.with_name(f"{place.name}-{number}")).exists():
        number += 1
    place = place if number == 1 else place.with_name(f"{place.name}-{number}")
    os.environ[_TENSORBOARD_FOLDER] = str(place)
    writer = tensorboard.SummaryWriter(log_dir=str(place))
    try:
        for name, value in parameters.items():
            writer.add_text(f"curator/{name}", str(value))

        def log(numbers: Mapping[str, float]) -> None:
            for name, value in numbers.items():
                writer.add_scalar(f"curator/{name}", value)

        yield log
    finally:
        writer.close()
        if before is None:
            del os.environ[_TENSORBOARD_FOLDER]
        else:
            os.environ[_TENSORBOARD_FOLDER] = before


@contextmanager
def _mlflow(run: RunName, _: Path, parameters: dict[str, Any]) -> Iterator[Log]:
    import mlflow

    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.project)
    with mlflow.start_run(run_name=run.name):
        # MLflow refuses longer values.
        mlflow.log_params({f"curator.{name}": str(value)[:500] for name, value in parameters.items()})
        yield lambda numbers: mlflow.log_metrics(dict(numbers))


@contextmanager
def _wandb(run: RunName, _: Path, parameters: dict[str, Any]) -> Iterator[Log]:
    import wandb

    project = os.environ.get("WANDB_PROJECT") or run.project
    with wandb.init(project=project, name=run.name, config={"curator": parameters}) as opened:
        yield lambda numbers: opened.log(dict(numbers))


@contextmanager
def _trackio(run: RunName, _: Path, parameters: dict[str, Any]) -> Iterator[Log]:
    import trackio

    def log(numbers: Mapping[str, float]) -> None:
        # The Trainer opens and ends the run, so each call continues it.
        trackio.init(project=run.project, name=run.name, config={"curator": parameters}, resume="allow")
        trackio.log(dict(numbers))
        trackio.finish()

    yield log


_OPEN = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb, "trackio": _trackio}

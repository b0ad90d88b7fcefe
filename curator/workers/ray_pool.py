"""Run each part of a stage as one Ray task."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray

from curator.core.errors import DataError
from curator.core.events import Event, StageProgress
from curator.core.version import __version__
from curator.workers.pool import BENCH, Ended, Failed, Follow, Work
from curator.workers.ray_cluster import RETRIES, Cluster

# Seconds between two looks at the cluster, and between two progress events of one part.
_LOOK, _PAUSE = 0.2, 0.5


class Mailbox:
    """Collect the progress of all parts, on the cluster."""

    def __init__(self) -> None:
        self._events: dict[int, Event] = {}

    def put(self, number: int, event: Event) -> None:
        """Keep the last event of a part."""
        self._events[number] = event

    def take(self) -> dict[int, Event]:
        """Return the last event of each part since the last call."""
        found, self._events = self._events, {}
        return found


def perform_part(key: str, works: list[Any], number: int, part: Any, mailbox: Any, version: str) -> Any:
    """Do one part in a worker.

    Args:
        key: Key of the work.
        works: Reference to the work, in a list. Ray would fetch a plain reference for every part.
        number: Number of the part.
        part: The part.
        mailbox: Receives the progress.
        version: Version of curator in the process that started the part.
    """
    if version != __version__:
        words = f"a worker has curator {__version__}, and this process has {version}"
        return Failed(DataError(words, hint="Install the same version on every node."))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    last = -_PAUSE

    def report(event: Event) -> None:
        nonlocal last
        now = time.monotonic()
        if not isinstance(event, StageProgress) or now - last >= _PAUSE or event.done == event.total:
            last = now
            mailbox.put.remote(number, event)

    def fetch() -> Work:
        found: Work = ray.get(works[0])
        return found

    return BENCH.perform(key, fetch, part, report)


class RayPool:
    """Run parts on a cluster, each with its share of a GPU or with one processor.

    Args:
        cluster: The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def size(self) -> int:
        """Return the number of parts that run at the same time."""
        return self._cluster.workers

    def run(self, work: Work, parts: Sequence[Any], follow: Follow) -> Ended:
        """Do all parts, as `Pool.run` says."""
        away = ray.put(work.without_store())
        mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1).remote()
        task: Any = ray.remote(perform_part).options(max_retries=RETRIES, **self._cluster.share)
        waiting = {
            task.remote(work.key, [away], number, part, mailbox, __version__): number
            for number, part in enumerate(parts)
        }
        try:
            while waiting:
                ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_LOOK)
                for number, event in _taken(mailbox).items():
                    follow(number, event)
                for reference in ready:
                    number = waiting.pop(reference)
                    yield number, _result(reference)
        finally:
            for reference in waiting:
                with suppress(Exception):
                    ray.cancel(reference, force=True)
            with suppress(Exception):
                ray.kill(mailbox)


def _taken(mailbox: Any) -> dict[int, Event]:
    """Return the progress. A mailbox that has just died and starts again holds none."""
    try:
        found: dict[int, Event] = ray.get(mailbox.take.remote(), timeout=10)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return {}
    return found


def _result(reference: Any) -> Any:
    """Return the result of an ended part.

    Raises:
        CuratorError: The part has raised it.
        DataError: Its worker died too often.
    """
    try:
        value = ray.get(reference)
    except ray.exceptions.RayTaskError:
        # An error of curator's code. The message holds the worker's traceback.
        raise
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"a worker of the Ray cluster died {RETRIES + 1} times: {reason:.200}",
            hint="Check the memory of the nodes and Ray's logs. Run the same command again to resume.",
        ) from error
    if isinstance(value, Failed):
        raise value.error
    return value

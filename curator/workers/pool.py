"""Places where the parts of a stage run: what they offer, and the place in this process.

Only the process that starts the parts opens the store. Workers get all that they need with their work.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from curator.core.errors import CuratorError
from curator.core.events import Event
from curator.training.meta_init import LoadModel

Report = Callable[[Event], None]
"""Receives the progress of one part."""
Perform = Callable[[Any, Report], Any]
"""Does one part, and returns its result. The result of equal parts is equal."""
Ended = Generator[tuple[int, Any], None, None]
"""Numbers and results of parts, in the order in which they end."""
Follow = Callable[[int, Event], None]
"""Receives the number of a part and its progress."""


class Work(Protocol):
    """Work that is cut into parts. Other processes receive a copy."""

    @property
    def key(self) -> str:
        """Return a name that no other work has. A worker keeps what it prepared for the last name."""

    def start(self, load: LoadModel | None) -> Perform:
        """Prepare to do parts in this process.

        Args:
            load: Returns the model. None loads the model of the project, and keeps it.
        """

    def without_store(self) -> "Work":
        """Return the same work for other processes. It holds what it reads from the store."""


class Pool(Protocol):
    """A place where parts run."""

    @property
    def size(self) -> int:
        """Return the largest number of parts that run at the same time."""

    def run(self, work: Work, parts: Sequence[Any], follow: Follow) -> Ended:
        """Do all parts. Yield the number and the result of each part, in the order in which they end.

        Parts that have not ended are stopped when the iterator is closed.

        Raises:
            CuratorError: A part has raised it.
            DataError: A worker died too often.
        """


@dataclass(frozen=True, slots=True)
class Failed:
    """Error of a part that the user can act on. Workers return it, so that it arrives unchanged."""

    error: CuratorError


class ThisProcess:
    """Do one part after the other in this process.

    Args:
        load: Returns the model.
    """

    size = 1

    def __init__(self, load: LoadModel) -> None:
        self._load = load

    def run(self, work: Work, parts: Sequence[Any], follow: Follow) -> Ended:
        """Do all parts in their order, as `Pool.run` says."""
        perform = work.start(self._load)
        for number, part in enumerate(parts):
            yield number, perform(part, partial(follow, number))


class Bench:
    """What a worker process keeps between two parts: the last work that it prepared."""

    def __init__(self) -> None:
        self._kept: tuple[str, Perform] | None = None

    def perform(self, key: str, work: Callable[[], Work], part: Any, report: Report) -> Any:
        """Do one part, and return its result or `Failed`.

        Args:
            key: Key of the work.
            work: Returns the work.
            part: The part.
            report: Receives the progress.
        """
        try:
            if self._kept is None or self._kept[0] != key:
                self._kept = None
                self._kept = key, work().start(None)
            return self._kept[1](part, report)
        except CuratorError as error:
            return Failed(error)


BENCH = Bench()
"""The bench of this process."""


def in_order(found: Ended) -> Iterator[tuple[int, Any]]:
    """Yield numbered results in the order of their numbers. A result waits for those before it."""
    waiting: dict[int, Any] = {}
    following = 0
    for number, value in found:
        waiting[number] = value
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1

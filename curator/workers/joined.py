"""Several works in one pool."""

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

from curator.training.meta_init import LoadModel
from curator.workers.pool import Perform, Report, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedWorks:
    """Several works. A part is the number of a work and a part of that work.

    Attributes:
        works: The works.
        key: Name of this work.
    """

    works: tuple[Work, ...]
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, load: LoadModel | None) -> Perform:
        """Prepare to do parts in this process, as `Work.start` says. A work is prepared at its first part."""
        started: dict[int, Perform] = {}

        def perform(part: tuple[int, Any], report: Report) -> Any:
            number, own = part
            if number not in started:
                # Another work may hold a model of its own in memory.
                started.clear()
                started[number] = self.works[number].start(load)
            return started[number](own, report)

        return perform

    def without_store(self) -> "JoinedWorks":
        """Return the same works for other processes."""
        return replace(self, works=tuple(work.without_store() for work in self.works))

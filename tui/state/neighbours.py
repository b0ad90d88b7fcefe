"""Which task is shown, and which come before and after it. No Textual."""

import numpy as np

from curator.data.corpus import Task
from tui.state.session import Rows
from tui.state.snapshot import Snapshot


class TaskWays:
    """A task among those that were listed.

    Args:
        number: Number of the task; those of the targets follow on the auxiliary ones.
        view: Auxiliary tasks in the order in which they were listed.
    """

    def __init__(self, number: int, view: Rows) -> None:
        self.number, self.view = number, np.asarray(view)
        self._names: list[str] = []

    def task(self, snapshot: Snapshot | None) -> Task | None:
        """The task that is shown."""
        if snapshot is None or snapshot.corpus is None:
            return None
        tasks = [*snapshot.corpus.auxiliary, *snapshot.corpus.target_tasks]
        return tasks[self.number] if self.number < len(tasks) else None

    def is_auxiliary(self, snapshot: Snapshot | None) -> bool:
        """Whether the task may be selected; else it is the target."""
        return snapshot is not None and self.number < len(snapshot.names)

    def all(self, snapshot: Snapshot | None) -> list[int]:
        """Numbers of all tasks, in the order in which they were listed; the target comes last."""
        if snapshot is None:
            return []
        count = len(snapshot.names)
        listed = [int(row) for row in self.view if row < count]
        if self.is_auxiliary(snapshot) and self.number not in listed:
            listed = [self.number, *listed]
        return listed + [count + number for number in range(len(snapshot.corpus.targets) if snapshot.corpus else 0)]

    def beside(self, snapshot: Snapshot | None, step: int) -> int | None:
        """Number of the task so many steps further, round and round; None where there is no other."""
        ways = self.all(snapshot)
        if self.number not in ways or len(ways) < 2:
            return None
        return ways[(ways.index(self.number) + step) % len(ways)]

    def trail(self, snapshot: Snapshot | None) -> str:
        """Place among the tasks, and name."""
        task, ways = self.task(snapshot), self.all(snapshot)
        if task is None:
            return ""
        return f"{ways.index(self.number) + 1}/{len(ways)} {task.name}" if self.number in ways else task.name

    def follow(self, snapshot: Snapshot | None) -> str:
        """Keep to the same task when tasks have come or gone.

        Args:
            snapshot: The project as it is now.

        Returns:
            The task's name where it is not there any more, else nothing.
        """
        if snapshot is None or snapshot.corpus is None:
            return ""
        before, names = self._names, [*snapshot.names, *snapshot.corpus.targets]
        self._names = names
        if not before or names == before or self.number >= len(before):
            return ""
        view = [names.index(before[row]) for row in self.view if before[row] in names]
        self.view = np.array(view, dtype=np.intp)
        name = before[self.number]
        if name not in names:
            return name
        self.number = names.index(name)
        return ""

"""The task on the screen, and its neighbours in the list. This module imports no Textual."""

import numpy as np

from curator.data.corpus import Task
from tui.state.session import Rows
from tui.state.snapshot import Snapshot


class TaskWays:
    """A task and its neighbours in the list of tasks.

    Args:
        number: Number of the task. Target tasks follow the auxiliary tasks.
        view: Auxiliary tasks in the order of the list.
    """

    def __init__(self, number: int, view: Rows) -> None:
        self.number, self.view = number, np.asarray(view)
        self._names: list[str] = []

    def task(self, snapshot: Snapshot | None) -> Task | None:
        """Return the task; None before the project is read."""
        if snapshot is None or snapshot.corpus is None:
            return None
        tasks = [*snapshot.corpus.auxiliary, *snapshot.corpus.target_tasks]
        return tasks[self.number] if self.number < len(tasks) else None

    def is_auxiliary(self, snapshot: Snapshot | None) -> bool:
        """Return whether the task is an auxiliary task, not a target."""
        return snapshot is not None and self.number < len(snapshot.names)

    def all(self, snapshot: Snapshot | None) -> list[int]:
        """Return the numbers of all tasks in the order of the list. Targets are last."""
        if snapshot is None:
            return []
        count = len(snapshot.names)
        listed = [int(row) for row in self.view if row < count]
        if self.is_auxiliary(snapshot) and self.number not in listed:
            listed = [self.number, *listed]
        return listed + [count + number for number in range(len(snapshot.corpus.targets) if snapshot.corpus else 0)]

    def neighbour(self, snapshot: Snapshot | None, step: int) -> int | None:
        """Return the number of the task some steps further, in a cycle; None without another task."""
        ways = self.all(snapshot)
        if self.number not in ways or len(ways) < 2:
            return None
        return ways[(ways.index(self.number) + step) % len(ways)]

    def trail(self, snapshot: Snapshot | None) -> str:
        """Return position and name of the task: `2/13 NAME`."""
        task, ways = self.task(snapshot), self.all(snapshot)
        if task is None:
            return ""
        return f"{ways.index(self.number) + 1}/{len(ways)} {task.name}" if self.number in ways else task.name

    def follow(self, snapshot: Snapshot | None) -> str:
        """Stay on the same task after tasks were added or removed.

        Args:
            snapshot: The current project.

        Returns:
            The name of the task if the task was removed, else "".
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

"""Which task is shown, and which come before and after it. No Textual."""

import numpy as np

from curator.data.corpus import Task
from tui.state.session import Rows
from tui.state.snapshot import Workspace


class TaskWays:
    """A task among those that were listed.

    Args:
        number: Number of the task; those of the targets follow on the auxiliary ones.
        view: Auxiliary tasks in the order in which they were listed.
    """

    def __init__(self, number: int, view: Rows) -> None:
        self.number, self.view = number, np.asarray(view)
        self._names: list[str] = []

    def task(self, workspace: Workspace | None) -> Task | None:
        """The task that is shown."""
        if workspace is None or workspace.corpus is None:
            return None
        tasks = [*workspace.corpus.auxiliary, *workspace.corpus.target_tasks]
        return tasks[self.number] if self.number < len(tasks) else None

    def is_auxiliary(self, workspace: Workspace | None) -> bool:
        """Whether the task may be selected; else it is the target."""
        return workspace is not None and self.number < len(workspace.names)

    def all(self, workspace: Workspace | None) -> list[int]:
        """Numbers of all tasks, in the order in which they were listed; the target comes last."""
        if workspace is None:
            return []
        count = len(workspace.names)
        listed = [int(row) for row in self.view if row < count]
        if self.is_auxiliary(workspace) and self.number not in listed:
            listed = [self.number, *listed]
        return listed + [count + number for number in range(len(workspace.corpus.targets) if workspace.corpus else 0)]

    def beside(self, workspace: Workspace | None, step: int) -> int | None:
        """Number of the task so many steps further, round and round; None where there is no other."""
        ways = self.all(workspace)
        if self.number not in ways or len(ways) < 2:
            return None
        return ways[(ways.index(self.number) + step) % len(ways)]

    def trail(self, workspace: Workspace | None) -> str:
        """Place among the tasks, and name."""
        task, ways = self.task(workspace), self.all(workspace)
        if task is None:
            return ""
        return f"{ways.index(self.number) + 1}/{len(ways)} {task.name}" if self.number in ways else task.name

    def follow(self, workspace: Workspace | None) -> str:
        """Keep to the same task when tasks have come or gone.

        Args:
            workspace: The project as it is now.

        Returns:
            The task's name where it is not there any more, else nothing.
        """
        if workspace is None or workspace.corpus is None:
            return ""
        before, names = self._names, [*workspace.names, *workspace.corpus.targets]
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

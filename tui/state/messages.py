"""What threads tell the application. A thread only posts; what is on the screen is changed by the handlers."""

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from tui.background.estimator_thread import Outlook
    from tui.background.run_watcher import RunView
    from tui.state.snapshot import Workspace


class WorkspaceRead(Message):
    """The project was read."""

    def __init__(self, workspace: "Workspace") -> None:
        super().__init__()
        self.workspace = workspace


class Failed(Message):
    """Something could not be done."""

    def __init__(self, what: str, error: Exception) -> None:
        super().__init__()
        self.what, self.error = what, error


class Thought(Message):
    """An estimate is there, or has become better; the key is that of the answers that it comes from."""

    def __init__(self, outlook: "Outlook", key: str) -> None:
        super().__init__()
        self.outlook, self.key = outlook, key

    def can_replace(self, message: Message) -> bool:
        """Only the newest estimate counts."""
        return isinstance(message, Thought)


class RunsRead(Message):
    """The runs were read."""

    def __init__(self, runs: "tuple[RunView, ...]") -> None:
        super().__init__()
        self.runs = runs

    def can_replace(self, message: Message) -> bool:
        """Only the newest reading counts."""
        return isinstance(message, RunsRead)

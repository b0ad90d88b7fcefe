"""Messages from threads to the application.

A thread only posts messages. Handlers of the application change the screen.
"""

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from tui.background.estimator_thread import LiveEstimate
    from tui.background.run_watcher import JobView
    from tui.state.snapshot import Snapshot


class SnapshotRead(Message):
    """The project was read."""

    def __init__(self, snapshot: "Snapshot") -> None:
        super().__init__()
        self.snapshot = snapshot


class Failed(Message):
    """An action failed.

    Args:
        what: The action, as an infinitive: "read the project".
        error: The error.
    """

    def __init__(self, what: str, error: Exception) -> None:
        super().__init__()
        self.what, self.error = what, error


class EstimateReady(Message):
    """An estimate is available, or a better one of the same selection.

    Args:
        estimate: The estimate.
        key: Key of the gradients and measurements behind the estimate.
    """

    def __init__(self, estimate: "LiveEstimate", key: str) -> None:
        super().__init__()
        self.estimate, self.key = estimate, key

    def can_replace(self, message: Message) -> bool:
        """Replace an older message, because only the newest estimate counts."""
        return isinstance(message, EstimateReady)


class ReadingProgressed(Message):
    """The estimator has read more gradients.

    Args:
        words: Share and time left, as far as known.
    """

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def can_replace(self, message: Message) -> bool:
        """Replace an older message, because only the newest progress counts."""
        return isinstance(message, ReadingProgressed)


class JobsRead(Message):
    """The jobs were read.

    Args:
        jobs: The jobs, newest first.
        stamps: Stamps of the store, as in the snapshot; None if the store has not changed.
        files: Whether the configuration or a task file has changed.
    """

    def __init__(
        self, jobs: "tuple[JobView, ...]", stamps: "tuple[str, str] | None" = None, *, files: bool = False
    ) -> None:
        super().__init__()
        self.jobs, self.stamps, self.files = jobs, stamps, files

    def can_replace(self, message: Message) -> bool:
        """Give way to a later reading, unless this one has news that the later one does not repeat."""
        return isinstance(message, JobsRead) and self.stamps is None and not self.files

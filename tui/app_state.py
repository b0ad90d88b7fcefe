"""The state of the application, and what works now. Nothing here reads files or waits."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from textual.signal import Signal

from curator.core.interval import Interval
from tui.background.estimator_thread import EstimatorThread, KnownLoss, LiveEstimate, selection_key
from tui.background.run_watcher import JobView, progress_words
from tui.key_order import KeyOrder
from tui.settings import Settings
from tui.state.filters import Columns
from tui.state.intervals import Chosen
from tui.state.place import Place
from tui.state.session import Rows, Session, State, named

if TYPE_CHECKING:
    from curator.core.arrays import Floats
    from tui.state.resume import SessionLock

    # This module imports pyarrow and pydantic. The first frame must not wait for them.
    from tui.state.snapshot import About, Snapshot

_FLASH_SECONDS = 8.0
_ALWAYS = frozenset({"help", "palette", "settings", "quit", "reload", "back", "next_pane", "zoom_pane", "columns"})
_NEEDS_ESTIMATES = frozenset(
    {"save", "fill", "order", "verify", "measure", "export", "compare", "pick", "swap", "show_which", "copy_table"}
)
"""Actions that only work with estimates."""


class AppState(KeyOrder):
    """The attributes of the application, the flash line, and the answer whether an action works now.

    Attributes:
        settings: Preferences of the user.
        changed: Signal for the screens. Its value is the topic that changed.
        snapshot: The project as it was read last; None before the first reading.
        trouble: The error of the last reading; None if the reading succeeded.
        session: The selection in progress; None before the first reading.
        session_id: Identity of the session in the store.
        estimate: The newest estimate of the selection; None if estimates are not available.
        reading: Progress of the reading of gradients, until the first estimate.
        losses: Losses of other selections, by the bytes of their membership. All come from the estimator of `estimate`.
        intervals: Intervals of saved selections that a method chose, by the estimator of `estimate`.
        jobs: The jobs of the project, newest first.
        jobs_known: Whether the jobs were read.
        watched: Id of the job whose whole log is read.
        flash_line: Texts and their styles in the flash line.
        estimator_thread: The thread that estimates; None if estimates are not available.
    """

    root: Path
    place: Place
    settings: Settings
    changed: Signal[str]
    snapshot: "Snapshot | None"
    trouble: Exception | None
    session: Session | None
    session_id: str
    session_lock: "SessionLock | None"
    estimate: LiveEstimate | None
    reading: str
    losses: Mapping[bytes, KnownLoss]
    intervals: Mapping[Chosen, Interval]
    jobs: tuple[JobView, ...]
    jobs_known: bool
    watched: str | None
    flash_line: tuple[tuple[str, str], ...]
    estimator_thread: EstimatorThread | None
    _flash_count: int
    _sizes: "tuple[tuple[Snapshot, Session, int], tuple[Floats, Floats]] | None"
    _keeping: bool
    _saving: str | None
    _is_renaming: bool
    _after_renaming: list[Callable[[], None]]

    # -- implemented by CuratorApp ------------------------------------------------------------------------------------

    @abstractmethod
    def go(self, mode: str) -> None:
        """Show one of the main screens: `home`, `tasks`, `matrix`, `runs` or `compare`."""

    @abstractmethod
    async def leave(self) -> None:
        """Store the edits and exit. Jobs continue."""

    @abstractmethod
    def open_task(self, task: int, view: Rows) -> None:
        """Show one task and its examples.

        Args:
            task: Number of the task. Target tasks follow the auxiliary tasks.
            view: Auxiliary tasks in the order of the list.
        """

    @abstractmethod
    def open_settings(self) -> None:
        """Open the dialog of the settings."""

    @abstractmethod
    def save(self, name: str | None) -> None:
        """Save the selection under a name. None saves nothing."""

    @abstractmethod
    def export(self, name: str = "") -> None:
        """Open the export of a saved selection. The empty name is the selection that the session started from."""

    @abstractmethod
    def launch(self, arguments: list[str] | None, cwd: Path | None = None) -> None:
        """Start a command as a job that survives the end of this process.

        Args:
            arguments: Arguments of `curator`. None or an empty list starts nothing.
            cwd: Working folder, if the arguments name the project. None is the folder of this project.
        """

    @abstractmethod
    def look_at_jobs(self) -> None:
        """Read the jobs now, and the whole log of the watched job."""

    @abstractmethod
    def visible_tasks(self) -> Rows:
        """Return the numbers of the tasks in the visible part of the task list."""

    @abstractmethod
    def ask_note(self, about: "About") -> None:
        """Ask for the note on a task, an example or a selection, and keep it."""

    @abstractmethod
    def ask_name(self, name: str) -> None:
        """Ask for another name of a saved selection, and rename it."""

    @abstractmethod
    def measure(self, name: str | None = None) -> None:
        """Open the dialog that measures a selection by fine-tuning.

        Args:
            name: Name of a saved selection, or "" for all tasks. None is the selection in hand.
        """

    @abstractmethod
    def show_flash(self) -> None:
        """Draw the flash line on every open screen."""

    @abstractmethod
    def read_snapshot(self) -> None:
        """Read the project in a thread."""

    @abstractmethod
    def edited(self, words: str) -> None:
        """Estimate and draw the selection after an edit.

        Args:
            words: Text for the flash line. The empty text leaves the flash line unchanged.
        """

    def open_job(self, job: str) -> None:
        """Show one job.

        Args:
            job: Id of the job.
        """
        self.watched = job
        self.go("runs")
        self.look_at_jobs()

    @property
    def base_name(self) -> str:
        """Return the name of the base for estimates, which count each of its tasks once; "" without a saved base."""
        if self.snapshot is None or self.session is None or not self.session.has_base:
            return ""
        saved = self.snapshot.selection(self.session.base)
        return saved.unweighted_name if saved is not None else self.session.base

    def chosen_interval(self) -> Interval | None:
        """Return the interval of the selection in hand, if a method chose it and it is unchanged.

        It accounts for the choice (docs/decisions/0034-race-and-selected-interval.md). `curator select` shows the same.
        """
        session = self.session
        if session is None or not session.has_base or session.is_changed:
            return None
        return self.intervals.get((session.base, selection_key(session.mask, named(session.dropped))))

    @abstractmethod
    def _take_over(self, snapshot: "Snapshot") -> None:
        """Make a snapshot the current one."""

    # -- flash line and changes ---------------------------------------------------------------------------------------

    def notify_screens(self, topic: str) -> None:
        """Let the screens draw a change.

        Args:
            topic: `snapshot`, `session`, `estimate` or `jobs`.
        """
        self.changed.publish(topic)

    def flash(self, words: str, style: str = "dim") -> None:
        """Show a text in the flash line for some seconds. Errors stay longer."""
        self._set_flash(words, style)
        self.show_flash()

    def _set_flash(self, words: str, style: str = "dim") -> None:
        """Set the flash line without drawing it. One frame with all changes is faster than two frames."""
        mark = {"bad": "✗ ", "warn": "! ", "good": "✓ "}.get(style, "  ")
        self.flash_line = ((mark, style), (words, style))
        self._flash_count += 1
        self.set_timer(_FLASH_SECONDS * (3 if style == "bad" else 1), partial(self._end_flash, self._flash_count))

    def _end_flash(self, count: int) -> None:
        if count == self._flash_count:
            self.flash_line = ()
            self.show_flash()

    # -- what works now -----------------------------------------------------------------------------------------------

    def can_estimate(self) -> bool:
        """Return whether estimates are available. If not, show the reason in the flash line."""
        if self.snapshot is None or self.snapshot.answers is None or self.session is None or self.estimate is None:
            self.flash(self.missing() or "estimates are not ready yet", "warn")
            return False
        return True

    @property
    def knows_tasks(self) -> bool:
        """Return whether the tasks are known. Until changed files are read, a session holds its history only."""
        return self.session is not None and self.snapshot is not None and self.snapshot.corpus is not None

    def can_edit(self) -> bool:
        """Return whether the selection can be changed. If not, show the reason in the flash line."""
        if not self.knows_tasks:
            self.flash(self.missing(), "warn")
        return self.knows_tasks

    def refusal(self, action: str) -> str:
        """Return why an action does not work now; "" if it works, or if its own screen answers.

        Args:
            action: Name of the action in `tui.actions`.
        """
        session, snapshot = self.session, self.snapshot
        if action in _ALWAYS:
            return ""
        if snapshot is None:
            return (
                "the project cannot be read: correct the error, then press ctrl+l" if self.trouble else self.missing()
            )
        if action == "start":
            return ""
        if session is None or not self.knows_tasks or (action in _NEEDS_ESTIMATES and snapshot.answers is None):
            return self.missing()
        if action == "undo" and not session.done:
            return "nothing to undo"
        if action == "redo" and not session.undone:
            return "nothing to redo"
        return ""

    def missing(self) -> str:
        """Return what is missing for estimates and how to add it; "" if nothing is missing."""
        if self.snapshot is None:
            return "reading the project …"
        missing = self.snapshot.missing
        running = next((view for view in self.jobs if view.job.state == "running"), None)
        # A job that runs may be what adds it.
        return f"no estimates yet: {progress_words(running)} (4 shows the job)" if missing and running else missing

    def sizes(self) -> "tuple[Floats, Floats]":
        """Return training examples and tokens of each task (t,), without the examples that the selection drops."""
        snapshot, session = self.snapshot, self.session
        assert snapshot is not None
        assert session is not None
        key = (snapshot, session, session.revision)
        if self._sizes is None or self._sizes[0] != key:
            self._sizes = key, snapshot.sizes(session.dropped)
        return self._sizes[1]

    def columns(self) -> Columns:
        """Return the columns by which tasks are filtered and sorted."""
        snapshot, session = self.snapshot, self.session
        assert snapshot is not None
        assert session is not None
        examples, tokens = self.sizes()
        current = self.estimate is not None and len(self.estimate.flips) == len(snapshot.names)
        return Columns(
            names=snapshot.names,
            tags=snapshot.tags,
            sources=snapshot.sources,
            examples=examples,
            tokens=tokens,
            affinity=snapshot.affinity,
            flip=self.estimate.flips if current and self.estimate else np.full(len(snapshot.names), np.nan),
            selected=session.mask,
            pinned=np.asarray(session.states >= State.PINNED_OUT),
        )

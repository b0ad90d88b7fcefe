"""The part of the application that screens, dialogs and widgets use.

    threads ──▶ messages ──▶ handlers here ──▶ `changed` ──▶ screens draw
    keys ──▶ actions of a screen ──▶ session ──▶ `edited` ──▶ `request_estimate` ──▶ thread of the estimator

No method waits. Threads read files, the store and estimates. Jobs run in separate processes.
`tui.app_state` has the attributes and says what works now. `tui.app_store` writes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import RenderableType
from textual import on, work
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.driver import Driver
from textual.screen import Screen
from textual.signal import Signal
from textual.worker import get_current_worker

from curator.core.errors import CuratorError
from curator.core.events import Event, Reporter, StageProgress, StageStarted
from curator.core.figures import duration, percent
from curator.core.interval import Interval
from tui.app_store import AppStore
from tui.background.estimator_thread import (
    SOLVED_IN_FULL,
    EstimateRequest,
    EstimatorThread,
    KnownLoss,
    LiveEstimate,
    selection_key,
)
from tui.background.file_watcher import FileWatcher
from tui.background.run_watcher import JobView
from tui.frames import Frame, FrameUpdate
from tui.state.intervals import Chosen, chosen_intervals
from tui.state.messages import EstimateReady, Failed, ReadingProgressed, SnapshotRead
from tui.state.place import Place
from tui.state.session import NO_DROPS, Drops, Edit, Named, Session, named

if TYPE_CHECKING:
    from curator.core.arrays import Mask
    from curator.estimate.loss_estimator import LossEstimator
    from tui.state.resume import Begun, SessionLock

    # This module imports pyarrow and pydantic. The first frame must not wait for them.
    from tui.state.snapshot import Snapshot

_MOST_LOSSES = 60
"""Number of entries of the history whose losses the screens show."""
# In seconds: too short to notice, and longer than most estimates take.
_PATIENCE = 0.025


class AppBase(AppStore):
    """The state of the application, and the methods that screens, dialogs and widgets call.

    `tui.app.CuratorApp` implements the methods that open screens and dialogs.

    Args:
        root: Folder of the project.
        place: The screen, task, filter and order that the user saw last.
    """

    def __init__(self, root: Path, place: Place) -> None:
        super().__init__()
        self.root, self.place = root, place
        self.changed: Signal[str] = Signal(self, "changed")
        self.snapshot: Snapshot | None = None
        self.trouble: Exception | None = None
        self.session: Session | None = None
        self.session_id = ""
        self.estimate: LiveEstimate | None = None
        self.losses: Mapping[bytes, KnownLoss] = {}
        self.intervals: Mapping[Chosen, Interval] = {}
        self._widened: tuple[str, str] = ("", "")
        self.jobs: tuple[JobView, ...] = ()
        self.jobs_known = False
        self.watched: str | None = None
        self.files = FileWatcher(root)
        self.flash_line: tuple[tuple[str, str], ...] = ()
        self.estimator_thread: EstimatorThread | None = None
        self._estimator_key = ""
        self.session_lock: SessionLock | None = None
        self._flash_count = 0
        self._sizes = None
        self._keeping = self._reading = self._read_again = False
        self._saving: str | None = None
        self._is_renaming = False
        self._after_renaming: list[Callable[[], None]] = []
        self.reading = ""
        self._frame: Frame | None = None

    # -- drawing ------------------------------------------------------------------------------------------------------

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Write only the cells that an update changes. Textual would write the whole update."""
        if isinstance(renderable, (LayoutUpdate, ChopsUpdate)) and self._can_write():
            size = self._driver_size()
            if self._frame is None or self._frame.size != size:
                self._frame = Frame(*size)
            text = self._frame.update(renderable, self.console)
            at = self.screen.outer_size.clamp_offset(self.cursor_position)
            changes = FrameUpdate(text) if text or at != self._previous_cursor_position else None
            super()._display(screen, changes)
            return
        super()._display(screen, renderable)

    def _can_write(self) -> bool:
        """Return whether Textual would write an update now."""
        driver = self._driver
        return (
            self._running
            and not self._closed
            and not self._batch_count
            and not self.is_headless
            and driver is not None
            and not driver.is_inline
        )

    def _driver_size(self) -> tuple[int, int]:
        return self.size.width, self.size.height

    def draw_again(self) -> None:
        """Write every cell again: after a change of the size, or if another program wrote to the terminal."""
        self._frame = None
        self.refresh(layout=True)

    def on_resize(self) -> None:
        """Forget the cells, because the terminal may have moved them."""
        self._frame = None

    @on(Driver.SignalResume)
    def _shown_again(self) -> None:
        """Draw everything after the user has used the terminal for something else."""
        self.draw_again()

    def on_failed(self, message: Failed) -> None:
        """Show an error in the flash line."""
        if message.what.startswith(("save ", "rename ", "delete ", "restore ")):
            self._saving = None
        if message.what == "read the project":
            self.trouble = message.error
            self._has_read()
            self.notify_screens("snapshot")
            if self.current_mode == "home":
                # The pane of Home shows the whole error.
                return
        hint = getattr(message.error, "hint", "")
        self.flash(f"cannot {message.what}: {message.error}" + (f" · {hint}" if hint else ""), "bad")

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_snapshot(self) -> None:
        """Read the project in a thread. A request during a reading starts another reading after it."""
        self._read_again = self._reading
        if not self._reading:
            self._reading = True
            self._read()

    def _has_read(self) -> None:
        self._reading = False
        if self._read_again:
            self.read_snapshot()

    @work(thread=True, group="read", exit_on_error=False)
    def _read(self) -> None:
        # This import is slow. It happens after the first frame.
        from tui.state.snapshot import load_snapshot

        try:
            found = load_snapshot(self.root, self.snapshot, Reporter(self._follow_reading))
            # A change before the next look would otherwise stay unnoticed.
            self.files.watch(found.files)
            self.post_message(SnapshotRead(found))
        except (CuratorError, OSError) as error:
            self.post_message(Failed("read the project", error))

    def _follow_reading(self, event: Event) -> None:
        """Report the progress of the estimator, which reads gradients in its thread."""
        if isinstance(event, (StageStarted, StageProgress)) and event.total:
            left = getattr(event, "seconds_left", None)
            words = f"{percent(event.done / event.total)}" + (f", {duration(left)} left" if left is not None else "")
            self.post_message(ReadingProgressed(words))

    def on_reading_progressed(self, message: ReadingProgressed) -> None:
        """Show the progress until the first estimate."""
        self.reading = message.words
        if self.estimate is None:
            self.notify_screens("estimate")

    def on_snapshot_read(self, message: SnapshotRead) -> None:
        """Show the project. The session continues."""
        self.trouble = None
        has_news = self.snapshot is None or self.snapshot.stamps[0] != message.snapshot.stamps[0]
        self._take_over(message.snapshot)
        self._has_read()
        self.notify_screens("snapshot")
        # Selections that another process saved have no estimates yet.
        if has_news or self.estimate is None or self.session is None or self.estimate.revision != self.session.revision:
            self.request_estimate()

    def _take_over(self, snapshot: "Snapshot") -> None:
        before, self.snapshot = self.snapshot, snapshot
        if self.session is None or before is None or before.names != snapshot.names:
            self._begin_session(snapshot)
        if self.session is not None:
            base, was_saved, was = self.session.base, self.session.has_base, self.session.saved_state
            self.session.saved_masks, self.session.saved_drops = snapshot.saved_masks(), snapshot.saved_drops()
            now = self.session.has_base
            if was_saved and (not now or was != self.session.saved_state) and base != self._saving:
                self.flash(f"{base} was {'saved again' if now else 'removed'} by another process", "warn")
                self.request_estimate()
        if (snapshot.answers.key if snapshot.answers is not None else "") != self._estimator_key:
            self._start_estimator(snapshot)

    def _begin_session(self, snapshot: "Snapshot") -> None:
        from tui.state.resume import begin_session

        if self.session is not None:
            # The project has other tasks now, or none until its files are read. Apply the history to them.
            self.session = self.session.for_tasks(snapshot.names)
        elif snapshot.corpus is not None:
            self.take_session(begin_session(snapshot, snapshot.project.folder))

    def take_session(self, begun: "Begun") -> None:
        """Show a session. The window gives the session before it back."""
        if self.session_lock is not None:
            self.session_lock.release()
        revision = self.session.revision if self.session is not None else 0
        self.session, self.session_id, self.session_lock = begun.session, begun.id, begun.lock
        # Estimates of the session before must not count for this one.
        self.session.revision += revision + 1
        if begun.words:
            self.flash(begun.words, "warn" if begun.is_warning else "dim")

    # -- estimates ----------------------------------------------------------------------------------------------------

    def _start_estimator(self, snapshot: "Snapshot") -> None:
        """Start a thread for other gradients. Earlier estimates belong to other tasks."""
        if self.estimator_thread is not None:
            self.estimator_thread.stop()
        self.estimator_thread, self.estimate, self._estimator_key, self.losses = None, None, "", {}
        self.intervals, self._widened = {}, ("", "")
        if snapshot.answers is None:
            return
        answers = snapshot.answers
        key = answers.key

        def deliver(answer: LiveEstimate | Exception) -> None:
            self.post_message(
                Failed("estimate", answer) if isinstance(answer, Exception) else EstimateReady(answer, key)
            )

        def lacking(dropped: Named) -> "tuple[LossEstimator, float]":
            # This import is slow. It happens when the first example is dropped.
            from tui.state.dropping import lacking_estimator

            return lacking_estimator(answers, dropped)

        self.estimator_thread = EstimatorThread(lambda: answers.estimator, deliver, lacking)
        self._estimator_key = key
        self.estimator_thread.start()

    def request_estimate(self) -> None:
        """Request the estimate of the current selection."""
        if self.estimator_thread is None or self.session is None:
            return
        visible = self.visible_tasks()
        drops = self.session.saved_drops
        saved = [(mask, named(drops.get(name, NO_DROPS))) for name, mask in self.session.saved_masks.items()]
        earlier = [(mask, dropped) for _, mask, dropped in self.session.past(_MOST_LOSSES)]
        self.estimator_thread.request(
            EstimateRequest(
                self.session.revision,
                self.session.mask,
                self.session.saved,
                visible,
                [*saved, *earlier],
                named(self.session.dropped),
                named(self.session.saved_dropped),
            )
        )

    def change_session(self, begun: "Begun | None") -> None:
        """Show another session. None changes nothing."""
        if begun is None or self.session is None or self.snapshot is None:
            return
        if entries := self.session.take_unsaved():
            self._write_edits(entries, self.session_id)
        self.take_session(begun)
        self.notify_screens("snapshot")
        self.edited("")

    def known_loss(self, mask: "Mask", dropped: Drops = NO_DROPS) -> KnownLoss | None:
        """Return the estimate of a selection by the current estimator; None if not known yet.

        Args:
            mask: Membership (t,).
            dropped: Dropped examples.
        """
        return self.losses.get(selection_key(mask, named(dropped)))

    def edit_losses(self, most: int = _MOST_LOSSES) -> "list[tuple[Edit, float | None, float | None]]":
        """Return the last entries of the history, oldest first, with the loss before and after each of them.

        All losses come from the current estimator. None stands for a loss that is not known yet.
        """
        if self.session is None:
            return []
        found = []
        before: KnownLoss | None = None
        for edit, mask, dropped in self.session.past(most + 1):
            after = self.losses.get(selection_key(mask, dropped))
            found.append((edit, before.loss if before else None, after.loss if after else None))
            before = after
        return found[-most:]

    def _widen_if_needed(self) -> None:
        """Compute the intervals of chosen selections, after the first estimate and after each save."""
        if self.snapshot is None or self.snapshot.answers is None or self.estimate is None:
            return
        wanted = self._estimator_key, self.snapshot.stamps[0]
        if wanted != self._widened:
            self._widened = wanted
            self._widen(self.snapshot, self._estimator_key)

    @work(thread=True, exclusive=True, group="intervals", exit_on_error=False)
    def _widen(self, snapshot: "Snapshot", key: str) -> None:
        worker = get_current_worker()
        try:
            found = chosen_intervals(snapshot, lambda: worker.is_cancelled)
        except CuratorError as error:
            self.post_message(Failed("estimate the intervals", error))
        else:
            self.call_from_thread(self._have_widened, found, key)

    def _have_widened(self, found: Mapping[Chosen, Interval], key: str) -> None:
        if key == self._estimator_key:
            self.intervals = found
            self.notify_screens("estimate")

    def request_visible_estimates(self) -> None:
        """Request estimates of other visible tasks, if only those of visible tasks are solved in full."""
        if self.session is not None and len(self.session.names) > SOLVED_IN_FULL:
            self.request_estimate()

    def on_estimate_ready(self, message: EstimateReady) -> None:
        """Show an estimate, if the selection has not changed since."""
        if self.session is None or message.estimate.revision != self.session.revision:
            return
        if message.key != self._estimator_key:
            # The estimate is of the same selection, but of gradients or a calibration that were replaced.
            return
        if message.estimate is self.estimate or len(message.estimate.flips) != len(self.session.names):
            return
        self._take_estimate(message.estimate)
        self.notify_screens("estimate")

    def _take_estimate(self, estimate: LiveEstimate) -> None:
        self.estimate, self.losses = estimate, {**self.losses, **estimate.losses}
        if self.session is not None:
            self.session.set_loss(estimate.target_loss.loss)
        self._widen_if_needed()

    # -- the session --------------------------------------------------------------------------------------------------

    def edited(self, words: str) -> None:
        """Estimate and draw the selection after an edit.

        Args:
            words: Text for the flash line. The empty text leaves the flash line unchanged.
        """
        self.request_estimate()
        if self.estimator_thread is not None and self.session is not None:
            first = self.estimator_thread.first_estimate(self.session.revision, _PATIENCE)
            if first is not None:
                self._take_estimate(first)
        if words:
            self._set_flash(words)
        self.notify_screens("session")

    def load(self, name: str | None) -> None:
        """Load a saved selection. The empty name is all tasks, and None changes nothing."""
        if name is None or self.snapshot is None or self.session is None or not self.can_edit():
            return
        chosen = self.snapshot.selection(name)
        if chosen is None:
            edit = self.session.load("", np.ones(len(self.session.names), dtype=bool))
        else:
            options = chosen.manifest.options
            edit = self.session.load(
                name,
                chosen.mask(self.session.names),
                options.get("include", ()),
                options.get("exclude", ()),
                chosen.dropped,
            )
        self.edited(edit.label)

    def fill(self, found: tuple[Any, str] | None) -> None:
        """Apply the result of a method: membership (t,) and the label of the edit."""
        if found is not None and self.session is not None and self.can_edit():
            mask, label = found
            edit = self.session.fill(mask, label)
            self.edited(edit.label if edit else f"{label}: nothing to change")

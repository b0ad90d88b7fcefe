"""The part of the application that screens, dialogs and widgets use.

    threads ──▶ messages ──▶ handlers here ──▶ `changed` ──▶ screens draw
    keys ──▶ actions of a screen ──▶ session ──▶ `edited` ──▶ `request_estimate` ──▶ thread of the estimator

No method here waits. Threads read files, the store and estimates. Jobs run in separate processes.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from textual import work
from textual.app import App
from textual.signal import Signal

from curator.core.errors import CuratorError
from tui.background.estimator_thread import SOLVED_IN_FULL, EstimateRequest, EstimatorThread, LiveEstimate, Named
from tui.background.run_watcher import JobView
from tui.state.filters import Columns
from tui.state.messages import EstimateReady, Failed, SnapshotRead
from tui.state.place import Place
from tui.state.session import Rows, Session, State, named

if TYPE_CHECKING:
    from curator.estimate.loss_estimator import LossEstimator
    from curator.workspace.store.records import StoredEdit

    # This module imports pyarrow and pydantic. The first frame must not wait for them.
    from tui.state.snapshot import About, Snapshot

_FLASH_SECONDS = 8.0
# In seconds: too short to notice, and longer than most estimates take.
_PATIENCE = 0.025


class AppBase(App[None]):
    """The state of the application, and the methods that screens, dialogs and widgets call.

    `tui.app.CuratorApp` implements the methods that open screens and dialogs.

    Args:
        root: Folder of the project.
        place: The screen, task, filter and order that the user saw last.

    Attributes:
        changed: Signal for the screens. Its value is the topic that changed.
        snapshot: The project as it was read last; None before the first reading.
        trouble: The error of the last reading; None if the reading succeeded.
        session: The selection in progress; None before the first reading.
        session_id: Identity of the session in the store.
        estimate: The newest estimate of the selection; None if estimates are not available.
        jobs: The jobs of the project, newest first.
        watched: Id of the job whose whole log is read.
        flash_line: Texts and their styles in the flash line.
        estimator_thread: The thread that estimates; None if estimates are not available.
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
        self.jobs: tuple[JobView, ...] = ()
        self.watched: str | None = None
        self.flash_line: tuple[tuple[str, str], ...] = ()
        self.estimator_thread: EstimatorThread | None = None
        self._estimator_key = ""
        self._lock: int | None = None
        self._flash_count = 0
        self._keeping = self._reading = self._read_again = False
        self._store_time = 0

    # -- implemented by CuratorApp ------------------------------------------------------------------------------------

    def go(self, mode: str) -> None:
        """Show one of the main screens: `home`, `tasks`, `matrix`, `runs` or `compare`."""
        raise NotImplementedError

    async def leave(self) -> None:
        """Store the edits and exit. Jobs continue."""
        raise NotImplementedError

    def open_task(self, task: int, view: Rows) -> None:
        """Show one task and its examples.

        Args:
            task: Number of the task. Target tasks follow the auxiliary tasks.
            view: Auxiliary tasks in the order of the list.
        """
        raise NotImplementedError

    def open_settings(self) -> None:
        """Open the dialog of the settings."""
        raise NotImplementedError

    def save(self, name: str | None) -> None:
        """Save the selection under a name. None saves nothing."""
        raise NotImplementedError

    def export(self, name: str = "") -> None:
        """Open the export of a saved selection. The empty name is the selection that the session started from."""
        raise NotImplementedError

    def launch(self, arguments: list[str] | None, cwd: Path | None = None) -> None:
        """Start a command as a job that survives the end of this process.

        Args:
            arguments: Arguments of `curator`. None or an empty list starts nothing.
            cwd: Working folder, if the arguments name the project. None is the folder of this project.
        """
        raise NotImplementedError

    def look_at_jobs(self) -> None:
        """Read the jobs now, and the whole log of the watched job."""
        raise NotImplementedError

    def visible_tasks(self) -> Rows:
        """Return the numbers of the tasks in the visible part of the task list."""
        raise NotImplementedError

    def show_flash(self) -> None:
        """Draw the flash line on every open screen."""
        raise NotImplementedError

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

    def on_failed(self, message: Failed) -> None:
        """Show an error in the flash line."""
        if message.what == "read the project":
            self.trouble = message.error
            self._has_read()
            self.notify_screens("snapshot")
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
            self.post_message(SnapshotRead(load_snapshot(self.root, self.snapshot)))
        except (CuratorError, OSError) as error:
            self.post_message(Failed("read the project", error))

    def on_snapshot_read(self, message: SnapshotRead) -> None:
        """Show the project. The session continues."""
        self.trouble = None
        self._take_over(message.snapshot)
        self._has_read()
        self.notify_screens("snapshot")
        if self.estimate is None or self.session is None or self.estimate.revision != self.session.revision:
            self.request_estimate()

    def _take_over(self, snapshot: "Snapshot") -> None:
        before, self.snapshot = self.snapshot, snapshot
        self._store_time = self._store_changed()
        if self.session is None or before is None or before.names != snapshot.names:
            self._begin_session(snapshot)
        if (snapshot.answers.key if snapshot.answers is not None else "") != self._estimator_key:
            self._start_estimator(snapshot)

    def _begin_session(self, snapshot: "Snapshot") -> None:
        from tui.state.resume import begin_session, take_lock

        if snapshot.corpus is None:
            return
        if self.session is not None:
            # The project has other tasks now. Apply the history to them.
            self.session = Session.replay(snapshot.names, [edit.stored() for edit in self.session.history])
            return
        self._lock = take_lock(snapshot.project.folder)
        self.session, self.session_id, words = begin_session(snapshot, alone=self._lock is not None)
        if words:
            self.flash(words, "dim" if words.startswith("resumed") else "warn")

    def _store_changed(self) -> int:
        """Return the time of the last change of the store, in nanoseconds; 0 without a store."""
        try:
            return (self.root / ".curator" / "store.duckdb").stat().st_mtime_ns
        except OSError:
            return 0

    # -- estimates ----------------------------------------------------------------------------------------------------

    def _start_estimator(self, snapshot: "Snapshot") -> None:
        """Start a thread for other gradients. Earlier estimates belong to other tasks."""
        if self.estimator_thread is not None:
            self.estimator_thread.stop()
        self.estimator_thread, self.estimate, self._estimator_key = None, None, ""
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
        self.estimator_thread.request(
            EstimateRequest(
                self.session.revision,
                self.session.mask,
                self.session.saved,
                visible,
                named(self.session.dropped),
                named(self.session.saved_dropped),
            )
        )

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
        self.estimate = message.estimate
        self.session.set_loss(message.estimate.target_loss.loss)
        self.notify_screens("estimate")

    def can_estimate(self) -> bool:
        """Return whether estimates are available. If not, show the reason in the flash line."""
        if self.snapshot is None or self.snapshot.answers is None or self.session is None or self.estimate is None:
            self.flash(self.missing() or "estimates are not ready yet", "warn")
            return False
        return True

    def missing(self) -> str:
        """Return what is missing for estimates and how to add it; "" if nothing is missing."""
        return "reading the project …" if self.snapshot is None else self.snapshot.missing

    def columns(self) -> Columns:
        """Return the columns by which tasks are filtered and sorted."""
        snapshot, session = self.snapshot, self.session
        assert snapshot is not None
        assert session is not None
        current = self.estimate is not None and len(self.estimate.flips) == len(snapshot.names)
        return Columns(
            names=snapshot.names,
            tags=snapshot.tags,
            sources=snapshot.sources,
            examples=snapshot.examples,
            tokens=snapshot.tokens,
            affinity=snapshot.affinity,
            flip=self.estimate.flips if current and self.estimate else np.full(len(snapshot.names), np.nan),
            selected=session.mask,
            pinned=np.asarray(session.states >= State.PINNED_OUT),
        )

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
                self.estimate = first
                self.session.set_loss(first.target_loss.loss)
        if words:
            self._set_flash(words)
        self.notify_screens("session")

    def load(self, name: str | None) -> None:
        """Load a saved selection. The empty name is all tasks, and None changes nothing."""
        if name is None or self.snapshot is None or self.session is None:
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

    def keep_note(self, about: "About", text: str | None) -> None:
        """Store a note. An empty text removes the note, and None changes nothing."""
        if text is not None and self.snapshot is not None:
            self._write_note(about, text)

    @work(thread=True, group="note", exit_on_error=False)
    def _write_note(self, about: "About", text: str) -> None:
        assert self.snapshot is not None
        try:
            self.snapshot.project.store.put_note(*about, text)
        except (CuratorError, OSError) as error:
            self.post_message(Failed("keep the note", error))
        else:
            self.call_from_thread(self._noted, text)

    def _noted(self, text: str) -> None:
        self.flash("note kept" if text else "note removed", "good")
        self.read_snapshot()

    def write_report(self) -> None:
        """Write a report of the selection that the session started from, in the folder of the project."""
        name = self.session.base if self.session is not None else ""
        if self.snapshot is None or self.snapshot.selection(name) is None:
            self.flash("save the selection first (w): a report describes a saved selection", "warn")
            return
        if self.session is not None and self.session.is_changed:
            self.flash(f"the report describes {name} as saved, without the edits since", "warn")
        self._write_report(name)

    @work(thread=True, group="report", exclusive=True, exit_on_error=False)
    def _write_report(self, name: str) -> None:
        assert self.snapshot is not None
        try:
            path = self.snapshot.project.report(name)
        except (CuratorError, OSError) as error:
            self.post_message(Failed("write the report", error))
        else:
            self.call_from_thread(self.flash, f"report written: {path}", "good")

    def fill(self, found: tuple[Any, str] | None) -> None:
        """Apply the result of a method: membership (t,) and the label of the edit."""
        if found is not None and self.session is not None:
            mask, label = found
            edit = self.session.fill(mask, label)
            self.edited(edit.label if edit else f"{label}: nothing to change")

    def _keep(self) -> None:
        """Store new edits in a thread."""
        if self._keeping or self.session is None or self.snapshot is None:
            return
        entries = self.session.take_unsaved()
        if entries:
            self._keeping = True
            self._write_edits(entries)

    @work(thread=True, group="keep", exit_on_error=False)
    def _write_edits(self, entries: "list[StoredEdit]") -> None:
        assert self.snapshot is not None
        try:
            self.snapshot.project.store.put_edits(self.session_id, self.snapshot.target, entries)
        except (CuratorError, OSError) as error:
            self.call_from_thread(self._not_kept, entries, error)
        else:
            self.call_from_thread(self._kept)

    def _kept(self) -> None:
        self._keeping, self._store_time = False, self._store_changed()

    def _not_kept(self, entries: "list[StoredEdit]", error: Exception) -> None:
        if self.session is not None:
            self.session.put_back(entries)
        self._keeping = False
        self.flash(f"{len(entries)} edits are not stored yet: {error}", "bad")

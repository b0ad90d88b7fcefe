"""The Home screen: the answer, saved selections, problems, the pipeline and recent events."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.worker import get_current_worker

from curator.core.errors import CuratorError
from curator.core.figures import duration, percent
from curator.core.text import clean
from tui.actions import bindings_of
from tui.background.dry_run import FirstSelection, first_selection
from tui.background.run_watcher import name_of, progress_words
from tui.screens.base import CuratorScreen
from tui.state.costs import cost_of_select
from tui.widgets import numbers
from tui.widgets.answer import answer_bars, answer_sentence, bar_lines
from tui.widgets.lines import Line, Lines, Part, fit, spread
from tui.widgets.rows import Rows
from tui.widgets.selection_estimate import history_lines
from tui.widgets.trust import measured_part
from tui.widgets.wrapped import Wrapped

if TYPE_CHECKING:
    from tui.background.run_watcher import JobView
    from tui.state.snapshot import About, Snapshot

_STATES = {
    "done": ("✓", "good"),
    "running": ("▶", "warn"),
    "stale": ("~", "warn"),
    "partial": ("◐", "warn"),
    "missing": ("·", "dim"),
}
# Least cells of a row with the number of tasks, and with both a difference and a measured loss.
_COUNT, _BOTH = 32, 48
# Actions of a screen with several panes.
_OF_PANES = ("next_pane", "zoom_pane")
# Least height of the screen with the pipeline in one line. A lower one leaves its rows to the selections.
_PIPELINE = 20
# Least height of the screen with the project, the details of the pipeline, and recent events.
_TALL = 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A selection in the list. The selection without a name is all tasks.

    Attributes:
        name: Name of the selection.
        count: Number of tasks in the selection.
        loss: Estimated loss in nats per target token; None until known.
        change: Difference to the loss of all tasks.
        measured: Measured loss; None if the loss is not measured.
        is_calibrated: Whether the estimate is calibrated.
    """

    name: str
    count: int
    loss: float | None
    change: float
    measured: float | None
    is_calibrated: bool


class Selections(Rows):
    """A list of saved selections and all tasks."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.items: list[Listed] = []

    @property
    def count(self) -> int:
        """Return the number of selections, all tasks included."""
        return len(self.items)

    def line(self, row: int, width: int) -> Line:
        """Return the line of one selection. A question mark follows an uncalibrated estimate."""
        item = self.items[row]
        app = self.app
        here = app.session is not None and app.session.base == item.name
        style = numbers.style(-item.change, worse="bad") if item.name else "dim"
        change: Part = (numbers.signed(item.change) if item.name else "base   ", style)
        last: list[Part] = [change]
        if item.measured is not None:
            # A narrow row shows the measured loss instead of the estimated difference.
            measured = measured_part(item.measured)
            last = [change, "  ", measured] if width >= _BOTH else [measured]
        right: list[Part] = [f"{item.count:>4} in " if width >= _COUNT else " "]
        right.append(numbers.loss(item.loss) if item.loss is not None else " " * 6)
        right += ["  " if item.is_calibrated or item.loss is None else ("? ", "warn"), *last]
        name = (item.name or "all tasks", "" if item.name else "dim")
        return [("★ " if here else "  ", "accent"), *spread([name], right, width - 2)]


class Attention(Rows):
    """A list of problems. A row opens the place to fix its problem."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.items: list[tuple[str, str, str]] = []

    @property
    def count(self) -> int:
        """Return the number of problems."""
        return len(self.items)

    def line(self, row: int, width: int) -> Line:
        """Return the line of one problem."""
        style, words, _ = self.items[row]
        return [("! " if style != "dim" else "· ", style), (words, style if style == "bad" else "")]


def _found(count: int, snapshot: "Snapshot") -> str:
    """Return how many auxiliary tasks there are. Tables of the configuration may name tasks without files."""
    what = "task file" if snapshot.project.config.data.tasks else "task"
    return f"{count} {what}{'' if count == 1 else 's'} found."


def begin_lines(snapshot: "Snapshot", running: "list[JobView]", first: FirstSelection) -> list[Line]:
    """Return what a project without estimates holds, and what to do next.

    Args:
        snapshot: The project.
        running: Jobs that run now.
        first: What is known about the first selection.
    """
    corpus, target = snapshot.corpus, snapshot.target
    lines: list[Line] = []
    if corpus is not None:
        rows = sum(len(task.split.train) + len(task.split.validation) for task in corpus.target_tasks)
        held_out = sum(len(task.split.validation) for task in corpus.target_tasks)
        lines.append(
            [
                _found(len(corpus.auxiliary), snapshot),
                f" The target is {target} ({rows:,} rows, {held_out:,} held out)." if target else "",
            ]
        )
    elif snapshot.found:
        count = snapshot.found - len(snapshot.project.config.data.targets)
        lines.append([_found(count, snapshot), f" The target is {target}." if target else ""])
    else:
        lines.append([("No task files found.", "warn"), " Add files to the folder of the tasks."])
        lines.append(["`curator init DIR --from FILES` makes a project of your files."])
        return lines
    lines.append([])
    if not target:
        lines.append([("No target is set.", "warn"), " Set `target` in [data] of curator.toml."])
    elif running:
        lines.append([("▶ ", "warn"), f"{progress_words(running[0])}."])
        lines.append([("4", "accent"), " shows the job."])
    elif first.trouble:
        message, *hint = first.trouble.split("\n")
        lines += [[("✗ ", "bad"), (message, "bad")], *([line] for line in hint), []]
        lines.append([("ctrl+l", "accent"), " reads the project again."])
    else:
        seconds = first.seconds
        time = ", to find out which tasks help." if seconds is None else f": about {duration(seconds)} on this machine."
        lines.append(["Press ", ("R", "accent"), ", then ", ("enter", "accent"), time])
        lines.append(["curator trains once on all tasks, and estimates every selection from the gradients."])
        lines.append([("The job continues when you quit.", "dim")])
    return [*lines, []]


class HomeScreen(CuratorScreen):
    """The first screen."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("home")
    place = "home"

    def __init__(self) -> None:
        super().__init__()
        self._planned = False
        self._first = FirstSelection(None)

    @work(thread=True, exclusive=True, group="plan", exit_on_error=False)
    def _plan(self) -> None:
        """Find the time of the first selection, or what prevents it."""
        worker, snapshot = get_current_worker(), self.app.snapshot
        try:
            known = cost_of_select(snapshot) if snapshot is not None and snapshot.corpus is not None else None
            if known is not None and known.known:
                found: FirstSelection | None = FirstSelection(known.seconds)
            else:
                found = first_selection(self.app.root, lambda: worker.is_cancelled or not self.app.is_running)
        except (CuratorError, OSError):
            # The pane then names no time.
            return
        if found is not None and not worker.is_cancelled:
            self.app.call_from_thread(self._have_planned, found)

    def _have_planned(self, found: FirstSelection) -> None:
        self._first = found
        self.show("snapshot")

    def action_reload(self) -> None:
        """Read the project again, and plan the first selection again."""
        self._planned, self._first = False, FirstSelection(None)
        super().action_reload()

    def offers(self, action: str) -> bool:
        """Return whether an action makes sense here: one pane has no next one, and may list nothing to open."""
        if not self.has_class("-begin"):
            return True
        return self.query_one("#begin-attention", Rows).count > 0 if action == "open" else action not in _OF_PANES

    def body(self) -> Iterable[Widget]:
        """Return the boxes."""
        return [
            Vertical(Lines(id="answer"), Wrapped(id="answer-words"), classes="box", id="answer-box"),
            Horizontal(
                Vertical(Selections(id="selections", classes="first-focus"), classes="box", id="selections-box"),
                Vertical(
                    Vertical(Attention(id="attention"), classes="box", id="attention-box"),
                    Lines(id="project", classes="box"),
                    id="right",
                ),
                id="upper",
            ),
            Wrapped(id="pipeline", classes="box"),
            Lines(id="recent", classes="box"),
            Vertical(Wrapped(id="begin"), Attention(id="begin-attention"), id="begin-box", classes="box"),
        ]

    def show(self, topic: str) -> None:
        """Draw a change."""
        app = self.app
        # Without an estimate and a saved selection, most boxes would be empty. One pane says what to do.
        begins = app.trouble is not None or (
            app.snapshot is not None and app.snapshot.answers is None and not app.snapshot.selections
        )
        before = self.has_class("-begin")
        self.set_class(begins, "-begin")
        if begins:
            self._show_begin()
        if begins != before:
            self.query_one("#begin-attention" if begins else "#selections", Rows).focus()
        project, pipeline = self.query_one("#project", Lines), self.query_one("#pipeline", Wrapped)
        project.border_title, pipeline.border_title = "project", "pipeline"
        selections = self.query_one(Selections)
        if topic != "jobs":
            selections.items = [*self._listed(), *self._all_tasks()]
        uncalibrated = any(not item.is_calibrated and item.loss is not None for item in selections.items)
        half = max(self.app.size.width // 2 - 4, 20)
        # A narrow box drops its title, but keeps the meaning of the sign.
        snapshot = self.app.snapshot
        if snapshot is not None and snapshot.answers is None and snapshot.selections:
            uncalibrated = False
            words = ["selections as they were saved"]
        else:
            words = ["selections"] if half >= _COUNT or not uncalibrated else []
        self.query_one("#selections-box").border_title = " · ".join(words + ["? uncalibrated"] * uncalibrated)
        self.query_one("#attention-box").border_title = "needs attention"
        is_tall, width = app.size.height >= _TALL, app.size.width - 4
        project.display, pipeline.display = is_tall, not begins and app.size.height >= _PIPELINE
        project.show(self._project(half) if is_tall else [])
        pipeline.show(self._pipeline() if is_tall else [self._pipeline_line()])
        self._show_answer(width, begins=begins)
        selections.changed()
        attention = self.query_one("#attention", Attention)
        attention.items = self._attention()
        attention.changed()
        recent = self.query_one("#recent", Lines)
        recent.border_title = "recent"
        # Tall screens have more rows for events. Without events, the rows belong to the selections.
        events = self._recent(width, max(8, app.size.height - 32))
        recent.display = is_tall and not begins and bool(events)
        recent.show(events)

    def _show_answer(self, width: int, *, begins: bool) -> None:
        """Draw the bars and the sentence. Without estimates, the box is not shown."""
        box, bars = self.query_one("#answer-box"), answer_bars(self.app)
        box.display = bool(bars) and not begins
        if not bars:
            return
        assert self.app.snapshot is not None
        target, trust = clean(self.app.snapshot.target), self.app.snapshot.trust
        box.border_title = f"loss on {target}, lower is better · 90 % · {trust}"
        self.query_one("#answer", Lines).show(bar_lines(bars, width))
        self.query_one("#answer-words", Wrapped).show([answer_sentence(self.app)])

    def _show_begin(self) -> None:
        app, snapshot = self.app, self.app.snapshot
        box = self.query_one("#begin-box")
        if app.trouble is not None:
            box.border_title = "the project cannot be read"
            hint = getattr(app.trouble, "hint", "")
            lines: list[Line] = [[("✗ ", "bad"), (str(app.trouble), "bad")], *([[hint]] if hint else []), []]
            lines.append([("ctrl+l", "accent"), " reads the project again.  ", ("q", "accent"), " quits."])
            attention: list[tuple[str, str, str]] = []
        else:
            assert snapshot is not None
            box.border_title = snapshot.project.name
            running = [view for view in app.jobs if view.job.state == "running"]
            if app.jobs_known and not running and snapshot.target and not self._planned:
                self._planned = True
                self._plan()
            elif running and self._first.seconds is None:
                # A job does the same work as the dry run.
                self.workers.cancel_group(self, "plan")
            lines = begin_lines(snapshot, running, self._first)
            # The pane itself says what is missing.
            attention = [item for item in self._attention() if item[1] != app.missing() and item[2]]
        self.query_one("#begin", Wrapped).show(lines)
        rows = self.query_one("#begin-attention", Attention)
        rows.items = attention
        rows.changed()

    def _listed(self) -> list[Listed]:
        """Return the saved selections with their estimates by the current estimator.

        Without an estimator, the numbers are those of each manifest.
        """
        snapshot = self.app.snapshot
        found = []
        for saved in snapshot.selections if snapshot is not None else ():
            assert snapshot is not None
            manifest, known = saved.manifest, None
            loss: float | None = manifest.estimated_loss
            change = manifest.estimated_loss - manifest.reference.get("all_tasks", float("nan"))
            if snapshot.answers is not None:
                known = None if saved.is_weighted else self.app.known_loss(saved.mask(snapshot.names), saved.dropped)
                loss, change = (known.loss, known.versus_all.value) if known is not None else (None, float("nan"))
            found.append(
                Listed(
                    name=saved.name,
                    count=sum(task.selected for task in manifest.tasks),
                    loss=loss,
                    change=change,
                    measured=snapshot.measured_of(saved),
                    is_calibrated=snapshot.calibrated_on > 0 if snapshot.answers is not None else saved.is_calibrated,
                )
            )
        return found

    def _all_tasks(self) -> list[Listed]:
        """Return all tasks with the current estimate. The list is empty until changed files are read."""
        snapshot = self.app.snapshot
        if snapshot is None or snapshot.corpus is None:
            return []
        every = np.ones(len(snapshot.names), dtype=bool)
        known = self.app.known_loss(every)
        loss, is_calibrated = (known.loss if known is not None else None), snapshot.calibrated_on > 0
        measured = snapshot.measured_loss(every)
        return [
            Listed(
                name="",
                count=len(snapshot.names),
                loss=loss,
                change=0.0,
                measured=measured,
                is_calibrated=is_calibrated,
            )
        ]

    def _project(self, width: int) -> list[Line]:
        app, snapshot = self.app, self.app.snapshot
        if snapshot is None:
            if app.trouble is not None:
                words = f"✗ {app.trouble} {getattr(app.trouble, 'hint', '')}"
                return [
                    *([(line, "bad")] for line in wrap(clean(words), width)),
                    [("Press ctrl+l to read again.", "dim")],
                ]
            return [[("reading …", "dim")], [], [], []]
        config = snapshot.project.config
        store = snapshot.project.store.path
        size = numbers.short(store.stat().st_size) + "B" if store.exists() else "not created yet"
        targets = snapshot.corpus.target_tasks if snapshot.corpus else []
        held_out = sum(len(task.split.validation) for task in targets)
        free = shutil.disk_usage(app.root).free
        return [
            [
                ("base    ", "dim"),
                fit(config.model.name_or_path, max(width - 20, 8)).rstrip(),
                f"  LoRA r{config.lora.r}",
            ],
            [
                ("target  ", "dim"),
                fit(snapshot.target or "none", max(width - 26, 8)).rstrip(),
                f"  {held_out} held out",
            ],
            [("store   ", "dim"), f"store.duckdb {size}"],
            [("disk    ", "dim"), f"{numbers.short(free)}B free"],
        ]

    def _pipeline(self) -> list[Line]:
        """Return a line for each stage, with its details."""
        snapshot = self.app.snapshot
        lines: list[Line] = []
        for number, stage in enumerate(snapshot.status.stages if snapshot is not None else (), 1):
            mark, style = _STATES[stage.state]
            detail: Part = (stage.detail, "dim" if style == "dim" else "")
            words: Line = [(f"{mark} ", style), f"{number} {stage.stage:<10}", detail]
            lines.append(self._progress(stage.stage, number) or words)
        return lines

    def _pipeline_line(self) -> Line:
        """Return all stages in one line, with the progress of the one that runs."""
        snapshot = self.app.snapshot
        is_running = any(view.job.state == "running" for view in self.app.jobs)
        parts: list[Part] = []
        for number, stage in enumerate(snapshot.status.stages if snapshot is not None else (), 1):
            if running := self._progress(stage.stage, 0):
                parts += [*running, "  "]
                continue
            mark, style = _STATES[stage.state]
            # The progress of a running stage takes the cells of the numbers.
            parts += [(f"{mark} ", style), f"{stage.stage}  " if is_running else f"{number} {stage.stage}  "]
        return parts

    def _progress(self, stage: str, number: int) -> Line:
        """Return the progress of a stage that runs; empty if it does not."""
        view = next((v for v in self.app.jobs if v.job.state == "running" and v.stage == stage), None)
        if view is None:
            return ()
        share = view.done / view.total if view.total else 0.0
        left = duration(view.seconds_left) if view.seconds_left is not None else ""
        meter: Line = [f"{number} {stage:<10}", (numbers.meter(share, 8), "warn")] if number else [stage]
        return [("▶ ", "warn"), *meter, f" {percent(share)} {left}"]

    def _attention(self) -> list[tuple[str, str, str]]:
        app, snapshot = self.app, self.app.snapshot
        if snapshot is None:
            return []
        found: list[tuple[str, str, str]] = []
        lost = [view for view in app.jobs if view.job.state in ("lost", "failed")][:2]
        found += [("bad", f"job {view.job.state}: {view.job.command}", "runs") for view in lost]
        if missing := app.missing():
            found.append(("warn", missing, "start"))
        for stage in snapshot.status.stages:
            if stage.state == "stale":
                found.append(
                    ("warn", f"{stage.stage} is stale: {stage.reasons[0] if stage.reasons else stage.detail}", "start")
                )
            elif stage.reasons:
                found.append(("warn", f"{stage.stage}: {stage.reasons[0]}", "start"))
        found += [("warn", problem, f"task:{problem.partition(':')[0]}") for problem in snapshot.problems]
        if snapshot.answers is not None and not snapshot.calibrated_on:
            found.append(("dim", "uncalibrated estimates: press V", "verify"))
        return found or [("dim", "no problems", "")]

    def _recent(self, width: int, count: int) -> list[Line]:
        edits = history_lines(self.app, count, width) if self.app.session and self.app.session.history else []
        jobs: list[Line] = [
            spread(
                [(f"{view.job.started.astimezone():%H:%M} ", "dim"), f"job {name_of(view)} {view.job.state}"],
                [(f" {duration(view.elapsed)}", "dim")],
                width,
            )
            for view in self.app.jobs[:count]
        ]
        share = max(count - len(jobs), count // 2)
        return [*edits[:share], *jobs][:count]

    @on(Rows.Opened, "#selections")
    def _open_selection(self) -> None:
        rows = self.query_one(Selections)
        if not rows.items:
            return
        name = rows.items[rows.cursor].name
        session = self.app.session
        if session is not None and (session.base != name or session.is_changed):
            self.app.load(name)
        self.app.go("tasks")

    @on(Rows.Opened, "#attention")
    @on(Rows.Opened, "#begin-attention")
    def _open_attention(self, event: Rows.Opened) -> None:
        rows = event.rows
        if not isinstance(rows, Attention) or not rows.items:
            return
        way = rows.items[rows.cursor][2]
        if way == "runs":
            self.app.go("runs")
        elif way == "start":
            self.action_start()
        elif way == "verify":
            self.action_verify()
        elif way.startswith("task:") and self.app.snapshot is not None:
            name = way.removeprefix("task:")
            if name in self.app.snapshot.names:
                self.app.place.task = name
                self.app.go("tasks")

    @property
    def _here(self) -> str:
        """Return the name of the selection under the cursor; "" for all tasks, or outside the list."""
        rows = self.query_one(Selections)
        return rows.items[rows.cursor].name if rows.has_focus and rows.items else ""

    def note_about(self) -> "About | None":
        """Return what a note is about: the selection under the cursor, else the one that the session started from."""
        return ("selection", self._here, "") if self._here else super().note_about()

    def action_rename(self) -> None:
        """Rename the selection under the cursor."""
        if self._named():
            self.app.ask_name(self._here)

    def action_delete(self) -> None:
        """Delete the selection under the cursor. Undo restores it."""
        if self._named():
            self.app.delete_selection(self._here)

    def _named(self) -> bool:
        """Return whether a saved selection is under the cursor. If not, say so in the flash line."""
        if not self._here:
            self.app.flash("put the cursor on a saved selection first (tab moves to the list)", "warn")
        return bool(self._here)

    def action_next_pane(self) -> None:
        """Move to the next box."""
        self.focus_next()

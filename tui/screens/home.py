"""The Home screen: project, pipeline, selections, problems and recent events."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import wrap
from typing import ClassVar

import numpy as np
from textual import on
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from curator.core.events import duration
from curator.core.text import clean
from tui.actions import bindings_of
from tui.background.run_watcher import name_of
from tui.screens.base import CuratorScreen
from tui.widgets import numbers
from tui.widgets.lines import Line, Lines, Part, fit, spread
from tui.widgets.rows import Rows
from tui.widgets.selection_estimate import history_lines
from tui.widgets.trust import measured_part

_STATES = {"done": ("✓", "good"), "stale": ("~", "warn"), "partial": ("◐", "warn"), "missing": ("·", "dim")}
# Least cells of a row with the number of tasks, and with both a difference and a measured loss.
_COUNT, _BOTH = 32, 48
# Least height of the screen with recent events.
_RECENT = 20


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
        style = "dim" if not item.name else "good" if item.change < 0 else "bad"
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


class HomeScreen(CuratorScreen):
    """The first screen."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("home")
    place = "home"

    def __init__(self) -> None:
        super().__init__()
        self._saved: list[Listed] = []

    def body(self) -> Iterable[Widget]:
        """Return the boxes."""
        return [
            Horizontal(
                Vertical(
                    Lines(id="project", classes="box"),
                    Vertical(Selections(id="selections", classes="first-focus"), classes="box", id="selections-box"),
                    id="left",
                ),
                Vertical(
                    Lines(id="pipeline", classes="box"),
                    Vertical(Attention(id="attention"), classes="box", id="attention-box"),
                    id="right",
                ),
                id="upper",
            ),
            Lines(id="recent", classes="box"),
        ]

    def show(self, topic: str) -> None:
        """Draw a change."""
        project, pipeline = self.query_one("#project", Lines), self.query_one("#pipeline", Lines)
        project.border_title, pipeline.border_title = "project", "pipeline"
        selections = self.query_one(Selections)
        if topic in ("snapshot", "all"):
            self._saved = self._listed()
        if topic != "jobs":
            selections.items = [*self._saved, *self._all_tasks()]
        uncalibrated = any(not item.is_calibrated and item.loss is not None for item in selections.items)
        half = max(self.app.size.width // 2 - 4, 20)
        # A narrow box drops its title, but keeps the meaning of the sign.
        words = ["selections"] if half >= _COUNT or not uncalibrated else []
        self.query_one("#selections-box").border_title = " · ".join(words + ["? uncalibrated"] * uncalibrated)
        self.query_one("#attention-box").border_title = "needs attention"
        project.show(self._project(half))
        pipeline.show(self._pipeline(half))
        selections.changed()
        attention = self.query_one(Attention)
        attention.items = self._attention()
        attention.changed()
        recent = self.query_one("#recent", Lines)
        recent.border_title = "recent"
        recent.display = self.app.size.height >= _RECENT
        recent.show(self._recent(self.app.size.width - 4, 4 if self.app.size.height < 32 else 10))

    def _listed(self) -> list[Listed]:
        """Return the saved selections with their saved estimates."""
        snapshot = self.app.snapshot
        found = []
        for saved in snapshot.selections if snapshot is not None else ():
            assert snapshot is not None
            manifest, measured = saved.manifest, snapshot.measured_loss(saved.mask(snapshot.names), saved.dropped)
            found.append(
                Listed(
                    name=saved.name,
                    count=sum(task.selected for task in manifest.tasks),
                    loss=manifest.estimated_loss,
                    change=manifest.estimated_loss - manifest.reference.get("all_tasks", float("nan")),
                    measured=manifest.measured_loss if measured is None else measured,
                    is_calibrated=saved.is_calibrated,
                )
            )
        return found

    def _all_tasks(self) -> list[Listed]:
        """Return all tasks with the current estimate, or with the estimate of the newest selection."""
        snapshot, estimate = self.app.snapshot, self.app.estimate
        if snapshot is None:
            return []
        loss, is_calibrated = None, False
        if estimate is not None:
            loss, is_calibrated = estimate.target_loss.loss - estimate.versus_all.value, snapshot.calibrated_on > 0
        elif snapshot.selections:
            newest = snapshot.selections[0]
            loss, is_calibrated = newest.manifest.reference.get("all_tasks"), newest.is_calibrated
        measured = snapshot.measured_loss(np.ones(len(snapshot.names), dtype=bool))
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

    def _pipeline(self, width: int) -> list[Line]:
        snapshot = self.app.snapshot
        if snapshot is None:
            return [[]] * 6
        running = {view.stage: view for view in self.app.jobs if view.job.state == "running"}
        lines: list[Line] = []
        for number, stage in enumerate(snapshot.status.stages, 1):
            if stage.stage in running:
                view = running[stage.stage]
                share = view.done / view.total if view.total else 0.0
                left = duration(view.seconds_left) if view.seconds_left is not None else ""
                lines.append(
                    [
                        ("▶ ", "warn"),
                        f"{number} {stage.stage:<10}",
                        (numbers.meter(share, 8), "warn"),
                        f" {share:.0%} {left}",
                    ]
                )
                continue
            mark, style = _STATES[stage.state]
            lines.append(
                [(f"{mark} ", style), f"{number} {stage.stage:<10}", (stage.detail, "dim" if style == "dim" else "")]
            )
        return lines

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
        lines = [*edits[:share], *jobs][:count]
        return lines + [[]] * (count - len(lines))

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
    def _open_attention(self) -> None:
        rows = self.query_one(Attention)
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

    def action_next_pane(self) -> None:
        """Move to the next box."""
        self.focus_next()

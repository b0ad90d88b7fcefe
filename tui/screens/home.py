"""Home: the project, how far it is, its selections, what needs attention, and what happened last."""

import shutil
from collections.abc import Iterable
from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from curator.events import duration
from curator.text import clean
from tui import numbers
from tui.actions import bindings_of
from tui.screens.base import CuratorScreen
from tui.widgets.lines import Line, Lines, Part, fit, spread
from tui.widgets.outlook import history_lines
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from tui.workspace import SavedSelection

_STATES = {"done": ("✓", "good"), "stale": ("~", "warn"), "partial": ("◐", "warn"), "missing": ("·", "dim")}
_COMMANDS = {"data": "check", "train": "train", "gradients": "gradients", "estimate": "select", "select": "select"}


class Selections(Rows):
    """Saved selections, and the two that every project has: all tasks, and none."""

    def selections(self) -> "list[tuple[str, SavedSelection | None]]":
        """Names, with what is saved under them."""
        workspace = self.app.workspace  # type: ignore[attr-defined]
        if workspace is None:
            return []
        return [(s.name, s) for s in workspace.selections] + [("", None)]

    @property
    def count(self) -> int:
        """Selections, and all tasks."""
        return len(self.selections())

    def line(self, row: int, width: int) -> Line:
        """One selection."""
        name, saved = self.selections()[row]
        app = self.app
        here = app.session is not None and app.session.base == name  # type: ignore[attr-defined]
        mark: Part = ("★ " if here else "  ", "accent")
        room = max(width - 24, 6)
        if saved is None:
            workspace, outlook = app.workspace, app.outlook  # type: ignore[attr-defined]
            loss = ""
            for other in workspace.selections:
                loss = numbers.loss(other.manifest.reference["all_tasks"]) if other.manifest.reference else ""
                break
            if outlook is not None and not loss:
                loss = numbers.loss(outlook.judgement.loss - outlook.versus_all.value)
            return [
                mark,
                (fit("all tasks", room), "dim"),
                f"{len(workspace.names):>4} in {loss:>7}",
                ("  base", "dim"),
            ]
        manifest = saved.manifest
        inside = sum(task.selected for task in manifest.tasks)
        change = manifest.estimated_loss - manifest.reference.get("all_tasks", float("nan"))
        measured = "" if manifest.measured_loss is None else f" ◎ {numbers.loss(manifest.measured_loss)}"
        return [
            mark,
            fit(name, room),
            f"{inside:>4} in {numbers.loss(manifest.estimated_loss)} ",
            (f"{numbers.signed(change)}", "good" if change < 0 else "bad"),
            measured,
        ]


class Attention(Rows):
    """What needs attention, and the way to it."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.items: list[tuple[str, str, str]] = []

    @property
    def count(self) -> int:
        """Number of things."""
        return len(self.items)

    def line(self, row: int, width: int) -> Line:
        """One thing."""
        style, words, _ = self.items[row]
        return [("! " if style != "dim" else "· ", style), (words, style if style == "bad" else "")]


class HomeScreen(CuratorScreen):
    """The first screen."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("home")
    place = "home"

    def body(self) -> Iterable[Widget]:
        """Boxes."""
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
        """Show what changed."""
        project, pipeline = self.query_one("#project", Lines), self.query_one("#pipeline", Lines)
        project.border_title, pipeline.border_title = "project", "pipeline"
        self.query_one("#selections-box").border_title = "selections"
        self.query_one("#attention-box").border_title = "needs attention"
        half = max(self.app.size.width // 2 - 4, 20)
        project.show(self._project(half))
        pipeline.show(self._pipeline(half))
        self.query_one(Selections).changed()
        attention = self.query_one(Attention)
        attention.items = self._attention()
        attention.changed()
        recent = self.query_one("#recent", Lines)
        recent.border_title = "recent"
        recent.show(self._recent(self.app.size.width - 4, 4 if self.app.size.height < 32 else 10))

    def _project(self, width: int) -> list[Line]:
        app, workspace = self.app, self.app.workspace
        if workspace is None:
            if app.trouble is not None:
                words = f"✗ {app.trouble} {getattr(app.trouble, 'hint', '')}"
                return [*([(line, "bad")] for line in wrap(clean(words), width)), [("ctrl+l reads it again", "dim")]]
            return [[("reading …", "dim")], [], [], []]
        config = workspace.project.config
        store = workspace.project.store.path
        size = numbers.short(store.stat().st_size) + "B" if store.exists() else "not made yet"
        targets = workspace.corpus.target_tasks if workspace.corpus else []
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
                fit(workspace.target or "none", max(width - 26, 8)).rstrip(),
                f"  {held_out} held out",
            ],
            [("store   ", "dim"), f"store.duckdb {size}"],
            [("disk    ", "dim"), f"{numbers.short(free)}B free"],
        ]

    def _pipeline(self, width: int) -> list[Line]:
        workspace = self.app.workspace
        if workspace is None:
            return [[]] * 5
        running = {run.stage: run for run in self.app.runs if run.run.state == "running"}
        lines: list[Line] = []
        for number, stage in enumerate(workspace.status.stages, 1):
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
        app, workspace = self.app, self.app.workspace
        if workspace is None:
            return []
        found: list[tuple[str, str, str]] = []
        lost = [run for run in app.runs if run.run.state in ("lost", "failed")][:2]
        found += [("bad", f"run {run.run.state}: {run.run.command}", "runs") for run in lost]
        if missing := app.missing():
            found.append(("warn", missing, "start"))
        for stage in workspace.status.stages:
            if stage.state == "stale":
                found.append(
                    ("warn", f"{stage.stage} is stale: {stage.reasons[0] if stage.reasons else stage.detail}", "start")
                )
            elif stage.reasons:
                found.append(("warn", f"{stage.stage}: {stage.reasons[0]}", "start"))
        found += [("warn", problem, f"task:{problem.partition(':')[0]}") for problem in workspace.problems]
        return found or [("dim", "nothing", "")]

    def _recent(self, width: int, count: int) -> list[Line]:
        edits = history_lines(self.app, count, width) if self.app.session and self.app.session.history else []
        runs: list[Line] = [
            spread(
                [(f"{view.run.started.astimezone():%H:%M} ", "dim"), f"run {view.stage or ''} {view.run.state}"],
                [(f" {duration(view.elapsed)}", "dim")],
                width,
            )
            for view in self.app.runs[:count]
        ]
        share = max(count - len(runs), count // 2)
        lines = [*edits[:share], *runs][:count]
        return lines + [[]] * (count - len(lines))

    @on(Rows.Opened, "#selections")
    def _open_selection(self) -> None:
        rows = self.query_one(Selections)
        name, _ = rows.selections()[rows.cursor]
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
        elif way.startswith("task:") and self.app.workspace is not None:
            name = way.removeprefix("task:")
            if name in self.app.workspace.names:
                self.app.place.task = name
                self.app.go("tasks")

    def action_next_pane(self) -> None:
        """Next box."""
        self.focus_next()

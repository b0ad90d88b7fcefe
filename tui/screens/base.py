"""The base class of all screens: top line, flash line, key hints, and common actions."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widget import Widget

from curator.core.figures import percent
from tui.actions import ACTIONS, actions_of, bindings_of, key_name
from tui.app_base import AppBase
from tui.screens.zoom import pane_of
from tui.widgets.clicks import part_at
from tui.widgets.lines import Line, Lines, Part, spread, width_of
from tui.widgets.rows import Rows
from tui.widgets.wrapped import wrapped

if TYPE_CHECKING:
    from tui.state.session import Session

if TYPE_CHECKING:
    from tui.state.snapshot import About

MODES = {"home": "Home", "tasks": "Tasks", "matrix": "Matrix", "runs": "Jobs", "compare": "Compare"}
"""Names of the main screens, as in the code and on the screen."""
LEAST_WIDTH, LEAST_HEIGHT = 60, 16
WIDE = 120


class CuratorScreen(Screen[None]):
    """A screen with a line at the top, a body, a flash line and key hints.

    A subclass names its place in `tui.actions` (`place`), returns its widgets (`body`), and draws changes (`show`).
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("any")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012
    AUTO_FOCUS = ".first-focus"
    ALLOW_IN_MAXIMIZED_VIEW = "#top, #flash, #hints"
    place = ""
    app: AppBase

    def __init__(self) -> None:
        super().__init__()
        self._hints_line: Line = []
        self._shown_hints: list[str] = []
        """Action of each part of the hints."""

    def body(self) -> Iterable[Widget]:
        """Return the widgets between the top line and the flash line."""
        return ()

    def show(self, topic: str) -> None:
        """Draw a change.

        Args:
            topic: `snapshot`, `session`, `estimate` or `jobs`. `all` when the screen opens.
        """

    def offers(self, action: str) -> bool:
        """Return whether the footer may name an action of this screen."""
        return True

    def trail(self) -> str:
        """Return the text after the target in the top line."""
        return ""

    def compose(self) -> ComposeResult:
        """Create the widgets."""
        yield Lines([()], id="top")
        with Container(id="body"):
            yield from self.body()
        yield Lines([()], id="flash")
        yield Lines([()], id="hints")
        yield Lines(id="small")

    def on_mount(self) -> None:
        """Subscribe to changes of the application."""
        self.app.changed.subscribe(self, self._show_change)

    def on_screen_resume(self) -> None:
        """Draw all changes since the screen was hidden."""
        self._show_change("all")

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.call_after_refresh(self._show_change, "all")

    def _show_change(self, topic: str) -> None:
        if not self.is_current and self.app.screen_stack[0] is not self:
            return
        if not self.is_mounted:
            return
        width, height = self.app.size
        small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        self.set_class(small, "-small")
        if small:
            words = [
                f"{width}×{height} is too small.",
                f"The minimum is {LEAST_WIDTH}×{LEAST_HEIGHT}.",
                "Press q to quit.",
            ]
            self.query_one("#small", Lines).show([[""]] * max((height - 3) // 2, 0) + [[f" {word}"] for word in words])
        self.query_one("#top", Lines).show([self._top(width)])
        self.show_flash()
        self.show(topic)
        # The hints depend on what the screen shows.
        self.show_hints()

    def show_hints(self) -> None:
        """Draw the key hints."""
        self._shown_hints = []
        self._hints_line = self._hints(self.app.size.width)
        self.query_one("#hints", Lines).show([self._hints_line])

    def show_flash(self) -> None:
        """Draw the flash line of the application."""
        for line in self.query("#flash").results(Lines):
            words = self.app.flash_line
            line.show(wrapped([words], self.app.size.width) if words else [words])

    @property
    def is_wide(self) -> bool:
        """Return whether the screen has room for a second column."""
        return self.app.size.width >= WIDE

    def _top(self, width: int) -> Line:
        app = self.app
        left: list[Part] = [("curator", "accent"), "  "]
        if app.snapshot is None:
            left += [app.root.name, ("  reading …" if app.trouble is None else "  cannot be read", "warn")]
        else:
            left += [app.snapshot.project.name, (" › ", "dim"), (app.snapshot.target or "no target", "strong")]
        if trail := self.trail():
            left += [(" › ", "dim"), (trail, "strong")]
        modes: list[Part] = []
        for number, (mode, title) in enumerate(MODES.items(), 1):
            here = self.app.current_mode == mode
            name = f"{number} {title}" if here or width >= WIDE else f"{number}"
            modes += [(f"[{name}]" if here else f" {name} ", "accent" if here else "dim")]
        right: list[Part] = [*modes, "  "]
        running = [view for view in app.jobs if view.job.state == "running"]
        if running:
            share = f" {percent(running[0].done / running[0].total)}" if running[0].total else ""
            right.append((f"▶ {running[0].stage or 'job'}{share}  ", "warn"))
        session = app.session
        if session is not None and app.knows_tasks and (session.has_base or session.changed_count or not app.missing()):
            right.append(_saved_part(session))
        return spread(left, [*right, " "], width)

    def _hints(self, width: int) -> Line:
        parts: list[Part] = []
        opens = [a for a in actions_of("list") if a.id == "open"] if isinstance(self.focused, Rows) else []
        places = (*actions_of(self.place), *opens, *actions_of("any"))
        wanted = [a for a in places if a.rank and self.offers(a.id) and not self.app.refusal(a.id)]
        zoomed = self.maximized is not None
        keep = sorted(wanted, key=lambda a: 0 if zoomed and a.id == "zoom_pane" else a.rank)
        last = [a for a in keep if a.id in ("palette", "help")]
        room = width - 1 - sum(len(key_name(a.keys[0])) + len(a.label) + 3 for a in last)
        for action in [a for a in keep if a not in last] + last:
            label = "all panes" if action.id == "zoom_pane" and self.maximized is not None else action.label
            part: list[Part] = [" ", (key_name(action.keys[0]), "accent"), " ", (label, "dim"), " "]
            size = width_of(part)
            if action not in last:
                if size > room:
                    continue
                room -= size
            parts += part
            self._shown_hints += [action.id] * len(part)
        return parts

    def on_click(self, event: events.Click) -> None:
        """Open the screen of a clicked tab, or run the action of a clicked hint."""
        # Some versions of Textual name the screen as the widget of a click on a line.
        widget, _ = self.get_widget_at(int(event.screen_x), int(event.screen_y))
        if widget.id not in ("top", "hints"):
            return
        line = self._top(self.app.size.width) if widget.id == "top" else self._hints_line
        number = part_at(line, event.x)
        if number is None:
            return
        if widget.id == "top":
            part = line[number]
            words = (part if isinstance(part, str) else part[0]).strip(" []")
            for at, (mode, title) in enumerate(MODES.items(), 1):
                if words in (str(at), f"{at} {title}"):
                    self.app.go(mode)
        elif number < len(self._shown_hints):
            action = self._shown_hints[number]
            # The list with the focus opens its row. All other actions belong to the screen.
            place = self.focused if action == "open" and self.focused is not None else self
            self.call_later(place.run_action, action)

    def on_key(self, event: events.Key) -> None:
        """Say why a key does nothing here."""
        if not event.is_printable and not key_name(event.key).startswith("F"):
            return
        shown = key_name(event.key)
        others = [action for action in ACTIONS if event.key in action.keys]
        if any(place in (self.place, "any") for action in others for place in action.places):
            # Textual also sends a key whose action has changed the screen.
            return
        titles = {"task": "a task", "list": "lists"} | {mode: title for mode, title in MODES.items()}
        meanings = [
            f"`{action.label}` on " + listed([titles[place] for place in action.places if place in titles])
            for action in others
            if any(place in titles for place in action.places)
        ]
        more = f"It means {', '.join(meanings)}." if meanings else "? lists the keys."
        self.app.flash(f"{shown} does nothing here. {more}", "warn")

    # -- actions of all screens -------------------------------------------------------------------------------------

    def action_go_home(self) -> None:
        """Open Home."""
        self.app.go("home")

    def action_go_tasks(self) -> None:
        """Open Tasks."""
        self.app.go("tasks")

    def action_go_matrix(self) -> None:
        """Open Matrix."""
        self.app.go("matrix")

    def action_go_runs(self) -> None:
        """Open Jobs."""
        self.app.go("runs")

    def action_go_compare(self) -> None:
        """Open Compare."""
        self.app.go("compare")

    def action_back(self) -> None:
        """Close this screen, if another screen is below."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def action_zoom_pane(self) -> None:
        """Show the pane with the focus alone, or all panes again."""
        if self.maximized is not None:
            self.minimize()
        elif self.focused is not None:
            self.maximized = pane_of(self.focused)

    def watch_maximized(self) -> None:
        """Draw for the new size of the pane."""
        self.call_after_refresh(self._show_change, "all")

    def action_palette(self) -> None:
        """Open the command palette."""
        self.app.action_command_palette()

    def action_help(self) -> None:
        """Show all keys of this screen."""
        from tui.dialogs.help import HelpDialog

        self.app.push_screen(HelpDialog(self.place), self._run_if)

    async def _run_if(self, action: str | None) -> None:
        if action and action != "help":
            await self.run_action(action)

    def action_sessions(self) -> None:
        """Continue another session of edits, or begin a new one."""
        from tui.dialogs.sessions import SessionsDialog

        if self.app.snapshot is not None and self.app.session is not None:
            self.app.push_screen(SessionsDialog(), self.app.change_session)

    def action_settings(self) -> None:
        """Open the settings."""
        self.app.open_settings()

    def action_reload(self) -> None:
        """Read the project again, and draw the whole screen again."""
        self.app.draw_again()
        self.app.read_snapshot()
        self.app.flash("reading the project again …")

    async def action_quit(self) -> None:
        """Quit."""
        await self.app.leave()

    def action_start(self) -> None:
        """Ask for a stage, and start the stage as a job."""
        from tui.dialogs.run import RunDialog

        if self.allows("start"):
            self.app.push_screen(RunDialog(), self.app.launch)

    def action_verify(self) -> None:
        """Show estimated against measured losses. The dialog can start a verification."""
        from tui.dialogs.verify import VerifyDialog

        self.app.push_screen(VerifyDialog(), self._measure_if)

    def _measure_if(self, wanted: bool | None) -> None:
        from tui.dialogs.run import RunDialog

        if wanted:
            self.app.push_screen(RunDialog("verify"), self.app.launch)

    def action_undo(self) -> None:
        """Undo the last edit."""
        if self.allows("undo"):
            self.app.undo()

    def action_redo(self) -> None:
        """Redo the last undone edit."""
        if self.allows("redo"):
            self.app.redo()

    def allows(self, action: str) -> bool:
        """Return whether an action works now. If not, show the reason in the flash line."""
        if reason := self.app.refusal(action):
            self.app.flash(reason, "warn")
        return not reason

    def action_save(self) -> None:
        """Save the selection under a name."""
        from tui.dialogs.save import SaveDialog

        if self.app.can_estimate():
            self.app.push_screen(SaveDialog(), self.app.save)

    def note_about(self) -> "About | None":
        """Return what a note is about: the selection that the session started from. None without one."""
        session = self.app.session
        return ("selection", session.base, "") if session is not None and session.base else None

    def action_note(self) -> None:
        """Write a note."""
        about = self.note_about()
        if about is None or self.app.snapshot is None:
            self.app.flash("save the selection first (w) to write a note about it", "warn")
        else:
            self.write_note(about)

    def write_note(self, about: "About") -> None:
        """Ask for the note on a task, an example or a selection, and keep it."""
        self.app.ask_note(about)

    def action_selections(self) -> None:
        """Show the saved selections."""
        from tui.dialogs.selections import SelectionsDialog

        if self.app.snapshot is None or self.app.session is None:
            self.app.flash(self.app.missing(), "warn")
        else:
            self.app.push_screen(SelectionsDialog(), self._take_selection)

    def _take_selection(self, found: tuple[str, str] | None) -> None:
        if found is None:
            return
        what, name = found
        if what == "load":
            self.app.load(name)
        elif what == "export":
            self.app.export(name)
        else:
            self.app.measure(name)

    def action_compare(self) -> None:
        """Compare this selection with saved selections."""
        self.app.go("compare")

    def action_measure(self) -> None:
        """Measure the selection in hand by fine-tuning."""
        if self.allows("measure"):
            self.app.measure()

    def action_report(self) -> None:
        """Write a report of the selection that the session started from."""
        self.app.write_report()

    def action_export(self) -> None:
        """Export a selection."""
        self.app.export()


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence: `a`, `a and b`, or `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _saved_part(session: "Session") -> Part:
    """Return whether the selection is saved. Without a base, the number of changes from all tasks."""
    if changed := session.changed_count:
        return (f"● {changed} changed", "warn")
    return ("✓ saved", "good") if session.has_base else ("not saved", "dim")

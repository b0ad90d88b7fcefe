"""Settings: theme, pointer and motion. Changes are visible at once and apply to all projects."""

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget

from tui.dialogs.base import Choices, Dialog
from tui.settings import Settings
from tui.widgets.lines import Lines
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped


class SettingsDialog(Dialog[None]):
    """Asks for a theme, and toggles pointer and motion.

    Args:
        settings: The preferences to change.
    """

    title_text = "settings"
    keys = (("enter", "save"), ("m", "pointer"), ("a", "motion"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "mouse", "pointer", show=False),
        Binding("a", "motion", "motion", show=False),
    ]

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def content(self) -> Iterable[Widget]:
        """Return the switches and the themes."""
        self._before = self.app.theme
        names = sorted(self.app.available_themes, key=lambda name: (not name.startswith("curator"), name))
        themes = Choices(
            [(name, name, "dark" if self.app.available_themes[name].dark else "light") for name in names],
            classes="first-focus",
            id="themes",
        )
        themes.cursor = names.index(self.app.theme)
        return [Wrapped(self._switches(), id="switches"), themes]

    def _switches(self) -> list[list[str | tuple[str, str]]]:
        settings = self._settings
        return [
            [f"[{'x' if settings.mouse else ' '}] pointer ", ("m (after a restart)", "dim")],
            [f"[{'x' if settings.motion else ' '}] motion  ", ("a (always off over SSH)", "dim")],
            [],
        ]

    @on(Rows.Moved, "#themes")
    def _preview(self) -> None:
        self.app.theme = self.query_one(Choices).value

    @on(Rows.Opened, "#themes")
    def _keep(self) -> None:
        self._settings.theme = self.query_one(Choices).value
        self._settings.write(Settings.place())
        self.dismiss(None)

    def action_cancel(self) -> None:
        """Restore the theme. The switches are saved."""
        self.app.theme = self._before
        self._settings.write(Settings.place())
        self.dismiss(None)

    def action_mouse(self) -> None:
        """Toggle the pointer."""
        self._settings.mouse = not self._settings.mouse
        self.query_one("#switches", Lines).show(self._switches())

    def action_motion(self) -> None:
        """Toggle motion."""
        self._settings.motion = not self._settings.motion
        self.app.animation_level = "full" if self._settings.motion else "none"
        self.query_one("#switches", Lines).show(self._switches())

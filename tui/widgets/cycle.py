"""A field of one line that offers a few values."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from tui.widgets.lines import Line, Lines


class Cycle(Lines, can_focus=True):
    """Shows one of some values. The arrow keys, space and a click show the next one.

    Args:
        values: The values, the first one at the start.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l,space", "step(1)", "next", show=False),
        Binding("left,h", "step(-1)", "previous", show=False),
        Binding("enter", "submit", "accept", show=False),
    ]

    class Changed(Message):
        """Another value is shown."""

    class Submitted(Message):
        """The user accepts the value."""

    def __init__(self, values: Sequence[str], **options: object) -> None:
        self._values, self._at = list(values), 0
        super().__init__([self._line(has_focus=False)], **options)

    @property
    def value(self) -> str:
        """Return the shown value."""
        return self._values[self._at]

    def _line(self, *, has_focus: bool) -> Line:
        return [("◂ ", "accent" if has_focus else "dim"), self.value, (" ▸", "accent" if has_focus else "dim")]

    def _draw(self) -> None:
        self.show([self._line(has_focus=self.has_focus)])

    def on_focus(self) -> None:
        """Draw the field with the focus."""
        self._draw()

    def on_blur(self) -> None:
        """Draw the field without the focus."""
        self._draw()

    def on_click(self, event: events.Click) -> None:
        """Show the next value."""
        event.stop()
        self.action_step(1)

    def action_step(self, by: int) -> None:
        """Show another value."""
        self._at = (self._at + by) % len(self._values)
        self._draw()
        self.post_message(self.Changed())

    def action_submit(self) -> None:
        """Accept the value."""
        self.post_message(self.Submitted())

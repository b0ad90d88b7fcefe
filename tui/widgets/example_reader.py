"""The text of one example."""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual import work
from textual.strip import Strip
from textual.worker import get_current_worker

from tui.state.examples import Examples
from tui.widgets.lines import Line, Part, spread
from tui.widgets.reading import LONGEST, control_characters, lay_out
from tui.widgets.rows import Rows

# In characters. Longer texts are laid out in a thread.
_SHORT = 20_000


def reader_title(examples: Examples, number: int, kind: str, width: int) -> Line:
    """Return the line above the text: file and line, warnings, and size.

    Args:
        examples: Examples of the task.
        number: Number of the example.
        kind: `text` or `tokens`.
        width: Cells of the line.
    """
    left: list[Part] = [("─ ", "dim"), (f"{examples.place(number)} ", "title")]
    flags: list[Part] = []
    if number in examples.reasons:
        flags.append((f" not trained on: {examples.reasons[number]} ", "warn"))
    if examples.truncated[number]:
        flags.append((" ✂ truncated ", "warn"))
    if count := control_characters(examples.text(number)[:LONGEST]):
        flags.append((f" ⚠ {count} control characters ", "warn"))
    tokens, loss = int(examples.lengths[number]), int(examples.completion_tokens[number])
    flags.append((f" {kind} · {tokens:,} tok, ▸ {loss:,} with loss ─", "dim"))
    return spread(left, flags, width)


class Reader(Rows):
    """Shows a text that is laid out to the width and scrolls."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"line--loss", "line--token"}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lines: list[Line] = []
        self._parts: Sequence[Part] = ()
        self._width = 0

    @property
    def count(self) -> int:
        """Return the number of lines."""
        return len(self.lines)

    def render_line(self, y: int) -> Strip:
        """Draw one row of the screen. The cursor is visible only with the focus."""
        if self.has_focus:
            return super().render_line(y)
        width = self.size.width
        return self.strip([" ", *self.line(self.scroll_offset.y + y, width - 1)], width)

    def line(self, row: int, width: int) -> Line:
        """Return one line of the text."""
        return self.lines[row] if row < len(self.lines) else ()

    def read(self, parts: Sequence[Part]) -> None:
        """Show another text from its first line."""
        self._parts = parts
        self.lines = []
        self.cursor = 0
        self._lay_out()

    def on_resize(self) -> None:
        """Lay out the text for another width."""
        if self._room != self._width:
            self._lay_out()

    @property
    def _room(self) -> int:
        # Always leave a column for the scrollbar. Else each layout could show or hide the scrollbar in turn.
        return self.container_size.width - 2

    def _lay_out(self) -> None:
        self._width = self._room
        if sum(len(part if isinstance(part, str) else part[0]) for part in self._parts) <= _SHORT:
            self.workers.cancel_group(self, "lay out")
            self._take(self._parts, lay_out(self._parts, self._width))
        else:
            self._lay_out_slowly(self._parts, self._width)

    @work(thread=True, exclusive=True, group="lay out", exit_on_error=False)
    def _lay_out_slowly(self, parts: Sequence[Part], width: int) -> None:
        worker = get_current_worker()
        lines = lay_out(parts, width)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._take, parts, lines)

    def _take(self, parts: Sequence[Part], lines: list[Line]) -> None:
        if parts is self._parts and self.is_attached:
            self.lines = lines
            self.changed()

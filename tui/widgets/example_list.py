"""The list of a task's examples."""

from typing import Any

import numpy as np

from curator.core.arrays import Floats, Mask
from tui.state.examples import ORDERS, REASONS, Examples
from tui.state.influence import Influence
from tui.state.session import Rows as RowNumbers
from tui.widgets.lines import Line, Part, fit, spread
from tui.widgets.reading import LONGEST, control_characters, preview
from tui.widgets.rows import Rows

_INFLUENCE = 10


class ExampleList(Rows):
    """Rows of a task: influence, beginning of the text, warnings. `put_in_order` puts them in order."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.examples: Examples | None = None
        self.values: Floats | None = None
        """Influence of each row of the task (n,), NaN for those that are not trained on; None until known."""
        self.words = ""
        """What examples are searched for."""
        self.found: Mask | None = None
        """Which rows hold it (n,); None for all."""
        self.order: RowNumbers = np.zeros(0, dtype=np.intp)
        self._influence: Influence | None = None
        self._order_by = 0
        self._is_placed = False

    @property
    def count(self) -> int:
        """Rows that are shown."""
        return len(self.order)

    @property
    def number(self) -> int | None:
        """The row under the cursor."""
        return int(self.order[self.cursor]) if self.count else None

    # -- what is listed ---------------------------------------------------------------------------------------------

    def take(self, examples: Examples | None, influence: Influence | None) -> None:
        """List other examples; they are not in order yet, nor searched."""
        self.examples, self.found = examples, None
        self.weigh(influence)

    def weigh(self, influence: Influence | None) -> None:
        """Show other influences of the same examples; None where they are not known."""
        examples, self._influence, self.values = self.examples, influence, None
        if examples is not None and influence is not None and len(influence.gains) == len(examples.trained):
            self.values = examples.by_row(influence.gains)

    def put_in_order(self, *, keep: bool) -> bool:
        """Put the examples in order again.

        Args:
            keep: The cursor stays on its example where that is possible, else it goes to the first.

        Returns:
            Whether the cursor is on another example, or was not to stay.
        """
        before, examples = self.number, self.examples
        if examples is None:
            self.order = np.zeros(0, dtype=np.intp)
        else:
            by, descending, _ = ORDERS[self._order_by]
            shown = self.found if self.found is not None else np.ones(len(examples), dtype=bool)
            self.order = examples.arranged(by, descending=descending, influence=self.values, shown=shown)
        self.changed()
        # Who has not moved yet is shown the first; once influences have put the list in order, the same one again.
        wanted = keep and before is not None and (self.cursor > 0 or self._is_placed)
        there = np.flatnonzero(self.order == before) if wanted else np.zeros(0, dtype=np.intp)
        self.cursor = int(there[0]) if len(there) else 0
        self._is_placed = examples is not None and (self._is_placed or self.values is not None)
        return self.number != before or not keep

    def next_order(self) -> None:
        """The next sort order, from when the examples are arranged again."""
        self._order_by = (self._order_by + 1) % len(ORDERS)

    def reverse(self) -> None:
        """The same order the other way round."""
        by, descending, _ = ORDERS[self._order_by]
        self._order_by = [order[:2] for order in ORDERS].index((by, not descending))

    # -- drawing ----------------------------------------------------------------------------------------------------

    @property
    def _has_answers(self) -> bool:
        return self.app.snapshot is not None and self.app.snapshot.answers is not None

    def title(self, width: int, trouble: str) -> Line:
        """The line above the list.

        Args:
            width: Cells.
            trouble: Why there are no examples, if they could not be read.
        """
        examples, right = self.examples, ""
        left: list[Part] = [("─ ", "dim")]
        if trouble:
            left += [("✗ ", "bad"), (trouble, "bad")]
        elif examples is None:
            left.append((self.app.missing() or "reading examples …", "dim"))
        elif self.words:
            left += [("/ ", "accent"), self.words]
        else:
            left.append(("examples", "title"))
        if examples is not None:
            by, _, words = ORDERS[self._order_by]
            if by == "influence" and not self._has_answers:
                words = "as in the file"
            unit = f"{self._influence.unit.name} · " if self._influence is not None and self.values is not None else ""
            here = f"{self.cursor + 1:,} of {self.count:,}" if self.count else "none"
            whole = f" of {len(examples):,}" if self.count != len(examples) else ""
            right = f" {unit}{words} · {here}{whole} ─"
        return spread([*left, " "], [(right, "dim")], width)

    def line(self, row: int, width: int) -> Line:
        """One row of the task."""
        examples = self.examples
        if examples is None or row >= len(self.order):
            return ()
        number = int(self.order[row])
        text = examples.text(number)
        warning = f" ⚠ {count} control" if (count := control_characters(text[:LONGEST])) else ""
        cut = " ✂" if examples.truncated[number] else ""
        room = max(width - _INFLUENCE - 1 - len(warning) - len(cut), 4)
        words = fit(preview(text, room, self.words), room)
        style = "dim" if number in examples.reasons else ""
        return [self.influence_part(number), " ", (words, style), (cut, "warn"), (warning, "warn")]

    def influence_part(self, number: int) -> Part:
        """Influence of one row, or why there is none, in ten cells."""
        assert self.examples is not None
        if number in self.examples.reasons:
            reason = self.examples.reasons[number]
            return (fit(f" {REASONS.get(reason, reason)}", _INFLUENCE), "dim")
        if not self._has_answers:
            return " " * _INFLUENCE
        if self._influence is None or self.values is None:
            return (fit("… ", _INFLUENCE, right=True), "dim")
        value = float(self.values[number])
        words = fit(f"{self._influence.unit(value)} ", _INFLUENCE, right=True)
        return (words, "good" if value > 0 else "bad" if value < 0 else "dim")

"""The list of the examples of a task."""

from typing import Any

import numpy as np

from curator.core.arrays import Floats, Mask
from tui.state.examples import ORDERS, REASONS, Examples
from tui.state.influence import Influence
from tui.state.session import Rows as RowNumbers
from tui.widgets.lines import Line, Part, fit, spread
from tui.widgets.reading import LONGEST, control_characters, preview
from tui.widgets.rows import Rows

_INFLUENCE = 11
SHOWN = ("all", "harmful", "marked", "dropped")
"""Which examples the list shows, in the order of the key `d`."""


class ExampleList(Rows):
    """A list of examples: influence, start of the text and warnings. `put_in_order` sorts the list."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.examples: Examples | None = None
        self.values: Floats | None = None
        """Influence of each row of the task (n,), with NaN for rows that training omits; None until known."""
        self.words = ""
        """Text of the search; "" without a search."""
        self.found: Mask | None = None
        """Whether a row contains the text (n,); None without a search."""
        self.order: RowNumbers = np.zeros(0, dtype=np.intp)
        self.marks: set[int] = set()
        """Numbers of the marked examples."""
        self.dropped: set[int] = set()
        """Numbers of the examples that the selection drops."""
        self.shown_by = SHOWN[0]
        self._anchor: int | None = None
        """Row of the list where the range starts; None without a range."""
        self._influence: Influence | None = None
        self._order_by = 0
        self._is_placed = False

    @property
    def count(self) -> int:
        """Return the number of shown rows."""
        return len(self.order)

    @property
    def number(self) -> int | None:
        """Return the number of the row under the cursor; None without rows."""
        return int(self.order[self.cursor]) if self.count else None

    # -- content ---------------------------------------------------------------------------------------------------

    def take(self, examples: Examples | None, influence: Influence | None) -> None:
        """List other examples. Call `put_in_order` to sort them."""
        if examples is None or self.examples is None or examples.key != self.examples.key:
            self.marks, self._anchor, self.shown_by = set(), None, SHOWN[0]
        self.examples, self.found = examples, None
        self.weigh(influence)

    def weigh(self, influence: Influence | None) -> None:
        """Show other influences of the same examples. None means that influences are not known."""
        examples, self._influence, self.values = self.examples, influence, None
        if examples is not None and influence is not None and len(influence.gains) == len(examples.trained):
            self.values = examples.by_row(influence.gains)

    def put_in_order(self, *, keep: bool) -> bool:
        """Sort the examples.

        Args:
            keep: Whether the cursor stays on its example, if the example is still in the list.

        Returns:
            Whether the caller must draw the example under the cursor.
        """
        before, examples = self.number, self.examples
        if examples is None:
            self.order = np.zeros(0, dtype=np.intp)
        else:
            by, descending, _ = self._order
            shown = self._shown(examples)
            self.order = examples.arranged(by, descending=descending, influence=self.values, shown=shown)
        self.changed()
        # Until the list is sorted by influence, a cursor in the first row stays in the first row.
        wanted = keep and before is not None and (self.cursor > 0 or self._is_placed)
        found = np.flatnonzero(self.order == before) if wanted else np.zeros(0, dtype=np.intp)
        self.cursor = int(found[0]) if len(found) else 0
        self._is_placed = examples is not None and (self._is_placed or self.values is not None)
        return self.number != before or not keep

    def _shown(self, examples: Examples) -> Mask:
        """Return whether the list shows each row (n,)."""
        shown = np.ones(len(examples), dtype=bool) if self.found is None else self.found.copy()
        if self.shown_by == "harmful":
            shown &= np.zeros(len(examples), dtype=bool) if self.values is None else self.values < 0
        elif self.shown_by != "all":
            wanted = np.zeros(len(examples), dtype=bool)
            wanted[sorted(self.marks if self.shown_by == "marked" else self.dropped)] = True
            shown &= wanted
        return shown

    # -- marks ------------------------------------------------------------------------------------------------------

    def _ranged(self) -> list[int]:
        """Return the numbers of the examples in the range."""
        if self._anchor is None or not self.count:
            return []
        first, last = sorted((min(self._anchor, self.count - 1), self.cursor))
        return [int(number) for number in self.order[first : last + 1]]

    def chosen(self, *, cursor: bool = True) -> list[int]:
        """Return the numbers of the training examples in the range, else of the marked ones, else the one here.

        Args:
            cursor: Whether the example under the cursor counts if no other is chosen.
        """
        here = [self.number] if cursor and self.number is not None else []
        reasons = self.examples.reasons if self.examples is not None else {}
        return [n for n in (self._ranged() or sorted(self.marks) or here) if n not in reasons]

    def mark(self) -> None:
        """Mark the example under the cursor or the range. Marks that all are there are removed."""
        reasons = self.examples.reasons if self.examples is not None else {}
        here = [] if self.number is None else [self.number]
        wanted = {n for n in (self._ranged() or here) if n not in reasons}
        single = self._anchor is None
        self.marks = self.marks - wanted if wanted <= self.marks else self.marks | wanted
        self._anchor = None
        if single:
            self.cursor += 1
        self.refresh()

    def start_or_mark_range(self) -> None:
        """Start a range at the cursor, or mark the range."""
        if self._anchor is None:
            self._anchor = self.cursor
            self.refresh()
        else:
            self.mark()

    def clear_marks(self, *, whole: bool = False) -> bool:
        """Remove the range, else all marks. Return whether there was something to remove.

        Args:
            whole: Whether to remove both.
        """
        found = self._anchor is not None or bool(self.marks)
        if whole or self._anchor is None:
            self.marks = set()
        self._anchor = None
        self.refresh()
        return found

    def lies_over(self, row: int) -> str:
        """Return the style of a row in the range."""
        if self._anchor is None:
            return ""
        first, last = sorted((self._anchor, self.cursor))
        return "range" if first <= row <= last else ""

    def next_order(self) -> None:
        """Switch to the next sort order. `put_in_order` applies the order."""
        self._order_by = (self._order_by + 1) % len(ORDERS)

    def reverse(self) -> None:
        """Reverse the sort order. `put_in_order` applies the order."""
        by, descending, _ = ORDERS[self._order_by]
        self._order_by = [order[:2] for order in ORDERS].index((by, not descending))

    @property
    def _order(self) -> tuple[str, bool, str]:
        """Return column, direction and name of the order. Among harmful examples, the most harmful is first."""
        by, descending, words = ORDERS[self._order_by]
        if by == "influence" and self.shown_by == "harmful":
            return next(order for order in ORDERS if order[:2] == (by, not descending))
        return by, descending, words

    # -- drawing ----------------------------------------------------------------------------------------------------

    @property
    def _has_answers(self) -> bool:
        return self.app.snapshot is not None and self.app.snapshot.answers is not None

    def title(self, width: int, trouble: str) -> Line:
        """Return the line above the list.

        Args:
            width: Cells of the line.
            trouble: Error of the reading; "" without an error.
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
            by, _, words = self._order
            if by == "influence" and not self._has_answers:
                words = "file order"
            unit = f"{self._influence.unit.name} · " if self._influence is not None and self.values is not None else ""
            here = f"{self.cursor + 1:,} of {self.count:,}" if self.count else f"none of {len(examples):,}"
            if self.shown_by == "harmful" and self.values is None:
                here = "influence not known"
            chosen = len(self.chosen(cursor=False))
            marked = f"{chosen:,} marked · " if chosen else ""
            kind = "" if self.shown_by == "all" else f"{self.shown_by} only · "
            right = f" {marked}{kind}{unit}{words} · {here} ─"
        return spread([*left, " "], [(right, "dim")], width)

    def line(self, row: int, width: int) -> Line:
        """Return the line of one example."""
        examples = self.examples
        if examples is None or row >= len(self.order):
            return ()
        number = int(self.order[row])
        text = examples.text(number)
        warning = f" ⚠ {count} control" if (count := control_characters(text[:LONGEST])) else ""
        cut = " ✂" if examples.truncated[number] else ""
        room = max(width - _INFLUENCE - 1 - len(warning) - len(cut), 4)
        words = fit(preview(text, room, self.words), room)
        style = "dim" if number in examples.reasons or number in self.dropped else ""
        return [*self._first_parts(number), " ", (words, style), (cut, "warn"), (warning, "warn")]

    def _first_parts(self, number: int) -> list[Part]:
        """Return the influence of one row in eleven cells. The first cell has a sign for a dropped or a marked row."""
        part = self.influence_part(number)
        sign: Part = ("✗", "bad") if number in self.dropped else ("▪", "accent")
        if number not in self.dropped and number not in self.marks:
            return [part]
        return [sign, part[1:] if isinstance(part, str) else (part[0][1:], part[1])]

    def influence_part(self, number: int) -> Part:
        """Return the influence of one row, or the reason for its omission, in eleven cells."""
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
        return (words, "good" if value > 0 else "harm" if value < 0 else "dim")

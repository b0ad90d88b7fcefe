"""The examples of one task: read from the store, put in order, searched, and laid out to be read. No Textual.

Texts stay in Arrow's columns, so that a task of 100,000 examples costs no Python object until it is looked at.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.cells import cell_len

from curator.corpus import CUT_OFF, EMPTY, Task
from curator.splits import LEAKED, OVER_LIMIT, VALIDATION, TaskSplit
from curator.store import Store
from curator.text import clean
from curator.tokens import IGNORED
from tui.widgets.lines import Line, Part

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

# Sort orders in the order in which `s` goes through them: what by, whether descending, and what it is called.
ORDERS: tuple[tuple[str, bool, str], ...] = (
    ("influence", True, "most helpful first"),
    ("influence", False, "most harmful first"),
    ("length", True, "longest first"),
    ("length", False, "shortest first"),
    ("file", False, "as in the file"),
    ("file", True, "end of the file first"),
)
# Why a row is not trained on, in at most ten cells.
REASONS = {VALIDATION: "held out", LEAKED: "leaked", OVER_LIMIT: "over limit", EMPTY: "empty", CUT_OFF: "cut off"}
# An example is shown as far as that, in characters: longer than any context window that people train with.
LONGEST = 200_000
_TAB = 4
_SMALLEST_UNIT = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """All rows of one task, in the order of its files; n of them.

    Attributes:
        key: The task's version.
        texts: What the model sees (n), an Arrow column.
        spans: Start and end of the parts that carry loss (n), an Arrow column of lists.
        files: Name of the file (n), an Arrow column.
        lines: Line in the file (n,).
        lengths: Tokens (n,).
        completion_tokens: Tokens that carry loss (n,).
        truncated: Whether the end was cut off (n,).
        split: Which rows are trained on.
        trained: Their numbers (m,), in the order in which the estimator has them.
        reasons: Why a row is not trained on, by number.
    """

    key: str
    texts: Any
    spans: Any
    files: Any
    lines: Ints
    lengths: Ints
    completion_tokens: Ints
    truncated: Mask
    split: TaskSplit
    trained: Rows
    reasons: dict[int, str]

    def __len__(self) -> int:
        return len(self.lines)

    def text(self, number: int) -> str:
        """Text of one row."""
        return str(self.texts[number].as_py())

    def spans_of(self, number: int) -> tuple[int, ...]:
        """Start and end of each part of a row's text that carries loss, in characters, one after the other."""
        return tuple(self.spans[number].as_py() or ())

    def place(self, number: int) -> str:
        """File and line of one row."""
        return f"{self.files[number].as_py()}:{self.lines[number]}"

    def by_row(self, gains: Floats) -> Floats:
        """Influences of the trained rows (m,), laid out by row (n,); NaN for rows that are not trained on."""
        spread = np.full(len(self), np.nan)
        spread[self.trained] = gains
        return spread

    def search(self, words: str) -> Mask:
        """The rows (n,) whose text holds some words, whatever their case."""
        if not words:
            return np.ones(len(self), dtype=bool)
        found = pc.match_substring(self.texts, words, ignore_case=True)
        return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)

    def arranged(self, by: str, *, descending: bool, influence: Floats | None, shown: Mask) -> Rows:
        """Row numbers in an order.

        Args:
            by: `influence`, `length` or `file`.
            descending: Largest first.
            influence: Of each row (n,), NaN last; None where it is not known, which leaves them as in the file.
            shown: The rows that are wanted (n,).
        """
        rows = np.flatnonzero(shown)
        if by == "file" or (by == "influence" and influence is None):
            return rows[::-1] if by == "file" and descending else rows
        values = influence[rows] if by == "influence" and influence is not None else self.lengths[rows]
        return np.asarray(rows[np.argsort(-values if descending else values, kind="stable")])


def read_examples(store: Store, task: Task) -> Examples:
    """Read a task's rows.

    Args:
        store: The project's store.
        task: The task, with its split.

    Raises:
        CuratorError: The store cannot be read.
    """
    table = None
    with store.read() as connection:
        if connection is not None:
            table = connection.sql(
                "SELECT text, spans, file, line FROM examples WHERE task_key = ? ORDER BY number",
                params=[task.version.key],
            ).to_arrow_table()
    index = task.version.index
    if table is None or table.num_rows != len(index.lengths):
        # Dropped from the store meanwhile; whoever reads the project again will know.
        kinds = [("text", pa.string()), ("spans", pa.list_(pa.int32())), ("file", pa.string()), ("line", pa.int32())]
        table = pa.schema(kinds).empty_table()
        return _examples(task, table, trained=(), reasons={})
    reasons = {number: reason for reason, numbers in task.split.left_out.items() for number in numbers}
    return _examples(task, table, trained=task.split.train, reasons=reasons)


def _examples(task: Task, table: Any, *, trained: Sequence[int], reasons: dict[int, str]) -> Examples:
    count, index = table.num_rows, task.version.index
    return Examples(
        key=task.version.key,
        texts=table.column("text"),
        spans=table.column("spans"),
        files=table.column("file"),
        lines=np.asarray(table.column("line").to_numpy(), dtype=np.int64),
        lengths=np.asarray(index.lengths[:count], dtype=np.int64),
        completion_tokens=np.asarray(index.completion_tokens[:count], dtype=np.int64),
        truncated=np.asarray(index.truncated[:count], dtype=bool),
        split=task.split,
        trained=np.asarray(trained, dtype=np.intp),
        reasons=reasons,
    )


# -- influence --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit in which numbers of one size can be read.

    Attributes:
        factor: How many of it are one nat.
        name: Its name.
        decimals: Digits after the point.
    """

    factor: float
    name: str
    decimals: int

    def __call__(self, value: float) -> str:
        """A value in nats, with its sign; nothing where it is not known."""
        if np.isnan(value):
            return ""
        return f"{value * self.factor:+.{self.decimals}f}".replace("-", "−")


def unit_for(largest: float) -> Unit:
    """The unit for numbers up to a size in nats, so that the largest has about three digits."""
    size = max(largest, _SMALLEST_UNIT) if np.isfinite(largest) else 1.0
    units = ((1.0, "nat"), (1e3, "mnat"), (1e6, "µnat"), (1e9, "nnat"))
    factor, name = next((unit for unit in units if size * unit[0] >= 1), units[-1])
    return Unit(factor, name, 2 if size * factor < 10 else 1 if size * factor < 1000 else 0)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What the examples of a task do together, in nats.

    Attributes:
        low: The most harmful one's influence.
        high: The most helpful one's.
        helping: Share of the examples that help.
        total: Sum: what the task does, to first order.
        half: How many of the most helpful ones are needed for half of all help; 0 where nothing helps.
        thirds: Mean influence of the short, the middle and the long third; empty for fewer than three examples.
    """

    low: float
    high: float
    helping: float
    total: float
    half: int
    thirds: tuple[float, ...]


def summarise(gains: Floats, lengths: Ints) -> Summary | None:
    """Sum influences up; None where there are none.

    Args:
        gains: Of each training example (m,), in nats.
        lengths: Tokens of each (m,).
    """
    if not len(gains):
        return None
    helping = np.sort(gains[gains > 0])[::-1]
    half = int(np.searchsorted(np.cumsum(helping), helping.sum() / 2)) + 1 if len(helping) else 0
    thirds: tuple[float, ...] = ()
    if len(gains) >= 3:
        by_length = np.array_split(gains[np.argsort(lengths, kind="stable")], 3)
        thirds = tuple(float(part.mean()) for part in by_length)
    return Summary(float(gains.min()), float(gains.max()), len(helping) / len(gains), float(gains.sum()), half, thirds)


def histogram(gains: Floats, bins: int) -> list[int]:
    """How many influences lie in each of so many equal stretches from the least to the greatest."""
    return [int(count) for count in np.histogram(gains, bins=max(bins, 1))[0]] if len(gains) else []


# -- reading ----------------------------------------------------------------------------------------------------------


def pieces(text: str, spans: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Cut a text where loss begins and ends.

    Args:
        text: The text.
        spans: Start and end of each part that carries loss, in characters.

    Yields:
        Each part and whether it carries loss; together they are the text.
    """
    here = 0
    for start, end in zip(spans[::2], spans[1::2], strict=True):
        if start > here:
            yield text[here:start], False
        if end > start:
            yield text[start:end], True
        here = max(end, here)
    if here < len(text):
        yield text[here:], False


def marked(text: str, spans: Sequence[int]) -> list[Part]:
    """A text to be read: `▸` before each part that carries loss, and a style on it."""
    parts: list[Part] = []
    cut = list(pieces(text[:LONGEST], [min(place, LONGEST) for place in spans]))
    for (piece, carries), (following, _) in zip(cut, [*cut[1:], ("", False)], strict=False):
        # A line break of two characters may lie across a boundary; it is one break all the same.
        shown = piece.removesuffix("\r") if following.startswith("\n") else piece
        parts += [("▸", "accent"), (shown, "loss")] if carries else [shown]
    if len(text) > LONGEST:
        parts += [(f"\n… {len(text) - LONGEST:,} more characters", "dim")]
    return parts


def lay_out(parts: Sequence[Part], width: int) -> list[Line]:
    """Break parts into lines of at most `width` cells, at blanks where there are any.

    Line breaks are kept, tabs are brought to the next multiple of four cells, all else that would move the terminal's
    cursor is replaced. Only a blank at the end of a line may stand beyond its edge.
    """
    width = max(width, 2)
    lines: list[Line] = []
    for runs in _logical_lines(parts):
        text = "".join(run for run, _ in runs)
        cuts = _cuts(text, width)
        for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            lines.append(_slice(runs, start, end))
    return lines


def _logical_lines(parts: Sequence[Part]) -> Iterator[list[tuple[str, str]]]:
    line: list[tuple[str, str]] = []
    column = 0
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        text = text.replace("\r\n", "\n")
        for number, row in enumerate(text.split("\n")):
            if number:
                yield line
                line, column = [], 0
            for place, cell in enumerate(row.split("\t")):
                if place:
                    blanks = _TAB - column % _TAB
                    line.append((" " * blanks, style))
                    column += blanks
                if cell:
                    safe = clean(cell)
                    line.append((safe, style))
                    column += cell_len(safe)
    yield line


def _cuts(text: str, width: int) -> list[int]:
    """Where the lines begin."""
    cuts = [0]
    if text.isascii():
        while len(text) - cuts[-1] > width:
            start = cuts[-1]
            blank = text.rfind(" ", start + 1, start + width + 1)
            cuts.append(blank + 1 if blank > 0 else start + width)
        return cuts[:-1] if cuts[-1] == len(text) and len(cuts) > 1 else cuts
    ends = [0, *accumulate(_cells(character) for character in text)]
    while ends[-1] - ends[cuts[-1]] > width:
        start = cuts[-1]
        # The first character that does not fit; those of no width stay with the one before.
        stop = max(bisect_right(ends, ends[start] + width) - 1, start + 1)
        blank = text.rfind(" ", start + 1, stop + 1)
        wide = _cells(text[stop - 1]) == 2
        cuts.append(blank + 1 if blank > 0 and not wide else stop)
    return cuts[:-1] if cuts[-1] == len(text) and len(cuts) > 1 else cuts


@lru_cache(maxsize=10_000)
def _cells(character: str) -> int:
    # A variation selector may widen what stands before it: a cell too many is better than one that is cut off.
    return 1 if character == "\ufe0f" else cell_len(character)


def _slice(runs: list[tuple[str, str]], start: int, end: int) -> Line:
    parts: list[Part] = []
    here = 0
    for text, style in runs:
        piece = text[max(start - here, 0) : max(end - here, 0)]
        if piece:
            parts.append((piece, style) if style else piece)
        here += len(text)
        if here >= end:
            break
    return parts


def control_characters(text: str) -> int:
    """How many characters cleaning replaces, line breaks and tabs aside."""
    text = text.replace("\r\n", "").replace("\n", "").replace("\t", "")
    # Category by category, not character by character: a text of a megabyte has few different ones.
    return (
        0
        if text.isprintable()
        else sum(text.count(character) for character in set(text) if clean(character) != character)
    )


def preview(text: str, cells: int, words: str = "") -> str:
    """The beginning of a text on one line, or where some words stand in it if that is further on."""
    start = 0
    if words:
        found = text[:LONGEST].casefold().find(words.casefold())
        if found > max(cells - len(words) - 2, 0):
            start = max(found - 12, 0)
    return ("…" if start else "") + " ".join(text[start : start + 4 * max(cells, 1)].split())


# -- tokens -----------------------------------------------------------------------------------------------------------


def read_tokens(store: Store, key: str, number: int) -> tuple[list[int], list[int]]:
    """Token ids and labels of one row; nothing where it is gone.

    Args:
        store: The project's store.
        key: The task's version.
        number: The row.

    Raises:
        CuratorError: The store cannot be read.
    """
    with store.read() as connection:
        if connection is None:
            return [], []
        row = connection.execute(
            "SELECT input_ids, labels FROM examples WHERE task_key = ? AND number = ?", [key, number]
        ).fetchone()
    return (list(row[0]), list(row[1])) if row else ([], [])


class Vocabulary:
    """What token ids mean, where the model's folder says so.

    Args:
        folder: The model's folder; without a `tokenizer.json` in it, ids stay numbers.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = None
        path = folder / "tokenizer.json"
        if path.is_file():
            # Loaded when somebody looks at tokens, which few do.
            from tokenizers import Tokenizer

            try:
                self._tokenizer = Tokenizer.from_file(str(path))
            except Exception:  # The library raises nothing more special.
                self._tokenizer = None

    def words(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; its number where that is not known."""
        if self._tokenizer is None:
            return [str(token) for token in ids]
        found: list[str] = []
        before: list[int] = []
        for token in ids:
            found.append(self._word(before, token))
            before = [token]
        return found

    def _word(self, before: list[int], token: int) -> str:
        if self._tokenizer.id_to_token(token) is None:
            return str(token)
        alone = str(self._tokenizer.decode([token], skip_special_tokens=False))
        if not before:
            return alone
        # Many tokenizers drop the blank before a token that stands by itself.
        left = str(self._tokenizer.decode(before, skip_special_tokens=False))
        both = str(self._tokenizer.decode([*before, token], skip_special_tokens=False))
        return both[len(left) :] if both.startswith(left) else alone


def token_parts(ids: Sequence[int], labels: Sequence[int], vocabulary: Vocabulary) -> list[Part]:
    """Tokens to be read: `│` between them, `▸` where loss begins, and a style on those that carry it.

    Args:
        ids: Token ids.
        labels: Of each token −100 or its id; of an encoder–decoder the decoder's tokens, which are shown after the
            encoder's.
        vocabulary: What ids mean.
    """
    decoder = len(ids) != len(labels) or any(a not in (IGNORED, b) for a, b in zip(labels, ids, strict=True))
    if decoder:
        written = [token for token in labels if token != IGNORED]
        return [
            *_token_parts(ids, [False] * len(ids), vocabulary),
            "\n",
            *_token_parts(written, [True] * len(written), vocabulary),
        ]
    return _token_parts(ids, [label != IGNORED for label in labels], vocabulary)


def _token_parts(ids: Sequence[int], carries: Sequence[bool], vocabulary: Vocabulary) -> list[Part]:
    parts: list[Part] = []
    before = False
    for word, loss in zip(vocabulary.words(ids), carries, strict=True):
        parts.append(("▸", "accent") if loss and not before else ("│", "dim"))
        shown = word.replace("\r\n", "\n").replace("\n", "↵\n").replace("\t", "⇥")
        parts.append((shown, "loss token") if loss else shown)
        before = loss
    return parts

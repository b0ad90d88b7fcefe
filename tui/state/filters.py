"""Filter and sort tasks. Arrays in, row numbers out.

The filter language:

    carry sum           names that match both words, letter by letter in order (fuzzy)
    -noise              names that do not match
    tag:math src:flan   tag or source contains the word
    in:yes in:no        selected or not, also pin:in pin:out pin:any pin:no
    aff>0.1 n<500       numbers: aff, flip, n (examples), tokens, with > < >= <= =
    a | b               either
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask

Rows = npt.NDArray[np.intp]


class FilterError(ValueError):
    """The filter is invalid. The message names the word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns for filters and sort orders. Every field has one entry per task."""

    names: Sequence[str]
    tags: Sequence[str]
    sources: Sequence[str]
    examples: Floats
    tokens: Floats
    affinity: Floats
    """Affinity in nats. NaN if not known, as in `flip`."""
    flip: Floats
    selected: Mask
    pinned: Mask


# Sort columns in the order of the key `s`. The value is the first direction: True is descending.
SORTS: dict[str, bool] = {
    "affinity": True,
    "flip": False,
    "task": False,
    "examples": True,
    "tokens": True,
    "in": True,
    "tag": False,
}

_NUMBERS = "(aff|affinity|flip|n|examples|tokens|tok)"
_NUMBER = re.compile(rf"{_NUMBERS}(>=|<=|=|>|<)([-+−]?[0-9.]+(?:e[-+]?[0-9]+)?)$", re.I)
_FIELD = re.compile(r"(tag|src|in|pin):(.*)$", re.I)


def filter_rows(text: str, columns: Columns) -> Mask:
    """Return which tasks (t,) match a filter. The empty filter matches all tasks.

    Raises:
        FilterError: A word of the filter is invalid.
    """
    count = len(columns.names)
    groups = [group.split() for group in text.split("|")]
    if not any(groups):
        return np.ones(count, dtype=bool)
    found = np.zeros(count, dtype=bool)
    for words in groups:
        if not words:
            continue
        here = np.ones(count, dtype=bool)
        for word in words:
            negated = word.startswith("-") and len(word) > 1
            matches = _matches(word[1:] if negated else word, columns)
            here &= ~matches if negated else matches
        found |= here
    return found


def _matches(word: str, columns: Columns) -> Mask:
    if number := _NUMBER.match(word):
        return _by_number(number[1].lower(), number[2], number[3], columns)
    if field := _FIELD.match(word):
        return _by_field(field[1].lower(), field[2].lower(), columns)
    if re.match(rf"{_NUMBERS}[<>=]", word, re.I):
        raise FilterError(f"not a number: {word}")
    return _each(columns.names, lambda name: is_fuzzy(word, name))


def _by_number(field: str, sign: str, text: str, columns: Columns) -> Mask:
    values = {"a": columns.affinity, "f": columns.flip, "n": columns.examples, "e": columns.examples}.get(
        field[0], columns.tokens
    )
    try:
        number = float(text.replace("−", "-"))
    except ValueError:
        raise FilterError(f"not a number: {text}") from None
    compare: dict[str, Callable[[Floats, float], Mask]] = {
        ">": np.greater,
        "<": np.less,
        ">=": np.greater_equal,
        "<=": np.less_equal,
        "=": np.equal,
    }
    return np.asarray(compare[sign](values, number) & ~np.isnan(values))


def _by_field(field: str, value: str, columns: Columns) -> Mask:
    if field in ("tag", "src"):
        return _each(columns.tags if field == "tag" else columns.sources, lambda text: value in text.casefold())
    if field == "in":
        known = {"yes": columns.selected, "y": columns.selected, "no": ~columns.selected, "n": ~columns.selected}
    else:
        known = {
            "in": columns.pinned & columns.selected,
            "out": columns.pinned & ~columns.selected,
            "any": columns.pinned,
            "yes": columns.pinned,
            "no": ~columns.pinned,
        }
    if value not in known:
        raise FilterError(f"unknown value: {field}:{value} (use {', '.join(known)})")
    return np.asarray(known[value])


def _each(texts: Sequence[str], test: Callable[[str], bool]) -> Mask:
    return np.fromiter((test(text) for text in texts), dtype=bool, count=len(texts))


def is_fuzzy(word: str, text: str) -> bool:
    """Return whether a text contains the letters of a word in order, ignoring case."""
    letters = iter(text.casefold())
    return all(letter in letters for letter in word.casefold())


def sort_rows(rows: Rows, by: str, *, descending: bool, columns: Columns) -> Rows:
    """Sort rows by a column. Equal values are sorted by name, and unknown values are last.

    Args:
        rows: Row numbers.
        by: One of `SORTS`.
        descending: Whether the largest value is first.
        columns: Columns of all tasks.
    """
    named = sorted(rows.tolist(), key=lambda row: columns.names[row].casefold())
    if by == "task":
        return np.array(named[::-1] if descending else named, dtype=np.intp)
    if by == "tag":
        named.sort(key=lambda row: columns.tags[row].casefold(), reverse=descending)
        return np.array(named, dtype=np.intp)
    values = {
        "affinity": columns.affinity,
        "flip": columns.flip,
        "examples": columns.examples,
        "tokens": columns.tokens,
        "in": columns.selected * 2.0 + columns.pinned,
    }[by]
    order = np.array(named, dtype=np.intp)
    chosen = values[order]
    # NaN sorts last either way.
    return order[np.argsort(-chosen if descending else chosen, kind="stable")]

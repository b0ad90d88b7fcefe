"""The filter language, sort orders, and formats of numbers."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.state.filters import SORTS, Columns, FilterError, filter_rows, is_fuzzy, sort_rows
from tui.widgets import numbers

COLUMNS = Columns(
    names=["orca/math_word", "flan/sentiment", "code/py", "Código/JS", "tulu-safety"],
    tags=["math", "cls", "code", "code", ""],
    sources=["orca.jsonl", "flan.jsonl", "code.jsonl", "code.jsonl", "tulu.parquet"],
    examples=np.array([2310.0, 1500.0, 10.0, 20.0, 800.0]),
    tokens=np.array([9e4, 5e4, 100.0, 200.0, 8e3]),
    affinity=np.array([0.3, -0.2, 0.1, np.nan, 0.0]),
    flip=np.array([-0.01, 0.02, np.nan, 0.0, 0.01]),
    selected=np.array([True, False, True, False, True]),
    pinned=np.array([True, True, False, False, False]),
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("   ", [0, 1, 2, 3, 4]),
        ("mw", [0]),
        ("FLAN", [1]),
        ("-flan", [0, 2, 3, 4]),
        ("tag:code", [2, 3]),
        ("tag:code -py", [3]),
        ("src:jsonl n>100", [0, 1]),
        ("aff>0", [0, 2]),
        ("aff>=0", [0, 2, 4]),
        ("aff<-.1 | code/py", [1, 2]),
        ("aff<−.1", [1]),
        ("-aff>0", [1, 3, 4]),
        ("flip<0", [0]),
        ("n=10", [2]),
        ("tokens<=200", [2, 3]),
        ("tok>1e4", [0, 1]),
        ("in:yes", [0, 2, 4]),
        ("in:no -pin:any", [3]),
        ("pin:in", [0]),
        ("pin:out", [1]),
        ("pin:no in:yes", [2, 4]),
        ("a | | b", [0, 1, 4]),
        ("[bold] /", []),
    ],
)
def test_filter_rows_known_filters_match_tasks(text: str, found: list[int]) -> None:
    assert np.flatnonzero(filter_rows(text, COLUMNS)).tolist() == found


@pytest.mark.parametrize("text", ["aff>x", "in:maybe", "pin:", "n<", "aff>1.2.3", "examples>x", "tok=", "affinity<x"])
def test_filter_rows_invalid_word_is_error(text: str) -> None:
    with pytest.raises(FilterError, match=r"\w"):
        filter_rows(text, COLUMNS)


@given(st.text(max_size=12), st.text(max_size=20))
def test_is_fuzzy_equals_slow_search(word: str, text: str) -> None:
    word, text = word.casefold(), text.casefold()
    rest = text
    expected = True
    for letter in word:
        at = rest.find(letter)
        if at < 0:
            expected = False
            break
        rest = rest[at + 1 :]
    assert is_fuzzy(word, text) == expected


@given(st.text(max_size=30))
def test_filter_rows_any_text_never_crashes(text: str) -> None:
    with contextlib.suppress(FilterError):
        assert filter_rows(text, COLUMNS).shape == (5,)


@pytest.mark.parametrize("by", SORTS)
@pytest.mark.parametrize("descending", [True, False])
def test_sort_rows_keeps_rows_and_puts_unknown_last(by: str, descending: bool) -> None:
    rows = np.array([4, 2, 3, 0, 1])
    order = sort_rows(rows, by, descending=descending, columns=COLUMNS)
    assert sorted(order) == [0, 1, 2, 3, 4]
    values = {"affinity": COLUMNS.affinity, "flip": COLUMNS.flip, "examples": COLUMNS.examples}.get(by)
    if values is not None:
        known = [values[row] for row in order if not math.isnan(values[row])]
        assert known == sorted(known, reverse=descending)
        assert all(math.isnan(values[row]) for row in order[len(known) :])


@given(st.floats(-2, 2), st.floats(0, 1), st.integers(1, 12))
def test_bar_any_value_has_width_and_direction(value: float, scale: float, half: int) -> None:
    width = 2 * half + 1
    drawn = numbers.bar(value, scale, width)
    assert len(drawn) == width
    assert drawn[half] == "│"
    if value >= 0:
        assert drawn[:half].strip() == ""
    else:
        assert drawn[half + 1 :].strip() == ""
    if scale > 0 and abs(value) >= scale:
        assert drawn.count("█") == half


@given(st.floats(0, 1), st.integers(0, 30))
def test_meter_any_share_has_width(share: float, width: int) -> None:
    assert len(numbers.meter(share, width)) == width
    assert numbers.meter(1.0, width) == "█" * width


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (9999, "9,999"), (12345, "12.3k"), (4.5e6, "4.5M"), (2e9, "2.0G")]
)
def test_short_known_counts_give_texts(count: float, text: str) -> None:
    assert numbers.short(count) == text

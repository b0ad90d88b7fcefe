"""Numbers and times for people."""

import ast
import re
from pathlib import Path

import pytest

from curator.core.figures import (
    chance,
    correlation,
    duration,
    first_of,
    fixed,
    half_width,
    is_zero,
    margin,
    percent,
    short,
    signed,
    signed_percent,
    span,
)
from curator.core.interval import NORMAL_90, is_clear
from tui.widgets import numbers

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.00001, "0.0000"), (0.00001, "0.0000"), (-0.0, "0.0000"), (-0.0123, "-0.0123"), (0.5, "+0.5000")],
)
def test_signed_value_that_rounds_to_zero_has_no_sign(value: float, shown: str) -> None:
    assert signed(value) == shown
    assert numbers.signed(value) == shown.replace("-", "−")
    assert fixed(value) == shown.removeprefix("+")


def test_signed_percent_keeps_one_digit_and_no_sign_of_zero() -> None:
    assert [signed_percent(share) for share in (-0.0001, 0.123, -0.04)] == ["0.0%", "+12.3%", "-4.0%"]


def test_chance_from_draws_is_never_certain() -> None:
    assert [chance(p) for p in (1.0, 0.9965, 0.994, 0.5, 0.004, 0.0)] == [">99%", ">99%", "99%", "50%", "<1%", "<1%"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0123, "0.0123"), (0.00005, "0.0001"), (0.000049, "<0.0001"), (0.0, "<0.0001"), (float("nan"), "nan")],
)
def test_half_width_that_rounds_to_zero_is_a_bound(value: float, shown: str) -> None:
    assert margin(value) == shown
    assert half_width(value) == f"±{shown}"
    assert numbers.half_width(1.0 - value, 1.0 + value) in (f"±{shown}", "±<0.0001")
    assert half_width(0.004, 2) == "±<0.01"


def test_figures_half_widths_are_written_in_one_place() -> None:
    """An interval of width ±0.0000 would claim certainty."""
    own = re.compile(r"± ?\{(?:fixed|numbers\.loss|_number)\(")
    for folder in ("curator", "tui"):
        for path in (_ROOT / folder).rglob("*.py"):
            assert not own.findall(path.read_text(encoding="utf-8")), path


def test_figures_times_and_counts_have_one_form() -> None:
    assert [duration(s) for s in (1.25, 42, 75, 7300)] == ["1.2 s", "42 s", "1 min 15 s", "2 h 01 min"]
    assert [span(s) for s in (9.51, 130, 50520, 273600)] == ["9.5s", "2m10s", "14h02m", "3d04h"]
    assert [short(count) for count in (999, 12345, 4.5e6)] == ["999", "12.3k", "4.5M"]


def test_figures_other_modules_write_no_signs_and_losses() -> None:
    """A format with a sign, or with four digits, would show −0.0000."""
    own = re.compile(r":\+[^}]*\.\d[f%]\}|:\.4f\}")
    for folder in ("curator", "tui"):
        for path in (_ROOT / folder).rglob("*.py"):
            if path.name != "figures.py":
                assert not own.findall(path.read_text(encoding="utf-8")), path


def test_first_of_says_how_many_more_there_are() -> None:
    assert [first_of(["a", "b", "c"], most) for most in (1, 2, 3)] == ["a and 2 more", "a, b and 1 more", "a, b, c"]
    assert first_of([1, 2, 3], 2, joint="; ") == "1; 2; and 1 more"
    assert first_of([], 2) == ""
    assert first_of(range(3000), 1) == "0 and 2,999 more"


# `display` writes "… N in all", and `target_modules` asks for "some of these".
_CUT = {"figures.py", "display.py", "target_modules.py"}


def test_figures_other_modules_cut_no_lists() -> None:
    """A list that ends without a word looks complete."""
    for folder in ("curator", "tui"):
        for path in (_ROOT / folder).rglob("*.py"):
            joins = [
                ast.unparse(node)
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("', '.join", "'; '.join")
                and any(isinstance(inner, ast.Slice) and _cuts(inner) for inner in ast.walk(node))
            ]
            assert joins == [] or path.name in _CUT, joins


def _cuts(part: ast.Slice) -> bool:
    """Return whether a slice keeps a number of first items. `[:-1]` leaves out one item, which is named apart."""
    return part.lower is None and not isinstance(part.upper, ast.UnaryOp)


def test_percent_only_the_whole_is_all_and_only_zero_is_nothing() -> None:
    shares = (0.0, 0.001, 0.0049, 0.5, 0.995, 0.9999, 1.0)
    assert [percent(share) for share in shares] == ["0%", "<1%", "<1%", "50%", ">99%", ">99%", "100%"]
    assert [percent(share, 2) for share in (0.00001, 0.1234, 0.99999)] == ["<0.01%", "12.34%", ">99.99%"]


def test_correlation_has_three_digits_everywhere() -> None:
    assert [correlation(value) for value in (0.98765, -0.0001, None)] == ["0.988", "0.000", "-"]


@pytest.mark.parametrize(
    ("value", "style"),
    [(0.1, "good"), (-0.1, "harm"), (0.00004, "dim"), (-0.00004, "dim"), (0.0, "dim"), (float("nan"), "dim")],
)
def test_style_zero_as_written_and_unknown_values_neither_help_nor_harm(value: float, style: str) -> None:
    assert numbers.style(value) == style
    assert numbers.style(value, worse="bad") == style.replace("harm", "bad")
    assert is_zero(value) == (style == "dim" and value == value)
    assert numbers.style(value, 6) == (style if abs(value) != 0.00004 else "good" if value > 0 else "harm")


def test_is_clear_needs_more_than_the_interval() -> None:
    assert is_clear(0.1, None)
    assert is_clear(-0.2, 0.1)
    assert not is_clear(NORMAL_90 * 0.1, 0.1)
    assert not is_clear(0.0, 0.0)

"""The answer of Home: losses as bars with intervals, and one sentence about the selection in hand.

All estimates come from the estimate of one revision of the selection, and from the estimator of that estimate.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curator.core.figures import half_width, margin
from tui.app_base import AppBase
from tui.background.estimator_thread import selection_key
from tui.widgets import numbers
from tui.widgets.lines import Line, Part, fit, fit_name

if TYPE_CHECKING:
    from curator.core.interval import Interval
    from curator.estimate.whatif import LossDifference
    from curator.training.fine_tune import MeasuredSubset

_LEAST_NAME, _MOST_NAME = 14, 34
# Cells of the loss with its blanks, and of the words after a bar.
_LOSS, _WORDS = 9, 27


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One loss.

    Attributes:
        name: What was trained on.
        loss: Nats per target token; None until known.
        low: Lower end of the interval. Equal to the loss without an interval.
        high: Upper end of the interval.
        words: How the loss is known.
    """

    name: str
    loss: float | None
    low: float
    high: float
    words: str


def answer_bars(app: AppBase) -> list[Bar]:
    """Return the bars: the target alone, all tasks, and the selection in hand, estimated and measured."""
    snapshot, session, estimate = app.snapshot, app.session, app.estimate
    if snapshot is None or session is None or snapshot.answers is None:
        return []
    current = estimate is not None and estimate.revision == session.revision
    count = len(session.names)
    bars = []
    for name, mask in (("target only", np.zeros(count, bool)), (f"all {count} tasks", np.ones(count, bool))):
        if (runs := snapshot.runs_on(mask)) is not None:
            bars.append(_measured(name, runs))
        else:
            known = app.losses.get(selection_key(mask, ())) if current else None
            bars.append(_estimated(name, None if known is None else known.interval, plain=True))
    name = app.base_name or "this"
    size = int(session.mask.sum())
    words = (
        f"{name}{', changed' if session.base and session.is_changed else ''} ({size} task{'' if size == 1 else 's'})"
    )
    chosen = app.chosen_interval()
    interval = chosen or (estimate.target_loss.estimate if current and estimate is not None else None)
    bars.append(_estimated(words, interval if current else None, plain=chosen is None))
    if (runs := snapshot.runs_on(session.mask, session.dropped)) is not None:
        bars.append(_measured(words, runs))
    return bars


def _estimated(name: str, interval: "Interval | None", *, plain: bool) -> Bar:
    if interval is None:
        return Bar(name=name, loss=None, low=0.0, high=0.0, words="estimating …")
    words = f"{numbers.half_width(interval.low, interval.high)} estimated{'' if plain else ', chosen'}"
    return Bar(name=name, loss=interval.value, low=interval.low, high=interval.high, words=words)


def _measured(name: str, found: "MeasuredSubset") -> Bar:
    """Return the bar of a measured loss. With two runs or more, its interval is that of their mean."""
    losses = np.array(found.losses)
    # Student's 95 % quantiles, for a 90 % interval of a mean of 2, 3, … runs.
    quantiles = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
    if len(losses) < 2:
        return Bar(name=name, loss=found.mean, low=found.mean, high=found.mean, words="◎ measured, 1 run")
    quantile = quantiles[min(len(losses) - 2, len(quantiles) - 1)]
    half = quantile * float(losses.std(ddof=1)) / len(losses) ** 0.5
    words = f"{half_width(half)} ◎ measured, {len(losses)} runs"
    return Bar(name=name, loss=found.mean, low=found.mean - half, high=found.mean + half, words=words)


def bar_lines(bars: "list[Bar]", width: int) -> list[Line]:
    """Draw bars on one scale from 0, each with its interval.

    Args:
        bars: The bars.
        width: Cells of each line.
    """
    longest = max((len(bar.name) for bar in bars), default=0)
    name = max(min(longest, _MOST_NAME, width - _LOSS - _WORDS - 16), _LEAST_NAME)
    cells = max(width - name - _LOSS - _WORDS, 0)
    scale = max((bar.high for bar in bars if bar.loss is not None), default=0.0)
    lines: list[Line] = []
    for bar in bars:
        loss = "…" if bar.loss is None else numbers.loss(bar.loss)
        parts: list[Part] = [(fit_name(bar.name, name), "strong" if bar is bars[-1] else ""), f" {loss:>6}  "]
        lines.append([*parts, (bar_of(bar, scale, cells), "accent"), " ", (fit(bar.words, _WORDS - 1), "dim")])
    return lines


def bar_of(bar: Bar, scale: float, cells: int) -> str:
    """Draw one bar: filled up to the interval, then the interval with its ends, then blanks.

    Args:
        bar: The bar.
        scale: Loss at the right end.
        cells: Cells of the result.
    """
    if bar.loss is None or scale <= 0 or cells < 1:
        return " " * cells

    def place(loss: float) -> int:
        return max(0, min(cells - 1, round(loss / scale * (cells - 1))))

    low, here, high = place(bar.low), place(bar.loss), place(bar.high)
    drawn = ["█"] * low + [" "] * (cells - low)
    if high > low:
        drawn[low : high + 1] = ["├", *["─"] * (high - low - 1), "┤"]
        if low < here < high:
            drawn[here] = "┼"
    else:
        drawn[low] = "█"
    return "".join(drawn)


def answer_sentence(app: AppBase) -> Line:
    """Return one sentence: how the selection in hand compares with all tasks and with the target alone."""
    session, estimate = app.session, app.estimate
    if session is None or estimate is None or estimate.revision != session.revision or estimate.versus_none is None:
        return [("estimating …", "dim")]
    name = app.base_name if session.has_base and not session.is_changed else "This selection"
    if session.mask.all() and not session.dropped:
        return [f"All tasks together are {_than(estimate.versus_none, 'the target alone')}."]
    if not session.mask.any():
        return [f"The target alone is {_than(estimate.versus_all, 'all tasks')}."]
    words = f"{_than(estimate.versus_all, 'all tasks')}, and {_than(estimate.versus_none, 'the target alone')}."
    parts: list[Part] = [(name, "strong"), f" is {words}"]
    if session.has_base and session.is_changed:
        parts.append(f" Your change is {_than(estimate.versus_saved, app.base_name)}.")
    return parts


def _than(found: "LossDifference", other: str) -> str:
    """Return a comparison with its noise. A negative difference is better."""
    noise = margin(found.noise)
    if found.is_noise:
        return f"no different from {other} beyond the noise ({numbers.signed(found.value)} ± {noise})"
    gap = f"{numbers.loss(abs(found.value))} ± {noise}"
    return f"{'better' if found.value < 0 else 'worse'} than {other} by {gap}"

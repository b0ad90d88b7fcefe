"""Lines about the estimate of the selection, for several screens."""

from typing import TYPE_CHECKING

import numpy as np

from curator.core.figures import half_width
from curator.core.interval import NORMAL_90
from tui.app_base import AppBase
from tui.state.session import GLYPHS, State
from tui.widgets import numbers
from tui.widgets.lines import Line, Part, fit_name, spread, width_of, wrap_name
from tui.widgets.trust import measured_part

if TYPE_CHECKING:
    from curator.estimate.whatif import LossDifference
    from tui.background.estimator_thread import LiveEstimate

HEADLINE_WIDE = 110
"""Least cells of a headline with the measured loss. Narrow screens show the measured loss in the next line."""
_LEAST_NAME, _MOST_NAME = 8, 22


def difference_parts(words: str, difference: "LossDifference", *, short: bool = False) -> list[Part]:
    """Return a difference in loss. A difference within the noise is marked with `~noise` or `~`."""
    value = numbers.signed(difference.value)
    if difference.value == 0 and difference.noise == 0:
        return [(f"   {words} ", "dim"), ("same", "dim")]
    if difference.is_noise:
        return [(f"   {words} ", "dim"), (f"{value}~" if short else f"{value} ~noise", "dim")]
    return [(f"   {words} ", "dim"), (value, "good" if difference.value < 0 else "bad")]


def interval_parts(app: AppBase, low: float, high: float) -> list[Part]:
    """Return the interval of the selection in hand, with a word that says which interval it is.

    Args:
        app: The application.
        low: Lower end of the plain interval.
        high: Upper end of the plain interval.
    """
    chosen = app.chosen_interval()
    if chosen is None:
        return [f" {numbers.half_width(low, high)}", (" plain", "dim")]
    return [f" {numbers.half_width(chosen.low, chosen.high)}", (" chosen", "dim")]


def headline(app: AppBase, width: int) -> Line:
    """Return the estimated loss of the selection, and its differences to all tasks and to the saved selection."""
    if app.snapshot is None:
        return [" "]
    if app.snapshot.answers is None:
        return [(f" {app.missing()}", "warn")]
    if app.session is None:
        return [" "]
    estimate = app.estimate
    if estimate is None:
        return [(f" reading gradients … {app.reading}", "dim")]
    if estimate.revision != app.session.revision:
        return spread([" loss ", ("…", "strong")], [("◌ estimating ", "dim")], width)
    target = estimate.target_loss
    parts: list[Part] = [
        " loss ",
        (numbers.loss(target.loss), "strong"),
        *interval_parts(app, target.low, target.high),
    ]
    note = f" {app.snapshot.trust} "
    if width >= HEADLINE_WIDE:
        note = f" {app.snapshot.trust} · nats/token · 90 % · ✓ {estimate.seconds * 1000:.0f} ms "
        if (measured := measured_line(app)) is not None:
            parts += ["  ", measured]
    base = app.base_name or None
    parts += _differences(estimate, base, width - width_of([*parts, note]))
    return spread(parts, [(note, "dim" if app.snapshot.calibrated_on else "warn")], width)


def _differences(estimate: "LiveEstimate", base: str | None, width: int) -> list[Part]:
    """Return the differences to all tasks and to the saved selection, shortened to the width.

    Args:
        estimate: The estimate.
        base: Name of the saved selection that the session started from; None if it is not saved.
        width: Most cells of the result.
    """
    if base is None:
        parts = difference_parts("vs all", estimate.versus_all)
        return parts if width_of(parts) <= width else difference_parts("vs all", estimate.versus_all, short=True)
    name = fit_name(base, min(width_of([base]), _MOST_NAME))
    for short in ((False, False), (False, True), (True, True)):
        every = difference_parts("vs all", estimate.versus_all, short=short[0])
        room = width - width_of([*every, *difference_parts("vs ", estimate.versus_saved, short=short[1])])
        if room >= min(width_of([name]), _LEAST_NAME):
            break
    if room < min(width_of([name]), _LEAST_NAME):
        # The difference to the saved selection is the one that the last edit changed.
        every = []
        room = width - width_of(difference_parts("vs ", estimate.versus_saved, short=True))
    name = fit_name(name, max(min(width_of([name]), room), 1))
    return [*every, *difference_parts(f"vs {name}", estimate.versus_saved, short=short[1])]


def measured_line(app: AppBase) -> Part | None:
    """Return the measured loss of the selection; None if the loss is not measured."""
    if app.snapshot is None or app.session is None:
        return None
    measured = app.snapshot.measured_loss(app.session.mask, app.session.dropped)
    return measured_part(measured, word=True) if measured is not None else None


def task_lines(app: AppBase, task: int, width: int) -> list[Line]:
    """Return a few lines about one task."""
    snapshot, session, estimate = app.snapshot, app.session, app.estimate
    if snapshot is None or session is None:
        return []
    state = session.state(task)
    words = {
        State.IN: "in",
        State.OUT: "out",
        State.PINNED_IN: "pinned in",
        State.PINNED_OUT: "pinned out",
    }[state]
    first, *rest = wrap_name(snapshot.names[task], width - 2)
    lines: list[Line] = [[(f"{GLYPHS[state]} ", "good" if state.selected else "dim"), (first, "strong")]]
    lines += [["  ", (more, "strong")] for more in rest]
    affinity, error = float(snapshot.affinity[task]), float(snapshot.affinity_error[task])
    if not np.isnan(affinity):
        known = snapshot.affinity[~np.isnan(snapshot.affinity)]
        rank = int((known > affinity).sum()) + 1
        spread_of = f" {half_width(NORMAL_90 * error)}" if np.isfinite(error) else ""
        lines.append([f"{words} · helps by {numbers.signed(affinity)}{spread_of} · rank {rank} of {len(known)}"])
    else:
        lines.append([words])
    if estimate is not None and estimate.revision == session.revision and not np.isnan(estimate.flips[task]):
        change = float(estimate.flips[task])
        after = ("" if estimate.solved[task] else "≈ ") + numbers.loss(estimate.target_loss.loss + change)
        lines.append(
            [
                f"{'without' if state.selected else 'with'} it → {after} (",
                (numbers.signed(change), numbers.style(-change)),
                ")",
            ]
        )
    else:
        lines.append([""])
    tags = f" · {snapshot.tags[task]}" if snapshot.tags[task] else ""
    lines.append(
        [(f"{app.sizes()[0][task]:,.0f} examples · {numbers.short(app.sizes()[1][task])} tokens{tags}", "dim")]
    )
    return lines


def history_lines(app: AppBase, count: int, width: int) -> list[Line]:
    """Return the last edits, newest first, with the change of the loss."""
    if app.session is None:
        return []
    lines: list[Line] = []
    for entry, before, after in reversed(app.edit_losses(count)):
        change = ""
        if after is not None and before is not None and entry.is_of_selection:
            change = numbers.signed(after - before)
        words = {"undo": f"undo {entry.label}", "redo": f"redo {entry.label}"}.get(entry.kind, entry.label)
        time = entry.made.astimezone().strftime("%H:%M")
        lines.append(spread([(f"{time} ", "dim"), words], [(f" {change}", "dim")], width))
    return lines or [[("no edits yet", "dim")]]

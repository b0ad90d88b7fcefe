"""Panels around the matrix: the pair under the cursor, groups of similar tasks, and the legend."""

from typing import TYPE_CHECKING

import numpy as np

from curator.core.arrays import Mask
from curator.core.figures import fixed, percent
from tui.app_base import AppBase
from tui.state.transfer import Together, Transfer
from tui.widgets import numbers
from tui.widgets.lines import Line, Part, fit_name, spread
from tui.widgets.matrix import HELPS, HURTS, Matrix, label

if TYPE_CHECKING:
    from tui.state.snapshot import Snapshot


def title_line(query: str, error: str, right: str, width: int, *, transposed: bool) -> Line:
    """Return the line above the matrix.

    Args:
        query: The filter; "" without a filter.
        error: Error of the filter; "" without an error.
        right: Text at the right end.
        width: Cells of the line.
        transposed: Whether columns help rows.
    """
    arrow = "column → row" if transposed else "row → column"
    left: list[Part] = [("─ ", "dim")]
    if error:
        left += [(f"✗ {error}", "bad")]
    elif query:
        left += [("/ ", "accent"), query, (f" · {arrow}", "dim")]
    else:
        left += [("transfer · ", "dim"), arrow]
    return spread([*left, " "], [(f" {right} ", "dim")], width)


def nothing_line(app: AppBase, known: Transfer | None, *, failed: bool = False) -> Line:
    """Return the reason for the empty matrix.

    Args:
        app: The application.
        known: Effects of tasks on each other; None until known.
        failed: Whether the computation failed.
    """
    if app.snapshot is None or app.snapshot.answers is None:
        return [("" if app.trouble is not None else f" {app.missing()}", "warn")]
    if not app.snapshot.names:
        return [(" no auxiliary tasks", "dim")]
    if failed:
        return [(" ✗ cannot compute the matrix: press ctrl+l to try again", "bad")]
    if known is None:
        return [(" ◌ reading gradients and estimating transfer between tasks …", "dim")]
    return [(" no task matches the filter", "dim")]


def legend_line(matrix: Matrix, *, wide: bool) -> Line:
    """Return the legend on one line. Wide screens also show `legend_lines`."""
    if wide:
        return [(" [ ] cursor · ● in ○ out ◆ ◇ pinned · right: affinity to the target", "dim")]
    full = f"{matrix.scale:.2g}"
    return [
        (f" ▇ −{full}", "harm"),
        (" ▄ ▂ ", "harm"),
        ("0", "dim"),
        (" ░ ▒ ▓ ", "good"),
        (f"█ +{full}", "good"),
        (f" nats of the {'row' if matrix.transposed else 'column'}'s loss", "dim"),
        (f" · {percent(matrix.beyond)} beyond", "dim"),
    ]


def legend_lines(matrix: Matrix) -> list[Line]:
    """Return the legend with the value at which each glyph begins."""
    scale, target = matrix.scale, matrix.target_scale
    lines: list[Line] = [[("glyph    from      for the target from", "dim")]]
    for signs, sign, style in ((HELPS, "+", "good"), (HURTS[::-1], "−", "harm")):
        for least, shade in signs:
            other = f"{sign}{fixed(least * target)}" if target else ""
            lines.append([(f"  {shade}    {sign}{fixed(least * scale)}    ", style), (other, style)])
    words = (
        "  ·    same task (blank: near 0)",
        f"nats of the {'row' if matrix.transposed else 'column'}'s training loss,",
        "first order, around all tasks. Full",
        f"scale {scale:.2g}: {percent(matrix.beyond)} of pairs are beyond",
    )
    return [*lines, *([(line, "dim")] for line in words)]


def group_lines(known: Transfer, matrix: Matrix, mask: Mask, width: int) -> list[Line]:
    """Return groups of similar tasks, their labels in the matrix, and their tasks in the selection.

    Args:
        known: Effects of tasks on each other.
        matrix: The matrix.
        mask: The selection (t,).
        width: Cells of each line.
    """
    lines: list[Line] = []
    shown = known.arrangement.groups[matrix.tasks]
    for group, name in enumerate(known.groups):
        inside = np.flatnonzero(shown == group)
        if not inside.size:
            continue
        first, last = int(inside[0]), int(inside[-1])
        span = (
            label(first, matrix.count) if first == last else f"{label(first, matrix.count)}–{label(last, matrix.count)}"
        )
        if last - first + 1 != len(inside):
            span = ""
        here, chosen = shown[matrix.cursor] == group, int(mask[matrix.tasks[inside]].sum())
        right: list[Part] = [f" {span:>5}", (f"  in {chosen}/{len(inside)}", "good" if chosen else "dim")]
        left: list[Part] = [(f"{group + 1} ", "accent" if here else "dim"), (name, "strong" if here else "")]
        lines.append(spread(left, right, width))
    return lines


def cell_title(matrix: Matrix) -> str:
    """Return the labels of the pair under the cursor: the task that helps, then the task that is helped."""
    row, column = label(matrix.cursor, matrix.count), label(matrix.column, matrix.count)
    return f"cell {column}→{row}" if matrix.transposed else f"cell {row}→{column}"


def cell_lines(
    known: Transfer, cell: tuple[int, int], snapshot: "Snapshot", pair: list[Line], width: int, *, wide: bool
) -> list[Line]:
    """Return lines about the pair under the cursor: three lines on narrow screens.

    Args:
        known: Effects of tasks on each other.
        cell: The task that helps, and the task that is helped.
        snapshot: Names and affinities of the tasks.
        pair: Effect of both tasks on the target, from `together_lines`.
        width: Cells of each line.
        wide: Whether more than three lines fit.
    """
    giver, taker = cell
    value, names = float(known.values[giver, taker]), snapshot.names
    amount: Part = (numbers.signed(value), numbers.style(value))
    first, second = (numbers.signed(float(snapshot.affinity[task])) or "unknown" for task in cell)
    if giver == taker:
        words: Part = ("effect of its examples on itself", "dim")
        affinity: Line = [f"affinity to the target {first}"]
        if wide:
            return [[(fit_name(names[giver], width), "strong")], [amount], [words], affinity]
        return [spread([(names[giver], "strong"), " ", words], ["  ", amount], width), affinity, []]
    others = np.delete(known.values[giver], giver)
    rank = f"rank {int((others > value).sum()) + 1} of {len(others)}"
    if wide:
        return [
            [(fit_name(names[giver], width), "strong")],
            ["→ ", (fit_name(names[taker], width - 2), "strong")],
            [amount, (f" nats · {rank}", "dim")],
            [("affinity to the target", "dim")],
            [f"  {first}, {second}"],
            [(f"target's loss, {snapshot.trust}, with", "dim")],
            *pair,
        ]
    half = max((width - 26) // 2, 6)
    heading: list[Part] = [(fit_name(names[task], half).rstrip(), "strong") for task in cell]
    heading.insert(1, " → ")
    return [
        spread(heading, ["  ", amount, (f"  {rank}", "dim")], width),
        spread([("affinity ", "dim"), f"{first}, {second}"], pair[-1], width),
        spread(pair[0], [(snapshot.trust, "dim")], width),
    ]


def together_lines(found: Together | None, now: tuple[bool, bool], *, transposed: bool, wide: bool) -> list[Line]:
    """Return the four losses of the target, then the synergy of the two tasks.

    Args:
        found: The estimates; None until known.
        now: Whether each of the two tasks is in the selection.
        transposed: Whether the task that helps is in the column.
        wide: Whether each loss has its own line.
    """
    if found is None:
        waiting: Part = ("◌ estimating …", "dim")
        return [[waiting], *([[]] * 4)] if wide else [[waiting], [("together …", "dim")]]
    row, column = found.giver, found.taker
    if transposed:
        row, column, now = column, row, now[::-1]
    lines: list[Line] = []
    short: list[Part] = [("loss ", "dim")]
    for word, estimated, inside in (
        ("both", found.both, (True, True)),
        ("row", row, (True, False)),
        ("column", column, (False, True)),
        ("neither", found.neither, (False, False)),
    ):
        mark: Part = ("▸" if now == inside else "", "accent")
        short += [mark, f"{word} {numbers.loss(estimated.loss)}  "]
        change = estimated.loss - found.neither.loss
        lines.append(
            [
                ("▸ " if now == inside else "  ", "accent"),
                f"{f'{word} only' if word in ('row', 'column') else word:<12}{numbers.loss(estimated.loss)}  ",
                ("" if word == "neither" else numbers.signed(change), numbers.style(-change)),
                ("  now", "dim") if now == inside else "",
            ]
        )
    better = found.synergy.value < 0
    if found.synergy.is_noise:
        style, meaning = "dim", "~noise"
    else:
        style, meaning = ("good", "better together") if better else ("harm", "worse together")
    synergy: list[Part] = [("synergy ", "dim"), (f"{numbers.signed(found.synergy.value)} {meaning}", style)]
    return [*lines, ["  ", *synergy]] if wide else [short, synergy]

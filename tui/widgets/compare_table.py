"""The table of compared selections: estimates, sizes and a verdict."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curator.core.figures import fixed, half_width
from curator.estimate.whatif import LossDifference
from tui.state.comparison import LETTERS, Chosen, Estimates
from tui.state.session import drops_of
from tui.widgets import numbers
from tui.widgets.lines import Line, Part, spread
from tui.widgets.trust import measured_part

if TYPE_CHECKING:
    from tui.state.snapshot import Snapshot

# Cells of "calibrated·99" with a space on either side.
_HEAD_CELLS = 15
_MOST_CELLS = 40
# Least cells of a column with the kind of its interval.
_WITH_WORD = 22


def table_lines(chosen: Sequence[Chosen], known: Estimates | None, snapshot: "Snapshot", width: int) -> list[Line]:
    """Return the lines of the table, with a column for each selection.

    Args:
        chosen: The selections.
        known: Estimates of the selections; None until known.
        snapshot: Snapshot with the tasks of the selections.
        width: Cells of each line.
    """
    cells = min((width - _HEAD_CELLS) // max(len(chosen), 1), _MOST_CELLS)

    def row(word: str, values: Sequence[Line]) -> Line:
        parts: list[Part] = [(f" {word}".ljust(_HEAD_CELLS), "dim")]
        for value in values:
            parts += [*spread(value, (), cells - 1), " "]
        return parts

    # The corner shows whether the estimates are calibrated, because this is the same for all columns.
    trust = snapshot.trust if snapshot.answers is not None else ""
    titles = [
        row(
            trust, [[(f"{letter} ", "accent"), (c.title, "strong")] for letter, c in zip(LETTERS, chosen, strict=False)]
        )
    ]
    if known is None:
        waiting: list[Line] = [[("◌" if snapshot.answers is not None else "—", "dim")]] * len(chosen)
        losses, versus = row("est. loss", waiting), [row(word, waiting) for word in ("vs A", "vs all")]
    else:
        estimated: list[Line] = [
            [(numbers.loss(j.loss), "strong"), *_interval(c, j.low, j.high, cells)]
            for c, j in zip(chosen, known.target_losses, strict=True)
        ]
        losses = row("est. loss", estimated)
        scale = max((abs(d.value) for d in known.versus_all), default=0.0)
        above_all = [
            [("base", "dim")] if c.mask.all() and not c.dropped else _versus_all(d, scale, cells)
            for c, d in zip(chosen, known.versus_all, strict=True)
        ]
        versus = [
            row("vs A", [[("—", "dim")], *(_versus(d, cells) for d in known.versus_first[1:])]),
            row("vs all", above_all),
        ]
    measured = [[measured_part(c.measured) or ("—", "dim")] for c in chosen]
    sizes: list[Line] = []
    for c in chosen:
        whole = snapshot.sizes(drops_of(c.dropped))
        examples, tokens = whole[0][c.mask].sum(), numbers.short(whole[1][c.mask].sum())
        long = f"{examples:,.0f} examples · {tokens} tokens"
        sizes.append([long if len(long) < cells else f"{numbers.short(examples)} · {tokens}"])
    return [
        *titles,
        losses,
        row("measured", measured),
        *versus,
        row("tasks", [[f"{int(c.mask.sum())} of {len(snapshot.names)}"] for c in chosen]),
        row("ex · tok", sizes),
        [(" overlap".ljust(_HEAD_CELLS), "dim"), _overlap(chosen, snapshot)],
    ]


def _interval(chosen: Chosen, low: float, high: float, cells: int) -> Line:
    """Return the interval of a selection. A wide column says which interval it is."""
    if chosen.interval is not None:
        low, high = chosen.interval.low, chosen.interval.high
    word = "plain" if chosen.interval is None else "chosen"
    return [f" {numbers.half_width(low, high)}", (f" {word}" if cells > _WITH_WORD else "", "dim")]


def _versus(found: LossDifference, cells: int) -> Line:
    if found.value == 0 and found.noise == 0:
        return [("same", "dim")]
    words = f"{numbers.signed(found.value)} {half_width(found.noise)}"
    if found.is_noise:
        return [(words + (" ~noise" if len(words) + 8 < cells else "~"), "dim")]
    return [(words, "good" if found.value < 0 else "bad")]


def _versus_all(found: LossDifference, scale: float, cells: int) -> Line:
    style = "dim" if found.is_noise else "good" if found.value < 0 else "bad"
    text = numbers.signed(found.value) + ("~" if found.is_noise else " ")
    length = max(min(cells - len(text) - 2, 24), 0)
    return [(text, style), (numbers.meter(abs(found.value) / scale if scale else 0.0, length).rstrip(), style)]


def _overlap(chosen: Sequence[Chosen], snapshot: "Snapshot") -> Part:
    if len(chosen) < 2:
        return ("—", "dim")
    a, b = chosen[0].mask, chosen[1].mask
    both, either = int((a & b).sum()), int((a | b).sum())
    jaccard = f"{both / either:.3f}" if either else "—"
    tokens = [snapshot.sizes(drops_of(c.dropped))[1][c.mask].sum() for c in chosen[:2]]
    ratio = f"{tokens[0] / tokens[1]:.2f}×" if tokens[1] else "—"
    return f"A∩B {both} · A∪B {either} · Jaccard {jaccard} · tokens A/B {ratio}"


def verdict(chosen: Sequence[Chosen], known: Estimates | None, *, wide: bool) -> Line:
    """Return a verdict on the difference between the first two selections.

    Args:
        chosen: The selections.
        known: Estimates of the selections; None until known.
        wide: Whether the line has room for the source of the noise.
    """
    if known is None:
        return [(" ◌ estimating …", "dim")]
    if len(chosen) < 2:
        return [(" pick another selection (p) to compare A with", "dim")]
    if (chosen[0].mask == chosen[1].mask).all() and chosen[0].dropped == chosen[1].dropped:
        return [(" A and B hold the same tasks and examples", "dim")]
    found = known.versus_first[1]
    gap, noise = f"{fixed(abs(found.value))}", half_width(found.noise)
    if found.is_noise:
        words = f" ! A–B gap {gap} is within the noise of {noise}: not a reliable difference"
        return [(words, "warn"), (_measured_words(chosen) if wide else "", "dim")]
    better = "B" if found.value < 0 else "A"
    measured = _measured_words(chosen)
    if not measured:
        measured = " · noise of the validation examples · not measured" if wide else " (not measured)"
    return [(f" ✓ estimated loss of {better} is lower by {gap}, noise {noise}", "good"), (measured, "dim")]


def _measured_words(chosen: Sequence[Chosen]) -> str:
    """Return the measured loss of B minus that of A; "" if a loss is not measured."""
    first, second = chosen[0].measured, chosen[1].measured
    return "" if first is None or second is None else f" · ◎ B−A {numbers.signed(second - first)}"

"""Compare: up to four selections side by side, and the tasks in which they differ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from textual import on, work
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget
from textual.worker import get_current_worker

from curator.errors import CuratorError
from curator.text import clean
from curator.whatif import Difference, Judgement, difference, flips, judge_each
from tui import numbers
from tui.actions import bindings_of
from tui.messages import Failed
from tui.modals.pick import MOST, PickDialog
from tui.screens.base import CuratorScreen
from tui.session import Mask
from tui.session import Rows as RowNumbers
from tui.thinking import SOLVED_IN_FULL
from tui.widgets.lines import Line, Lines, Part, fit, spread
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from curator.answers import Answers

Floats = npt.NDArray[np.float64]

# A command line cannot hold a NUL, nor can the name of a selection that was typed.
NOW, ALL, NONE = "\0now", "\0all", "\0none"
LETTERS = "ABCD"
SORTS = ("Δ", "affinity", "name")
_AT_ONCE = 8
_HEAD_CELLS = 11


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """One of the selections that are compared.

    Attributes:
        key: `NOW`, `ALL`, `NONE`, or the name of a saved one.
        title: As it is called.
        mask: Membership (t,).
        measured: Measured loss, if there is one.
    """

    key: str
    title: str
    mask: Mask
    measured: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What selections are estimated to come to.

    Attributes:
        token: What they belong to: key of the answers, and the selections themselves.
        judgements: Of each selection.
        versus_first: Difference of each to the first.
        versus_all: Difference of each to all tasks.
        changes: What turning each task round in the first adds to the loss (t,); NaN where it is not known yet.
        solved: Whether that is estimated in full, rather than to first order (t,).
        is_complete: Whether no better ones follow.
    """

    token: tuple[str, bytes]
    judgements: list[Judgement]
    versus_first: list[Difference]
    versus_all: list[Difference]
    changes: Floats
    solved: Mask
    is_complete: bool


def which_rows(masks: Mask, which: str) -> RowNumbers:
    """The tasks that a list shows.

    Args:
        masks: Membership by selection (s, t).
        which: `all`, `different`, `only A` (of A and B), `only B`.
    """
    if which == "all" or not len(masks):
        return np.arange(masks.shape[1])
    if which == "different":
        return np.flatnonzero(masks.any(axis=0) & ~masks.all(axis=0))
    first, second = masks[0], masks[1] if len(masks) > 1 else masks[0]
    return np.flatnonzero(first & ~second if which == "only A" else second & ~first)


class Differences(Rows):
    """Tasks, and which of the selections they are in."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.view: RowNumbers = np.zeros(0, dtype=np.intp)
        self.masks: Mask = np.zeros((0, 0), dtype=bool)
        self.changes: Floats = np.zeros(0)
        self.solved: Mask = np.zeros(0, dtype=bool)

    @property
    def count(self) -> int:
        """Tasks that are shown."""
        return len(self.view)

    @property
    def task_row(self) -> int | None:
        """The task under the cursor."""
        return int(self.view[self.cursor]) if self.count else None

    def _cells(self, width: int) -> tuple[int, int]:
        """Cells of the name and of the bar, in a line of a width."""
        room = width - 2 * len(self.masks) - 1 - 9 - 10 - 17
        bar = 25 if room >= 60 else 0
        return max(room - bar, 8), bar

    def title(self, width: int) -> Line:
        """The line above the list, of the whole width."""
        name, bar = self._cells(width - 1)
        letters = "".join(f" {letter}" for letter in LETTERS[: len(self.masks)])
        change = "if moved in A"
        scale = self._scale()
        ends = f"full bar {scale:.2g}".rjust(bar) if bar and scale else ""
        return [(f" {letters}  {fit('task', name)}{'n':>8} {'affinity':>10}  {change:<15}{ends}", "title")]

    def _scale(self) -> float:
        known = np.abs(self.changes[self.view]) if len(self.changes) else self.changes
        known = known[~np.isnan(known)]
        return float(known.max()) if known.size else 0.0

    def line(self, row: int, width: int) -> Line:
        """One task."""
        workspace = self.app.workspace  # type: ignore[attr-defined]
        if workspace is None or self.masks.shape[1] != len(workspace.names):
            # Tasks came or went, and the screen has not been told yet.
            return ()
        task, (name, bar) = int(self.view[row]), self._cells(width)
        parts: list[Part] = []
        for mask in self.masks:
            parts.append(("● " if mask[task] else "○ ", "good" if mask[task] else "dim"))
        affinity = float(workspace.affinity[task])
        style = "good" if affinity > 0 else "bad"
        parts += [
            " ",
            fit(workspace.names[task], name),
            f"{workspace.examples[task]:>8,.0f} ",
            (f"{numbers.signed(affinity) or '·':>10}", style),
        ]
        change = float(self.changes[task]) if len(self.changes) else float("nan")
        style = "good" if change < 0 else "bad"
        word = "drop" if self.masks[0][task] else "add "
        if np.isnan(change):
            parts.append((f"  {word} …".ljust(17), "dim"))
        else:
            about = " " if self.solved[task] else "≈"
            parts += [f"  {word} ", (f"{about}{numbers.signed(change)}".ljust(10), style)]
            if bar:
                parts.append((numbers.bar(change, self._scale(), bar), style))
        return parts


class CompareScreen(CuratorScreen):
    """Selections side by side."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("compare")
    place = "compare"

    class Estimated(Message):
        """Estimates are there, or have become better."""

        def __init__(self, estimates: Estimates) -> None:
            super().__init__()
            self.estimates = estimates

        def can_replace(self, message: Message) -> bool:
            """Only the newest count."""
            return isinstance(message, CompareScreen.Estimated)

    def __init__(self) -> None:
        super().__init__()
        self.estimates: Estimates | None = None
        self._asked: tuple[str, bytes] | None = None
        self._which, self._sort, self._descending = "different", SORTS[0], True

    def body(self) -> Iterable[Widget]:
        """The table, the list of tasks, and what to make of it."""
        return [
            Vertical(
                Lines([()] * 8, id="compared"),
                Lines([(), ()], id="differences-title"),
                Differences(id="differences", classes="first-focus"),
                Lines([()], id="verdict"),
            )
        ]

    @property
    def differences(self) -> Differences:
        """The list."""
        return self.query_one(Differences)

    # -- what is compared ---------------------------------------------------------------------------------------------

    def picks(self) -> list[str]:
        """Keys of what is compared: what was picked and is still there, else now, its base, and all tasks."""
        app = self.app
        if app.workspace is None or app.session is None:
            return []
        there = {NOW, ALL, NONE} | {saved.name for saved in app.workspace.selections}
        found = list(dict.fromkeys(pick for pick in app.place.compared if isinstance(pick, str) and pick in there))
        if not found:
            base = app.session.base
            found = [NOW, *([base] if app.workspace.selection(base) is not None else []), ALL]
        return found[:MOST]

    def chosen(self) -> list[Chosen]:
        """What is compared."""
        return [self._choice(key) for key in self.picks()]

    def _choice(self, key: str) -> Chosen:
        workspace, session = self.app.workspace, self.app.session
        assert workspace is not None
        assert session is not None
        if key == NOW:
            changed = int((session.mask != session.saved).sum())
            return Chosen(NOW, f"now ({changed} changed)" if changed else "now", session.mask)
        if key in (ALL, NONE):
            title = "all tasks" if key == ALL else "target only"
            return Chosen(key, title, np.full(len(workspace.names), key == ALL))
        saved = workspace.selection(key)
        assert saved is not None
        return Chosen(key, key, saved.mask(workspace.names), saved.manifest.measured_loss)

    # -- showing ------------------------------------------------------------------------------------------------------

    def show(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("runs", "outlook"):
            return
        self._draw()

    def _draw(self, *, sort: bool = True) -> None:
        chosen = self.chosen()
        self._ask(chosen)
        known = self._known(chosen)
        width = self.app.size.width
        self.query_one("#compared", Lines).show(self._table(chosen, known, width))
        self._list(chosen, known, sort=sort)
        rows = self.differences
        self.query_one("#differences-title", Lines).show([self._list_title(width), rows.title(width)])
        self.query_one("#verdict", Lines).show([self._verdict(chosen, known)])

    def _token(self, chosen: Sequence[Chosen]) -> tuple[str, bytes] | None:
        workspace = self.app.workspace
        if workspace is None or workspace.answers is None or not chosen:
            return None
        return workspace.answers.key, np.stack([c.mask for c in chosen]).tobytes() + bytes([len(chosen)])

    def _known(self, chosen: Sequence[Chosen]) -> Estimates | None:
        """The estimates, if they are of what is compared now."""
        token = self._token(chosen)
        return self.estimates if self.estimates is not None and self.estimates.token == token else None

    def _table(self, chosen: Sequence[Chosen], known: Estimates | None, width: int) -> list[Line]:
        app = self.app
        if app.workspace is None or app.session is None:
            return [[("" if app.trouble is not None else f" {app.missing()}", "warn")], *[[]] * 7]
        workspace = app.workspace
        cells = (width - _HEAD_CELLS) // max(len(chosen), 1)
        cells = min(cells, 40)
        titles = [(f"{letter} ", c.title) for letter, c in zip(LETTERS, chosen, strict=False)]
        lines: list[Line] = [
            [
                " " * _HEAD_CELLS,
                *(
                    part
                    for letter, title in titles
                    for part in ((letter, "accent"), (fit(title, cells - 3), "strong"), " ")
                ),
            ]
        ]
        waiting: list[Line] = [[("◌" if workspace.answers is not None else "—", "dim")]] * len(chosen)
        if known is None:
            lines += [self._row(word, waiting, cells) for word in ("est. loss", "vs A", "vs all")]
        else:
            lines.append(
                self._row(
                    "est. loss",
                    [
                        [(numbers.loss(j.loss), "strong"), f" {numbers.half_width(j.low, j.high)}"]
                        for j in known.judgements
                    ],
                    cells,
                )
            )
            first = [[("—", "dim")], *(self._versus(d, cells) for d in known.versus_first[1:])]
            lines.append(self._row("vs A", first, cells))
            scale = max((abs(d.value) for d in known.versus_all), default=0.0)
            lines.append(
                self._row(
                    "vs all",
                    [
                        [("base", "dim")] if chosen[n].mask.all() else self._versus_all(d, scale, cells)
                        for n, d in enumerate(known.versus_all)
                    ],
                    cells,
                )
            )
        lines.append(
            self._row(
                "measured",
                [[f"◎ {numbers.loss(c.measured)}"] if c.measured is not None else [("—", "dim")] for c in chosen],
                cells,
            )
        )
        total = len(workspace.names)
        lines.append(self._row("tasks", [[f"{int(c.mask.sum())} of {total}"] for c in chosen], cells))
        sizes: list[Line] = []
        for c in chosen:
            examples, tokens = workspace.examples[c.mask].sum(), numbers.short(workspace.tokens[c.mask].sum())
            long = f"{examples:,.0f} examples · {tokens} tokens"
            sizes.append([long if len(long) < cells else f"{numbers.short(examples)} · {tokens}"])
        lines.append(self._row("ex · tok", sizes, cells))
        lines.append(self._overlap(chosen))
        return lines

    def _row(self, word: str, values: Sequence[Line], cells: int) -> Line:
        parts: list[Part] = [(f" {word}".ljust(_HEAD_CELLS), "dim")]
        for value in values:
            parts += [*spread(value, (), cells - 1), " "]
        return parts

    def _versus(self, found: Difference, cells: int) -> Line:
        if found.value == 0 and found.noise == 0:
            return [("same", "dim")]
        words = f"{numbers.signed(found.value)} ±{found.noise:.4f}"
        if found.is_noise:
            mark = " ~noise" if len(words) + 8 < cells else "~"
            return [(words + mark, "dim")]
        return [(words, "good" if found.value < 0 else "bad")]

    def _versus_all(self, found: Difference, scale: float, cells: int) -> Line:
        style = "dim" if found.is_noise else "good" if found.value < 0 else "bad"
        text = numbers.signed(found.value)
        length = max(min(cells - len(text) - 3, 24), 0)
        shown = numbers.meter(abs(found.value) / scale if scale else 0.0, length).rstrip()
        return [(text + ("~" if found.is_noise else " "), style), (f"{shown}", style)]

    def _overlap(self, chosen: Sequence[Chosen]) -> Line:
        workspace = self.app.workspace
        head: Part = (" overlap".ljust(_HEAD_CELLS), "dim")
        if len(chosen) < 2 or workspace is None:
            return [head, ("—", "dim")]
        a, b = chosen[0].mask, chosen[1].mask
        both, either = int((a & b).sum()), int((a | b).sum())
        jaccard = f"{both / either:.3f}" if either else "—"
        tokens = workspace.tokens[a].sum(), workspace.tokens[b].sum()
        ratio = f"{tokens[0] / tokens[1]:.2f}×" if tokens[1] else "—"
        return [head, f"A∩B {both} · A∪B {either} · Jaccard {jaccard} · tokens A/B {ratio}"]

    def _list_title(self, width: int) -> Line:
        parts: list[Part] = [("─ ", "dim"), ("tasks  ", "title")]
        for which in self._kinds():
            here = which == self._which
            parts.append((f"[{which}]" if here else f" {which} ", "accent" if here else "dim"))
        arrow = "▼" if self._descending else "▲"
        right = f" {self.differences.count} tasks · {self._sort} {arrow} "
        return spread(parts, [(right, "dim")], width)

    def _verdict(self, chosen: Sequence[Chosen], known: Estimates | None) -> Line:
        app = self.app
        if app.workspace is None or app.session is None:
            return ()
        if app.workspace.answers is None:
            return [(f" {app.missing()}", "warn")]
        if known is None:
            return [(" ◌ estimating …", "dim")]
        if len(chosen) < 2:
            return [(" pick another selection (p) to compare A with", "dim")]
        if (chosen[0].mask == chosen[1].mask).all():
            return [(" A and B hold the same tasks", "dim")]
        found = known.versus_first[1]
        gap, noise = f"{abs(found.value):.4f}", f"±{found.noise:.4f}"
        if found.is_noise:
            return [
                (
                    f" ! A–B gap {gap} is inside the noise of {noise}: not a reliable difference",
                    "warn",
                )
            ]
        better = "B" if found.value < 0 else "A"
        return [
            (f" ✓ {better} is estimated lower by {gap}, beyond the noise of {noise}", "good"),
            (" (not measured)" if not self.is_wide else " · by the choice of validation examples; not measured", "dim"),
        ]

    # -- the list -----------------------------------------------------------------------------------------------------

    def _kinds(self) -> list[str]:
        return ["all", "different", "only A", "only B"] if len(self.picks()) > 1 else ["all"]

    def _list(self, chosen: Sequence[Chosen], known: Estimates | None, *, sort: bool = True) -> None:
        workspace, rows = self.app.workspace, self.differences
        if workspace is None or not chosen:
            rows.view, rows.masks, rows.changes = np.zeros(0, dtype=np.intp), np.zeros((0, 0), dtype=bool), np.zeros(0)
            rows.changed()
            return
        task = rows.task_row
        rows.masks = np.stack([c.mask for c in chosen])
        count = len(workspace.names)
        rows.changes = known.changes if known is not None else np.full(count, np.nan)
        rows.solved = known.solved if known is not None else np.zeros(count, dtype=bool)
        if sort:
            which = self._which if len(chosen) > 1 else "all"
            rows.view = self._sorted(which_rows(rows.masks, which), rows.changes)
        rows.changed()
        there = np.flatnonzero(rows.view == task)
        # Somebody at the top has not begun to read yet: the list may change beneath.
        if len(there) and rows.cursor:
            rows.cursor = int(there[0])

    def _sorted(self, rows: RowNumbers, changes: Floats) -> RowNumbers:
        workspace = self.app.workspace
        assert workspace is not None
        named = np.array(sorted(rows.tolist(), key=lambda row: workspace.names[row].casefold()), dtype=np.intp)
        if self._sort == "name":
            # Descending is the first direction of all columns; of names, that is from A.
            return named if self._descending else named[::-1]
        values = np.abs(changes[named]) if self._sort == "Δ" else workspace.affinity[named]
        return named[np.argsort(-values if self._descending else values, kind="stable")]

    @on(Rows.Opened)
    def _opened(self) -> None:
        rows = self.differences
        if rows.task_row is not None:
            self.app.open_task(rows.task_row, rows.view)

    # -- estimates ----------------------------------------------------------------------------------------------------

    def _ask(self, chosen: Sequence[Chosen]) -> None:
        workspace, token = self.app.workspace, self._token(chosen)
        if token is None or workspace is None or workspace.answers is None or token == self._asked:
            return
        self._asked = token
        self._estimate(workspace.answers, np.stack([c.mask for c in chosen]), token)

    @work(thread=True, exclusive=True, group="compare", exit_on_error=False)
    def _estimate(self, answers: "Answers", masks: Mask, token: tuple[str, bytes]) -> None:
        worker = get_current_worker()
        try:
            estimator = answers.estimator
            *judgements, every = judge_each(estimator, np.concatenate([masks, np.ones_like(masks[:1])]))
            first = [difference(estimator, judged, judgements[0]) for judged in judgements]
            above_all = [difference(estimator, judged, every) for judged in judgements]
            mask, count = masks[0], masks.shape[1]
            gains = estimator.task_gains(estimator.gains(mask)) if count else np.zeros(0)
            changes, solved = np.where(mask, gains, -gains), np.zeros(count, dtype=bool)

            def tell(*, complete: bool = False) -> None:
                found = Estimates(token, judgements, first, above_all, changes.copy(), solved.copy(), complete)
                self.post_message(self.Estimated(found))

            tell()
            # Those in which the selections differ are looked at first.
            different = which_rows(masks, "different")
            wanted = np.concatenate([different, np.setdiff1d(np.arange(count), different)])[:SOLVED_IN_FULL]
            for start in range(0, len(wanted), _AT_ONCE):
                if worker.is_cancelled:
                    return
                part = wanted[start : start + _AT_ONCE]
                changes[part], solved[part] = flips(estimator, judgements[0], part), True
                tell()
            if not worker.is_cancelled:
                tell(complete=True)
        except (CuratorError, OSError) as error:
            self.app.post_message(Failed("compare the selections", error))

    @on(Estimated)
    def _estimated(self, message: Estimated) -> None:
        chosen = self.chosen()
        if message.estimates.token != self._token(chosen):
            return
        before = self._known(chosen)
        self.estimates = message.estimates
        # Rows that move at every better number could not be read.
        self._draw(sort=before is None or message.estimates.is_complete)

    # -- actions ------------------------------------------------------------------------------------------------------

    def action_pick(self) -> None:
        """Pick what is compared."""
        workspace, session = self.app.workspace, self.app.session
        if workspace is None or session is None:
            return
        total = len(workspace.names)
        choices = [
            (NOW, "now", f"{int(session.mask.sum())} in, the selection in hand"),
            *(
                (s.name, s.name, f"{sum(t.selected for t in s.manifest.tasks)} in, {s.method}")
                for s in workspace.selections
            ),
            (ALL, "all tasks", f"{total} in"),
            (NONE, "target only", "0 in"),
        ]
        self.app.push_screen(PickDialog(choices, self.picks()), self._picked)

    def _picked(self, picked: list[str] | None) -> None:
        if picked:
            self.app.place.compared = list(picked)
            self._draw()

    def action_swap(self) -> None:
        """Swap A and B."""
        picks = self.picks()
        if len(picks) < 2:
            self.app.flash("nothing to swap A with: pick another selection (p)", "warn")
            return
        self._picked([picks[1], picks[0], *picks[2:]])

    def action_show_which(self) -> None:
        """All tasks, different ones, only in A, only in B."""
        kinds = self._kinds()
        place = kinds.index(self._which) if self._which in kinds else -1
        self._which = kinds[(place + 1) % len(kinds)]
        self._draw()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._descending = True
        self._draw()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._descending = not self._descending
        self._draw()

    def action_verify(self) -> None:
        """Say that nothing can be measured from here yet."""
        self.app.flash("measured losses come with `curator verify`, which this version does not have", "warn")

    def action_copy(self) -> None:
        """Copy the table and the list."""
        chosen = self.chosen()
        if not chosen:
            return
        rows = self.differences
        lines = self._table(chosen, self._known(chosen), 160)
        lines += [(), rows.title(100), *(rows.line(row, 99) for row in range(rows.count))]
        text = "\n".join("".join(clean(p if isinstance(p, str) else p[0]) for p in line).rstrip() for line in lines)
        self.app.copy_to_clipboard(text + "\n")
        self.app.flash(f"copied: {len(chosen)} selections, {rows.count} tasks")

    def action_export(self) -> None:
        """Export A."""
        picks = self.picks()
        if picks and picks[0] in (ALL, NONE):
            self.app.flash("A is not a saved selection: save it (w) or swap (X) first", "warn")
        else:
            self.app.export(picks[0] if picks and picks[0] != NOW else "")


__all__ = ["ALL", "NONE", "NOW", "Chosen", "CompareScreen", "Differences", "Estimates", "which_rows"]

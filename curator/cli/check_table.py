"""Print the report of `curator check`: one table, with one line for each task and reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curator import results
from curator.cli.tables import console, table_of
from curator.core.text import styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# A collection of many tasks prints at most about sixty lines. `--details` prints all.
_TABLE_LINES, _TASKS, _REASONS, _NOTES = 32, 14, 10, 12
# Longest reason in the table, in characters.
_LONGEST = 100
_NUMBERS = ("rows", "train", "held out", "tokens", "longest", "truncated", "left out")
# Rows that are held out and not lost.
_HELD_OUT = ("test", "validation")
_COUNTS_OF_BAD_ROWS = "cannot be used"


@dataclass(slots=True)
class _Reason:
    """Tasks and rows that are left out for one reason. `rows` is 0 for whole tasks."""

    words: str
    rows: int = 0
    tasks: list[str] = field(default_factory=list)


def show_check(report: results.CheckReport, *, details: bool = False) -> None:
    """Print tasks, sizes and problems.

    Args:
        report: Result of `Project.check`.
        details: Whether to print every task, problem and near duplicate. Otherwise equal problems share a line.
    """
    out = console()
    table = table_of("task", *_NUMBERS, "format or reason", numbers=_NUMBERS)
    reasons = {task.name: _reasons(task) for task in report.tasks}
    lines = len(report.tasks) + sum(map(len, reasons.values()))
    if details or lines <= _TABLE_LINES:
        for task in report.tasks:
            _add_task(table, task)
            for reason in reasons[task.name]:
                _add_reason(table, "", reason)
    else:
        # Targets come first, then the tasks that lose the most rows.
        ordered = sorted(
            report.tasks, key=lambda task: (not task.target, not task.problem, -_lost(task) - task.truncated)
        )
        for shown in sorted(ordered[:_TASKS], key=lambda task: task.name):
            _add_task(table, shown)
        if ordered[_TASKS:]:
            _add_rest(table, ordered[_TASKS:])
        whole = [_Reason(f"not used: {task.problem}", 0, [task.name]) for task in report.tasks if task.problem]
        grouped = _grouped([*whole, *(reason for task in report.tasks for reason in reasons[task.name])])
        for reason in grouped[:_REASONS]:
            more = f" and {len(reason.tasks) - 1:,} more" if len(reason.tasks) > 1 else ""
            _add_reason(table, f"{reason.tasks[0]}{more}", reason)
        if len(grouped) > _REASONS:
            _add_reason(table, "", _Reason(f"and {len(grouped) - _REASONS:,} more reasons (--details lists them)"))
    out.print(styled(f"{report.project}: {len(report.tasks):,} tasks, model {report.model}"))
    out.print(table)
    if not report.target:
        out.print(styled("! no target task is named. Set `target` under [data], or pass --target.", "yellow"))
    notes = report.notes if details else report.notes[:_NOTES]
    more_notes = len(report.notes) - len(notes)
    for note in (*notes, *([f"{more_notes:,} more notes: --details lists them"] if more_notes else [])):
        out.print(styled("! ", "yellow"), styled(note), sep="", soft_wrap=True)
    if details and report.duplicates:
        _show_duplicates(report, out)


def _show_duplicates(report: results.CheckReport, out: "Console") -> None:
    numbers = ("pairs", "examples", "other examples")
    table = table_of("task", "other", *numbers, numbers=numbers)
    for pair in report.duplicates:
        counts = (pair.pairs, pair.examples, pair.other_examples)
        table.add_row(styled(pair.task), styled(pair.other), *(styled(f"{count:,}") for count in counts))
    out.print(styled("near duplicates by pair of tasks:"))
    out.print(table)
    out.print(styled("near duplicates by row:"))
    for task, row, other, other_row in report.near_duplicates:
        out.print(styled(f"  {task} row {row:,} and {other} row {other_row:,}"), soft_wrap=True)
    more = sum(pair.pairs for pair in report.duplicates) - len(report.near_duplicates)
    if more > 0:
        out.print(styled(f"  and {more:,} more pairs of rows", "dim"))


def _add_task(table: "Table", task: results.CheckedTask) -> None:
    counts = (task.rows, task.examples, task.validation, task.tokens, task.longest, task.truncated, _lost(task))
    name = f"{task.name} (target)" if task.target else task.name
    # The reasons in brackets have their own lines.
    about = f"not used: {task.problem.partition(' (')[0]}" if task.problem else ""
    table.add_row(
        styled(name, "bold" if task.target else ""),
        *map(_count, counts),
        styled(about, "red", limit=_LONGEST) if about else styled(_formats(task.formats), "dim"),
    )


def _add_rest(table: "Table", tasks: Sequence[results.CheckedTask]) -> None:
    """Add one row for all other tasks. The number under `longest` is the largest."""
    counts = (
        sum(task.rows for task in tasks),
        sum(task.examples for task in tasks),
        sum(task.validation for task in tasks),
        sum(task.tokens for task in tasks),
        max(task.longest for task in tasks),
        sum(task.truncated for task in tasks),
        sum(map(_lost, tasks)),
    )
    names = list(dict.fromkeys(name for task in tasks for name in task.formats))
    table.add_row(styled(f"and {len(tasks):,} more tasks"), *map(_count, counts), styled(", ".join(names), "dim"))


def _add_reason(table: "Table", name: str, reason: _Reason) -> None:
    cells = [styled("") for _ in _NUMBERS[:-1]]
    rows = styled(f"{reason.rows:,}" if reason.rows else "", "yellow")
    table.add_row(styled(name, "dim", limit=40), *cells, rows, styled(reason.words, "yellow", limit=_LONGEST))


def _reasons(task: results.CheckedTask) -> list[_Reason]:
    """Return why rows of a task are left out, and what curator assumed about its files."""
    found = []
    for words, count in task.left_out.items():
        if words not in (*_HELD_OUT, _COUNTS_OF_BAD_ROWS):
            found.append(_Reason(words, count, [task.name]))
    found += [_Reason(words, count, [task.name]) for words, count in task.bad_rows.items()]
    if task.test:
        found.append(_Reason(f"note: {task.test:,} examples are kept for the test", 0, [task.name]))
    return found + [_Reason(f"note: {note}", 0, [task.name]) for note in task.notes]


def _grouped(reasons: Sequence[_Reason]) -> list[_Reason]:
    """Join equal reasons of several tasks. The reasons of most tasks come first."""
    found: dict[str, _Reason] = {}
    for reason in reasons:
        group = found.setdefault(reason.words, _Reason(reason.words))
        group.rows += reason.rows
        group.tasks += reason.tasks
    return sorted(found.values(), key=lambda group: -len(group.tasks))


def _lost(task: results.CheckedTask) -> int:
    return sum(count for reason, count in task.left_out.items() if reason not in _HELD_OUT)


def _count(count: int) -> "Text":
    return styled(f"{count:,}" if count else "-", "" if count else "dim")


def _formats(formats: dict[str, int]) -> str:
    """Return the format of all rows, or each format with its number of rows."""
    return ", ".join(f"{name} ({rows:,})" if len(formats) > 1 else name for name, rows in formats.items())

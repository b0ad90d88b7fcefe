"""Count the rows and the tasks that cannot be used, and write the error that names them."""

import bisect
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curator.core.errors import DataError
from curator.data.rows import Row, place

# Largest number of lines that an error lists.
_LISTED = 5
SKIP_HINT = 'Pass --skip-bad-rows, or set bad_rows = "skip" under [data], to continue without such rows.'
"""Hint for rows and tasks that curator can leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """Describe one row that cannot be used."""

    file: str
    """File or hub id."""
    line: int
    """Line in the file from 1, or 0."""
    number: int
    """Position in the task from 0."""
    problem: str
    """Reason, and the hint on a second line."""

    @property
    def place(self) -> str:
        """Return the place of the row for error messages."""
        return place(self.file, self.line, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableTask:
    """Describe a task that cannot be used, and the reason."""

    name: str
    error: DataError
    files: tuple[str, ...] = ()
    rows: int = 0
    """Rows that were read."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows that cannot be trained on, by reason."""
    formats: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What curator assumed about the files."""

    @property
    def line(self) -> str:
        """Return the name and the reason on one line."""
        message = self.error.message.partition("\n")[0]
        return message if repr(self.name) in message else f"task {self.name!r}: {message}"

    @property
    def reason(self) -> str:
        """Return the reason without the names of the task and its files, so that equal reasons are equal."""
        message = self.error.message.partition("\n")[0]
        for words in (f"task {self.name!r}: ", f" in task {self.name!r}", f" in target {self.name!r}"):
            message = message.replace(words, "")
        for file in self.files:
            message = message.replace(file, "the file")
        return message


def reasons(rows: Sequence[BadRow]) -> dict[str, int]:
    """Return the number of rows by reason, most frequent reason first."""
    return dict(Counter(row.problem.partition("\n")[0] for row in rows).most_common())


def each_once(tasks: Sequence[Sequence[BadRow]]) -> list[BadRow]:
    """Return the bad rows of several tasks, each once.

    A row whose task is unknown is a bad row of every task that shares its file.
    """
    most: dict[tuple[str, int, str], list[BadRow]] = {}
    for rows in tasks:
        own: dict[tuple[str, int, str], list[BadRow]] = {}
        for row in rows:
            own.setdefault((row.file, row.line, row.problem), []).append(row)
        for key, found in own.items():
            if not key[1]:
                # Rows of a table have no line, and no two tasks share one.
                most.setdefault(key, []).extend(found)
            elif len(found) > len(most.get(key, ())):
                # One line can hold several rows.
                most[key] = found
    return [row for found in most.values() for row in found]


def rows_refusal(bad: Sequence[BadRow | Row], rows: int, where: str, *, skippable: bool = True) -> DataError:
    """Return the error for rows that cannot be used.

    Args:
        bad: The bad rows. At least one.
        rows: Number of all rows, good and bad.
        where: Name of the file or files that hold the rows.
        skippable: Whether the command can leave out bad rows. The hint then says how.
    """
    first, _, hint = bad[0].problem.partition("\n")
    hint = f"{hint} {SKIP_HINT}" if skippable else hint
    if len(bad) == 1:
        return DataError(f"{bad[0].place}: {first} (1 of {rows:,} rows in {where})", hint=hint)
    return DataError(
        f"{len(bad):,} of {rows:,} rows in {where} cannot be used:\n  " + "\n  ".join(_lines(bad)),
        hint=hint,
    )


def _lines(bad: Sequence[BadRow | Row]) -> list[str]:
    """Return one line for each file and reason, with its number of rows."""
    groups: dict[tuple[str, str], list[BadRow | Row]] = {}
    for row in bad:
        groups.setdefault((row.file, row.problem.partition("\n")[0]), []).append(row)
    listed = [
        f"{rows[0].place}: {problem}" + (f" ({len(rows):,} rows)" if len(rows) > 1 else "")
        for (_, problem), rows in itertools.islice(groups.items(), _LISTED)
    ]
    rest = sum(len(rows) for rows in itertools.islice(groups.values(), _LISTED, None))
    return [*listed, f"and {rest:,} more"] if rest else listed


def refusal(tasks: Sequence[UnusableTask], bad: DataError | None, *, skippable: bool) -> DataError | None:
    """Return one error for all tasks and rows that cannot be used, or None if all can.

    Args:
        tasks: Tasks that cannot be used.
        bad: Result of `rows_refusal`, or None.
        skippable: Whether the project could continue without these tasks.
    """
    if not tasks:
        return bad
    hint = f"{tasks[0].error.hint} {SKIP_HINT}" if skippable else tasks[0].error.hint
    if len(tasks) == 1 and bad is None:
        return DataError(tasks[0].error.message, hint=hint)
    listed = [task.line for task in tasks[:_LISTED]]
    if len(tasks) > _LISTED:
        listed.append(f"and {len(tasks) - _LISTED:,} more tasks")
    count = f"{len(tasks):,} tasks" if len(tasks) > 1 else "1 task"
    message = f"{count} cannot be used:\n  " + "\n  ".join(listed)
    return DataError(message if bad is None else f"{message}\n{bad.message}", hint=hint)


def file_of(files: Sequence[tuple[str, str, int]], number: int) -> str:
    """Return the file of a row by its position. Two files may have the same name.

    Args:
        files: (path, sha256, rows) of each file of the task.
        number: Position in the task from 0.
    """
    ends = list(itertools.accumulate(count for _, _, count in files))
    return files[bisect.bisect_right(ends, number)][0]

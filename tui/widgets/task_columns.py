"""The columns of the table of tasks: which of them a width holds, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: Name in the settings, and name of the order that a click on its title sets, if there is one.
        title: Title above the column.
        cells: Width, with the gap to the column before.
        words: What the column shows.
        right: Whether the column is flush right.
    """

    name: str
    title: str
    cells: int
    words: str
    right: bool = True


COLUMNS = (
    Column("examples", "n", 8, "training examples"),
    Column("tokens", "tokens", 8, "training tokens"),
    Column("affinity", "helps by", 10, "how much the task helps the target, in nats"),
    Column("error", "±", 8, "half of the 90 % interval of `helps by`"),
    Column("rank", "rank", 6, "place by `helps by`, 1 helps most"),
    Column("bar", "", 17, "`helps by` as a bar"),
    Column("flip", "if flipped", 11, "change of the loss if the task is toggled"),
    Column("tag", "tag", 11, "tags", right=False),
    Column("source", "source", 17, "file or id on the hub", right=False),
    Column("preview", "first example", 0, "start of the first example", right=False),
)
"""All columns after the name, in their order on the screen. The preview takes the remaining cells."""
BY_NAME = {column.name: column for column in COLUMNS}
SORT_TITLES = {column.name: column.title for column in COLUMNS if column.title and column.name != "examples"}
"""Titles of the columns by the names of orders. An order without a title has its own name."""
# What the table shows first when there is room.
_BY_VALUE = ("affinity", "examples", "flip", "tag", "bar", "error", "rank", "tokens", "source", "preview")
# The cursor, the mark, the state and their gaps.
_HEAD = 5
_LEAST_NAME, _MOST_NAME = 14, 36
_LEAST_PREVIEW = 24
# A narrow table has no tags: names need the room.
_LEAST_WITH_TAGS = 74


def laid_out(width: int, *, longest: int, chosen: Sequence[str], known: Sequence[str]) -> list[tuple[str, int]]:
    """Return names and cells of the columns at a width. The name of the task is first.

    Args:
        width: Cells of the table.
        longest: Cells of the longest name of a task.
        chosen: Columns that the user chose. Without any, the table shows as many as fit.
        known: Columns that have values.
    """
    name = min(max(longest, _LEAST_NAME), _MOST_NAME)
    room, shown = width - _HEAD - _LEAST_NAME, []
    wanted = [column for column in _BY_VALUE if column in known and (not chosen or column in chosen)]
    for column in wanted:
        if column == "tag" and not chosen and width < _LEAST_WITH_TAGS:
            continue
        # The first columns may shorten long names, the others may not.
        least = room if chosen or _BY_VALUE.index(column) < _BY_VALUE.index("error") else room + _LEAST_NAME - name
        cells = BY_NAME[column].cells or _LEAST_PREVIEW
        if cells > least:
            break
        shown.append(column)
        room -= cells
    found = [(column.name, column.cells) for column in COLUMNS if column.name in shown]
    if "preview" not in shown:
        return [("task", max(room + _LEAST_NAME, 6)), *found]
    # The preview takes the cells that the name does not need.
    spare = max(room + _LEAST_NAME - name, 0)
    return [("task", room + _LEAST_NAME - spare), *found[:-1], ("preview", _LEAST_PREVIEW + spare)]

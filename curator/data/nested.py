"""Find rows that a file holds under a key, and cells that lie inside a column.

| file | its rows |
|---|---|
| BBH, BIG-bench | `examples` |
| Super-NaturalInstructions | `Instances` |
| self-instruct | `instances` of each line |
| SQuAD | `data[].paragraphs[].qas[]` |
| `{"data": […]}` and other objects with one list of rows | that list |
| `{"train": […], "test": […]}` | `train` |
| `{"prompt": […], "completion": […]}` and other exports of pandas | one row for each index |
| Open Assistant | conversations.py |

A row also gets the fields that stand outside of its list, such as the `instruction` of self-instruct.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from curator.core.errors import DataError
from curator.core.figures import first_of
from curator.data.conversations import conversations_of_tree, is_message, is_tree, read_messages
from curator.data.raw import Note, RawRow
from curator.data.shapes import as_known, is_complete
from curator.data.suggestions import speaker_and_text

Fields = dict[str, Any]

_TRAIN = ("train", "training")
_OTHER_SPLITS = ("test", "validation", "valid", "val", "dev", "eval", "evaluation")
# Fields that make a row complete, so that a field of the whole file must not stand in for them.
_NEVER_SHARED = {
    *("messages", "conversations", "text", "completion", "output", "targets", "target", "target_scores", "answer"),
    *("answers", "response", "chosen", "rejected", "label"),
}
# Keys whose list is a part of one row: its choices, or several answers.
_PARTS = {"choices", "options", "answers", "completions", "responses"}
# Keys whose empty list means that a file has no rows.
_EMPTY_HOLDERS = {"data", "rows", "examples", "instances", "Instances", *_TRAIN}
# Keys under which public data sets hold their rows.
_HOLDERS = {"Instances", "instances", "paragraphs", "rows", "examples"}
# Largest number of lists that an error names.
_MOST_NAMED = 6


def cell(row: Mapping[str, Any], name: str) -> Any:
    """Return a cell by the name of its column, or by a path such as `data.question` or `answers.text.0`.

    Args:
        row: Row as read from the file.
        name: Name of a column, or a path. A number is a position in a list, from 0.

    Returns:
        The cell, or None if the row has no such cell.
    """
    if name in row or "." not in name:
        return row.get(name)
    value: Any = row
    for step in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def rows_of(raw: Iterable[RawRow], path: str, names: Collection[str] = ()) -> Iterator[RawRow]:
    """Yield the rows that a reader's rows hold under a key, and all other rows unchanged.

    Args:
        raw: What a reader yields for one file.
        path: Path to the list of rows in each object, or "" to recognise the files of the table above.
        names: Columns that the project's configuration names. A row with one of them is a row itself.

    Yields:
        Lines, rows, errors and notes like a reader. Rows under a key have the line 0.
    """
    rows = iter(raw)
    held: list[RawRow] = []
    found: list[Fields | DataError] = []
    for line, row in rows:
        held.append((line, row))
        if not isinstance(row, Note):
            found.append(row)
        if len(found) == 2:
            break
    everything = itertools.chain(held, rows)
    if not path and found and isinstance(found[0], dict) and is_message(found[0]):
        yield from read_messages(everything)
        return
    alone = len(found) == 1
    for line, row in everything:
        if not isinstance(row, dict) or (not path and any(cell(row, name) is not None for name in names)):
            yield line, row
            continue
        try:
            inner = _at_path(row, path) if path else _known(row, alone)
            if inner is None:
                yield line, row
                continue
            for item in inner:
                yield 0, item
        except DataError as error:
            yield line, error


# -- a path -------------------------------------------------------------------------------------------------------


def _at_path(row: Fields, path: str) -> Iterator[Fields | DataError | Note]:
    """Yield the items of the list at a path. On the way, a list stands for each of its items."""
    found = _walk(row, path.split("."), path)
    # The first item decides whether the path exists, so that an error names the object's own line.
    first = next(found, None)
    if first is None:
        raise DataError(f"no rows at `rows = {path!r}`", hint=f"Use one of: {_paths(row)}.")
    return itertools.chain([first], found)


def _walk(value: Any, steps: list[str], path: str) -> Iterator[Fields | DataError]:
    if isinstance(value, list):
        for item in value:
            if steps and not isinstance(item, list):
                yield from _walk(item, steps, path)
            else:
                yield _row(item, path)
    elif isinstance(value, dict):
        if not steps:
            yield value
            return
        # A key may itself hold dots.
        whole = ".".join(steps)
        step, rest = (whole, []) if whole in value else (steps[0], steps[1:])
        if step in value:
            for row in _walk(value[step], rest, path):
                yield _with_shared(row, value, step) if isinstance(row, dict) else row
    elif not steps and value is not None:
        yield _row(value, path)


def _row(value: Any, path: str) -> Fields | DataError:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"text": value}
    return DataError(
        f"a row under {path!r} must be a JSON object, not {value!r:.60}",
        hint='Write {"prompt": "…", "completion": "…"}.',
    )


def _with_shared(row: Fields, outside: Fields, under: str) -> Fields:
    """Return a row with the fields next to its list. The row's own fields count first."""
    made = dict(row)
    for name, value in outside.items():
        if name == under:
            continue
        made[f"{name} (outside of {under})" if name in made or str(name).lower() in _NEVER_SHARED else name] = value
    return made


def _paths(row: Fields) -> str:
    """List the paths to lists of objects, for a hint."""
    found = [f'rows = "{path}"' for path, _ in _lists(row)]
    return first_of(found, _MOST_NAMED) or f"the keys {first_of([repr(key) for key in row], _MOST_NAMED)}"


# -- recognition --------------------------------------------------------------------------------------------------


def _known(row: Fields, alone: bool) -> Iterator[Fields | DataError | Note] | None:
    """Return the rows that an object holds under a key, or None for a plain row.

    Any object may have the shape of a public data set. The only object of a file may hold its rows under any key.

    Raises:
        DataError: The object holds several lists of rows.
    """
    if is_tree(row):
        return iter(conversations_of_tree(row))
    path = _public_path(row)
    if path:
        return _at_path(row, path)
    if not alone:
        return None
    columns = _columns(row)
    if columns is not None:
        return iter(columns)
    if is_complete(as_known(row)) and not _describes_rows(row):
        return None
    return _rows_of_file(row)


def _describes_rows(row: Fields) -> bool:
    """Return whether an object is complete only because a text describes the rows that it holds."""
    rest = {name: value for name, value in row.items() if str(name).lower() != "text"}
    return not is_complete(as_known(rest)) and any(_holds_rows(items) for _, items in _lists(row))


def _public_path(row: Fields) -> str:
    """Return the path to the rows in one object of a public data set, or ""."""
    if _HOLDERS.isdisjoint(row):
        return ""
    if "Definition" in row and _is_list_of(row.get("Instances"), {"input"}):
        return "Instances"
    if "instruction" in row and "output" not in row and _is_list_of(row.get("instances"), {"output"}):
        return "instances"
    if _is_list_of(row.get("paragraphs"), {"qas"}):
        return "paragraphs.qas"
    if _is_list_of(row.get("rows"), {"row", "row_idx"}):
        # An answer of the server of the hub.
        return "rows.row"
    examples = row.get("examples")
    if "input" not in row and any(_is_list_of(examples, {"input", answer}) for answer in ("target", "target_scores")):
        return "examples"
    return ""


def _is_list_of(value: Any, keys: set[str]) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and keys <= value[0].keys()


def _rows_of_file(row: Fields) -> Iterator[Fields | DataError | Note] | None:
    """Return the rows in the only object of a file, or None if the object is a row itself."""
    columns = _columns_of_split(row)
    if columns is not None:
        return columns
    if row and all(isinstance(value, dict) for value in row.values()):
        named = list(row.values())
        if len(named) > 1 and all(str(name).isdecimal() for name in row):
            # pandas writes the rows by their index.
            return iter(named)
        if all(is_complete(as_known(value)) for value in named):
            return iter(named)
    lists = _lists(row)
    if not lists and row.keys() & _EMPTY_HOLDERS and [] in row.values():
        return iter(())
    train = [path for path, _ in lists if _is_split(path, _TRAIN)]
    splits = [path for path, _ in lists if _is_split(path, _OTHER_SPLITS)]
    if len(train) == 1:
        return _train(row, train[0], [path for path, _ in lists if path != train[0]])
    if splits and len(splits) == len(lists):
        raise DataError(
            f"the file holds only the splits {', '.join(map(repr, splits))}, and no training split",
            hint=f'Set rows = "{splits[0]}" in [[data.task]] to train on this split.',
        )
    lists = [(path, items) for path, items in lists if path not in splits]
    good = [(path, items) for path, items in lists if _holds_rows(items)] or lists
    if not good:
        return None
    if len(good) > 1:
        listed = first_of([f"{path!r} ({len(items):,})" for path, items in good], _MOST_NAMED)
        choices = " or ".join(f'rows = "{path}"' for path, _ in good[:_MOST_NAMED])
        raise DataError(f"several lists of rows in one object: {listed}", hint=f"Set {choices} in [[data.task]].")
    return _expanded(row, good[0][0])


def _columns_of_split(row: Fields) -> Iterator[Fields | DataError | Note] | None:
    """Return the rows of a training split that holds a list for each column, or None."""
    splits = [name for name in row if _is_split(str(name), (*_TRAIN, *_OTHER_SPLITS))]
    train = [name for name in splits if str(name).lower() in _TRAIN]
    columns = _columns(row[train[0]]) if len(train) == 1 and isinstance(row[train[0]], dict) else None
    if columns is None:
        return None
    others = ", ".join(repr(name) for name in splits if name != train[0])
    notes = [Note(f"only the rows under {train[0]!r} are read (left out: {others})")] if others else []
    return itertools.chain(notes, columns)


def _is_split(path: str, names: tuple[str, ...]) -> bool:
    return any(step.lower() in names for step in path.split("."))


def _train(row: Fields, train: str, others: list[str]) -> Iterator[Fields | DataError | Note]:
    if others:
        yield Note(f"only the rows under {train!r} are read (left out: {', '.join(map(repr, others))})")
    # The note names the other lists, so that no row needs to hold them.
    steps = {path.partition(".")[0] for path in others} - {train.partition(".")[0]}
    yield from _expanded({name: value for name, value in row.items() if name not in steps}, train)


def _expanded(row: Fields, path: str) -> Iterator[Fields | DataError | Note]:
    """Yield the rows at a path, and the rows that these rows hold in turn."""
    for item in _at_path(row, path):
        inner = _known(item, alone=False) if isinstance(item, dict) else None
        if inner is None:
            yield item
        else:
            yield from inner


def _lists(row: Fields) -> list[tuple[str, list[Any]]]:
    """Return the lists of objects in an object and in the objects under its keys, with their paths."""
    found = []
    for name, value in row.items():
        inner = value.items() if isinstance(value, dict) else ()
        for path, items in ((str(name), value), *((f"{name}.{key}", item) for key, item in inner)):
            if path.rpartition(".")[2].lower() in _PARTS:
                continue
            if isinstance(items, list) and items and all(map(_may_be_row, items[:3])):
                found.append((path, items))
    return found


def _may_be_row(item: Any) -> bool:
    """Return whether an item is an object, and no turn of a chat."""
    if not isinstance(item, dict) or {"role", "from"} & item.keys():
        return False
    return not all(speaker_and_text(item)) or is_complete(as_known(item))


def _holds_rows(items: list[Any]) -> bool:
    return is_complete(as_known(items[0])) or bool(_public_path(items[0])) or is_tree(items[0])


def _of_split_layout(names: list[str], data: list[list[Any]]) -> list[Fields | DataError]:
    """Return the rows of a list of names and a list of cells for each row.

    Raises:
        DataError: Two columns have the same name.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"duplicate column: {twice!r:.60}", hint="Rename one of the columns.")
    return [
        dict(zip(names, cells, strict=True))
        if len(cells) == len(names)
        else DataError(f"{len(cells)} cells, but {len(names)} columns", hint="Give each column a cell in each row.")
        for cells in data
    ]


def _columns(row: Fields) -> list[Fields | DataError] | None:
    """Return the rows of an object that holds a list, or a table by index, for each column. None for other objects.

    Raises:
        DataError: The columns of an example have different lengths.
    """
    if isinstance(row.get("columns"), list) and _is_list_of_lists(row.get("data")):
        # The layout "split" of pandas.
        return _of_split_layout([str(name) for name in row["columns"]], row["data"])
    columns = {name: cells for name, value in row.items() if (cells := _cells(str(name), value))}
    if not columns or not is_complete(as_known({name: cells[0] for name, cells in columns.items()})):
        return None
    lengths = {len(value) for value in columns.values()}
    keys = {tuple(row[name]) for name in columns if isinstance(row[name], dict)}
    if len(lengths) > 1 or len(keys) > 1:
        listed = first_of([f"{name!r} ({len(value):,})" for name, value in columns.items()], _MOST_NAMED)
        raise DataError(
            f"the columns of the object have different lengths: {listed}", hint="Give each column a cell for each row."
        )
    shared = {name: value for name, value in row.items() if name not in columns}
    names = list(columns)
    return [shared | dict(zip(names, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _cells(name: str, value: Any) -> list[Any]:
    """Return the cells of a column, or an empty list if the value is one cell."""
    if isinstance(value, dict):
        # pandas writes the cells of a column by their index.
        value = list(value.values()) if all(str(key).isdecimal() for key in value) else []
    if not isinstance(value, list):
        return []
    turns = name.strip().lower() in ("messages", "conversations")
    is_cell = all(_is_list_of(item, set()) if turns else not isinstance(item, dict) for item in value)
    return value if is_cell else []


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, list) for item in value)

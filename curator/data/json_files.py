"""Read the rows of JSON files: one row a line, a list of rows, one object, or several documents in a row."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Self

from curator.core.errors import DataError
from curator.core.files import File
from curator.data.raw import RawRow

_HINT = "Fix or remove the line."
_SPACE = " \t\r\n"
_PYTHON_WORD = re.compile(r"(?:None|True|False)\b")


class Number(float):
    """A number with a fraction or an exponent, as it stands in the file: `3.50` and not `3.5`."""

    written: str

    def __new__(cls, written: str) -> Self:
        """Read a number of JSON."""
        number = super().__new__(cls, written)
        number.written = written
        return number

    def __str__(self) -> str:
        """Return the number as it stands in the file."""
        return self.written


def read_json(lines: Iterator[str | DataError], file: File, *, one_document: bool) -> Iterator[RawRow]:
    """Read JSON lines, one JSON list of rows, one JSON object, or several JSON documents one after another.

    Args:
        lines: Lines of the file with their line breaks, or the error of a line.
        file: The file, for messages.
        one_document: Whether the name of the file promises one document instead of lines.

    Yields:
        Line and fields of each row, or line and error of a row that cannot be read.

    Raises:
        DataError: A document that spans several lines is invalid.
    """
    lines = (_without_mark(line) for line in lines)
    for number, line in enumerate(lines, 1):
        if isinstance(line, str) and not line.strip():
            continue
        if isinstance(line, str) and (line.lstrip().startswith("[") or (one_document and not _is_json(line))):
            yield from _read_documents("".join([line, *whole(lines)]), file, number)
            return
        rest: Iterator[str | DataError] = lines
        if isinstance(line, str) and _is_unfinished(line):
            # A file of JSON lines may still hold objects over several lines. Else its first line is damaged.
            held = list(lines)
            if _starts_with_document("".join([line, *(text for text in held if isinstance(text, str))])):
                yield from _read_documents("".join([line, *whole(held)]), file, number)
                return
            rest = iter(held)
        yield from _read_lines(enumerate(chain([line], rest), number), file)


def _read_lines(numbered: Iterable[tuple[int, str | DataError]], file: File) -> Iterator[RawRow]:
    for number, line in numbered:
        if isinstance(line, DataError):
            yield number, line
        elif line.strip():
            try:
                row: dict[str, Any] | DataError = _row(_parse(line, file, number), file, number)
            except DataError as error:
                row = error
            yield number, row


def _read_documents(text: str, file: File, first_line: int) -> Iterator[RawRow]:
    """Yield the documents of a text with their first lines. A list counts as its items."""
    decoder = json.JSONDecoder(object_pairs_hook=without_repeated_keys, parse_float=Number)
    # An error anywhere in the text makes the whole text invalid.
    starts = [start for start, _ in _documents(text, file, first_line, decoder)]
    # The line of a row says nothing in a list on one line.
    in_lines = "\n" in text.strip()
    line, counted = first_line, 0
    for start in starts:
        is_list = text[start] == "["
        is_row = not is_list or _may_be_chat(text, start, starts, decoder)
        value = decoder.raw_decode(text, start)[0] if is_row else None
        # A list of turns is one chat. One of many lists of texts does not hold rows.
        is_list = is_list and not (_is_chat(value) or (len(starts) > 1 and _is_list_of_texts(value)))
        for place, item in _items(text, start + 1, decoder) if is_list else [(start, value)]:
            line, counted = line + text.count("\n", counted, place), place
            try:
                row: dict[str, Any] | DataError = (
                    {"text": item} if is_list and isinstance(item, str) else _row(item, file, line)
                )
            except DataError as error:
                row = error
            yield line if in_lines or not is_list else 0, row


def _documents(text: str, file: File, first_line: int, decoder: json.JSONDecoder) -> Iterator[tuple[int, int]]:
    """Yield first and last position of each JSON document of a text.

    Raises:
        DataError: A document is invalid.
    """
    position = _after_space(text, 0)
    while position < len(text):
        with _explained(text, file, first_line):
            _, end = decoder.raw_decode(text, position)
        yield position, end
        position = _after_space(text, end)


def _items(text: str, position: int, decoder: json.JSONDecoder) -> Iterator[tuple[int, Any]]:
    """Yield position and value of each item of a valid JSON list whose bracket stands before `position`."""
    while True:
        while text[position] in f"{_SPACE},":
            position += 1
        if text[position] == "]":
            return
        item, end = decoder.raw_decode(text, position)
        yield position, item
        position = end


def _parse(line: str, file: File, number: int) -> Any:
    with _explained(line, file, number):
        return json.loads(line, object_pairs_hook=without_repeated_keys, parse_float=Number)


@contextmanager
def _explained(text: str, file: File, first_line: int) -> Iterator[None]:
    """Convert the errors of the JSON decoder to one that names file and line."""
    try:
        yield
    except json.JSONDecodeError as error:
        comma = _trailing_comma(text, error.pos)
        if comma is not None:
            line, column = first_line + text.count("\n", 0, comma), comma - text.rfind("\n", 0, comma)
            raise DataError(
                f"{file}:{line}: not valid JSON: a trailing comma before the closing bracket, at column {column}",
                hint="Remove the comma.",
            ) from error
        line = first_line + error.lineno - 1
        if explained := _other_notation(text, error.pos):
            raise DataError(f"{file}:{line}: not valid JSON: {explained[0]}", hint=explained[1]) from error
        reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        if error.msg == "Extra data":
            raise _more(text, error, f"{file}:{line}") from error
        if not text[error.pos :].strip() or error.msg.startswith("Unterminated string"):
            # The decoder counts the line break at the end of the text as one more line.
            line, reason = first_line + text.rstrip().count("\n"), "unexpected end"
        raise DataError(f"{file}:{line}: not valid JSON: {reason}", hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{file}:{first_line}: not valid JSON: {reason}", hint=_HINT) from error


def _other_notation(text: str, position: int) -> tuple[str, str] | None:
    """Return what a text holds at an error instead of JSON, and what to do about it. None if it is nothing known."""
    start = text[position : position + 2]
    if start[:1] == "\x1e":
        return "a record separator before the row (RFC 7464)", "Remove the characters U+001E from the file."
    if start == "//" or (start[:1] == "#" and not text[:position].rpartition("\n")[2].strip()):
        return "a comment", "Remove the comment. JSON has no comments."
    if start[:1] == "'":
        return "a text in single quotes, as Python writes it", "Write the rows by `json.dumps`."
    word = _PYTHON_WORD.match(text, position)
    if word:
        return f"{word[0]}, as Python writes it", "Write the rows by `json.dumps`."
    return None


def _trailing_comma(text: str, position: int) -> int | None:
    """Return the position of a comma that a closing bracket follows, if an error at `position` means this comma.

    From Python 3.13, the decoder stops at the comma. Earlier versions stop behind it.
    """
    comma = position if text[position : position + 1] == "," else len(text[:position].rstrip()) - 1
    follows = text[comma + 1 :].lstrip()[:1]
    return comma if comma >= 0 and text[comma] == "," and follows in ("]", "}") else None


def _more(text: str, error: json.JSONDecodeError, where: str) -> DataError:
    """Return the error for what stands behind the JSON of a line."""
    is_comma = text[error.pos] == ","
    return DataError(
        f"{where}: not valid JSON: {'a comma' if is_comma else 'more text'} after the row, at column {error.colno}",
        hint="Remove the comma at the end of each line." if is_comma else "Write one row a line.",
    )


def _may_be_chat(text: str, start: int, starts: list[int], decoder: json.JSONDecoder) -> bool:
    """Return whether the list at `start` may be a row: it starts with a turn, or is one of several lists."""
    if len(starts) > 1:
        return True
    first = next(_items(text, start + 1, decoder), (0, None))[1]
    return _is_turn(first)


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _is_turn(value: Any) -> bool:
    """Return whether a value is a turn of a chat, and no message of a tree, which names its parent."""
    if not isinstance(value, dict) or "parent_id" in value:
        return False
    return ("role" in value and "content" in value) or ("from" in value and "value" in value)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _without_mark(line: str | DataError) -> str | DataError:
    """Remove a byte order mark, which joined files have in the middle."""
    return line.removeprefix("\ufeff") if isinstance(line, str) else line


def _row(value: Any, file: File, line: int) -> dict[str, Any]:
    if _is_chat(value):
        return {"messages": value}
    if not isinstance(value, dict):
        raise DataError(
            f"{file}:{line}: a row must be a JSON object, not {value!r:.60}",
            hint='Write {"prompt": "…", "completion": "…"}.',
        )
    return value


def without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object. Python would keep the last of two values under one key, and drop the first.

    Args:
        pairs: Keys and values of the object in their order.

    Raises:
        ValueError: A key occurs twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r:.60} occurs twice in one object")
    return found


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_unfinished(line: str) -> bool:
    """Return whether a line begins a JSON object that the line does not end."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return line.lstrip().startswith("{") and not line[error.pos :].strip()
    except (ValueError, RecursionError):
        return False
    return False


def _starts_with_document(text: str) -> bool:
    try:
        json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def whole(lines: Iterable[str | DataError]) -> Iterator[str]:
    """Yield lines of a file that is useless as a whole if one line is invalid. Raise the error of an invalid line."""
    for line in lines:
        if isinstance(line, DataError):
            raise line
        yield line

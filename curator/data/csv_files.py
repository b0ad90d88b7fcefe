"""Read the rows of CSV and TSV files, and find out how the cells are written.

The csv module splits the cells. A file does not state its delimiter, its quoting, or whether it has a header.
`_dialect` tries each assumption on the file. A note says every assumption that is not the usual one.
"""

import csv
import itertools
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from curator.core.errors import DataError
from curator.core.files import File
from curator.data.raw import Note, RawRow

_DELIMITERS = (",", ";", "\t", "|")
_NAMES = {"\t": "a tab", ";": "';'", ",": "','", "|": "'|'", " ": "a space"}
# Excel writes the delimiter into the first line.
_SEP = re.compile(r'"?sep=([^\r\n"\0])"?\s*', re.IGNORECASE)
# Records that decide about the delimiter. All records decide about the quotes.
_SAMPLE = 200
_LONGEST_NAME = 60
# A spreadsheet reads a text that starts with `=` or `-` as a formula, and writes its error instead of the text.
_ERRORS = {"#NAME?", "#VALUE!", "#REF!", "#DIV/0!", "#N/A", "#ERROR!", "#NULL!", "#NUM!"}
_MOST_OF_EXCEL = 32_767
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_NAME = re.compile(r"[^\W\d][\w .:/()#-]*|\[[\w ]+\]|")
_HEADERS = {
    *("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "system", "history"),
    *("tools", "inputs", "targets", "target", "text", "question", "answer", "answers", "query", "response", "context"),
    *("label", "id", "source", "chosen", "rejected", "system_prompt", "category", "title", "index", "task"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    delimiter: str
    quoting: bool = True
    """Whether quotes enclose a cell. If not, a quote is a character like any other."""
    header: bool = True
    spaced: bool = False
    """Whether a space follows each delimiter, and belongs to no cell."""
    skipped: int = 0
    """Number of lines before the header: the line `sep=`."""

    @property
    def options(self) -> dict[str, Any]:
        """Return the arguments of `csv.reader`."""
        quoting = csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE
        return {
            "delimiter": self.delimiter,
            "quoting": quoting,
            "strict": True,
            "skipinitialspace": self.spaced,
        }


def read_csv(
    lines: Callable[[], Iterator[str]],
    file: File,
    *,
    tabs: bool,
    options: Mapping[str, Any],
    names: Collection[str] = (),
) -> Iterator[RawRow]:
    """Read CSV or TSV. Every cell is text. Without a header, columns are named `1`, `2` and so on.

    Args:
        lines: Opens the file, and yields its lines with their line breaks. Called several times.
        file: The file, for messages.
        tabs: Whether the name of the file promises tabs between cells.
        options: `delimiter`, `header` and `quoting`, each if it is known.
        names: Columns that the project's configuration names.

    Yields:
        Notes about the file. Then line and fields of each row, or line and error of a row that cannot be read.

    Raises:
        DataError: A line is not UTF-8, or the header names a column twice.
    """
    # The module limits a cell to 128 KiB by default. The limit applies to all readers of the process.
    csv.field_size_limit(2**31 - 1)
    dialect, notes = _dialect(lines, tabs=tabs, options=options, names=names)
    for note in notes:
        yield 0, Note(note)
    header: list[str] | None = None
    cut, wrong = 0, 0
    for line, record in _records(itertools.islice(lines(), dialect.skipped, None), dialect, 1 + dialect.skipped):
        if isinstance(record, csv.Error):
            yield line, _invalid(file, line, record)
        elif not record:
            pass  # A blank line.
        elif header is None and dialect.header:
            header = _header(record)
            twice = sorted(name for name, count in Counter(header).items() if count > 1)
            if twice:
                raise DataError(f"{file}:{line}: duplicate column: {twice[0]!r}", hint="Rename one of the columns.")
        else:
            what = "header" if dialect.header else "first line"
            header = header or [str(number) for number in range(1, len(record) + 1)]
            if len(record) != len(header):
                yield line, _ragged(file, line, f"{len(record)} cells, but the {what} has {len(header)}")
            else:
                cut += sum(len(cell) == _MOST_OF_EXCEL for cell in record)
                wrong += sum(cell in _ERRORS for cell in record)
                yield line, dict(zip(header, record, strict=True))
    if cut:
        yield 0, Note(f"cells with exactly {_MOST_OF_EXCEL:,} characters, where Excel cuts texts off: {cut:,}")
    if wrong:
        yield 0, Note(f"cells with an error of a spreadsheet, such as #NAME?: {wrong:,}")


def _header(record: list[str]) -> list[str]:
    """Return the names of columns. Several columns without a name, as spreadsheets write, are named by number."""
    if sum(not name.strip() for name in record) < 2:
        return record
    return [name if name.strip() else str(number) for number, name in enumerate(record, 1)]


def _ragged(file: File, line: int, words: str) -> DataError:
    hint = 'Put a cell with a separator, a quote or a line break in quotes: "a, b".'
    return DataError(f"{file}:{line}: {words}", hint=hint)


def _invalid(file: File, line: int, error: csv.Error) -> DataError:
    reason = str(error).replace("\t", "tab")
    hint = 'Write a quote inside a quoted cell twice, and not as \\": "say ""yes""".'
    hint += " Or set csv = { quoting = false } in [[data.task]]."
    return DataError(f"{file}:{line}: not valid CSV: {reason}", hint=hint)


# -- records ------------------------------------------------------------------------------------------------------


def _records(lines: Iterable[str], dialect: _Dialect, first: int) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield first line and cells of each record. After an invalid record, reading continues in the line after it."""
    feed = _Feed(lines)
    reader = csv.reader(feed, **dialect.options)
    while True:
        feed.taken.clear()
        line = first
        try:
            record: list[str] | csv.Error = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote without its partner encloses the lines that follow, which may be good records.
            record = error
            feed.put_back(1)
        first += len(feed.taken)
        yield line, record


class _Feed:
    """Give lines to the csv module, and take back lines of a record that proves to be invalid."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._waiting: deque[str] = deque()
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self.taken.append(line)
        return line

    def put_back(self, kept: int) -> None:
        """Read all lines of the last record again, except the first `kept`."""
        self._waiting.extendleft(reversed(self.taken[kept:]))
        del self.taken[kept:]


# -- dialect ------------------------------------------------------------------------------------------------------


def _dialect(
    lines: Callable[[], Iterator[str]], *, tabs: bool, options: Mapping[str, Any], names: Collection[str]
) -> tuple[_Dialect, list[str]]:
    """Return the dialect of a file, and a sentence for each part that is neither usual nor set by `options`."""
    notes = []
    usual = "\t" if tabs else ","
    number, first = next(((number, line) for number, line in enumerate(lines(), 1) if line.strip()), (0, ""))
    named = _SEP.fullmatch(first)
    skipped = number if named else 0

    def rest() -> Iterator[str]:
        return itertools.islice(lines(), skipped, None)

    delimiter = options.get("delimiter") or (named.group(1) if named else _delimiter(rest, usual, names))
    if delimiter != usual and "delimiter" not in options:
        notes.append(f"cells are separated by {_NAMES.get(delimiter, repr(delimiter))}")
    spaced = options.get("quoting", True) and _is_spaced(rest, delimiter)
    if spaced:
        notes.append(f"spaces after {_NAMES.get(delimiter, repr(delimiter))} belong to no cell")
    quoting = options["quoting"] if "quoting" in options else spaced or _quoting(rest, delimiter)
    if not quoting and "quoting" not in options:
        notes.append("quotes are read as text, and enclose no cells")
    dialect = _Dialect(delimiter=delimiter, quoting=quoting, spaced=spaced, skipped=skipped)
    if "header" in options:
        return replace(dialect, header=options["header"]), notes
    sampled = [record for _, record in itertools.islice(_records(rest(), dialect, 1), _SAMPLE) if record]
    record = sampled[0] if sampled else None
    if not isinstance(record, list) or _is_certain(record, names):
        return dialect, notes
    if _is_header(record, names) and not _occurs_again(record, sampled[1:]):
        notes.append(
            "the first line is read as names of columns (set csv = { header = false } in [[data.task]] if the first"
            " line is an example)"
        )
        return dialect, notes
    notes.append('the first line is read as an example, so the names of columns are numbers: "1", "2"')
    return replace(dialect, header=False), notes


def _is_spaced(lines: Callable[[], Iterator[str]], delimiter: str) -> bool:
    """Return whether a space follows each delimiter below the header, also before quotes: `prompt, "a, b"`.

    People write so by hand. The spaces then belong to no cell. Else the quotes would be text, and a delimiter in quotes
    would end a cell. A program that writes a cell with a space at its start writes no quote behind the space.
    """
    spaced = re.compile(rf'{re.escape(delimiter)} +"')
    if delimiter.isspace() or not any(spaced.search(line) for line in lines()):
        return False
    alone = re.compile(rf"{re.escape(delimiter)}(?! )")

    def below() -> Iterator[str]:
        return (_QUOTED.sub('""', line) for line in itertools.islice(lines(), 1, None))

    if any(alone.search(line) for line in below()) or not any(spaced.search(line) for line in below()):
        return False
    widths = {
        -1 if isinstance(record, csv.Error) else len(record)
        for _, record in _records(lines(), _Dialect(delimiter=delimiter, spaced=True), 1)
        if record
    }
    return len(widths) == 1


def _delimiter(lines: Callable[[], Iterator[str]], usual: str, names: Collection[str]) -> str:
    """Return the usual delimiter, unless another one splits all records into equally many cells and the usual not."""
    sampled = list(itertools.islice((line for line in lines() if line.strip()), _SAMPLE))
    if _width(sampled, usual) > 1:
        return usual
    first = sampled[0] if sampled else ""
    header = next((record for _, record in _records([first], _Dialect(delimiter=usual), 1)), [])
    if isinstance(header, list) and len(header) > 1 and _is_certain(header, names):
        return usual
    return next((other for other in _DELIMITERS if other != usual and _width(sampled, other) > 1), usual)


def _width(lines: list[str], delimiter: str) -> int:
    """Return the number of cells that all records have, or 0 if the number differs."""
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        widths = set()
        try:
            widths = {len(record) for record in csv.reader(lines, delimiter=delimiter, quoting=quoting) if record}
        except csv.Error:
            continue
        if len(widths) == 1:
            return widths.pop()
    return 0


def _quoting(lines: Callable[[], Iterator[str]], delimiter: str) -> bool:
    """Return whether quotes enclose cells.

    Quotes are text if they do not fit CSV, and every line has equally many cells with quotes as text.
    In a file without tabs, no cell may then be in quotes.
    In a file with tabs, quotes are also text if they would join lines that each hold all cells.
    """
    if not any('"' in line for line in lines()):
        return True
    tabs = delimiter == "\t"
    start, end = rf'(?:^|{re.escape(delimiter)})"', rf'"(?={re.escape(delimiter)}|\s*$)'
    in_quotes = re.compile(rf'{start}(?:[^"]|"")*{end}')
    escaped = re.compile(rf'{start}(?:[^"\\]|\\.)*\\"(?:[^"\\]|\\.)*{end}')
    first = next((line for line in lines() if line.strip()), "")
    if not tabs and any(escaped.search(line) for line in lines()):
        # Spark and MySQL write a backslash before a quote. Its cells are errors, and not text with quotes.
        return True
    if in_quotes.search(first) or (not tabs and any(in_quotes.search(line) for line in lines())):
        return True
    fits, joined, line = True, False, 0
    widths = set()
    for following, record in _records(lines(), _Dialect(delimiter=delimiter), 1):
        joined = joined or following > line + 1
        line = following
        fits = fits and not isinstance(record, csv.Error)
        if isinstance(record, list) and record:
            widths.add(len(record))
        elif isinstance(record, csv.Error) and not tabs and "expected after" not in str(record):
            return True
    joined = joined or sum(1 for _ in lines()) > line
    if fits and len(widths) == 1 and not (joined and tabs):
        return True
    literal = _Dialect(delimiter=delimiter, quoting=False)
    counts = {len(record) for _, record in _records(lines(), literal, 1) if isinstance(record, list) and record}
    return len(counts) != 1 or counts == {1}


def _is_header(record: list[str], names: Collection[str]) -> bool:
    """Return whether a record without a known name may hold names: short, different, and words only."""
    numbers = {str(number) for number in range(1, len(record) + 1)}
    if names and all(name in numbers for name in names):
        return False
    cells = [cell.strip() for cell in record]
    return len(set(cells)) == len(cells) and all(len(cell) <= _LONGEST_NAME and _NAME.fullmatch(cell) for cell in cells)


def _occurs_again(record: list[str], others: Iterable[list[str] | csv.Error]) -> bool:
    """Return whether a cell of a record occurs again in its column. Names of columns do not."""
    rows = (other for other in others if not isinstance(other, csv.Error))
    return any(cell and cell == again for row in rows for cell, again in zip(record, row, strict=False))


def _is_certain(record: list[str], names: Collection[str]) -> bool:
    """Return whether a record holds a name of a column that curator or the configuration of the project knows."""
    cells = {cell.strip().lower() for cell in record}
    words = [name for name in names if not name.isdecimal()]
    # Numbers are names that curator gives. They name columns of the file only if the file has all of them.
    return bool(cells & _HEADERS) or any(name in record for name in words) or _has_all(record, names)


def _has_all(record: list[str], names: Collection[str]) -> bool:
    return bool(names) and all(name in record for name in names)

"""Files, saved data sets and the hub → raw rows, each with its place.

Parquet, saved data sets and the hub are read by `datasets`. JSON and CSV are text, and read as it stands: a loader that
guesses types turns the label `007` into 7, `NA` into nothing and `2020-01-01` into a time, and cannot name the line
of a mistake.
"""

import csv
import glob
import gzip
import itertools
import json
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from curator.core.errors import DataError
from curator.core.files import File
from curator.core.remote import RemoteFile
from curator.data.file_kinds import refuse_other_kinds_of_file

FORMATS = "JSONL, JSON, Parquet, CSV, TSV, or a folder that datasets.load_from_disk reads"
_TEXT_HINT = "Mend or remove that line."

# Bytes of the longest line that is unpacked: a small packed file may hold one that fits into no memory.
_LONGEST = 2**28
# Rows that are taken from `datasets` at once.
_ROWS = 1000

RawRow = tuple[int, dict[str, Any] | DataError]
"""Line in the file, from 1, or 0 where rows are not lines; and the row's fields, or why it has none."""


def is_task_file(path: File) -> bool:
    """Whether a file's name is that of a format that can be read."""
    return _suffix(path) in _READERS


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder is what `save_to_disk` writes."""
    return path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def task_name(path: File) -> str:
    """The task that a file or a saved data set stands for: its name without its endings."""
    return path.name if isinstance(path, Path) and path.is_dir() else Path(_without_gz(path)).stem


def read_file(file: File) -> Iterator[RawRow]:
    """Read the rows of a file, here or elsewhere.

    Raises:
        DataError: It cannot be read as a whole; the message names the line where there is one. A row that cannot be
            read comes as an error, and those after it are read.
    """
    read = _READERS.get(_suffix(file))
    if read is None:
        raise DataError(f"{file}: no known kind of file", hint=f"Known: {FORMATS}.")
    if isinstance(file, RemoteFile):
        with file.asking():
            yield from read(file)
        return
    try:
        if read is not _read_parquet:
            refuse_other_kinds_of_file(file)
        yield from read(file)
    except FileNotFoundError as error:
        raise DataError(f"{file}: does not exist", hint="Correct the path in curator.toml.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read: {error}", hint="Is the file complete, and yours to read?") from error


def read_saved(folder: Path, split: str) -> Iterator[RawRow]:
    """Read the rows of a data set that `save_to_disk` wrote.

    Raises:
        DataError: It cannot be read, or has no such split.
    """
    import datasets

    saved = _load(lambda: datasets.load_from_disk(str(folder)), str(folder))
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"{folder}: no split {split!r}", hint=f"Splits here: {', '.join(saved)}.")
        saved = saved[split]
    return _iterate(saved, str(folder))


def read_hub(name: str, config: str, split: str, revision: str, *, streaming: bool | None = None) -> Iterator[RawRow]:
    """Read the rows of a data set of the hub.

    Args:
        name: `owner/name`.
        config: Its configuration, where it has several.
        split: `train`, or a slice such as `train[:1000]`.
        revision: Branch, tag or commit.
        streaming: Whether rows are read as they come over the net, or all is downloaded and kept by `datasets` first;
            None streams what can be streamed, which a slice cannot.

    Raises:
        DataError: It cannot be loaded.
    """
    import datasets

    streams = not is_slice(split) if streaming is None else streaming
    loaded = _load(
        lambda: datasets.load_dataset(name, config or None, split=split, revision=revision or None, streaming=streams),
        name,
    )
    return _iterate(loaded, name)


def is_slice(split: str) -> bool:
    """Whether a split is a part or a sum of splits, which cannot be streamed."""
    return "[" in split or "+" in split


# -- text ---------------------------------------------------------------------------------------------------------


def _lines(file: File) -> Iterator[str | DataError]:
    """The lines of a UTF-8 file with their line breaks, without a byte order mark; an error for one that is not."""
    with _open(file) as stream:
        packed = isinstance(stream, gzip.GzipFile)
        lines = iter(lambda: stream.readline(_LONGEST), b"") if packed else stream
        for number, line in enumerate(lines, 1):
            if packed and len(line) == _LONGEST:
                raise DataError(f"{file}:{number}: a line of over {_LONGEST >> 20} MiB", hint="Unpack the file first.")
            try:
                text: str | DataError = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                text = DataError(
                    f"{file}:{number}: not UTF-8 (byte {line[error.start]:#04x}): {error.reason}",
                    hint="Save the file as UTF-8.",
                )
            yield text


def _whole(lines: Iterable[str | DataError]) -> Iterator[str]:
    """Lines of a file in which one that is no text makes all of it useless."""
    for line in lines:
        if isinstance(line, DataError):
            raise line
        yield line


def _open(file: File) -> IO[bytes]:
    packed = file.suffix.lower() == ".gz"
    if isinstance(file, Path):
        return cast(IO[bytes], gzip.open(file)) if packed else file.open("rb")
    return cast(IO[bytes], gzip.open(file.open())) if packed else file.open()


def _read_json(file: File) -> Iterator[RawRow]:
    """JSON lines, one JSON list of rows, or one JSON object that is the only row."""
    lines = _lines(file)
    first = True
    for number, line in enumerate(lines, 1):
        if isinstance(line, DataError):
            first = False
            yield number, line
            continue
        if not line.strip():
            continue
        if first and (line.lstrip().startswith("[") or (_suffix(file) == ".json" and not _is_json(line))):
            yield from _read_document(file, "".join([line, *_whole(lines)]), number)
            return
        first = False
        try:
            row: dict[str, Any] | DataError = _row(_parse(line, file, number), file, number)
        except DataError as error:
            row = error
        yield number, row


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _read_document(file: File, text: str, first_line: int) -> Iterator[RawRow]:
    """The items of a JSON list, each with the line on which it begins."""
    # The whole first: what is wrong anywhere in it is wrong for all.
    document = _parse(text, file, first_line)
    if not isinstance(document, list):
        yield first_line, _row(document, file, first_line)
        return
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeated_keys)
    position = text.index("[") + 1
    line, counted = first_line, 0
    for _ in document:
        while text[position] in " \t\r\n,":
            position += 1
        line, counted = line + text.count("\n", counted, position), position
        item, position = decoder.raw_decode(text, position)
        try:
            row: dict[str, Any] | DataError = {"text": item} if isinstance(item, str) else _row(item, file, line)
        except DataError as error:
            row = error
        yield line, row


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object. Python would keep the last of two values under one key, and drop the first.

    Raises:
        ValueError: A key occurs twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r:.60} occurs twice in one object")
    return found


def _parse(text: str, file: File, first_line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeated_keys)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        if text[error.pos :].strip():
            what = f"{error.msg} at column {error.colno}"
        else:
            # The decoder has run over the line's end, and counts that as another line.
            line, what = first_line + text.rstrip().count("\n"), "it ends too early"
        raise DataError(f"{file}:{line}: not valid JSON: {what}", hint=_TEXT_HINT) from error
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{file}:{first_line}: not valid JSON: {what}", hint=_TEXT_HINT) from error


def _row(value: Any, file: File, line: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{file}:{line}: a row must be a JSON object, this is {value!r:.60}",
            hint='Write {"prompt": "…", "completion": "…"}.',
        )
    return value


def _read_csv(file: File) -> Iterator[RawRow]:
    """CSV or TSV with a header; every cell is text."""
    # The module's limit of 128 KiB for a cell is no limit of ours; it can only be set for all readers.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(_whole(_lines(file)), delimiter="\t" if _suffix(file) == ".tsv" else ",", strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if not cells:
                pass  # A blank line.
            elif header is None:
                header = cells
                twice = sorted(name for name, count in Counter(header).items() if count > 1)
                if twice:
                    raise DataError(f"{file}:{line}: column {twice[0]!r} stands there twice", hint="Rename one.")
            elif len(cells) != len(header):
                yield (
                    line,
                    DataError(
                        f"{file}:{line}: {len(cells)} cells, but the header has {len(header)}",
                        hint='A cell that holds a separator, a quote or a line break must be quoted: "a, b".',
                    ),
                )
            else:
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{file}:{line}: not valid CSV: {error}",
            hint='Write a quote inside a quoted cell twice: "say ""yes""".',
        ) from error


# -- by `datasets` ------------------------------------------------------------------------------------------------


def _read_parquet(file: File) -> Iterator[RawRow]:
    import datasets

    if isinstance(file, Path):
        if not file.exists():
            raise FileNotFoundError(file)
        place = glob.escape(str(file))
    else:
        file.state()
        place = file.address
    rows = _load(
        # Without a size of its own a batch is as long as the first row group, which may have no rows.
        lambda: datasets.load_dataset("parquet", data_files=place, split="train", streaming=True, batch_size=_ROWS),
        str(file),
        file,
    )
    return _iterate(rows, str(file), file)


def _load(load: Callable[[], Any], where: str, file: File | None = None) -> Iterable[dict[str, Any]]:
    try:
        with _quiet():
            return cast(Iterable[dict[str, Any]], load())
    except Exception as error:
        # `datasets` and Arrow raise many kinds.
        raise DataError(
            f"{where}: cannot be loaded: {_cause(error, file)}",
            hint="Is the file whole? For a hub id, check the name, the split and the network.",
        ) from error


def _iterate(rows: Iterable[dict[str, Any]], where: str, file: File | None = None) -> Iterator[RawRow]:
    iterator = iter(rows)
    while True:
        try:
            with _quiet():
                taken = list(itertools.islice(iterator, _ROWS))
        except Exception as error:
            raise DataError(f"{where}: cannot be read: {_cause(error, file)}", hint="Is the file whole?") from error
        if not taken:
            return
        for row in taken:
            yield 0, {key: _without_fillers(value) for key, value in row.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `datasets` from logging what it raises, too: it writes the names of files as they are to the terminal."""
    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _without_fillers(value: Any) -> Any:
    """A cell as it was before Arrow gave every object the keys of all the others, filled with None."""
    if isinstance(value, dict):
        return {key: _without_fillers(item) for key, item in value.items() if item is not None}
    return [_without_fillers(item) for item in value] if isinstance(value, list) else value


def _cause(error: BaseException, file: File | None) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    said = (f"{type(error).__name__}: {error}".splitlines() or [""])[0]
    return file.without_secrets(said) if isinstance(file, RemoteFile) else said


def _suffix(path: File) -> str:
    return Path(_without_gz(path)).suffix.lower()


def _without_gz(path: File) -> str:
    return path.name[: -len(path.suffix)] if path.suffix.lower() == ".gz" else path.name


_READERS: dict[str, Callable[[File], Iterator[RawRow]]] = {
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}

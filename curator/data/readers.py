"""Read raw rows from files, saved data sets and the hub, each with its line.

`datasets` reads Parquet, saved data sets and the hub.
json_files.py and csv_files.py read JSON and CSV, and guess no types.
A loader that guesses types turns the label `007` into 7, `NA` into null and `2020-01-01` into a time.
Such a loader also cannot name the line of an error.
"""

import glob
import itertools
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from curator.core.errors import DataError
from curator.core.file_states import Witness
from curator.core.files import File, read_small_json, refuse_endless
from curator.core.hub_ids import is_hub_id
from curator.core.remote import RemoteFile
from curator.data.csv_files import read_csv
from curator.data.file_kinds import refuse_other_kinds_of_file
from curator.data.hub_errors import unreachable
from curator.data.json_files import read_json, whole
from curator.data.packed import is_packed, open_bytes, unpacked_name
from curator.data.raw import RawRow

FORMATS = "JSONL, JSON, Parquet, Arrow, CSV, TSV, or a folder that datasets.load_from_disk reads"

# Longest line of a packed file, in bytes. A small packed file can hold a line that exceeds the memory.
_LONGEST = 2**28
# End of a line that ends with a carriage return alone.
_RETURN = re.compile(rb"(?<=\r)(?!\n)")
# Rows read from `datasets` at a time.
_ROWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Tell a reader what the configuration of the project says about a file."""

    csv: Mapping[str, Any] = field(default_factory=dict)
    """`delimiter`, `header` and `quoting` of CSV, each if it is set."""
    names: tuple[str, ...] = ()
    """Columns that the configuration names."""
    sha256: str = ""
    """Expected SHA-256 of the file. Empty to accept any content."""
    witness: Witness | None = None
    """Opens the file, and checks what was read. `read_file` sets it."""


_DEFAULTS = ReadOptions()


def is_task_file(path: File) -> bool:
    """Return whether a file name has the suffix of a supported format."""
    return _suffix(path) in _READERS


def is_saved_dataset(path: Path) -> bool:
    """Return whether `save_to_disk` of `datasets` wrote a folder."""
    return path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def task_name(path: File) -> str:
    """Return the task name of a file or a saved data set: the file's name without suffixes, or the folder's name."""
    return path.name if isinstance(path, Path) and path.is_dir() else Path(unpacked_name(path)).stem


def read_file(file: File, options: ReadOptions = _DEFAULTS) -> Iterator[RawRow]:
    """Read the rows of a local or remote file.

    Args:
        file: File of a supported format.
        options: What the configuration says about the file.

    Yields:
        Line and fields of each row, line and error of a row that cannot be read, or a note about the file.

    Raises:
        DataError: The file has an unsupported type, or cannot be read as a whole.
        FileChanged: The file does not have the expected hash.
    """
    if options.sha256:
        return _witnessed(file, options)
    return _read_any(file, options)


def _witnessed(file: File, options: ReadOptions) -> Iterator[RawRow]:
    with witnessed({file: options.sha256}) as (witness,):
        yield from _read_any(file, replace(options, witness=witness))


@contextmanager
def witnessed(hashes: Mapping[File, str]) -> Iterator[list[Witness]]:
    """Check at the end of the `with` block that files still have their hashes.

    Args:
        hashes: Expected SHA-256 by file.

    Raises:
        FileChanged: A file has another hash, or changed meanwhile. This error replaces a `DataError` of the block.
    """
    try:
        witnesses = [Witness(file, sha256) for file, sha256 in hashes.items()]
    except FileNotFoundError as error:
        raise DataError(f"no such file: {error.filename}", hint="Correct the path in curator.toml.") from error
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}", hint="Check its permissions.") from error
    try:
        try:
            yield witnesses
        except DataError:
            # A file that changes often looks damaged.
            for witness in witnesses:
                witness.check()
            raise
        for witness in witnesses:
            witness.check()
    finally:
        for witness in witnesses:
            witness.close()


def _read_any(file: File, options: ReadOptions) -> Iterator[RawRow]:
    read = _READERS.get(_suffix(file))
    if read is None:
        raise DataError(f"unsupported file type: {file}", hint=f"Use {FORMATS}.")
    if isinstance(file, RemoteFile):
        with file.asking():
            yield from read(file, options)
        return
    try:
        refuse_other_kinds_of_file(file)
        yield from read(file, options)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {file}", hint="Correct the path in curator.toml.") from error
    except (OSError, EOFError, zlib.error) as error:
        hint = "Check that the file is complete, and check its permissions."
        raise DataError(f"cannot read {file}: {error}", hint=hint) from error


def read_saved(folder: Path, split: str, hashes: Mapping[File, str] | None = None) -> Iterator[RawRow]:
    """Read the rows of a data set that `save_to_disk` wrote.

    Args:
        folder: Folder of the data set.
        split: Split to read if the folder holds several.
        hashes: Expected SHA-256 of each file of the folder. None accepts any content.

    Yields:
        0 and the fields of each row.

    Raises:
        DataError: The data set cannot be read, or has no such split.
        FileChanged: A file does not have its hash.
    """
    with witnessed(hashes or {}):
        yield from _saved_rows(folder, split)


def _saved_rows(folder: Path, split: str) -> Iterator[RawRow]:
    datasets = _library()
    _refuse_other_places(folder)
    saved = _load(lambda: datasets.load_from_disk(str(folder)), str(folder))
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"no split {split!r} in {folder}", hint=f"Use one of: {', '.join(saved)}.")
        saved = saved[split]
    yield from _iterate(saved, str(folder))


def _refuse_other_places(folder: Path) -> None:
    """Raise an error if a saved data set or one of its splits names files outside its folder, or pipes.

    Raises:
        DataError: The data set names such a file, or its description cannot be read.
    """
    for state in (*folder.glob("state.json"), *folder.glob("*/state.json"), *folder.glob("dataset_dict.json")):
        try:
            found = read_small_json(state)
            named = [*(part["filename"] for part in found.get("_data_files", ())), *found.get("splits", ())]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"cannot load {folder}: {state.name}: {error}", hint="Save the data set again.") from error
        for name in named:
            if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
                raise DataError(
                    f"{state} names a file outside of its folder: {name!r:.200}", hint="Do not use this data set."
                )
            place = state.parent / name
            try:
                if not place.is_dir():
                    refuse_endless(place)
            except OSError as error:
                raise DataError(f"cannot load {place}: {error.strerror}", hint="Save the data set again.") from error


def read_hub(name: str, config: str, split: str, revision: str, *, streaming: bool | None = None) -> Iterator[RawRow]:
    """Read the rows of a data set from the hub.

    Args:
        name: Hub id, `owner/name`.
        config: Configuration of the data set. Empty for the default.
        split: `train`, or a slice such as `train[:1000]`.
        revision: Branch, tag or commit. Empty for the default branch.
        streaming: True streams the rows. False downloads the data set first. None streams unless `split` is a slice.

    Yields:
        0 and the fields of each row.

    Raises:
        DataError: The data set cannot be loaded.
    """
    datasets = _library()
    if not is_hub_id(name):
        raise DataError(f"not a hub id: {name!r:.200}", hint="Write `owner/name`, or name a local place in `path`.")
    streams = not is_slice(split) if streaming is None else streaming
    # `load_dataset` reads a local folder with the name of an id. This address is always on the hub.
    place = f"hf://datasets/{name}"
    loaded = _load(
        lambda: datasets.load_dataset(place, config or None, split=split, revision=revision or None, streaming=streams),
        name,
    )
    return _iterate(loaded, name)


def is_slice(split: str) -> bool:
    """Return whether a split is a slice or a sum of splits, which `datasets` cannot stream."""
    return "[" in split or "+" in split


# -- text ---------------------------------------------------------------------------------------------------------


def _lines(file: File, witness: Witness | None) -> Iterator[str | DataError]:
    """Yield the lines of a UTF-8 file with their line breaks. An invalid line yields an error.

    A byte order mark is removed.
    """
    packed = is_packed(file)
    with open_bytes(file, None if witness is None else witness.open()) as stream:
        number = 0
        for whole in iter(lambda: stream.readline(_LONGEST), b"") if packed else stream:
            if packed and len(whole) == _LONGEST:
                raise DataError(
                    f"{file}:{number + 1}: line is longer than {_LONGEST >> 20} MiB", hint="Save the file uncompressed."
                )
            # Old programs of the Mac end lines with a carriage return alone.
            for line in _RETURN.split(whole) if b"\r" in whole else (whole,):
                if not line:
                    continue
                number += 1
                yield _decoded(line, file, number)


def _decoded(line: bytes, file: File, number: int) -> str | DataError:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        return DataError(
            f"{file}:{number}: not UTF-8 (byte {line[error.start]:#04x}): {error.reason}",
            hint="Save the file as UTF-8.",
        )


def _read_json(file: File, options: ReadOptions) -> Iterator[RawRow]:
    return read_json(_lines(file, options.witness), file, one_document=_suffix(file) == ".json")


def _read_csv(file: File, options: ReadOptions) -> Iterator[RawRow]:
    tabs = _suffix(file) == ".tsv"

    def lines() -> Iterator[str]:
        return whole(_lines(file, options.witness))

    if isinstance(file, RemoteFile):
        # The reader looks at the lines several times, and a download takes longer than memory costs.
        held = list(lines())
        return read_csv(lambda: iter(held), file, tabs=tabs, options=options.csv, names=options.names)
    return read_csv(lines, file, tabs=tabs, options=options.csv, names=options.names)


# -- by `datasets` ------------------------------------------------------------------------------------------------


def _read_parquet(file: File, options: ReadOptions) -> Iterator[RawRow]:
    # The default batch size is the size of the first row group, which can be zero.
    yield from _read_table(file, "parquet", batch_size=_ROWS)


def _read_arrow(file: File, options: ReadOptions) -> Iterator[RawRow]:
    """Read a file or a stream of Arrow IPC."""
    yield from _read_table(file, "arrow")


def _read_table(file: File, builder: str, **options: Any) -> Iterator[RawRow]:
    datasets = _library()
    if isinstance(file, Path):
        if not file.exists():
            raise FileNotFoundError(file)
        place = glob.escape(str(file))
    else:
        file.state()
        place = file.address
    rows = _load(
        lambda: datasets.load_dataset(builder, data_files=place, split="train", streaming=True, **options),
        str(file),
        file,
    )
    return _iterate(rows, str(file), file)


def _library() -> Any:
    """Import `datasets`. Its loaders report each load to a server, local files too, unless this setting is off."""
    import datasets
    from huggingface_hub import constants

    # `DO_NOT_TRACK` sets this constant, too.
    if "HF_UPDATE_DOWNLOAD_COUNTS" not in os.environ or constants.HF_HUB_DISABLE_TELEMETRY:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    return datasets


def _load(load: Callable[[], Any], where: str, file: File | None = None) -> Iterable[dict[str, Any]]:
    try:
        with _quiet():
            return cast(Iterable[dict[str, Any]], load())
    except Exception as error:
        if isinstance(error, ConnectionError):
            raise unreachable("data set", where, error) from error
        # `datasets` and Arrow raise many types of errors.
        raise DataError(
            f"cannot load {where}: {_cause(error, file)}",
            hint="Check that the file is complete. For a hub id, check the name, the split and the network.",
        ) from error


def _iterate(rows: Iterable[dict[str, Any]], where: str, file: File | None = None) -> Iterator[RawRow]:
    iterator = iter(rows)
    while True:
        try:
            with _quiet():
                taken = list(itertools.islice(iterator, _ROWS))
        except Exception as error:
            hint = "Check that the file is complete."
            raise DataError(f"cannot read {where}: {_cause(error, file)}", hint=hint) from error
        if not taken:
            return
        for row in taken:
            yield 0, {key: _without_fillers(value) for key, value in row.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log of `datasets`, which prints file names with their escape sequences to the terminal."""
    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _without_fillers(value: Any) -> Any:
    """Remove null values from a cell. Arrow gives every object the keys of all others, filled with null."""
    if isinstance(value, dict):
        return {key: _without_fillers(item) for key, item in value.items() if item is not None}
    return [_without_fillers(item) for item in value] if isinstance(value, list) else value


def _cause(error: BaseException, file: File | None) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    line = (f"{type(error).__name__}: {error}".splitlines() or [""])[0]
    return file.without_secrets(line) if isinstance(file, RemoteFile) else line


def _suffix(path: File) -> str:
    return Path(unpacked_name(path)).suffix.lower()


_READERS: dict[str, Callable[[File, ReadOptions], Iterator[RawRow]]] = {
    ".jsonl": _read_json,
    ".jsonlines": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}

"""Tell from the name of a file which split it holds, and whether it is one of several shards."""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from curator.core.files import File
from curator.data.packed import unpacked_name

TRAIN, HELD_OUT = "train", "held out"
WORDS = dict.fromkeys(("train", "training"), TRAIN) | dict.fromkeys(
    ("test", "testing", "eval", "evaluation", "validation", "valid", "val", "dev", "holdout", "heldout"), HELD_OUT
)
"""Kind of a split by its word. These are the words that `datasets` knows, and others that people use in file names."""
_ANY = "|".join(WORDS)
_AT_END = re.compile(rf"(.+)[-_. ]({_ANY})", re.IGNORECASE)
_AT_START = re.compile(rf"({_ANY})[-_. ](.+)", re.IGNORECASE)
# `datasets` numbers the shards of a split, and may add a hash.
_SHARD = re.compile(r"[-_.]\d{5}-of-\d{5}(-[0-9a-f]{16})?$")
_COUNTED = re.compile(r"(?<=[-_.])(\d{5})-of-(\d{5})(-[0-9a-f]{16})?(?=[.][^/]*$)")
_NUMBERED = re.compile(rf"({_ANY})[-_.]?\d{{1,5}}", re.IGNORECASE)
# The hub writes `0000.parquet`, and Spark writes `part-00000-HASH.parquet`. A year has no zero at its start.
_PART = re.compile(r"(?:(?:part|shard|chunk)[-_.]?\d{4,6}|0\d{3,5})(?:[-_.].*)?", re.IGNORECASE)
# Folders of a data set that do not name it.
_PLAIN = {"data", "default"}


def split_of(file: File) -> tuple[str, str]:
    """Return the rest of a file's name, and its split: `TRAIN`, `HELD_OUT` or "".

    The name `train-00000-of-00002.parquet` has the rest "". The name `topic_test.jsonl` has the rest `topic`.

    Args:
        file: The file.
    """
    return split_in(stem_of(file))


def split_in(name: str) -> tuple[str, str]:
    """Return the rest of a name and its split, as `split_of` does.

    Args:
        name: Name of a file without its ending, or of a split.
    """
    if name.lower() in WORDS:
        return "", WORDS[name.lower()]
    if found := _AT_END.fullmatch(name):
        return found[1], WORDS[found[2].lower()]
    if found := _AT_START.fullmatch(name):
        return found[2], WORDS[found[1].lower()]
    return name, ""


def names_of_training(rest: str) -> list[str]:
    """Return the names, in lower case, of training splits that a test or validation split may belong to.

    Args:
        rest: Rest of the held-out file's name, in lower case.
    """
    joints = "-_. "
    words = [word for word, split in WORDS.items() if split == TRAIN]
    ends = [f"{rest}{joint}{word}" for joint in joints for word in words]
    return [rest, *ends, *(f"{word}{joint}{rest}" for joint in joints for word in words)]


def twins_of_training(stem: str) -> list[str]:
    """Return the names of training splits that differ from a held-out one in a word only, in lower case.

    Args:
        stem: Name of the held-out file without its ending, such as `oak-test-v2` for `oak-train-v2`.
    """
    parts = re.split(r"([-_. ])", stem.lower())
    words = [word for word, split in WORDS.items() if split == TRAIN]
    places = [place for place, part in enumerate(parts) if WORDS.get(part) == HELD_OUT]
    return ["".join([*parts[:place], word, *parts[place + 1 :]]) for place in places for word in words]


def stem_of(file: File) -> str:
    """Return a file's name without endings and without the number of a shard. "" if the number is all of the name."""
    stem = _full_stem(file)
    if numbered := _NUMBERED.fullmatch(stem):
        return numbered[1]
    return "" if _is_part(stem) else _SHARD.sub("", stem)


def is_shard(file: File) -> bool:
    """Return whether a file is one of the numbered parts of a split."""
    stem = _full_stem(file)
    return bool(_SHARD.search(stem) or _NUMBERED.fullmatch(stem)) or _is_part(stem)


def unread_shards(files: Iterable[str]) -> list[str]:
    """Report the shards of a split that are not among its files, one line for each split.

    `train-00001-of-00005.parquet` says that the split has five shards. Most programs count from 0, others from 1.

    Args:
        files: Paths or addresses of files.
    """
    splits: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if found := _COUNTED.search(file):
            name = f"{file[: found.start()]}*-of-{found[2]}{'-*' if found[3] else ''}{file[found.end() :]}"
            splits.setdefault((name, int(found[2])), set()).add(int(found[1]))
    return [
        f"reads {len(numbers):,} of the {count:,} shards of {PurePosixPath(name).name}"
        for (name, count), numbers in splits.items()
        if len(numbers) < count
    ]


def parent_of(file: File) -> PurePosixPath:
    """Return the folder of a file. A remote file has the folder below its protocol."""
    return PurePosixPath(os.path.abspath(file) if isinstance(file, Path) else str(file).partition("://")[2]).parent


def folder_name(folder: PurePosixPath) -> str:
    """Return the name of a data set's folder. A clone keeps its files in `data`, or in a folder for each split."""
    named = folder
    while (named.name in _PLAIN or named.name.lower() in WORDS) and named.parent.name:
        named = named.parent
    return named.name


def _is_part(stem: str) -> bool:
    return _PART.fullmatch(stem) is not None


def _full_stem(file: File) -> str:
    return Path(unpacked_name(file)).stem

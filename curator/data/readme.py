"""Read the README of a hub data set: which files belong to which configuration and split."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.core.errors import DataError
from curator.core.files import read_whole_text
from curator.core.folders import matching
from curator.core.foreign_yaml import read_yaml
from curator.core.text import clean
from curator.data.split_names import HELD_OUT, TRAIN, split_in

# Size of the largest README that is read, in bytes.
_LARGEST = 2**20


@dataclass(frozen=True, slots=True)
class Pattern:
    """Describe one entry of `data_files`."""

    written: str
    """Pattern below the folder of the data set, or an address."""
    training: bool
    """Whether the files belong to the training split."""
    files: tuple[Path, ...]
    """Files that the pattern covers, also broken links."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Describe one configuration of a data set."""

    name: str
    folder: Path
    """Folder of its files: `data_dir`, or the folder of the data set."""
    patterns: tuple[Pattern, ...]
    """`data_files`. The README may name none."""


def read_configurations(folder: Path) -> list[Configuration]:
    """Return the configurations in the front matter of a README. The list is empty without a readable README.

    Args:
        folder: Folder of the data set.

    Raises:
        DataError: The README names files outside the folder, or an invalid pattern.
    """
    return [
        Configuration(
            name=clean(_plain(found.get("config_name")) or "default").strip(),
            folder=folder / _inside(folder, _plain(found.get("data_dir")) or "."),
            patterns=tuple(_patterns(folder, found)),
        )
        for found in _front_matter(folder / "README.md")
    ]


def _front_matter(path: Path) -> list[dict[str, Any]]:
    try:
        text = read_whole_text(path, most=_LARGEST, encoding="utf-8-sig", errors="replace")
    except OSError:
        # The file is missing, a pipe, or too large.
        return []
    parts = re.split(r"^---[ \t]*$", text, maxsplit=2, flags=re.M)
    if len(parts) < 3 or parts[0].strip():
        return []
    try:
        front = read_yaml(parts[1], unique_keys=False)
    except ValueError:
        return []
    configurations = front.get("configs") if isinstance(front, dict) else None
    return [c for c in configurations if isinstance(c, dict)] if isinstance(configurations, list) else []


def _patterns(folder: Path, configuration: dict[str, Any]) -> Iterator[Pattern]:
    base = _inside(folder, _plain(configuration.get("data_dir")) or ".")
    named = configuration.get("data_files") or []
    if isinstance(named, dict):
        pairs = [(_plain(split) or TRAIN, patterns) for split, patterns in named.items()]
    else:
        entries = named if isinstance(named, list) else [named]
        pairs = [
            (_plain(entry.get("split")) or TRAIN, entry.get("path")) if isinstance(entry, dict) else (TRAIN, entry)
            for entry in entries
        ]
    splits = [split for split, _ in pairs]
    for split, patterns in pairs:
        training = _kind_of(split, splits) == TRAIN
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            if isinstance(pattern, str) and "://" in pattern:
                yield Pattern(pattern, training, ())
            elif isinstance(pattern, str) and pattern:
                written = os.path.join(base, _inside(folder, pattern))
                yield Pattern(written, training, tuple(_covered(folder, written)))


def _covered(folder: Path, pattern: str) -> list[Path]:
    """Return the files that a pattern covers. `**` at its end covers all files below, as for `datasets`.

    Raises:
        DataError: The pattern is invalid.
    """
    path = folder / pattern
    try:
        covered = [path] if path.is_file() else matching(f"{pattern}/*" if path.name == "**" else pattern, folder)
        return [path for path in covered if not path.is_dir()]
    except ValueError as error:
        raise _invalid_pattern(folder, pattern) from error


def _kind_of(split: str, splits: Sequence[str]) -> str:
    """Return whether a split of a configuration is for training. `train_sft` counts only if there is no `train`."""
    if TRAIN in splits:
        return TRAIN if split == TRAIN else HELD_OUT
    kinds = {name: split_in(name)[1] for name in splits}
    return kinds[split] or (HELD_OUT if TRAIN in kinds.values() else TRAIN)


def _plain(value: Any) -> str:
    """Return a text or a number as text, and "" for another value. Nested YAML aliases would exceed the memory."""
    return str(value) if isinstance(value, str | int | float) else ""


def _inside(folder: Path, written: str) -> str:
    """Return a path of a README as a relative path.

    Raises:
        DataError: The path leaves the folder, or is too long for a file. A README from elsewhere must not choose files
            of the user.
    """
    if Path(written).is_absolute() or ".." in Path(written).parts or "\0" in written:
        raise DataError(
            f"{folder / 'README.md'} names files outside its folder: {clean(written, limit=100)!r}",
            hint="Name the data files themselves, or correct the README.",
        )
    path = os.path.normpath(written)
    try:
        (folder / path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        # A pattern need not be the name of a file.
        pass
    except (OSError, ValueError) as error:
        raise _invalid_pattern(folder, written) from error
    return path


def _invalid_pattern(folder: Path, pattern: str) -> DataError:
    return DataError(
        f"{folder / 'README.md'} has an invalid pattern: {clean(pattern, limit=100)!r}",
        hint="Name the data files themselves, or correct the README.",
    )

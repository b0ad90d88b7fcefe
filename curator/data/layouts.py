"""Group the files of a folder or a glob into tasks: by split, by shard, and by configuration of a hub data set.

Only training splits become tasks. `Found` names the test and validation splits, so that no file is left out in silence.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from curator.core.errors import DataError
from curator.core.files import File
from curator.data.readers import is_saved_dataset, is_task_file, task_name
from curator.data.readme import Configuration, read_configurations
from curator.data.split_names import (
    HELD_OUT,
    TRAIN,
    WORDS,
    folder_name,
    is_shard,
    names_of_training,
    parent_of,
    split_of,
    stem_of,
    twins_of_training,
)

# Files about a data set that `datasets` and LLaMA-Factory write next to its rows.
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json"}
_ABOUT = {"readme", "license", "licence", "notice", "citation", "changelog"}
# A clone has `data/train.parquet` or `en/train.parquet`. A folder of clones has one more level.
_DEEPEST = 3
# Links in a circle, and READMEs that name each other's folders, make a few folders look like billions.
_MOST_FOLDERS = 20_000
# Files in deeper folders that are named.
_MOST_BELOW = 100


@dataclass(frozen=True, slots=True)
class FoundTask:
    """Name a task and its files. A saved data set has its folder as the only file."""

    name: str
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Hold the tasks among some files, and the files that belong to no task."""

    tasks: tuple[FoundTask, ...] = ()
    held_out: tuple[File, ...] = ()
    """Test and validation splits."""
    unread: tuple[Path, ...] = ()
    """Files of an unknown type."""
    below: tuple[Path, ...] = ()
    """Data files in folders that are no data set."""
    missing: tuple[str, ...] = ()
    """Files, patterns and addresses that a README names, and that cover no local file."""

    def __add__(self, other: "Found") -> "Found":
        return Found(
            tasks=self.tasks + other.tasks,
            held_out=self.held_out + other.held_out,
            unread=self.unread + other.unread,
            below=self.below + other.below,
            missing=self.missing + other.missing,
        )

    @property
    def files(self) -> list[File]:
        """Return the files of all tasks, each once."""
        return list(dict.fromkeys(file for task in self.tasks for file in task.files))


@dataclass(frozen=True, slots=True)
class Search:
    """Bound a search for data sets in folders."""

    levels: int = _DEEPEST
    """Number of levels of folders that are left."""
    _entered: list[Path] = field(default_factory=list)

    def deeper(self, folder: Path, *, levels: int | None = None) -> "Search":
        """Return the search in a folder.

        Args:
            folder: The folder to enter.
            levels: Number of levels below the folder. None subtracts one from those that are left.

        Raises:
            DataError: The search has entered too many folders.
        """
        self._entered.append(folder)
        if len(self._entered) > _MOST_FOLDERS:
            raise DataError(
                f"the search for data sets entered over {_MOST_FOLDERS:,} folders, such as {folder}",
                hint="Remove links that lead in a circle, or name the files with a pattern such as folder/*/*.jsonl.",
            )
        return replace(self, levels=self.levels - 1 if levels is None else levels)


def tasks_among(
    paths: Iterable[File],
    *,
    named_after_folder: Callable[[PurePosixPath], bool] = lambda _: False,
    kept: Collection[str] = (),
    all_splits: bool = False,
    search: "Search | None" = None,
) -> Found:
    """Group files and folders into tasks.

    Args:
        paths: Files and folders, for example all paths that a glob matches. Hidden names are the caller's matter.
        named_after_folder: Whether `train.jsonl` in a folder is named after the folder, and not `train`.
        kept: Names of tasks that remain tasks, even if they look like a test or validation split.
        all_splits: Whether test and validation splits are tasks too, because the user names them.
        search: The search for data sets in the folders. None starts one.

    Raises:
        DataError: The README of a data set names files outside its folder, or the search enters too many folders.
    """
    search = search or Search()
    files, folders, unread = [], [], []
    for path in paths:
        if isinstance(path, Path) and path.is_dir():
            folders.append(path)
        elif _is_data(path):
            # A broken link or a pipe is an error that names it.
            files.append(path)
        elif isinstance(path, Path) and path.is_file() and _holds_rows(path):
            unread.append(path)
    found = _group(files, named_after_folder, kept, all_splits=all_splits) + Found(unread=tuple(sorted(unread)))
    seen = {*files}
    for folder in folders:
        inner = _saved(folder) or (data_set(folder, search.deeper(folder)) if search.levels > 0 else None)
        if inner is not None and seen.isdisjoint([*inner.files, *inner.held_out]):
            found += inner
            seen |= {*inner.files, *inner.held_out}
        elif inner is None:
            found += Found(below=tuple(_below(folder)))
    return found


def _below(folder: Path) -> list[Path]:
    """Return the first data files in a folder and in its folders. A project of curator holds none."""
    found: list[Path] = []
    for place, inner, names in os.walk(folder):
        if "curator.toml" in names:
            inner.clear()
            continue
        depth = len(Path(place).relative_to(folder).parts)
        inner[:] = sorted(name for name in inner if not name.startswith(".") and depth + 1 < _DEEPEST)
        paths = [Path(place) / name for name in sorted(names) if not name.startswith(".")]
        found += [path for path in paths if _is_data(path)]
        if len(found) >= _MOST_BELOW:
            break
    return found[:_MOST_BELOW]


def tasks_of_folder(folder: Path, *, kept: Collection[str] = (), all_splits: bool = False) -> Found:
    """Group the files of a folder into tasks. A clone of a hub data set has one task for each configuration.

    Args:
        folder: The folder.
        kept: As in `tasks_among`.
        all_splits: As in `tasks_among`.

    Raises:
        DataError: The README of the data set names files outside the folder.
    """
    # The splits of a saved data set are no tasks.
    found = _saved(folder) or (None if all_splits else data_set(folder))
    found = found or tasks_among(_visible(folder), kept=kept, all_splits=all_splits)
    if not found.tasks and (folder / "data").is_dir():
        # A clone of the hub without a README.
        found += tasks_among(_visible(folder / "data"), kept=kept, all_splits=all_splits)
    return found


def data_set(folder: Path, search: Search | None = None) -> Found | None:
    """Return the tasks of a data set, or None if the folder holds other files.

    A data set has a README with configurations, or files that are all named after splits. It may have such folders.

    Args:
        folder: The folder.
        search: The search that found the folder. None starts one.

    Raises:
        DataError: The README names files outside the folder, or the search enters too many folders.
    """
    search = search or Search()
    configurations = read_configurations(folder)
    if configurations:
        return _configured(folder, configurations, search)
    visible = _visible(folder)
    files = [path for path in visible if _is_data(path) and not path.is_dir()]
    splits = [split_of(file) for file in files]
    if any(rest or not split for rest, split in splits):
        return None
    if not files and (found := _of_split_folders(folder, visible)) is not None:
        return found
    if ("", TRAIN) in splits:
        return tasks_among(files, named_after_folder=lambda _: True)
    inner = tasks_among([path for path in visible if path.is_dir()], search=search) if search.levels > 0 else Found()
    return inner + Found(held_out=tuple(files)) if inner.tasks else None


def _of_split_folders(folder: Path, visible: Sequence[Path]) -> Found | None:
    """Return the tasks of a data set with a folder for each split, such as `train/0000.parquet`, or None.

    Shards of the training split are one task. Files with other names are a task each.
    """
    splits = {path: WORDS[path.name.lower()] for path in visible if path.name.lower() in WORDS and path.is_dir()}
    if TRAIN not in splits.values() or any(map(is_saved_dataset, splits)):
        return None
    files = {path: [file for file in _visible(path) if file.is_file() and _is_data(file)] for path in splits}
    training = [file for path, split in splits.items() if split == TRAIN for file in files[path]]
    held_out = [file for path, split in splits.items() if split == HELD_OUT for file in files[path]]
    if not training:
        return None
    return _group(training, lambda _: True, (), all_splits=True) + Found(held_out=tuple(held_out))


def splits_beside(found: Found) -> list[File]:
    """Return the test and validation splits next to the local training splits of some tasks."""
    folders = {file.parent for file in found.files if isinstance(file, Path) and split_of(file) == ("", TRAIN)}
    return [
        path
        for folder in sorted(folders)
        for path in _visible(folder)
        if path.is_file() and _is_data(path) and split_of(path) == ("", HELD_OUT)
    ]


def _saved(folder: Path) -> Found | None:
    return Found(tasks=(FoundTask(task_name(folder), (folder,)),)) if is_saved_dataset(folder) else None


def _group(
    files: Sequence[File],
    named_after_folder: Callable[[PurePosixPath], bool],
    kept: Collection[str],
    *,
    all_splits: bool,
) -> Found:
    """Group files by split and shard."""
    present = {(parent_of(file), stem_of(file).lower()) for file in files}
    folders = {parent for parent, _ in present}
    groups: dict[tuple[PurePosixPath, str, bool], list[File]] = {}
    held_out = []
    for file in files:
        rest, split = split_of(file)
        parent = parent_of(file)
        if not all_splits and stem_of(file) not in kept:
            names = twins_of_training(stem_of(file)) + (names_of_training(rest.lower()) if split == HELD_OUT else [])
            is_split = split == HELD_OUT and not rest
            beside = is_split or any((parent, name) in present for name in names)
            if beside or (named_after_folder(parent) and _is_held_out(parent, folders)):
                held_out.append(file)
                continue
        sharded = is_shard(file)
        # Only shards belong together: `a.jsonl` and `a.csv` are two tasks, whose equal names are an error.
        key = (parent, stem_of(file) if sharded else file.name, sharded)
        groups.setdefault(key, []).append(file)
    shared = Counter(stem_of(members[0]) for members in groups.values())
    inside = {parent for parent, _, _ in groups if named_after_folder(parent)}
    once = Counter(parent for parent, _, _ in groups)
    tasks = []
    for (parent, _, sharded), members in groups.items():
        name = stem_of(members[0])
        is_word = name.lower() in WORDS and (sharded or parent in inside)
        # In `oak/data.jsonl` and `fern/data.jsonl`, the folders are the names.
        is_everywhere = shared[name] > 1 and parent in inside and once[parent] == 1
        if not name or is_word or is_everywhere:
            name = folder_name(parent) or name
        tasks.append(FoundTask(name, tuple(sorted(members, key=str))))
    return Found(tasks=tuple(tasks), held_out=tuple(sorted(held_out, key=str)))


def _is_held_out(folder: PurePosixPath, folders: Collection[PurePosixPath]) -> bool:
    """Return whether a folder has the name of a test or validation split, next to a folder of other files."""
    if WORDS.get(folder.name.lower()) != HELD_OUT:
        return False
    return any(
        other == folder.parent or (other.parent == folder.parent and WORDS.get(other.name.lower()) != HELD_OUT)
        for other in folders
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_data(file: File) -> bool:
    return is_task_file(file) and file.name not in _METADATA


def _holds_rows(path: Path) -> bool:
    """Return whether a file of an unknown type may hold rows. Hidden files and texts about a data set do not."""
    return not path.name.startswith(".") and path.stem.lower() not in _ABOUT


# -- the configurations of a README -------------------------------------------------------------------------------


def _configured(folder: Path, configurations: Sequence[Configuration], search: Search) -> Found | None:
    """Return one task for each configuration with a training split. None if the files of all are missing."""
    training: list[tuple[str, list[File]]] = []
    others = Found()
    for configuration in configurations:
        files, other = _files_of(folder, configuration, search)
        others += other
        if files:
            training.append((configuration.name, files))
    if not training and not others.held_out:
        return None
    name = folder_name(PurePosixPath(os.path.abspath(folder)))
    tasks = [
        FoundTask(name if len(training) == 1 or config == "default" else f"{name}-{config}", tuple(files))
        for config, files in training
    ]
    known = {file for task in tasks for file in task.files}
    held_out = tuple(file for file in dict.fromkeys(others.held_out) if file not in known)
    return replace(others, tasks=tuple(tasks), held_out=held_out)


def _files_of(folder: Path, configuration: Configuration, search: Search) -> tuple[list[File], Found]:
    """Return the files of a configuration's training split, and its files that belong to no task."""
    if not configuration.patterns:
        found = _files_in(folder, configuration.folder, search)
        return found.files, replace(found, tasks=())
    training: list[File] = []
    others = Found()
    for pattern in configuration.patterns:
        # A broken link or a pipe is an error that names it.
        files = [path for path in pattern.files if is_task_file(path)]
        training += files if pattern.training else ()
        others += Found(
            held_out=() if pattern.training else tuple(files),
            unread=tuple(path for path in pattern.files if path not in files and path.is_file()),
            missing=() if pattern.files else (_named(folder, pattern.written),),
        )
    return list(dict.fromkeys(training)), others


def _files_in(folder: Path, base: Path, search: Search) -> Found:
    """Return the files of a configuration that names a folder only, or nothing."""
    inner = search.deeper(base, levels=1)
    if base == folder:
        return tasks_among([folder / "data"] if (folder / "data").is_dir() else _visible(folder), search=inner)
    if not base.is_dir():
        return Found(missing=(str(base),))
    return data_set(base, inner) or tasks_among(_visible(base), search=inner)


def _named(folder: Path, written: str) -> str:
    return written if "://" in written else str(folder / written)

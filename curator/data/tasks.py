"""Describe the tasks of a project: their versions, their splits, and their problems."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from curator.core.config import target_label
from curator.core.errors import DataError
from curator.core.files import folded
from curator.core.provenance import hash_of
from curator.data.bad_rows import UnusableTask
from curator.data.left_out import BAD, CUT_OFF, DROPPED, EMPTY, LEAKED, LEAKED_TEST, NO_ANSWER, TEST
from curator.data.model_files import ModelFiles
from curator.data.split_names import unread_shards
from curator.data.splits import TaskSplit
from curator.workspace.store.records import ExampleIndex

FEW_HELD_OUT = 100
"""Number of held-out examples below which curator warns about a target."""
# Tasks with the same problem that have a line each.
_APART = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskVersion:
    """Describe one task or one validation file, read for one tokenizer."""

    key: str
    files: tuple[tuple[str, str, int], ...]
    """(path, sha256, rows) of each file, or (id, hash of the rows, rows) of a hub data set."""
    source: dict[str, Any]
    index: ExampleIndex
    formats: dict[str, int] = field(default_factory=dict)
    """Number of rows by format name."""
    unused: dict[str, int] = field(default_factory=dict)
    """Number of rows by the name of a column that has a value and is not read."""
    notes: tuple[str, ...] = ()
    """What curator assumed about files, and which parts of them it leaves out."""

    @property
    def file_notes(self) -> list[str]:
        """Return `notes`, and a note about each split some shards of which are not among the files."""
        return [*self.notes, *unread_shards(path for path, _, _ in self.files)]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Describe one task of a corpus and the split of its examples."""

    name: str
    tags: tuple[str, ...]
    version: TaskVersion
    validation_version: TaskVersion | None
    """Source of the validation examples. None if they are rows of the task itself."""
    split: TaskSplit
    test_version: TaskVersion | None = None
    """Source of the test examples. None if they are rows of the task itself."""

    def held_out(self, part: str) -> tuple[TaskVersion, tuple[int, ...]]:
        """Return the version and the numbers of the examples of a part: `validation` or `test`."""
        if part == TEST:
            return self.test_version or self.version, self.split.test
        return self.held_out_from, self.split.validation

    @property
    def held_out_from(self) -> TaskVersion:
        """Return the version that the numbers in `split.validation` refer to."""
        return self.validation_version or self.version

    @cached_property
    def train_hashes(self) -> list[str]:
        """Return the token hashes of the training examples."""
        return [self.version.index.token_hashes[n] for n in self.split.train]

    @cached_property
    def validation_hashes(self) -> list[str]:
        """Return the token hashes of the validation examples. The list is empty unless the task is a target."""
        return [self.held_out_from.index.token_hashes[n] for n in self.split.validation]

    @cached_property
    def tokens(self) -> int:
        """Return the number of tokens of the training examples, prompt and completion."""
        return sum(self.version.index.lengths[n] for n in self.split.train)

    @cached_property
    def truncated(self) -> int:
        """Return the number of truncated training examples."""
        return sum(self.version.index.truncated[n] for n in self.split.train)

    @property
    def file_notes(self) -> list[str]:
        """Return the notes about the task's files, its validation file and its test file."""
        held_out = self.validation_version.file_notes if self.validation_version is not None else ()
        test = self.test_version.file_notes if self.test_version is not None else ()
        return [
            *self.version.file_notes,
            *(f"validation file: {note}" for note in held_out),
            *(f"test file: {note}" for note in test),
            *self._held_out_notes,
        ]

    @property
    def _held_out_notes(self) -> list[str]:
        """Report held-out examples that are left out or truncated. The counts of a task are those of its training."""
        notes = []
        for words, own, version, numbers in (
            ("validation", self.validation_version, self.held_out_from, self.split.validation),
            ("test", self.test_version, self.test_version or self.version, self.split.test),
        ):
            reasons = Counter(reason for reason in own.index.left_out if reason) if own is not None else Counter[str]()
            notes += [f"{words} file: {count:,} examples left out: {reason}" for reason, count in reasons.items()]
            truncated = sum(version.index.truncated[n] for n in numbers)
            if truncated:
                notes.append(f"{truncated:,} {words} examples longer than max_length were truncated")
        return notes

    @property
    def content(self) -> str:
        """Return a hash of the training examples in their order."""
        return hash_of(self.train_hashes)

    def without(self, hashes: Collection[str]) -> "Task":
        """Return the task without the training examples of some content hashes. `left_out` lists their numbers."""
        index, split = self.version.index.hashes, self.split
        out = tuple(n for n in split.train if index[n] in hashes)
        if not out:
            return self
        left_out = dict(sorted({**split.left_out, DROPPED: tuple(sorted(out))}.items()))
        train = tuple(n for n in split.train if index[n] not in hashes)
        return replace(self, split=replace(split, train=train, left_out=left_out))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Hold all tasks of a project, split for given targets."""

    tasks: tuple[Task, ...]
    targets: tuple[str, ...]
    model: ModelFiles
    unusable: tuple[UnusableTask, ...] = ()
    """Tasks that are left out as a whole."""
    bad: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Number of bad rows by task and reason. Tasks without bad rows are missing."""
    refusal: DataError | None = None
    """Why the project cannot be used. None unless `read_corpus` was told not to raise."""

    @property
    def auxiliary(self) -> list[Task]:
        """Return the auxiliary tasks: all tasks that are not targets."""
        return [task for task in self.tasks if task.name not in self.targets]

    def with_tasks(self, changed: Mapping[str, Task]) -> "Corpus":
        """Return the corpus where tasks of the same names are replaced."""
        return replace(self, tasks=tuple(changed.get(task.name, task) for task in self.tasks)) if changed else self

    @property
    def target_label(self) -> str:
        """Return one name for all targets."""
        return target_label(self.targets)

    @property
    def target_tasks(self) -> list[Task]:
        """Return the target tasks in the order of `targets`."""
        by_name = {task.name: task for task in self.tasks}
        return [by_name[name] for name in self.targets]

    def problems(self) -> list[str]:
        """List tasks and examples that are left out, truncated examples, and similar names, one line each."""
        found = self.notes() + _file_notes(self.tasks)
        for task in self.tasks:
            for reason, count in _reported(task).items():
                found.append(f"{task.name}: {count} {reason}")
        return found + [f"{task.name}: left out as a whole: {task.reason}" for task in self.unusable]

    def notes(self) -> list[str]:
        """List the problems that are not counts of one task: unused columns, and similar names."""
        return _unused(self.tasks) + _alike(self.tasks)

    def warnings(self) -> list[str]:
        """List what the user should know before the training. Tasks with the same problem share a line."""
        found = self.few_held_out() + self.notes() + _file_notes(self.tasks)
        counted: dict[str, dict[str, int]] = {}
        for task in self.tasks:
            for reason, count in _reported(task).items():
                counted.setdefault(reason, {})[task.name] = count
        for reason, counts in counted.items():
            if len(counts) <= _APART:
                found += [f"{name}: {count} {reason}" for name, count in counts.items()]
            else:
                found.append(
                    f"{next(iter(counts))} and {len(counts) - 1:,} more tasks: {sum(counts.values()):,} {reason}"
                )
        found += [f"{task.name}: left out as a whole: {task.reason}" for task in self.unusable[:_APART]]
        if len(self.unusable) > _APART:
            found.append(f"{len(self.unusable) - _APART:,} more tasks are left out as a whole")
        return found

    def few_held_out(self) -> list[str]:
        """List the targets with few held-out examples, one line each."""
        by_name = {task.name: len(task.split.validation) for task in self.tasks}
        return [
            f"{name}: few held-out examples ({by_name[name]:,}). Estimates are uncertain below {FEW_HELD_OUT}."
            for name in self.targets
            if by_name.get(name, FEW_HELD_OUT) < FEW_HELD_OUT
        ]


def _alike(tasks: Sequence[Task]) -> list[str]:
    """Report tasks whose names differ only in case or in the encoding of accents."""
    found = []
    first_names: dict[str, str] = {}
    for task in tasks:
        first = first_names.setdefault(folded(task.name), task.name)
        if first != task.name:
            found.append(f"{first!r} and {task.name!r} look alike but are two tasks")
    return found


def _reported(task: Task) -> dict[str, int]:
    """Return the numbers of examples that are left out or truncated, by the words that report them."""
    found = {
        f"examples left out: {reason}": len(numbers)
        for reason, numbers in task.split.left_out.items()
        if reason in (BAD, EMPTY, NO_ANSWER, CUT_OFF, LEAKED, LEAKED_TEST)
    }
    return found | ({"examples longer than max_length were truncated": task.truncated} if task.truncated else {})


def _file_notes(tasks: Sequence[Task]) -> list[str]:
    """Report what curator assumed about files. Tasks with the same note share one line."""
    groups: dict[str, list[str]] = {}
    for task in tasks:
        for note in task.file_notes:
            groups.setdefault(note, []).append(task.name)
    return [
        names[0] + (f" and {len(names) - 1:,} more tasks" if len(names) > 1 else "") + f": {note}"
        for note, names in groups.items()
    ]


def _unused(tasks: Sequence[Task]) -> list[str]:
    """Report the columns that no format reads. Tasks with the same columns share one line."""
    groups: dict[tuple[str, ...], list[Task]] = {}
    for task in tasks:
        if task.version.unused:
            groups.setdefault(tuple(sorted(task.version.unused)), []).append(task)
    lines = []
    for names, members in groups.items():
        rows = Counter[str]()
        for task in members:
            rows.update(task.version.unused)
        columns = ", ".join(f"{name} ({rows[name]:,} rows)" for name in names)
        others = f" and {len(members) - 1:,} more tasks" if len(members) > 1 else ""
        lines.append(f"{members[0].name}{others}: unused columns: {columns}")
    return lines

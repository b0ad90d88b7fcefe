"""Examples that a selection drops: find them in the corpus, and read and write files of them.

A dropped example is named by its task and by the hash of its content. Copies of an example in one task are dropped
together.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from curator.core.errors import ConfigError, DataError
from curator.core.files import read_whole_text, refuse_endless
from curator.data.rows import place
from curator.data.tasks import Corpus, Task
from curator.workspace.store.tables import Store

Named = tuple[str, str]
"""Task and content hash of a dropped example."""

_SHAPE = 'Write one object a line: {"task": "NAME", "sha256": "HASH"}, as `curator examples --drop-harmful` does.'


@dataclass(frozen=True, slots=True)
class Dropped:
    """Content hashes of dropped examples, by task. Equal sets have equal values.

    Attributes:
        by_task: Sorted hashes of each task with dropped examples, in the order of the names.
    """

    by_task: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def of(cls, named: Iterable[Named]) -> Self:
        """Collect dropped examples. Repetitions count once."""
        found: dict[str, set[str]] = {}
        for task, digest in named:
            found.setdefault(task, set()).add(digest)
        return cls(tuple((task, tuple(sorted(found[task]))) for task in sorted(found)))

    def __bool__(self) -> bool:
        return bool(self.by_task)

    @property
    def named(self) -> tuple[Named, ...]:
        """Return task and content hash of each dropped example."""
        return tuple((task, digest) for task, hashes in self.by_task for digest in hashes)

    def hashes(self) -> Mapping[str, frozenset[str]]:
        """Return the content hashes of each task with dropped examples."""
        return {task: frozenset(hashes) for task, hashes in self.by_task}

    def within(self, corpus: Corpus) -> "Dropped":
        """Return the dropped examples that the training examples of the auxiliary tasks still hold."""
        there = {task.name: task for task in corpus.auxiliary if task.name in dict(self.by_task)}
        held = {name: _trained(task) for name, task in there.items()}
        return Dropped.of((task, digest) for task, digest in self.named if digest in held.get(task, ()))

    def positions(self, task: Task) -> list[int]:
        """Return the positions of a task's dropped examples among its training examples, from 0."""
        hashes = dict(self.by_task).get(task.name, ())
        index = task.version.index.hashes
        return [position for position, n in enumerate(task.split.train) if index[n] in hashes] if hashes else []


NOTHING = Dropped()


def without(corpus: Corpus, dropped: Dropped) -> Corpus:
    """Return the corpus whose auxiliary tasks do not train on the dropped examples.

    Examples that the corpus does not hold are ignored. `check_dropped` finds them.
    """
    hashes = dropped.hashes()
    return corpus.with_tasks(
        {task.name: task.without(hashes[task.name]) for task in corpus.auxiliary if task.name in hashes}
    )


def check_dropped(corpus: Corpus, named: Collection[Named], *, where: str = "") -> Dropped:
    """Check that each dropped example is a training example of an auxiliary task, and is named once.

    Args:
        corpus: Tasks of the project.
        named: Task and content hash of each example.
        where: What names the examples, for messages. An example is then called line N of it.

    Raises:
        ConfigError: A task or an example is unknown, or an example is named twice.
    """
    tasks = {task.name: task for task in corpus.auxiliary}
    held: dict[str, set[str]] = {}
    first: dict[Named, int] = {}
    for number, (name, digest) in enumerate(named, start=1):
        line = f"{where}:{number}: " if where else ""
        if name in corpus.targets:
            raise ConfigError(
                f"{line}cannot drop an example of the target {name!r}",
                hint="Drop examples of auxiliary tasks. Every selection trains on the target.",
            )
        if name not in tasks:
            raise ConfigError(f"{line}unknown task: {name!r}", hint="List the tasks with `curator check`.")
        if name not in held:
            held[name] = _trained(tasks[name])
        if digest not in held[name]:
            raise ConfigError(
                f"{line}no training example of task {name!r} has the hash {digest!r}",
                hint=f"List the hashes with `curator examples {name} --json`.",
            )
        if (name, digest) in first:
            again = f", as on line {first[name, digest]}" if where else ""
            raise ConfigError(
                f"{line}example of task {name!r} is named twice: {digest}{again}", hint="Remove one of the lines."
            )
        first[name, digest] = number
    return Dropped.of(named)


def read_dropped(path: Path) -> list[Named]:
    """Read task and content hash of each example from a JSON Lines file. An empty file names no example.

    Raises:
        DataError: The file cannot be read, or a line is not an object with texts `task` and `sha256`.
    """
    refuse_endless(path)
    try:
        text = read_whole_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="Check the path and its permissions.") from error
    found = []
    for number, line in enumerate(text.rstrip().split("\n") if text.strip() else (), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error}", hint=_SHAPE) from error
        task, digest = (row.get("task"), row.get("sha256")) if isinstance(row, dict) else (None, None)
        if not isinstance(task, str) or not isinstance(digest, str):
            raise DataError(f"{path}:{number}: not an object with texts `task` and `sha256`", hint=_SHAPE)
        found.append((task, digest))
    return found


def lines_of(named: Iterable[Named]) -> str:
    """Return the text of a JSON Lines file that names dropped examples."""
    return "".join(json.dumps({"task": task, "sha256": digest}) + "\n" for task, digest in named)


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedRow:
    """One row that a selection drops.

    Attributes:
        task: Name of the task.
        sha256: Hash of the row's content.
        number: Position in the task, from 0.
        place: Name of the file and line, or name of the file and number of the row.
    """

    task: str
    sha256: str
    number: int
    place: str


def dropped_rows(corpus: Corpus, store: Store, dropped: Dropped) -> list[DroppedRow]:
    """Return the rows of dropped examples, by task and by position. Each copy of an example is a row.

    Args:
        corpus: Tasks with all training examples.
        store: Store of the project.
        dropped: The dropped examples.
    """
    hashes = dropped.hashes()
    rows = []
    for task in sorted((t for t in corpus.auxiliary if t.name in hashes), key=lambda t: t.name):
        texts = store.example_texts(task.version.key)
        files, lines = texts.column("file").to_pylist(), texts.column("line").to_pylist()
        for number in task.split.train:
            digest = task.version.index.hashes[number]
            if digest in hashes[task.name]:
                where = place(Path(files[number]).name, lines[number], number)
                rows.append(DroppedRow(task=task.name, sha256=digest, number=number, place=where))
    return rows


def _trained(task: Task) -> set[str]:
    return {task.version.index.hashes[n] for n in task.split.train}

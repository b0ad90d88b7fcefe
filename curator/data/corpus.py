"""Read a project's examples, encode them for its model, store them, and split them for its targets.

The key of a task version is a hash of its files, the tokenizer and `max_length`.
`read_corpus` reads only versions whose key is not in the store.
"""

import bisect
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from curator.core.config import Config, target_label
from curator.core.errors import DataError
from curator.core.files import File, folded
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.discovery import check_target, find_tasks, find_validation
from curator.data.left_out import BAD, CUT_OFF, EMPTY, LEAKED, NO_ANSWER, why_empty
from curator.data.model_files import ModelFiles, hash_files, identify_model, load_architecture, load_tokenizer
from curator.data.problems import problems_of
from curator.data.rows import Row, place
from curator.data.sources import Source
from curator.data.splits import TaskExamples, TaskSplit, split_tasks
from curator.data.task_rows import bad_row, read_tasks, read_values, refusal
from curator.data.tokens import NOTHING, Encoder, TokenizedExample
from curator.workspace.store.access import DAMAGED
from curator.workspace.store.records import ExampleIndex, StoredExample, StoredTask
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace

# Increase the number when the same row is read or encoded differently.
_READER_VERSION = 2
# Longest time between two commits while tasks are read.
_COMMIT_SECONDS = 1.0


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


@dataclass(frozen=True, kw_only=True)
class Task:
    """Describe one task of a corpus and the split of its examples."""

    name: str
    tags: tuple[str, ...]
    version: TaskVersion
    validation_version: TaskVersion | None
    """Source of the validation examples. None if they are rows of the task itself."""
    split: TaskSplit

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
    def content(self) -> str:
        """Return a hash of the training examples in their order."""
        return hash_of(self.train_hashes)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Hold all tasks of a project, split for given targets."""

    tasks: tuple[Task, ...]
    targets: tuple[str, ...]
    model: ModelFiles

    @property
    def auxiliary(self) -> list[Task]:
        """Return the auxiliary tasks: all tasks that are not targets."""
        return [task for task in self.tasks if task.name not in self.targets]

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
        """List similar task names, examples that are left out, and truncated examples, one line each."""
        found = _unused(self.tasks)
        found += _notes(self.tasks)
        first_names: dict[str, str] = {}
        for task in self.tasks:
            first = first_names.setdefault(folded(task.name), task.name)
            if first != task.name:
                found.append(f"{first!r} and {task.name!r} look alike but are two tasks")
            for reason, numbers in task.split.left_out.items():
                if reason in (BAD, EMPTY, NO_ANSWER, CUT_OFF, LEAKED):
                    found.append(f"{task.name}: {len(numbers)} examples left out: {reason}")
            if task.truncated:
                found.append(f"{task.name}: {task.truncated} examples longer than max_length were truncated")
        return found


def _notes(tasks: Sequence[Task]) -> list[str]:
    """Report what curator assumed about files. Tasks with the same note share one line."""
    groups: dict[str, list[str]] = {}
    for task in tasks:
        versions = (task.version, task.validation_version)
        for note in dict.fromkeys(note for version in versions if version is not None for note in version.notes):
            groups.setdefault(note, []).append(task.name)
    return [
        f"{names[0]}{f' and {len(names) - 1:,} more tasks' if len(names) > 1 else ''}: {note}"
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


def read_corpus(workspace: Workspace, targets: tuple[str, ...], *, read: bool = True) -> Corpus | None:
    """Read new or changed task files into the store, and split the examples of every task.

    Args:
        workspace: The project.
        targets: Tasks with held-out examples. Empty for no targets.
        read: Whether to read new files. If False, the function writes nothing.

    Returns:
        The corpus. None if a file is new or changed and `read` is False.

    Raises:
        ConfigError: A target is not a task of the project.
        DataError: Files, rows or the model cannot be read. The error counts the bad rows of all files.
    """
    config, root, store = workspace.config, workspace.root, workspace.store
    try:
        sources = find_tasks(config.data, root, values=lambda s, column: _values(workspace, s, column, read=read))
    except _NotRead:
        return None
    if targets:
        check_target(targets, sources)
    model = identify_model(workspace, remember=read)
    held_out = {name: source for name in targets if (source := find_validation(config.data, name, root))}
    wanted = [(source.name, source) for source in sources] + list(held_out.items())
    hashes = hash_files(store, [file for _, source in wanted for file in source.files], remember=read)
    inputs = [_inputs(source, hashes, model, config) for _, source in wanted]
    missing = _missing(store, inputs, read=read)
    if missing:
        if not read:
            return None
        _ingest(workspace, [wanted[i][1] for i in missing], [inputs[i] for i in missing], model)
    versions = _versions(store, [source for _, source in wanted], inputs, hashes)
    refused = _refusal(store, [source for _, source in wanted], versions)
    if refused is not None and config.data.bad_rows == "refuse":
        if not read:
            return None
        raise refused
    own, other = versions[: len(sources)], dict(zip(held_out, versions[len(sources) :], strict=True))
    splits = split_tasks(
        [
            TaskExamples(
                name=source.name,
                hashes=version.index.hashes,
                left_out=version.index.left_out,
                validation_hashes=other[source.name].index.hashes if source.name in other else None,
                validation_left_out=other[source.name].index.left_out if source.name in other else (),
                problems=problems_of(store, version.key, version.index.left_out),
            )
            for source, version in zip(sources, own, strict=True)
        ],
        targets,
        share=config.data.validation,
        limit=config.data.max_examples_per_task,
        seed=config.data.seed,
    )
    tasks = [
        Task(name=s.name, tags=s.tags, version=v, validation_version=other.get(s.name), split=split)
        for s, v, split in zip(sources, own, splits, strict=True)
    ]
    return Corpus(tasks=tuple(tasks), targets=targets, model=model)


def training_examples(task: Task, store: Store) -> list[TokenizedExample]:
    """Return token ids and labels of a task's training examples."""
    rows = store.tokens(task.version.key)
    return [TokenizedExample(*rows[n]) for n in task.split.train]


def validation_examples(task: Task, store: Store) -> list[TokenizedExample]:
    """Return token ids and labels of a target's validation examples."""
    rows = store.tokens(task.held_out_from.key)
    return [TokenizedExample(*rows[n]) for n in task.split.validation]


class _NotRead(Exception):
    """Signal that a source is not in the store and must not be read."""


def _values(workspace: Workspace, source: Source, column: str, *, read: bool) -> list[str]:
    """Return the values of a column. Read them once and cache them by the content of the files."""
    store = workspace.store
    hashes = hash_files(store, source.files, remember=read)
    inputs = {
        "files": [[path.name, hashes[path]] for path in source.files],
        "source": source.describe(),
        "column": column,
        "reader": _READER_VERSION,
    }
    key = key_of(inputs)
    known = store.artifact("collection", key)
    if known is not None:
        return list(known.outputs["values"])
    if not read:
        raise _NotRead
    stage = workspace.reporter.stage("data", 1, "collections")
    values = read_values(source, column)
    store.put_artifact("collection", key, inputs, {"values": values})
    stage.advance()
    stage.finish(f"{source.place}: {len(values)} tasks by {column}")
    return values


def _inputs(source: Source, hashes: dict[File, str], model: ModelFiles, config: Config) -> Inputs:
    return {
        "name": source.name,
        "files": [[path.name, hashes[path]] for path in source.files],
        "source": source.describe(),
        "tokenizer": model.tokenizer_sha256,
        "max_length": config.data.max_length,
        "reader": _READER_VERSION,
    }


def _missing(store: Store, inputs: Sequence[Inputs], *, read: bool) -> list[int]:
    keys = [key_of(i) for i in inputs]
    # An earlier curator did not account for every column. Its tasks stay usable until files are read again.
    known = {
        artifact.key
        for artifact in store.artifacts("task", keys)
        # Without `rows`, the artifact is damaged and not old.
        if not read or "unused" in artifact.outputs or "rows" not in artifact.outputs
    }
    return [i for i, key in enumerate(keys) if key not in known]


def _versions(
    store: Store, sources: Sequence[Source], inputs: Sequence[Inputs], hashes: dict[File, str]
) -> list[TaskVersion]:
    keys = [key_of(i) for i in inputs]
    outputs = {artifact.key: artifact.outputs for artifact in store.artifacts("task", keys)}
    indexes = store.example_indexes(keys)
    if len(indexes) < len(set(keys)):
        raise DataError(f"examples of stored tasks are missing in {store.path}", hint=DAMAGED)
    versions = []
    for key, source in zip(keys, sources, strict=True):
        rows = outputs[key]["rows"]
        if source.hub:
            files = [(source.hub, outputs[key]["sha256"], rows[0])]
        else:
            files = [(str(f), hashes[f], n) for f, n in zip(source.files, rows, strict=True)]
        versions.append(
            TaskVersion(
                key=key,
                files=tuple(files),
                source=source.describe(),
                index=indexes[key],
                # The store does not keep the order of keys.
                formats=dict(Counter(outputs[key].get("formats", {})).most_common()),
                unused=dict(Counter(outputs[key].get("unused", {})).most_common()),
                notes=tuple(outputs[key].get("notes", ())),
            )
        )
    return versions


def _refusal(store: Store, sources: Sequence[Source], versions: Sequence[TaskVersion]) -> DataError | None:
    """Return the error that lists every bad row once, or None if all rows can be used."""
    bad: dict[str, str] = {}
    rows, files = 0, set()
    for source, version in zip(sources, versions, strict=True):
        rows += len(version.index.left_out)
        numbers = [number for number, reason in enumerate(version.index.left_out) if reason == BAD]
        if not numbers:
            continue
        # Two files may have the same name, so the position of a row decides its file.
        ends = list(itertools.accumulate(count for _, _, count in version.files))
        texts = store.example_texts(version.key).select(["text", "line"]).take(numbers).to_pylist()
        for number, row in zip(numbers, texts, strict=True):
            file = source.hub or str(source.folder or version.files[bisect.bisect_right(ends, number)][0])
            bad[place(file, row["line"], number)] = row["text"]
            files.add(file)
    if not bad:
        return None
    return refusal(list(bad.items()), rows, min(files) if len(files) == 1 else f"{len(files)} files")


def _ingest(workspace: Workspace, sources: Sequence[Source], inputs: Sequence[Inputs], model: ModelFiles) -> None:
    """Read tasks and store them. Commit often, so that an interrupted call loses little work."""
    config = workspace.config
    architecture = load_architecture(model.folder, config.model)
    encoder = Encoder(
        load_tokenizer(model.folder, config.model),
        max_length=config.data.max_length,
        encoder_decoder=bool(getattr(architecture, "is_encoder_decoder", False)),
    )
    stage = workspace.reporter.stage("data", len(sources), "tasks")
    examples_read, last = 0, time.monotonic()
    waiting: list[StoredTask] = []
    for number, read in read_tasks(sources):
        source = sources[number]
        examples = [_encode(row, encoder) for row in read]
        counted = Counter(row.file for row in read)
        rows = [counted[str(file)] for file in source.files] or [len(examples)]
        if source.folder:
            # The files of a saved data set are parts of one table. The first file counts all rows.
            rows = [len(examples)] + [0] * (len(source.files) - 1)
        waiting.append(
            StoredTask(
                key=key_of(inputs[number]),
                name=source.name,
                examples=examples,
                inputs=inputs[number],
                outputs={
                    "rows": rows,
                    "sha256": hash_of(e.hash for e in examples),
                    "formats": Counter(row.format for row in read),
                    "unused": Counter(name for row in read for name in row.unused),
                    "notes": list(read[0].notes),
                },
            )
        )
        examples_read += len(examples)
        if time.monotonic() - last > _COMMIT_SECONDS:
            workspace.store.put_tasks(waiting)
            waiting, last = [], time.monotonic()
        stage.advance()
    if waiting:
        workspace.store.put_tasks(waiting)
    stage.finish(f"{examples_read} examples of {len(sources)} tasks")


def _encode(row: Row, encoder: Encoder) -> StoredExample:
    try:
        encoded = encoder.encode(row.content) if not row.problem else NOTHING
    except DataError as error:
        # The tokenizer or its chat template rejects the row.
        row, encoded = bad_row(row.number, row.file, row.line, error), NOTHING
    left_out = BAD if row.problem else why_empty(row.content)
    if left_out is None and encoded.completion_tokens == 0:
        left_out = CUT_OFF if encoded.truncated else EMPTY
    return StoredExample(
        number=row.number,
        file=Path(row.file).name,
        line=row.line,
        hash=row.hash,
        token_hash=encoded.token_hash,
        text=row.problem or encoded.text,
        spans=encoded.spans,
        input_ids=encoded.input_ids,
        labels=encoded.labels,
        completion_tokens=encoded.completion_tokens,
        truncated=encoded.truncated,
        left_out=left_out,
    )

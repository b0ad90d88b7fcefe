"""Read a project's examples, encode them for its model, store them, and split them for its targets.

The key of a task version is a hash of its files, the tokenizer and `max_length`.
`read_corpus` reads only versions whose key is not in the store.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from curator.core import distributed
from curator.core.config import Config
from curator.core.errors import DataError
from curator.core.file_states import FileChanged
from curator.core.files import File
from curator.core.provenance import Inputs, hash_of, key_of
from curator.core.text import clean
from curator.data.bad_rows import UnusableTask, reasons
from curator.data.discovery import check_auxiliary, check_target, find_held_out, find_tasks
from curator.data.encoding import Encode, encode_tasks, load_encoder
from curator.data.left_out import TEST, VALIDATION
from curator.data.model_files import ModelFiles, check_unchanged, hash_files, identify_model
from curator.data.rows import Row
from curator.data.sources import Source
from curator.data.splits import TaskExamples, split_tasks
from curator.data.task_rows import read_tasks, read_values
from curator.data.tasks import Corpus as Corpus
from curator.data.tasks import Task as Task
from curator.data.tasks import TaskVersion as TaskVersion
from curator.data.tokens import TokenizedExample
from curator.data.unusable import bad_rows, refused_data
from curator.workspace.store.records import StoredTask
from curator.workspace.store.schema import DAMAGED
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace

READER_VERSION = 3
"""Increase the number when the same row is read or encoded differently."""
# Stage of the artifacts of tasks that cannot be read.
_UNREADABLE = "unreadable"
# Shortest time between two commits while tasks are read, and its smallest ratio to the time of a commit.
_COMMIT_SECONDS, _COMMIT_SHARE = 1.0, 8.0
# Tokens of encoded tasks in memory, except those of a larger task.
_MOST_TOKENS = 1_000_000


def read_corpus(
    workspace: Workspace,
    targets: tuple[str, ...],
    *,
    read: bool = True,
    refuse: bool = True,
    encode: Encode | None = None,
) -> Corpus | None:
    """Read new or changed task files into the store, and split the examples of every task.

    Args:
        workspace: The project.
        targets: Tasks with held-out examples. Empty for no targets.
        read: Whether to read new files. If False, the function writes nothing.
        refuse: Whether to raise an error for rows and tasks that cannot be used. Otherwise `Corpus.refusal` holds it.
        encode: Encodes the rows of new files. None encodes them in this process.

    Returns:
        The corpus. None if a file is new or changed, or cannot be used, and `read` is False.

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
    held_out = {
        (part, name): source
        for part in (VALIDATION, TEST)
        for name in targets
        if (source := find_held_out(config.data, name, root, part))
    }
    wanted = [(source.name, source) for source in sources] + [(name, s) for (_, name), s in held_out.items()]
    hashes, failed = _hashes(store, [source for _, source in wanted], remember=read)
    inputs = {i: _inputs(source, hashes, model, config) for i, (_, source) in enumerate(wanted) if i not in failed}
    missing = [list(inputs)[i] for i in _missing(store, list(inputs.values()), read=read)]
    if missing and not (read and distributed.is_main()):
        known = {artifact.key: artifact.outputs for artifact in store.artifacts(_UNREADABLE)}
        for i in missing:
            if (outputs := known.get(key_of(inputs[i]))) is None:
                return None
            failed[i] = DataError(outputs["message"], hint=outputs["hint"])
    elif missing:
        failed |= _ingest(workspace, {i: wanted[i][1] for i in missing}, inputs, model, hashes, encode)
    readable = [i for i in range(len(wanted)) if i not in failed]
    read_sources = [wanted[i][1] for i in readable]
    found = _versions(store, read_sources, [inputs[i] for i in readable], hashes)
    versions = dict(zip(readable, found, strict=True))
    bad = {i: bad_rows(store, wanted[i][1], version) for i, version in versions.items()}
    own = [(i, source, versions[i]) for i, source in enumerate(sources) if i in versions]
    other = {where: versions[i] for i, where in enumerate(held_out, len(sources)) if i in versions}
    other_bad = {where: reasons(bad[i]) for i, where in enumerate(held_out, len(sources)) if i in versions}
    splits = split_tasks(
        [
            TaskExamples(
                name=source.name,
                hashes=version.index.hashes,
                left_out=version.index.left_out,
                validation_hashes=_hashes_of(other.get((VALIDATION, source.name))),
                validation_left_out=_left_out_of(other.get((VALIDATION, source.name))),
                problems=reasons(bad[i]),
                validation_problems=other_bad.get((VALIDATION, source.name), {}),
                test_hashes=_hashes_of(other.get((TEST, source.name))),
                test_left_out=_left_out_of(other.get((TEST, source.name))),
            )
            for i, source, version in own
        ],
        targets,
        share=config.data.validation,
        limit=config.data.max_examples_per_task,
        seed=config.data.seed,
        test_share=config.data.test,
    )
    tasks = [
        Task(
            name=s.name,
            tags=s.tags,
            version=v,
            validation_version=other.get((VALIDATION, s.name)),
            split=split,
            test_version=other.get((TEST, s.name)),
        )
        for (_, s, v), split in zip(own, splits, strict=True)
        if split.refusal is None and s.name not in (wanted[i][0] for i in failed)
    ]
    unusable = [
        UnusableTask(name=wanted[i][0], error=error, files=tuple(map(str, wanted[i][1].files)))
        for i, error in failed.items()
    ]
    unusable += [
        UnusableTask(
            name=s.name,
            error=split.refusal,
            rows=len(v.index.hashes),
            left_out={reason: len(numbers) for reason, numbers in split.left_out.items()},
            formats=v.formats,
            notes=v.notes,
        )
        for (_, s, v), split in zip(own, splits, strict=True)
        if split.refusal is not None
    ]
    refused = refused_data(unusable, bad, versions, targets, tasks, skip=config.data.bad_rows == "skip")
    if refused is not None and refuse:
        if not read and config.data.bad_rows == "refuse":
            return None
        raise refused
    return Corpus(
        tasks=tuple(tasks),
        targets=targets,
        model=model,
        unusable=tuple(sorted(unusable, key=lambda task: task.name)),
        bad={wanted[i][0]: reasons(rows) for i, rows in bad.items() if rows},
        refusal=refused,
    )


def check_names(workspace: Workspace, targets: tuple[str, ...], tasks: Sequence[str]) -> None:
    """Check names against the tasks that `[data]` names, before any file is read into the store.

    Args:
        workspace: The project.
        targets: Names of the targets.
        tasks: Names of auxiliary tasks.

    Raises:
        ConfigError: A target is not a task, or another name is not an auxiliary task.
        DataError: A path does not exist, or a glob matches no file.
    """
    sources = find_tasks(workspace.config.data, workspace.root, values=lambda s, c: _values(workspace, s, c, read=True))
    check_target(targets, sources)
    check_auxiliary(tasks, targets, [source.name for source in sources])


def training_examples(task: Task, store: Store) -> list[TokenizedExample]:
    """Return token ids and labels of a task's training examples."""
    rows = store.tokens(task.version.key)
    return [TokenizedExample(*rows[n]) for n in task.split.train]


def validation_examples(task: Task, store: Store) -> list[TokenizedExample]:
    """Return token ids and labels of a target's validation examples."""
    rows = store.tokens(task.held_out_from.key)
    return [TokenizedExample(*rows[n]) for n in task.split.validation]


def _hashes_of(version: TaskVersion | None) -> list[str] | None:
    return None if version is None else version.index.hashes


def _left_out_of(version: TaskVersion | None) -> Sequence[str | None]:
    return () if version is None else version.index.left_out


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
        "reader": READER_VERSION,
    }
    key = key_of(inputs)
    known = store.artifact("collection", key)
    if known is not None:
        return list(known.outputs["values"])
    if not read:
        raise _NotRead
    stage = workspace.reporter.stage("data", 1, "collections")
    values = read_values(source, column, {str(path): digest for path, digest in hashes.items()})
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
        "reader": READER_VERSION,
    }


def _missing(store: Store, inputs: Sequence[Inputs], *, read: bool) -> list[int]:
    keys = [key_of(i) for i in inputs]
    # An earlier curator took no notes and did not account for every column.
    # Its tasks stay usable until files are read again.
    known = {
        artifact.key
        for artifact in store.artifacts("task", keys)
        # Without `rows`, the artifact is damaged and not old.
        if not read or "notes" in artifact.outputs or "rows" not in artifact.outputs
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


def _hashes(store: Store, sources: Sequence[Source], *, remember: bool) -> tuple[dict[File, str], dict[int, DataError]]:
    """Hash the files of sources. Return the hashes, and the error of each source with a file that cannot be read."""
    try:
        return hash_files(store, [file for source in sources for file in source.files], remember=remember), {}
    except DataError:
        pass
    hashes: dict[File, str] = {}
    failed: dict[int, DataError] = {}
    for i, source in enumerate(sources):
        try:
            hashes |= hash_files(store, source.files, remember=remember)
        except DataError as error:
            failed[i] = error
    return hashes, failed


def _ingest(
    workspace: Workspace,
    wanted: Mapping[int, Source],
    inputs: Mapping[int, Inputs],
    model: ModelFiles,
    hashes: Mapping[File, str],
    encode: Encode | None,
) -> dict[int, DataError]:
    """Read tasks and store them. Commit often, so that an interrupted call loses little work.

    Args:
        workspace: The project.
        wanted: Source by number.
        inputs: Inputs of the task's version by number.
        model: Model of the project.
        hashes: Hash of each file of the sources.
        encode: As for `read_corpus`.

    Returns:
        Error by number of each task that cannot be read.

    Raises:
        FileChanged: A file of a source or of the tokenizer changed after it was hashed. Nothing of it is stored.
    """
    numbers, sources, failed = list(wanted), list(wanted.values()), dict[int, DataError]()
    if encode is None:
        encoder = load_encoder(model, workspace.config)
        check_unchanged(workspace, model)
    stage = workspace.reporter.stage("data", len(sources), "tasks")
    examples_read, held, last, pause = 0, 0, time.monotonic(), _COMMIT_SECONDS
    waiting: list[StoredTask] = []

    def readable() -> Iterator[tuple[int, list[Row]]]:
        for position, read in _read_unchanged(workspace, sources, hashes):
            number = numbers[position]
            if isinstance(read, DataError):
                # `status` and the interface read the error again. They read no files.
                outputs = {"message": clean(read.message, limit=1000), "hint": clean(read.hint, limit=1000)}
                workspace.store.put_artifact(_UNREADABLE, key_of(inputs[number]), inputs[number], outputs)
                failed[number] = read
                stage.advance()
            else:
                yield number, read

    for task in encode_tasks(readable(), encoder) if encode is None else encode(readable(), model):
        number, read, examples = task.number, task.rows, task.examples
        source = wanted[number]
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
                    "formats": Counter(row.format for row in read if row.format),
                    "unused": Counter(name for row in read for name in row.unused),
                    "notes": list(read[0].notes),
                },
            )
        )
        examples_read += len(examples)
        held += sum(len(example.input_ids) for example in examples)
        began = time.monotonic()
        if began - last > pause or held > _MOST_TOKENS:
            workspace.store.put_tasks(waiting)
            waiting, held, last = [], 0, time.monotonic()
            # On a busy disk, most of the time would go into commits.
            pause = max(_COMMIT_SECONDS, _COMMIT_SHARE * (last - began))
        stage.advance()
    if waiting:
        workspace.store.put_tasks(waiting)
    stage.finish(f"{examples_read} examples of {len(sources) - len(failed)} tasks")
    return failed


def _read_unchanged(
    workspace: Workspace, sources: Sequence[Source], hashes: Mapping[File, str]
) -> Iterator[tuple[int, list[Row] | DataError]]:
    """Read tasks. Forget the stored hash of a file that has another hash, so that the next call reads it again."""
    try:
        yield from read_tasks(sources, {str(file): digest for file, digest in hashes.items()})
    except FileChanged as error:
        workspace.store.forget_file_hashes([str(error.file)])
        raise

"""Find the rows and tasks of a project that cannot be used, and decide whether they are an error."""

from collections.abc import Mapping, Sequence

from curator.core.errors import DataError
from curator.data.bad_rows import BadRow, UnusableTask, each_once, file_of, refusal, rows_refusal
from curator.data.left_out import BAD
from curator.data.sources import Source
from curator.data.tasks import Task, TaskVersion
from curator.workspace.store.tables import Store


def refused_data(
    unusable: Sequence[UnusableTask],
    bad: Mapping[int, Sequence[BadRow]],
    versions: Mapping[int, TaskVersion],
    targets: Sequence[str],
    tasks: Sequence[Task],
    *,
    skip: bool,
) -> DataError | None:
    """Return the error for everything that cannot be used, or None. With `skip`, only a target is an error."""
    if skip:
        needed = [task for task in unusable if task.name in targets or not tasks]
        return refusal(needed, None, skippable=False)
    # A task that is unusable for its bad rows is named by its rows.
    whole = [task for task in unusable if BAD not in task.left_out]
    skippable = not any(task.name in targets for task in whole)
    return refusal(whole, _refusal(list(bad.values()), list(versions.values())), skippable=skippable)


def bad_rows(store: Store, source: Source, version: TaskVersion) -> list[BadRow]:
    """Return the rows of a task that cannot be used."""
    numbers = [number for number, reason in enumerate(version.index.left_out) if reason == BAD]
    if not numbers:
        return []
    texts = store.example_texts(version.key).select(["text", "line"]).take(numbers).to_pylist()
    place = source.hub or (str(source.folder) if source.folder else "")
    return [
        BadRow(file=place or file_of(version.files, number), line=row["line"], number=number, problem=row["text"])
        for number, row in zip(numbers, texts, strict=True)
    ]


def _refusal(bad: Sequence[Sequence[BadRow]], versions: Sequence[TaskVersion]) -> DataError | None:
    """Return the error that lists every bad row once, or None if all rows can be used."""
    once = each_once(bad)
    if not once:
        return None
    rows = sum(len(version.index.left_out) for version in versions) - sum(map(len, bad)) + len(once)
    files = {row.file for row in once}
    return rows_refusal(once, rows, min(files) if len(files) == 1 else f"{len(files)} files")

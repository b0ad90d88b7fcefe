"""Report near-duplicate examples of a project by pair of tasks, and tasks that overlap."""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curator import results
from curator.core.errors import DataError, StoreBusy
from curator.core.provenance import hash_of, key_of
from curator.data.corpus import Corpus
from curator.data.near_duplicates import NearDuplicates
from curator.workspace.store.records import TokenTable
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace

# Increase the number when the same examples give other results.
_RULE_VERSION = 1
# Largest number of pairs of examples in a report.
_LISTED = 1000
# Pairs of tasks that the warnings name.
_WARNED = 10
# Smallest share of the smaller task's examples that counts as an overlap of two tasks.
_OVERLAPPING = 0.5
# Tokens in memory at a time, except those of a larger task.
_TOKENS_HELD = 4_000_000
_HELD_OUT = "validation of "


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Hold near duplicates and overlaps as `curator check` reports them."""

    problems: tuple[str, ...]
    overlaps: tuple[results.Overlap, ...]
    task_pairs: tuple[results.DuplicateTasks, ...]
    pairs: tuple[tuple[str, int, str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Examples of one task: those for training, or those held out."""

    name: str
    key: str
    numbers: tuple[int, ...]
    tokens: int


def find_duplicates(workspace: Workspace, corpus: Corpus) -> Duplicates:
    """Find near duplicates among all examples of a project, including held-out examples.

    The result is stored, and read again while no example changes.

    Args:
        workspace: The project.
        corpus: Tasks of the project.

    Raises:
        DataError: The store cannot be read, or a temporary file cannot be written.
    """
    places = _places(corpus)
    inputs = {
        "examples": hash_of(f"{p.name}\0{p.key}\0{hash_of(map(str, p.numbers))}" for p in places),
        "rule": _RULE_VERSION,
    }
    key = key_of(inputs)
    known = workspace.store.artifact("duplicates", key)
    if known is None:
        outputs = _search(workspace, places)
        # Without a place in the store, the next call computes the same result again.
        with suppress(DataError, StoreBusy):
            workspace.store.put_artifact("duplicates", key, inputs, outputs)
    else:
        outputs = known.outputs
    sizes = {place.name: len(place.numbers) for place in places}
    found = tuple(results.DuplicateTasks(**row) for row in outputs["tasks"])
    overlapping = overlaps(found, sizes)
    return Duplicates(
        problems=tuple(warnings(found, sizes)),
        overlaps=overlapping,
        task_pairs=found,
        pairs=tuple((a, row, b, other) for a, row, b, other in outputs["rows"]),
    )


def _places(corpus: Corpus) -> list[_Place]:
    return [
        _Place(
            name=f"{_HELD_OUT}{task.name}" if held_out else task.name,
            key=version.key,
            numbers=numbers,
            tokens=sum(version.index.lengths[number] for number in numbers),
        )
        for task in corpus.tasks
        for version, numbers, held_out in (
            (task.version, task.split.train, False),
            (task.held_out_from, task.split.validation, True),
        )
    ]


def _search(workspace: Workspace, places: Sequence[_Place]) -> dict[str, list[Any]]:
    """Return the pairs of tasks and the first pairs of examples, as JSON values."""
    total = sum(len(place.numbers) for place in places)
    stage = workspace.reporter.stage("duplicates", total, "examples")
    with closing(NearDuplicates()) as search:
        added = 0
        for place, table in _tables(workspace.store, places):
            search.add([table.of(number) for number in place.numbers])
            added += len(place.numbers)
            stage.advance_to(added)
        pairs = search.pairs()
    stage.finish(f"{len(pairs):,} near-duplicate pairs")
    of_place = np.repeat(np.arange(len(places)), [len(place.numbers) for place in places])
    numbers = [number for place in places for number in place.numbers]
    names = [place.name for place in places]
    return {
        "tasks": [asdict(row) for row in by_tasks(pairs, of_place, names)],
        "rows": [
            [names[of_place[first]], numbers[first] + 1, names[of_place[second]], numbers[second] + 1]
            for first, second in pairs[:_LISTED].tolist()
        ],
    }


def _tables(store: Store, places: Sequence[_Place]) -> Iterator[tuple[_Place, TokenTable]]:
    """Read the tokens of a few tasks at a time."""
    waiting: list[_Place] = []
    for place in places:
        if not place.numbers:
            continue
        waiting.append(place)
        if sum(p.tokens for p in waiting) >= _TOKENS_HELD:
            yield from _read(store, waiting)
            waiting = []
    yield from _read(store, waiting)


def _read(store: Store, places: Sequence[_Place]) -> Iterator[tuple[_Place, TokenTable]]:
    tables = store.input_ids([place.key for place in places])
    for place in places:
        yield place, tables[place.key]


def by_tasks(
    pairs: npt.NDArray[np.int32], of_place: npt.NDArray[np.int64], names: Sequence[str]
) -> list[results.DuplicateTasks]:
    """Count near duplicates by pair of tasks.

    Args:
        pairs: First and second example of each pair (pairs, 2).
        of_place: Index of the task of each example (examples,), not falling.
        names: Names of the tasks.

    Returns:
        One entry for each pair of tasks, the most pairs of examples first.
    """
    first, second = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    codes = of_place[first] * len(names) + of_place[second]
    found, groups, counts = np.unique(codes, return_inverse=True, return_counts=True)
    inside = of_place[first] == of_place[second]
    # Within one task, both sides of a pair are examples of the task.
    sides = [
        (np.concatenate([groups, groups[inside]]), np.concatenate([side, other[inside]]))
        for side, other in ((first, second), (second, first))
    ]
    distinct = [
        np.bincount(np.unique(group * len(of_place) + example) // max(len(of_place), 1), minlength=len(found))
        for group, example in sides
    ]
    rows = [
        results.DuplicateTasks(
            task=names[code // len(names)],
            other=names[code % len(names)],
            pairs=int(count),
            examples=int(here),
            other_examples=int(there),
        )
        for code, count, here, there in zip(found.tolist(), counts, *distinct, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.pairs, row.task, row.other))


def overlaps(found: Sequence[results.DuplicateTasks], sizes: dict[str, int]) -> tuple[results.Overlap, ...]:
    """Return the tasks of which at least half of the examples have near duplicates in a larger task.

    Args:
        found: Result of `by_tasks`.
        sizes: Number of examples of each task, in the order of the tasks.
    """
    rows = []
    for pair in found:
        if pair.task != pair.other:
            small, count, large = _smaller(pair, sizes)
            if count >= _OVERLAPPING * sizes[small]:
                rows.append(results.Overlap(task=small, other=large, share=round(count / sizes[small], 3)))
    return tuple(sorted(rows, key=lambda row: (-row.share, row.task, row.other)))


def warnings(found: Sequence[results.DuplicateTasks], sizes: dict[str, int]) -> list[str]:
    """Return one line for each of the largest pairs of different tasks. Pairs with held-out examples come first.

    Args:
        found: Result of `by_tasks`.
        sizes: Number of examples of each task.
    """
    leaks = [pair for pair in found if pair.task.startswith(_HELD_OUT) != pair.other.startswith(_HELD_OUT)]
    known = set(map(id, leaks))
    others = [pair for pair in found if id(pair) not in known and pair.task != pair.other]
    lines = [
        f"{pair.pairs:,} near-duplicate pairs between {' and '.join(sorted((pair.task, pair.other)))}" for pair in leaks
    ]
    lines += [
        f"{small} has near duplicates in {large}: {count:,} of {sizes[small]:,} examples, {pair.pairs:,} pairs"
        for pair in others
        for small, count, large in [_smaller(pair, sizes)]
    ]
    more = len(lines) - _WARNED
    if more > 0:
        lines[_WARNED:] = [f"and {more:,} more pairs of tasks with near duplicates"]
    return lines


def _smaller(pair: results.DuplicateTasks, sizes: dict[str, int]) -> tuple[str, int, str]:
    """Return the smaller task of a pair, its examples that have near duplicates, and the larger task."""
    if sizes[pair.task] <= sizes[pair.other]:
        return pair.task, pair.examples, pair.other
    return pair.other, pair.other_examples, pair.task

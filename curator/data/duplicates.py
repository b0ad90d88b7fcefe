"""Examples that say nearly the same, and tasks that hold much of each other.

Examples are compared by the runs of tokens in them (shingles): MinHash signatures (Broder 1997) are cut into bands,
and examples that agree in a whole band are compared in full. What is the same but for a word or two is found with near
certainty, what shares less than half of its shingles hardly ever.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator import results
from curator.data.corpus import Corpus
from curator.workspace.workspace import Workspace

_SHINGLE, _BANDS, _ROWS = 4, 16, 4
# Share of their shingles that two examples have in common (Jaccard) from which on they are nearly the same.
NEARLY = 0.8
# Examples in one band that agree beyond this are one big group of copies: comparing each with a few is enough.
_COMPARED = 20


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two examples that are nearly the same: task and position of each, and the share of shingles in common."""

    first: tuple[int, int]
    second: tuple[int, int]
    similarity: float


def near_duplicates(
    tasks: Sequence[Sequence[Sequence[int]]], *, on_example: Callable[[int], None] = lambda _: None
) -> list[DuplicatePair]:
    """Find examples that are nearly the same, within a task and across tasks.

    Args:
        tasks: Token ids of each example of each task.
        on_example: Told how many examples are looked at.

    Returns:
        Pairs, the first of them before the second; not all pairs of a large group of copies.
    """
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 1 << 31, (_BANDS * _ROWS, 2), dtype=np.uint64)
    places = [(task, number) for task, examples in enumerate(tasks) for number in range(len(examples))]
    shingles = [_shingles(tasks[task][number]) for task, number in places]
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for example, found in enumerate(shingles):
        hashes = np.fromiter(found, dtype=np.uint64, count=len(found))
        signature = (factors[:, :1] * hashes + factors[:, 1:]).min(axis=1)
        for band in range(_BANDS):
            buckets[band, signature[band * _ROWS : (band + 1) * _ROWS].tobytes()].append(example)
        on_example(example + 1)
    seen: set[tuple[int, int]] = set()
    pairs = []
    for members in buckets.values():
        for position, second in enumerate(members):
            for first in members[max(position - _COMPARED, 0) : position]:
                if (first, second) in seen:
                    continue
                seen.add((first, second))
                both, either = len(shingles[first] & shingles[second]), len(shingles[first] | shingles[second])
                if both >= NEARLY * either:
                    pairs.append(DuplicatePair(places[first], places[second], both / either))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def overlaps(
    pairs: Sequence[DuplicatePair], sizes: Sequence[int], *, least: float = 0.5
) -> list[tuple[int, int, float]]:
    """Tasks of which a large share is nearly in another.

    Args:
        pairs: From `near_duplicates`.
        sizes: Examples of each task.
        least: Share of the smaller task's examples from which on it is named.

    Returns:
        Smaller task, larger task and that share, the largest first.
    """
    shared: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
    for pair in pairs:
        small, large = sorted((pair.first[0], pair.second[0]), key=lambda task: (sizes[task], task))
        if small != large:
            shared[small, large].add(pair.first if pair.first[0] == small else pair.second)
    found = [(small, large, len(examples) / sizes[small]) for (small, large), examples in shared.items()]
    return sorted((row for row in found if row[2] >= least), key=lambda row: -row[2])


def _shingles(tokens: Sequence[int]) -> frozenset[int]:
    """Hashes of the runs of tokens in an example; one that is shorter than a run is one itself."""
    ids: npt.NDArray[np.uint64] = np.asarray(tokens, dtype=np.uint64)
    if len(ids) < _SHINGLE:
        ids = np.pad(ids, (0, _SHINGLE - len(ids)))
    runs = np.lib.stride_tricks.sliding_window_view(ids, _SHINGLE)
    mixed = np.zeros(len(runs), dtype=np.uint64)
    for column in range(_SHINGLE):
        mixed = (mixed ^ runs[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return frozenset((mixed >> np.uint64(1)).tolist())


_LISTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """What is repeated, as `curator check` says it."""

    problems: tuple[str, ...]
    overlaps: tuple[results.Overlap, ...]
    pairs: tuple[tuple[str, int, str, int], ...]


def find_duplicates(workspace: Workspace, corpus: Corpus) -> Duplicates:
    """Compare all examples of a project, the held-out ones included.

    Args:
        workspace: The project.
        corpus: The tasks.
    """
    places: list[tuple[str, list[int]]] = []
    examples = []
    for task in corpus.tasks:
        for version, numbers, held_out in (
            (task.version, task.split.train, False),
            (task.held_out_from, task.split.validation, True),
        ):
            rows = workspace.store.tokens(version.key) if numbers else []
            places.append((f"validation of {task.name}" if held_out else task.name, list(numbers)))
            examples.append([rows[number][0] for number in numbers])
    stage = workspace.reporter.stage("duplicates", sum(map(len, examples)), "examples")
    found = near_duplicates(examples, on_example=stage.advance_to)
    stage.finish(f"{len(found)} pairs of nearly the same")
    sizes = [len(rows) for rows in examples]
    named = tuple(
        results.Overlap(task=places[small][0], other=places[large][0], share=round(share, 3))
        for small, large, share in overlaps(found, sizes)
    )
    leaks = Counter(
        frozenset((places[p.first[0]][0], places[p.second[0]][0]))
        for p in found
        if (places[p.first[0]][0].startswith("validation of ")) != (places[p.second[0]][0].startswith("validation of "))
    )
    return Duplicates(
        problems=(
            *(
                f"{count} examples are nearly the same in {' and in '.join(sorted(both))}"
                for both, count in leaks.items()
            ),
            *(f"{o.share:.0%} of {o.task} is nearly the same in {o.other}" for o in named),
        ),
        overlaps=named,
        pairs=tuple(
            (
                places[p.first[0]][0],
                places[p.first[0]][1][p.first[1]] + 1,
                places[p.second[0]][0],
                places[p.second[0]][1][p.second[1]] + 1,
            )
            for p in found[:_LISTED]
        ),
    )

"""Find near-duplicate examples, and tasks that overlap.

The similarity of two examples is the share of common shingles, which are runs of four tokens (Jaccard index).
MinHash signatures (Broder 1997) are cut into bands. Examples that agree in a whole band are compared exactly.
The search finds examples that differ in one or two words with near certainty.
It rarely compares examples that share less than half of their shingles.
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
# Smallest Jaccard index of two near duplicates.
NEARLY = 0.8
# Comparisons of each example within a band. More examples in one band form one large group of copies.
_COMPARED = 20


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Describe two near-duplicate examples: (task, position) of each, and the share of common shingles."""

    first: tuple[int, int]
    second: tuple[int, int]
    similarity: float


def near_duplicates(
    tasks: Sequence[Sequence[Sequence[int]]], *, on_example: Callable[[int], None] = lambda _: None
) -> list[DuplicatePair]:
    """Find near-duplicate examples within tasks and across tasks.

    Args:
        tasks: Token ids of each example of each task.
        on_example: Called with the number of examples read so far.

    Returns:
        Sorted pairs. The first example of a pair precedes the second. Large groups of copies yield only some pairs.

    Source:
        Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
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
    """Find tasks with many near duplicates in another task.

    Args:
        pairs: Result of `near_duplicates`.
        sizes: Number of examples of each task.
        least: Smallest reported share of the smaller task's examples.

    Returns:
        (smaller task, larger task, share of the smaller task) by falling share.
    """
    shared: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
    for pair in pairs:
        small, large = sorted((pair.first[0], pair.second[0]), key=lambda task: (sizes[task], task))
        if small != large:
            shared[small, large].add(pair.first if pair.first[0] == small else pair.second)
    found = [(small, large, len(examples) / sizes[small]) for (small, large), examples in shared.items()]
    return sorted((row for row in found if row[2] >= least), key=lambda row: -row[2])


def _shingles(tokens: Sequence[int]) -> frozenset[int]:
    """Hash all runs of four tokens of an example. Zeros fill a shorter example."""
    ids: npt.NDArray[np.uint64] = np.asarray(tokens, dtype=np.uint64)
    if len(ids) < _SHINGLE:
        ids = np.pad(ids, (0, _SHINGLE - len(ids)))
    runs = np.lib.stride_tricks.sliding_window_view(ids, _SHINGLE)
    mixed = np.zeros(len(runs), dtype=np.uint64)
    for column in range(_SHINGLE):
        mixed = (mixed ^ runs[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return frozenset((mixed >> np.uint64(1)).tolist())


# Largest number of pairs in a report.
_LISTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Hold near duplicates and overlaps as `curator check` reports them."""

    problems: tuple[str, ...]
    overlaps: tuple[results.Overlap, ...]
    pairs: tuple[tuple[str, int, str, int], ...]


def find_duplicates(workspace: Workspace, corpus: Corpus) -> Duplicates:
    """Find near duplicates among all examples of a project, including held-out examples.

    Args:
        workspace: The project.
        corpus: Tasks of the project.

    Raises:
        DataError: The store cannot be read.
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
    stage.finish(f"{len(found)} near-duplicate pairs")
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
            *(f"{count} near-duplicate pairs between {' and '.join(sorted(both))}" for both, count in leaks.items()),
            *(f"{o.share:.0%} of {o.task} has near duplicates in {o.other}" for o in named),
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

"""What a project's examples repeat: near duplicates by task and row, and tasks that are largely in another."""

from collections import Counter
from dataclasses import dataclass

from curator import results
from curator.corpus import Corpus
from curator.duplicates import near_duplicates, overlaps
from curator.events import Reporter
from curator.store import Store

_LISTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """What is repeated, as `curator check` says it."""

    problems: tuple[str, ...]
    overlaps: tuple[results.Overlap, ...]
    pairs: tuple[tuple[str, int, str, int], ...]


def find_repeated(corpus: Corpus, store: Store, reporter: Reporter) -> Repeated:
    """Compare all examples of a project, the held-out ones included.

    Args:
        corpus: The tasks.
        store: Where their tokens are.
        reporter: Told of progress.
    """
    places: list[tuple[str, list[int]]] = []
    examples = []
    for task in corpus.tasks:
        for version, numbers, held_out in (
            (task.version, task.split.train, False),
            (task.held_out_from, task.split.validation, True),
        ):
            rows = store.tokens(version.key) if numbers else []
            places.append((f"validation of {task.name}" if held_out else task.name, list(numbers)))
            examples.append([rows[number][0] for number in numbers])
    stage = reporter.stage("duplicates", sum(map(len, examples)), "examples")
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
    return Repeated(
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

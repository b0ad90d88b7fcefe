"""Read from the store why the rows of a task cannot be used."""

from collections import Counter
from collections.abc import Sequence

from curator.data.left_out import BAD
from curator.workspace.store.tables import Store


def problems_of(store: Store, key: str, left_out: Sequence[str | None]) -> Counter[str]:
    """Count the problems of the rows that cannot be used, if a task has no usable example.

    Args:
        store: Store of the project.
        key: Key of the task's version.
        left_out: Reason why each example is left out, or None.
    """
    if None in left_out or BAD not in left_out:
        return Counter()
    numbers = [number for number, reason in enumerate(left_out) if reason == BAD]
    texts = store.example_texts(key).column("text").take(numbers).to_pylist()
    return Counter(text.partition("\n")[0] for text in texts)

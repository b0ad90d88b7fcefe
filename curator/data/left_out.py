"""Name the reasons why an example is left out, and explain a task whose examples are all left out."""

from collections import Counter
from collections.abc import Iterable, Mapping

from curator.data.rows import Content, has_answer, is_empty

EMPTY = "empty"
NO_ANSWER = "without a turn of the assistant"
CUT_OFF = "completion cut off by max_length"
BAD = "cannot be used"
LEAKED = "also in the target's validation"
LEAKED_TEST = "also in the target's test part"
OVER_LIMIT = "over max_examples_per_task"
VALIDATION = "validation"
TEST = "test"
DROPPED = "dropped from the selection"

# Next action for the most frequent reason.
_HINTS = {
    EMPTY: "Add a completion to the examples",
    NO_ANSWER: "Add turns of the assistant, or map roles by `roles` in [[data.task]]",
    CUT_OFF: "Raise max_length under [data]",
    BAD: "Correct these rows",
    LEAKED: "Add examples that differ from the held-out ones",
    LEAKED_TEST: "Add examples that differ from the held-out ones",
    VALIDATION: "Add examples for training",
    TEST: "Add examples for training",
}
# Largest number of problems of rows that one message lists.
_LISTED = 3


def why_empty(content: Content) -> str | None:
    """Return why a content has nothing to train on, or None.

    Args:
        content: Content of a row.
    """
    if not is_empty(content):
        return None
    return EMPTY if has_answer(content) else NO_ANSWER


def explain(reasons: Iterable[str | None], problems: Mapping[str, int]) -> tuple[str, str]:
    """Return why examples are left out, with counts, and what to do about the most frequent reason.

    Args:
        reasons: Reason of each example, or None for a usable example.
        problems: Number of rows that cannot be used, by their problem.

    Returns:
        A list such as `5 empty, 1 cannot be used`, or "" if no example is left out. Then an imperative without a full
        stop.
    """
    counted = Counter(reason for reason in reasons if reason is not None)
    listed = Counter(problems).most_common(_LISTED)
    rest = len(problems) - len(listed)
    details = "; ".join(f"{count:,} × {problem}" for problem, count in listed) + (f"; {rest} more" if rest else "")
    words = [
        f"{count:,} {reason}" + (f": {details}" if reason == BAD and details else "")
        for reason, count in counted.most_common()
    ]
    first = next((reason for reason, _ in counted.most_common()), "")
    return ", ".join(words), _HINTS.get(first, "Add examples")

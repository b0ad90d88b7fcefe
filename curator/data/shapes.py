"""Bring rows of public data sets under the column names that `recognise` knows.

| data set | its columns | read as |
|---|---|---|
| GSM8K, Natural Questions | `question`, `answer` | `instruction`, `output` |
| ms-swift | `query`, `response`, `system`, `history` | `instruction`, `output`, `system`, `history` |
| Dolly | `instruction`, `context`, `response` | `instruction`, `input`, `output` |
| OpenOrca | `system_prompt`, `question`, `response` | `system`, `instruction`, `output` |

Names in capitals count as the same names. A number as the answer becomes its text. NaN, which pandas writes for an
empty cell, is a missing field.
"""

import json
from typing import Any

_KNOWN = ("messages", "conversations", "prompt", "completion", "instruction", "output", "inputs", "targets", "text")
_ANSWERS = ("completion", "output", "targets")
# The first that fits counts. Every column of a shape but the optional ones must be there.
_SHAPES: tuple[tuple[dict[str, str], frozenset[str]], ...] = (
    ({"system_prompt": "system", "question": "instruction", "response": "output"}, frozenset({"system_prompt"})),
    (
        {"query": "instruction", "response": "output", "system": "system", "history": "history"},
        frozenset({"system", "history"}),
    ),
    ({"instruction": "instruction", "context": "input", "response": "output"}, frozenset({"context"})),
    ({"question": "instruction", "answer": "output"}, frozenset()),
)
# With these, `answer` is the number of a choice or one of several fields, and no answer in words.
_OTHER_TASKS = ("choices", "options", "context", "passage")


def as_known(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row under names that `recognise` knows, if it has a known shape; else the row without NaN.

    Args:
        row: The row as read.
    """
    there = {name: value for name, value in row.items() if not (isinstance(value, float) and value != value)}
    there = _in_lower_case(there)
    if not _is_complete(there):
        for names, optional in _SHAPES:
            if _fits(there, names, optional):
                there = {names.get(name, name): value for name, value in there.items()}
                break
    return {
        name: str(value) if name in _ANSWERS and _is_number(value) and _is_complete(there) else value
        for name, value in there.items()
    }


def suggestion(row: dict[str, Any]) -> str:
    """Return the `columns` line that reads a row of two texts, or "" if the row has more or fewer."""
    texts = [str(name) for name, value in row.items() if isinstance(value, str) and value.strip()]
    if len(texts) != 2:
        return ""
    prompt, completion = (json.dumps(name[:80], ensure_ascii=False) for name in texts)
    return f"Set columns = {{ prompt = {prompt}, completion = {completion} }} in [[data.task]]."


def _in_lower_case(row: dict[str, Any]) -> dict[str, Any]:
    wanted = {*_KNOWN, *(name for names, _ in _SHAPES for name in names), "input", "system", "history", "tools"}
    lowered = {str(name).lower() if str(name).lower() in wanted else name: value for name, value in row.items()}
    return lowered if len(lowered) == len(row) else row


def _is_complete(row: dict[str, Any]) -> bool:
    pairs = (("prompt", "completion"), ("instruction", "output"), ("inputs", "targets"))
    alone = ("messages", "conversations", "text")
    return any(row.get(name) is not None for name in alone) or any(
        all(row.get(name) is not None for name in pair) for pair in pairs
    )


def _fits(row: dict[str, Any], names: dict[str, str], optional: frozenset[str]) -> bool:
    needed = names.keys() - optional
    if not all(isinstance(row.get(name), str) or _is_number(row.get(name)) for name in needed):
        return False
    return not ("answer" in names and any(row.get(name) is not None for name in _OTHER_TASKS))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

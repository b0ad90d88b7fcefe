"""Bring rows of public data sets under the column names that `recognise` knows.

| data set | its columns | read as |
|---|---|---|
| GSM8K, Natural Questions | `question`, `answer` | `instruction`, `output` |
| SQuAD | `question`, `context`, `answers` | `instruction`, `input`, `output` |
| ms-swift | `query`, `response`, `system`, `history` | `instruction`, `output`, `system`, `history` |
| Dolly | `instruction`, `context`, `response` | `instruction`, `input`, `output` |
| OpenOrca | `system_prompt`, `question`, `response` | `system`, `instruction`, `output` |
| BBH | `input`, `target` | `instruction`, `output` |
| Super-NaturalInstructions | `Definition`, `input`, `output` | `instruction`, `input`, `output` |
| other pairs | `input`, `output` | `instruction`, `output` |
| UltraChat | `id`, `data` (texts of user and assistant in turn) | `messages` |

public_rows.py reads BIG-bench and Label Studio.
Names in capitals count as the same names. A number as the answer becomes its text. NaN, which pandas writes for an
empty cell, is a missing field. Of several accepted answers, the first is read. Turns may be JSON text, or an object
with a list for each key.
"""

import ast
import json
from functools import lru_cache
from typing import Any

from curator.data.json_files import without_repeated_keys
from curator.data.public_rows import accepted_answers, from_big_bench, from_label_studio

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
    ({"question": "instruction", "context": "input", "answers": "output"}, frozenset({"context"})),
    ({"question": "instruction", "context": "input", "answer": "output"}, frozenset({"context"})),
    ({"definition": "instruction", "input": "input", "output": "output"}, frozenset()),
    ({"input": "instruction", "target": "output"}, frozenset()),
    ({"input": "instruction", "output": "output"}, frozenset()),
)
# In these columns, a list or an object holds answers that are all accepted.
_ACCEPTED = ("answers", "answer", "target")
# With these, `answer` is the number of a choice or one of several fields, and no answer in words.
_OTHER_TASKS = ("choices", "options", "passage")
_WANTED = {*_KNOWN, *(name for names, _ in _SHAPES for name in names), "system", "history", "tools"}


def as_known(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row under names that `recognise` knows, if it has a known shape; else the row without NaN.

    Args:
        row: The row as read.

    Raises:
        DataError: The row has the shape of a public data set, and no answer in words.
    """
    there = {name: value for name, value in row.items() if not (isinstance(value, float) and value != value)}
    there = _in_lower_case(there)
    if not is_complete(there):
        there = _of_a_shape(from_label_studio(from_big_bench(there)))
    for name in ("messages", "conversations"):
        if isinstance(there.get(name), str | dict | list):
            there = there | {name: _turns(there[name])}
    if isinstance(there.get("prompt"), str) and isinstance(there.get("completion"), str):
        # A prompt may be about JSON, so both texts must be turns with a role.
        made = {name: _turns(there[name]) for name in ("prompt", "completion")}
        if all(isinstance(turns, list) and all("role" in turn for turn in turns) for turns in made.values()):
            there = there | made
    if isinstance(there.get("history"), str):
        there = there | {"history": _parsed_list(there["history"]) or there["history"]}
    if is_complete(there):
        for name in _ANSWERS:
            value = there.get(name)
            if _is_number(value):
                there = there | {name: str(value)}
            elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
                there = there | {name: value[0]}
    return there


def is_complete(row: dict[str, Any]) -> bool:
    """Return whether a row has all columns of a format that `recognise` knows.

    Args:
        row: A row, under the names that `recognise` knows.
    """
    pairs = (("prompt", "completion"), ("instruction", "output"), ("inputs", "targets"))
    alone = ("messages", "conversations", "segments", "text")
    return any(row.get(name) is not None for name in alone) or any(
        all(row.get(name) is not None for name in pair) for pair in pairs
    )


def _of_a_shape(row: dict[str, Any]) -> dict[str, Any]:
    """Rename the columns of the first shape that fits an incomplete row, and take the first of accepted answers."""
    if is_complete(row):
        return row
    if "id" in row and isinstance(row.get("data"), list):
        turns = _turns(row["data"])
        if turns is not row["data"]:
            return {name: value for name, value in row.items() if name != "data"} | {"messages": turns}
    made = dict(row)
    for name in (name for name in _ACCEPTED if isinstance(row.get(name), list | dict)):
        answer, others = accepted_answers(row[name])
        if answer is not None:
            made |= {name: answer} | ({f"{name}[1:]": others} if others else {})
    if "definition" in row:
        for name in ("definition", "output"):
            if isinstance(row.get(name), list) and row[name]:
                made |= {name: row[name][0]} | ({f"{name}[1:]": row[name][1:]} if len(row[name]) > 1 else {})
    for names, optional in _SHAPES:
        if _fits(made, names, optional):
            return {names.get(name, name): value for name, value in made.items()}
    return row


def _fits(row: dict[str, Any], names: dict[str, str], optional: frozenset[str]) -> bool:
    needed = names.keys() - optional
    if not all(isinstance(row.get(name), str) or _is_number(row.get(name)) for name in needed):
        return False
    return not ("answer" in names and any(row.get(name) is not None for name in _OTHER_TASKS))


def _turns(value: str | dict[str, Any] | list[Any]) -> Any:
    """Return turns that are written as JSON text, as a list for each key, or as texts. Return the value if not."""
    if isinstance(value, list):
        # In LIMA and UltraChat, the texts of user and assistant alternate.
        if len(value) < 2 or not all(isinstance(text, str) for text in value):
            return value
        return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(value)]
    if isinstance(value, dict):
        # `datasets` writes a sequence of objects in this way.
        lists = list(value.values())
        keys = {"role", "from"} & value.keys()
        if not keys or not all(isinstance(items, list) and len(items) == len(lists[0]) for items in lists):
            return value
        return [dict(zip(value, items, strict=True)) for items in zip(*lists, strict=True)]
    found = _parsed_list(value)
    return value if found is None or not all(isinstance(turn, dict) for turn in found) else found


def _parsed_list(text: str) -> list[Any] | None:
    """Return a non-empty list that a text holds as JSON or, as pandas writes it to CSV, as Python."""
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return None
    try:
        value = json.loads(stripped, object_pairs_hook=without_repeated_keys)
    except json.JSONDecodeError:
        try:
            value = ast.literal_eval(stripped)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and value else None


def _in_lower_case(row: dict[str, Any]) -> dict[str, Any]:
    lowered = {_known_name(name): value for name, value in row.items()}
    return lowered if len(lowered) == len(row) else row


@lru_cache(maxsize=4096)
def _known_name(name: str) -> str:
    lowered = str(name).strip().lower()
    return lowered if lowered in _WANTED else name


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

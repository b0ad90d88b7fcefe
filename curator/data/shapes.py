"""Bring rows of public data sets under the column names that `recognise` knows.

| data set | its columns | read as |
|---|---|---|
| GSM8K, Natural Questions | `question`, `answer` | `instruction`, `output` |
| SQuAD | `question`, `context`, `answers` | `instruction`, `input`, `output` |
| ms-swift | `query`, `response`, `system`, `history` | `instruction`, `output`, `system`, `history` |
| Dolly | `instruction`, `context`, `response` | `instruction`, `input`, `output` |
| OpenOrca | `system_prompt`, `question`, `response` | `system`, `instruction`, `output` |
| BBH | `input`, `target` | `instruction`, `output` |
| BoolQ and others | `question`, `passage` or `body` or `story`, `answer` | `instruction`, `input`, `output` |
| Super-NaturalInstructions | `Definition`, `input`, `output` | `instruction`, `input`, `output` |
| the same on the hub | `definition`, `inputs`, `targets` | `instruction`, `input`, `output` |
| P3 | `inputs_pretokenized`, `targets_pretokenized` | `inputs`, `targets` |
| other pairs | `input`, `output` | `instruction`, `output` |
| UltraChat | `id`, `data` (texts of user and assistant in turn) | `messages` |
| Capybara, Firefly, xtuner | `conversation` of exchanges (such as `input` and `output`) | `messages` |

public_rows.py reads BIG-bench, Label Studio and Gemini. turns.py reads turns.
Next to a chat or Alpaca, `system_prompt` is read as `system`.
Names in capitals count as the same names. A number as the answer becomes its text. NaN, which pandas writes for an
empty cell, is a missing field. Of several accepted answers, the first is read. Turns may be JSON text, or an object
with a list for each key.
"""

from decimal import Decimal
from functools import lru_cache
from typing import Any

from curator.data.public_rows import accepted_answers, from_big_bench, from_gemini, from_label_studio
from curator.data.turns import parsed_list, turns_of

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
    *(
        ({"question": "instruction", context: "input", "answer": "output"}, frozenset[str]())
        for context in ("context", "passage", "body", "story")
    ),
    ({"question": "instruction", "answer": "output"}, frozenset()),
    ({"definition": "instruction", "input": "input", "output": "output"}, frozenset()),
    ({"input": "instruction", "target": "output"}, frozenset()),
    ({"input": "instruction", "output": "output"}, frozenset()),
)
# In these columns, a list or an object holds answers that are all accepted.
_ACCEPTED = ("answers", "answer", "target")
# With these, `answer` is the number of a choice or one of several fields, and no answer in words.
_OTHER_TASKS = ("choices", "options")
# The text that a question is about. Without it, a question is another question.
_ABOUT = ("context", "passage", "body", "story")
_CHATS = ("messages", "conversations", "conversation")
_WANTED = {*_KNOWN, *_CHATS, *(name for names, _ in _SHAPES for name in names), "system", "history", "tools"}


def as_known(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row under names that `recognise` knows, if it has a known shape; else the row without NaN.

    Args:
        row: The row as read.

    Raises:
        DataError: The row has the shape of a public data set, and no answer in words.
    """
    there = {name: value for name, value in row.items() if not (isinstance(value, float) and value != value)}
    there = _in_lower_case(there)
    there = _from_text(_with_definition(there))
    if not is_complete(there):
        there = _of_a_shape(from_gemini(from_label_studio(from_big_bench(there))))
    for name in _CHATS:
        if isinstance(there.get(name), str | dict | list):
            there = there | {name: turns_of(there[name])}
    there = _with_system(_with_messages(there))
    if isinstance(there.get("prompt"), str) and isinstance(there.get("completion"), str):
        # A prompt may be about JSON, so both texts must be turns with a role.
        made = {name: turns_of(there[name]) for name in ("prompt", "completion")}
        if all(isinstance(turns, list) and all("role" in turn for turn in turns) for turns in made.values()):
            there = there | made
    if isinstance(there.get("history"), str):
        no_turns = there["history"].strip() == "[]"
        there = there | {"history": [] if no_turns else parsed_list(there["history"]) or there["history"]}
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
    texts = row.get("data")
    if "id" in row and isinstance(texts, list) and len(texts) > 1 and all(isinstance(text, str) for text in texts):
        return {name: value for name, value in row.items() if name != "data"} | {"messages": turns_of(texts)}
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
    others = (*_OTHER_TASKS, *(name for name in _ABOUT if name not in names))
    return not ("answer" in names and any(row.get(name) is not None for name in others))


def _with_definition(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of Super-NaturalInstructions under its names. The definition is part of the prompt."""
    names = {"inputs": "input", "targets": "output"}
    if row.get("definition") is None or not names.keys() <= row.keys() or not names.keys().isdisjoint(names.values()):
        return row
    return {names.get(name, name): value for name, value in row.items()}


def _from_text(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of P3 with its texts. The row holds both texts and their tokens of another tokenizer."""
    names = {f"{name}_pretokenized": name for name in ("inputs", "targets")}
    if not all(isinstance(row.get(name), str) for name in names):
        return row
    return {names.get(name, name): value for name, value in row.items() if name not in names.values()}


def _with_messages(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose `conversation` holds turns with these as `messages`."""
    turns = row.get("conversation")
    if is_complete(row) or not isinstance(turns, list) or not turns:
        return row
    if not all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in turns):
        return row
    return {"messages" if name == "conversation" else name: value for name, value in row.items()}


def _with_system(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with `system_prompt` as `system`, if its format reads a system prompt and has no other."""
    prompt, turns = row.get("system_prompt"), row.get("messages") or row.get("conversations")
    if not isinstance(prompt, str) or not prompt or row.get("system"):
        return row
    first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
    reads = bool(first) or all(row.get(name) is not None for name in ("instruction", "output"))
    if not reads or "system" in (first.get("role"), first.get("from")):
        return row
    return {"system" if name == "system_prompt" else name: value for name, value in row.items() if name != "system"}


def _in_lower_case(row: dict[str, Any]) -> dict[str, Any]:
    lowered = {_known_name(name): value for name, value in row.items()}
    return lowered if len(lowered) == len(row) else row


@lru_cache(maxsize=4096)
def _known_name(name: str) -> str:
    lowered = str(name).strip().lower()
    return lowered if lowered in _WANTED else name


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)

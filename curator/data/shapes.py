"""Bring rows of public data sets under the column names that `recognise` knows.

| data set | its columns | read as |
|---|---|---|
| GSM8K, Natural Questions | `question`, `answer` | `instruction`, `output` |
| SQuAD | `question`, `context`, `answers` | `instruction`, `input`, `output` |
| ms-swift | `query`, `response`, `system`, `history` | `instruction`, `output`, `system`, `history` |
| Dolly | `instruction`, `context`, `response` | `instruction`, `input`, `output` |
| OpenOrca | `system_prompt`, `question`, `response` | `system`, `instruction`, `output` |
| BBH | `input`, `target` | `instruction`, `output` |
| BBH with instructions | `instruction`, `input`, `target` | `instruction`, `input`, `output` |
| BoolQ and others | `question`, `passage` or another text of `_CONTEXTS`, `answer` | `instruction`, `input`, `output` |
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
with a list for each key. No column replaces another one that holds something.
"""

import math
from decimal import Decimal
from functools import lru_cache
from typing import Any

from curator.data.public_rows import accepted_answers, from_big_bench, from_gemini, from_label_studio
from curator.data.turns import parsed_cell, parsed_list, turns_of

_KNOWN = ("messages", "conversations", "prompt", "completion", "instruction", "output", "inputs", "targets", "text")
_ANSWERS = ("completion", "output", "targets")
# A row is complete with all fields of one of these.
_PAIRS = (("prompt", "completion"), ("instruction", "output"), ("inputs", "targets"))
_ALONE = ("messages", "conversations", "segments", "text")
_OF_FORMATS = {*_ALONE, *(name for names in _PAIRS for name in names)}
# The text that a question is about. Without it, a question is another question.
_CONTEXTS = ("context", "passage", "body", "story", "article", "document", "paragraph")
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
        ({asked: "instruction", context: "input", answered: "output"}, frozenset[str]())
        for asked, answered in (
            *(("question", "answer"), ("question", "response"), ("query", "response"), ("query", "answer")),
            *(("input", "output"), ("input", "target")),
        )
        for context in _CONTEXTS
    ),
    ({"question": "instruction", "answer": "output"}, frozenset()),
    ({"definition": "instruction", "input": "input", "output": "output"}, frozenset()),
    ({"instruction": "instruction", "input": "input", "target": "output"}, frozenset({"input"})),
    ({"input": "instruction", "target": "output"}, frozenset()),
    ({"input": "instruction", "output": "output"}, frozenset()),
)
# In these columns, a list or an object holds answers that are all accepted.
_ACCEPTED = ("answers", "answer", "target")
_ANSWER_KEYS = {"answer_start", "aliases", "normalized_value"}
# With these, `answer` is the number of a choice or one of several fields, and no answer in words.
_OTHER_TASKS = ("choices", "options")
_ABOUT = (*_CONTEXTS, *(f"{name}s" for name in _CONTEXTS))
# Next to a list of answers, these name the right one, so that the others are wrong.
_RIGHT_ONE = (
    *("correct", "correct_answer", "correct_index", "correct_idx", "correct_option", "correct_answer_index"),
    *("answer_idx", "answer_index", "answer_id", "answerkey", "label", "gold", "cop"),
)
_SYSTEMS = ("system_prompt", "system_message")
_CHATS = ("messages", "conversations", "conversation")
WANTED = {*_KNOWN, *_CHATS, *(name for names, _ in _SHAPES for name in names), "system", "history", "tools"}
"""Names of columns that curator knows."""


def as_known(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row under names that `recognise` knows, if it has a known shape; else the row without NaN.

    Args:
        row: The row as read.

    Raises:
        DataError: The row has the shape of a public data set, and no answer in words.
    """
    there = {name: value for name, value in row.items() if not (isinstance(value, float) and value != value)}
    there = _in_lower_case(there)
    there = _with_context(_without_empty_formats(_from_text(_with_definition(there))))
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
    return any(row.get(name) is not None for name in _ALONE) or any(
        all(row.get(name) is not None for name in pair) for pair in _PAIRS
    )


def _without_empty_formats(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without formats whose fields are all empty, if the other fields are a row too.

    A table of several data sets has empty cells in the columns of the other sets.
    """
    blank = {name for name, value in row.items() if name in _OF_FORMATS and is_empty_cell(value)}
    if not blank:
        return row
    formats = (*_PAIRS, *((name,) for name in _ALONE))
    empty = {name for names in formats if blank.issuperset(names) for name in names}
    if not empty:
        return row
    rest = {name: value for name, value in row.items() if name not in empty}
    return rest if is_complete(_of_a_shape(rest)) else row


def is_empty_cell(value: Any) -> bool:
    """Return whether a cell is null, a blank text, or a list or an object without items."""
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())


def _of_a_shape(row: dict[str, Any]) -> dict[str, Any]:
    """Rename the columns of the first shape that fits an incomplete row, and take the first of accepted answers."""
    if is_complete(row):
        return row
    texts = row.get("data")
    if "id" in row and isinstance(texts, list) and len(texts) > 1 and all(isinstance(text, str) for text in texts):
        return {name: value for name, value in row.items() if name != "data"} | {"messages": turns_of(texts)}
    row = _with_answers_of_csv(row)
    made = dict(row)
    has_wrong = any(str(name).lower() in _RIGHT_ONE and value is not None for name, value in row.items())
    for name in (name for name in _ACCEPTED if isinstance(row.get(name), list | dict)):
        answer, others = accepted_answers(row[name])
        if answer is not None and not (others and has_wrong and isinstance(row[name], list)):
            made |= {name: answer} | ({f"{name}[1:]": others} if others else {})
    if "definition" in row:
        for name in ("definition", "output"):
            if isinstance(row.get(name), list) and row[name]:
                made |= {name: row[name][0]} | ({f"{name}[1:]": row[name][1:]} if len(row[name]) > 1 else {})
    # Columns of another shape may be empty.
    filled = {name: value for name, value in made.items() if not is_empty_cell(value)}
    for there in (filled, made):
        for names, optional in _SHAPES:
            if _fits(there, names, optional):
                return _renamed(there, names)
    return row


def _with_answers_of_csv(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the answers that a cell of CSV holds as text, such as `{'text': ['a'], 'answer_start': [1]}`.

    The text of a list may itself be an answer. A list therefore counts only under the name `answers`.
    """
    for name in _ACCEPTED:
        value = row.get(name)
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            found = parsed_cell(value)
            is_object = isinstance(found, dict) and not _ANSWER_KEYS.isdisjoint(found)
            if is_object or (isinstance(found, list) and name == "answers"):
                row = row | {name: found}
    return row


def _fits(row: dict[str, Any], names: dict[str, str], optional: frozenset[str]) -> bool:
    needed = names.keys() - optional
    if not all(isinstance(row.get(name), str) or _is_number(row.get(name)) for name in needed):
        return False
    if any(not is_empty_cell(row.get(name)) and _replaced(row, names, name) for name in names):
        return False
    others: tuple[str, ...] = _OTHER_TASKS if "answer" in names else ()
    if names.keys() & {"question", "query", "input"} and "definition" not in names:
        others += tuple(name for name in _ABOUT if name not in names)
    if "instruction" in names:
        others += ("question", "query")
    return all(is_empty_cell(row.get(name)) for name in others)


def _replaced(row: dict[str, Any], names: dict[str, str], name: str) -> bool:
    """Return whether a column would get the name of another column that holds something."""
    new = names[name]
    return new not in names and not is_empty_cell(row.get(new))


def _renamed(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    moved = {names[name]: value for name, value in row.items() if name in names and not _replaced(row, names, name)}
    return {name: value for name, value in row.items() if name not in names} | moved


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


def _with_context(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of Alpaca whose input is named `context`, as in Dolly, with this input."""
    has_other = not is_empty_cell(row.get("input")) or not all(isinstance(row.get(n), str) for n in _PAIRS[1])
    if has_other or not isinstance(row.get("context"), str) or is_empty_cell(row["context"]):
        return row
    return {"input" if name == "context" else name: value for name, value in row.items() if name != "input"}


def _with_messages(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose `conversation` holds turns with these as `messages`. A text next to turns repeats them."""
    turns = row.get("conversation")
    is_other = is_complete({name: value for name, value in row.items() if name != "text"})
    if is_other or not has_turns(turns):
        return row
    return {"messages" if name == "conversation" else name: value for name, value in row.items()}


def has_turns(value: Any) -> bool:
    """Return whether a value is a list of turns that all name their speaker."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in value)
    )


def _with_system(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with `system_prompt` as `system`, if its format reads a system prompt and has no other."""
    named = [name for name in _SYSTEMS if isinstance(row.get(name), str) and row[name]]
    if len(named) != 1 or row.get("system"):
        return row
    turns = row.get("messages") or row.get("conversations")
    turns = row.get("prompt") if turns is None and has_turns(row.get("prompt")) else turns
    first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
    reads = bool(first) or all(row.get(name) is not None for name in ("instruction", "output"))
    said = first.get("content") or first.get("value")
    if not reads or ("system" in (first.get("role"), first.get("from")) and said == row[named[0]]):
        # The first turn repeats the system prompt. Two different ones are an error.
        return row
    return {"system" if name == named[0] else name: value for name, value in row.items() if name != "system"}


def _in_lower_case(row: dict[str, Any]) -> dict[str, Any]:
    named = {_known_name(name): value for name, value in row.items()}
    return named if len(named) == len(row) else row


@lru_cache(maxsize=4096)
def lowered(name: str) -> str:
    """Return the name of a column in lower case, without spaces around it."""
    return str(name).strip().lower()


def _known_name(name: str) -> str:
    return lowered(name) if lowered(name) in WANTED else name


def _is_number(value: Any) -> bool:
    if type(value) is float and not math.isfinite(value):
        # `Infinity` of JSON. A large number of a file is a `Number`, which keeps its digits.
        return False
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)

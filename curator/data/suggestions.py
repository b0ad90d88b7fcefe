"""Say how to read a row that `recognise` refuses: the exact `columns` line, or what kind of row it is."""

import json
from collections.abc import Iterator
from typing import Any

_PROMPTS = (
    "prompt",
    "question",
    "query",
    "instruction",
    "problem",
    "input",
    "source",
    "article",
    "document",
    "dialogue",
)
_ANSWERS = ("completion", "answer", "response", "output", "solution", "target", "reply", "summary", "highlights")
_ANSWERS_OF_CHOICES = ("choices", "options")
# Names of texts that describe a row. They are neither prompt nor answer.
_ABOUT = ("id", "idx", "uuid", "source", "dataset", "category", "title", "url", "lang", "language", "split", "type")
_SPEAKERS = ("role", "from", "speaker", "author", "sender", "who", "user")
_SAID = ("content", "value", "text", "message", "utterance", "body", "said")
_MOST_TEXTS, _DEEPEST, _LONGEST = 20, 3, 80


def other_kind(row: dict[str, Any]) -> tuple[str, str]:
    """Return what an unknown row is, and what to do about it. Two empty texts for a row of no known kind.

    Args:
        row: A row that has no known format.
    """
    if isinstance(row.get("input_ids"), list):
        return (
            "the row is already tokenized: it holds 'input_ids' and no text",
            "Give the text of the row. curator tokenizes text with the model's tokenizer.",
        )
    choices = next((name for name in _ANSWERS_OF_CHOICES if isinstance(row.get(name), list | dict)), "")
    answer = next((name for name in ("answer", "answerKey", "label", "correct") if row.get(name) is not None), "")
    if choices and answer:
        return (
            f"{answer!r} names one of the choices in {choices!r}, and is not an answer in words",
            "Write the question with its choices into `prompt`, and the text of the right choice into `completion`.",
        )
    return "", ""


def columns_line(row: dict[str, Any]) -> str:
    """Return the hint with the `columns` line that reads a row, or "" if the row has fewer than two texts.

    Args:
        row: A row that has no known format, under its own names.
    """
    turns = _turns_line(row)
    if turns:
        return f"Set {turns} in [[data.task]]."
    paths = list(dict.fromkeys(_texts(row, "", _DEEPEST)))[:_MOST_TEXTS]
    if len(paths) > 2:
        paths = [path for path in paths if _word(path) not in _ABOUT and not _word(path).endswith("_id")] or paths
    if len(paths) < 2:
        return ""
    answers = [path for path in paths if _word(path) in _ANSWERS]
    completion = answers[0] if len(answers) == 1 else paths[1] if len(paths) == 2 else ""
    rest = [path for path in paths if path != completion]
    prompts = [path for path in rest if _word(path) in _PROMPTS]
    prompt = prompts[0] if len(prompts) == 1 else rest[0] if len(rest) == 1 else ""
    if prompt and completion:
        return f"Set {_line(prompt, completion)} in [[data.task]]."
    return f"Set columns in [[data.task]] to two of these columns, for example {_line(paths[0], paths[1])}."


def answer_line(row: dict[str, Any], name: str) -> str:
    """Return the hint with the `columns` line that reads one text of a list or an object.

    Args:
        row: The row under the names that `recognise` knows.
        name: Name of the answer.
    """
    inside = next(_texts({name: row[name]}, "", _DEEPEST), "")
    fields = [
        field for field in ("prompt", "instruction", "input", "inputs", "system") if isinstance(row.get(field), str)
    ]
    if not inside or not fields:
        return "Write the answer as one text."
    listed = ", ".join([*(f'{field} = "{field}"' for field in fields), f"{name} = {_quoted(inside)}"])
    return f"Set columns = {{ {listed} }} in [[data.task]] to learn that part of the answer."


def speaker_and_text(item: dict[str, Any]) -> tuple[str, str]:
    """Return the keys of an object that may hold speaker and text of a turn. A missing key is "".

    Args:
        item: Item of a list.
    """
    role = next((key for key in _SPEAKERS if isinstance(item.get(key), str)), "")
    return role, next((key for key in _SAID if key != role and isinstance(item.get(key), str)), "")


def _turns_line(row: dict[str, Any]) -> str:
    """Return the `columns` line for a column of turns whose keys have other names, or ""."""
    for name, value in row.items():
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, dict):
            role, content = speaker_and_text(first)
            if role and content:
                fields = {"messages": name, "role": role, "content": content}
                return f"columns = {{ {', '.join(f'{field} = {_quoted(key)}' for field, key in fields.items())} }}"
    return ""


def _line(prompt: str, completion: str) -> str:
    return f"columns = {{ prompt = {_quoted(prompt)}, completion = {_quoted(completion)} }}"


def _quoted(path: str) -> str:
    return json.dumps(path, ensure_ascii=False)


def _word(path: str) -> str:
    """Return the last name of a path in lower case: `answer` for `reply.Answer.0`."""
    words = [word for word in path.split(".") if not word.isdecimal()]
    return words[-1].lower() if words else ""


def _texts(value: Any, path: str, depth: int) -> Iterator[str]:
    """Yield the paths of the texts in a value. The first item stands for a list."""
    if isinstance(value, str):
        if value.strip() and len(path) <= _LONGEST:
            yield path
    elif depth:
        items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
        for name, item in items:
            yield from _texts(item, f"{path}.{name}" if path else str(name), depth - 1)

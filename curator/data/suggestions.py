"""Say how to read a row that `recognise` refuses: the exact `columns` line, or what kind of row it is."""

import json
import re
from collections.abc import Iterator, Mapping
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
_CONTEXTS = ("context", "passage", "story", "body", "contexts", "passages", "documents", "paragraphs")
_ANSWERS_OF_CHOICES = ("choices", "options", "endings")
_NAMES_OF_CHOICE = ("answer", "answerkey", "answer_idx", "label", "correct", "correct_answer", "gold", "cop", "target")
# The columns of choices: `option1` and `option2`, `choice_a` and `choice_b`, `sol1` and `sol2`, `A` and `B`.
_OF_CHOICE = re.compile(r"((?:option|choice|sol|solution|ending|answer|op)?)[_ ]?([a-e1-5])", re.IGNORECASE)
# Names of texts that describe a row. They are neither prompt nor answer.
_ABOUT = (
    *("id", "idx", "uuid", "source", "dataset", "category", "title", "url", "lang", "language", "split", "type"),
    *("status", "level", "model", "task", "task_name", "method"),
)
# Texts that no one learns as a prompt alone.
_SYSTEMS = ("system", "system_prompt", "system_message")
_NEVER = (*_SYSTEMS, "canary", "role")
_IDS = ("input_ids", "prompt_ids", "completion_ids", "token_ids", "prompt_token_ids", "tokens", "inputs", "targets")
_SPEAKERS = ("role", "from", "speaker", "author", "sender", "who", "user")
_SAID = ("content", "value", "text", "message", "utterance", "body", "said")
# Lists of exchanges, which are one chat.
_CHATS = ("turns", "dialog", "dialogue", "dialogs", "chat", "chats", "history", "exchanges", "rounds", "conversation")
_MOST_TEXTS, _DEEPEST, _LONGEST = 20, 3, 80


def other_kind(row: dict[str, Any]) -> tuple[str, str]:
    """Return what an unknown row is, and what to do about it. Two empty texts for a row of no known kind.

    Args:
        row: A row that has no known format.
    """
    tokens = next((name for name in _IDS if _is_list_of_numbers(row.get(name))), "")
    if tokens:
        return (
            f"the row is already tokenized: it holds {tokens!r} and no text",
            "Give the text of the row. curator tokenizes text with the model's tokenizer.",
        )
    choices = _choices(row)
    answer = next((name for name in row if str(name).lower() in _NAMES_OF_CHOICE and row[name] is not None), "")
    answer = answer or _letter(row)
    if choices and answer:
        return (
            f"{answer!r} names one of the choices in {choices}, and is not an answer in words",
            "Write the question with its choices into `prompt`, and the text of the right choice into `completion`.",
        )
    if all(isinstance(row.get(name), str) for name in speaker_and_text(row)) and "role" in row:
        return (
            "the row is one turn of a chat, and no whole chat",
            'Write all turns of a chat into one row: {"messages": [{"role": "user", "content": "…"}, …]}.',
        )
    truth = next((name for name in (*_ANSWERS, "targets") if isinstance(row.get(name), bool)), "")
    if truth:
        return (
            f"{truth!r} must be text, not {row[truth]}",
            'Write the answer as text into that column, for example "yes" or "no".',
        )
    several = next((name for name in ("completions", "answers", "responses") if _is_several(row.get(name))), "")
    if several and not isinstance(row.get("questions"), list):
        return (
            f"{several!r} holds {len(row[several])} answers to one prompt",
            "Write the best answer into `completion`, and its prompt into `prompt`.",
        )
    if isinstance(row.get("label"), int | float) and not isinstance(row["label"], bool):
        return (
            "'label' is the number of a class, and is not an answer in words",
            "Write the text with its question into `prompt`, and the name of the class into `completion`.",
        )
    return "", ""


def _choices(row: dict[str, Any]) -> str:
    """Return the name of the column of choices, the names of several columns of choices, or ""."""
    listed = next((name for name in _ANSWERS_OF_CHOICES if isinstance(row.get(name), list | dict)), "")
    if listed:
        return repr(listed)
    inner = next((name for name, value in row.items() if isinstance(value, dict) and "choices" in value), "")
    if inner:
        return f"'{inner}.choices'"
    columns = choice_columns(row)
    written = next((name for name in ("choices", "options") if isinstance(row.get(name), str) and row[name]), "")
    return ", ".join(map(repr, columns)) if len(columns) > 1 else repr(written) if written else ""


def choice_columns(row: Mapping[str, Any]) -> list[str]:
    """Return the columns of a row that hold one choice each, such as `option1` and `option2`, or `A` and `B`."""
    found: dict[str, list[str]] = {}
    for name in row:
        match = _OF_CHOICE.fullmatch(str(name))
        if match and isinstance(row[name], str | int | float):
            found.setdefault(match[1].lower(), []).append(str(name))
    columns = max(found.values(), key=len, default=[])
    # A file without a header has numbers as names.
    return columns[1:] if columns[:1] == ["1"] else columns


def _letter(row: dict[str, Any]) -> str:
    """Return the last column of a row without names if it holds a letter of a choice, as in MMLU."""
    name = next(reversed(row), "")
    is_letter = isinstance(row.get(name), str) and row[name].strip() in ("A", "B", "C", "D", "E")
    return str(name) if is_letter and str(name).isdecimal() and len(row) > 3 else ""


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value[:_MOST_TEXTS])


def _is_several(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(item, str | dict) for item in value)


def columns_line(row: dict[str, Any]) -> str:
    """Return the hint with the `columns` line that reads a row, or "" if the row has fewer than two texts.

    Args:
        row: A row that has no known format, under its own names.
    """
    turns = _turns_line(row)
    if turns:
        return turns
    rows = _rows_key(row)
    if rows:
        return f"Set rows = {_quoted(rows)} in [[data.task]] to read each object in that list as a row."
    if row.get("tools") or row.get("functions"):
        # Without its tools, a row is another one.
        return ""
    paths = list(dict.fromkeys(_texts(row, "", _DEEPEST)))[:_MOST_TEXTS]
    paths = [path for path in paths if _word(path) not in _NEVER]
    if len(paths) > 2:
        words = set(map(_word, paths))
        about = [word for word in _ABOUT if word != "source" or "target" not in words]
        paths = [path for path in paths if _word(path) not in about and not _word(path).endswith("_id")] or paths
    if len(paths) < 2:
        return ""
    context = next((path for path in paths if _word(path) in _CONTEXTS), "")
    if len(paths) == 3 and "instruction" in paths:
        # Next to an instruction, a question is what the instruction is about.
        context = context or next((path for path in paths if _word(path) in ("question", "query", "input")), "")
    if context and len(paths) == 3:
        paths.remove(context)
        answer = next((path for path in paths if _word(path) in _ANSWERS), paths[1])
        fields = {"instruction": next(path for path in paths if path != answer), "input": context, "output": answer}
        return f"Set columns = {{ {_listed(fields)} }} in [[data.task]]."
    answers = [path for path in paths if _word(path) in _ANSWERS]
    if len(paths) == 2 and not answers:
        # Of `sql` and `question`, or of `query` and `question`, the question is the prompt.
        paths.sort(key=lambda path: _PROMPTS.index(_word(path)) if _word(path) in _PROMPTS else len(_PROMPTS))
    completion = answers[0] if len(answers) == 1 else paths[1] if len(paths) == 2 else ""
    rest = [path for path in paths if path != completion]
    prompts = [path for path in rest if _word(path) in _PROMPTS]
    prompt = prompts[0] if len(prompts) == 1 else rest[0] if len(rest) == 1 else ""
    if prompt and completion:
        more = {"system": next((name for name in _SYSTEMS if isinstance(row.get(name), str) and row[name]), "")}
        more |= {"history": "history" if row.get("history") else ""}
        if any(more.values()):
            # A pair of prompt and completion reads neither.
            fields = {"instruction": prompt, "output": completion} | {name: key for name, key in more.items() if key}
            return f"Set columns = {{ {_listed(fields)} }} in [[data.task]]."
        return f"Set {_line(prompt, completion)} in [[data.task]]."
    return f"Set columns in [[data.task]] to two of these columns, for example {_line(paths[0], paths[1])}."


def answer_line(row: dict[str, Any], name: str) -> str:
    """Return the hint with the `columns` line that reads one text of a list or an object.

    Args:
        row: The row under the names that `recognise` knows.
        name: Name of the answer.
    """
    value = row[name][:1] if isinstance(row[name], list) else row[name]
    inside = next(_texts({name: value}, "", _DEEPEST), "")
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


def answer_column(row: dict[str, Any]) -> str:
    """Return the column of a row that holds an answer as text or as turns, or "".

    Args:
        row: A row whose turns end with a question.
    """
    for name in (*_ANSWERS, "targets", "ideal"):
        value = row.get(name)
        if (isinstance(value, str) and value.strip()) or (isinstance(value, list) and value and _is_turn(value[-1])):
            return name
    return ""


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and all(speaker_and_text(value))


def keys_line(turn: Any, column: str) -> str:
    """Return the hint for a turn with other names for its speaker and its text, or "".

    Args:
        turn: The turn.
        column: Column of the turns.
    """
    role, content = speaker_and_text(turn) if isinstance(turn, dict) else ("", "")
    if not role or not content or role in ("role", "from"):
        return ""
    return f"Set columns = {{ {_listed({'messages': column, 'role': role, 'content': content})} }} in [[data.task]]."


def _turns_line(row: dict[str, Any]) -> str:
    """Return the hint for a row with a column of turns, or ""."""
    for path, turns in _chats(row, "", 2):
        role, content = speaker_and_text(turns[0])
        last = turns[-1].get(role) if isinstance(turns[-1], dict) else None
        if str(last).lower() in ("user", "human", "system"):
            # The answer is elsewhere, or nowhere.
            texts = [name for name, value in row.items() if name in _ANSWERS and isinstance(value, str) and value]
            if len(texts) != 1 or (role, content) != ("role", "content"):
                return f"Write the answer to the turns in {path!r} as a turn of the role assistant behind them."
            return f"Set {_line(path, texts[0])} in [[data.task]]."
        return f"Set columns = {{ {_listed({'messages': path, 'role': role, 'content': content})} }} in [[data.task]]."
    return ""


def _rows_key(row: dict[str, Any]) -> str:
    """Return the key of a list of objects with several texts each, if the row holds no text itself. Else ""."""
    if any(isinstance(value, str) and len(value.split()) > 1 for value in row.values()):
        return ""
    lists = [name for name, value in row.items() if isinstance(value, list) and value and all(map(_is_row, value))]
    lists = [name for name in lists if _word(str(name)) not in _CHATS]
    return str(lists[0]) if len(lists) == 1 else ""


def _is_row(value: Any) -> bool:
    if not isinstance(value, dict) or all(speaker_and_text(value)):
        return False
    return sum(isinstance(item, str | list) for item in value.values()) > 1


def _chats(value: dict[str, Any], before: str, depth: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield the paths and the values of lists of turns, the nearest first."""
    for name, item in value.items():
        first = item[0] if isinstance(item, list) and item else None
        if isinstance(first, dict) and all(speaker_and_text(first)):
            yield f"{before}{name}", item
    for name, item in value.items() if depth > 1 else ():
        if isinstance(item, dict):
            yield from _chats(item, f"{before}{name}.", depth - 1)


def _listed(fields: dict[str, str]) -> str:
    return ", ".join(f"{field} = {_quoted(key)}" for field, key in fields.items())


def _line(prompt: str, completion: str) -> str:
    return f"columns = {{ prompt = {_quoted(prompt)}, completion = {_quoted(completion)} }}"


def _quoted(path: str) -> str:
    return json.dumps(path, ensure_ascii=False)


def _word(path: str) -> str:
    """Return the last name of a path in lower case: `answer` for `reply.Answer.0`."""
    words = [word for word in path.split(".") if not word.isdecimal()]
    return words[-1].lower() if words else ""


def _texts(value: Any, path: str, depth: int) -> Iterator[str]:
    """Yield the paths of the texts in a value. Of several items of a list, each may be the text, so it has no path."""
    if isinstance(value, str):
        if value.strip() and len(path) <= _LONGEST:
            yield path
    elif depth:
        alone = enumerate(value) if isinstance(value, list) and len(value) == 1 else ()
        items = value.items() if isinstance(value, dict) else alone
        for name, item in items:
            yield from _texts(item, f"{path}.{name}" if path else str(name), depth - 1)

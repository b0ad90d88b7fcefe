"""Account for every column of a row: used, named as unused, or a reason to refuse the row.

A row that holds more than curator reads would otherwise train as if the rest were not there. Preference data, media
and reasoning change what an answer means, so such rows are refused. Every other unread column is reported once a task.
"""

import re
from collections.abc import Mapping
from typing import Any

from curator.core.errors import DataError
from curator.data.choices import choices_of
from curator.data.formats import (
    ALPACA,
    CONVERSATIONAL,
    FLAN,
    OPENAI,
    PROMPT,
    SEGMENTS,
    SHAREGPT,
    TEXT,
    TULU,
    known_role,
)
from curator.data.shapes import lowered
from curator.data.suggestions import choice_columns

_CHAT = {"messages", "conversations", "system", "tools", "functions"}
_READ = {
    OPENAI: _CHAT,
    TULU: _CHAT,
    SHAREGPT: _CHAT,
    CONVERSATIONAL: {"prompt", "completion", "system", "tools", "functions"},
    PROMPT: {"prompt", "completion"},
    ALPACA: {"instruction", "input", "output", "system", "history", "tools", "functions"},
    FLAN: {"inputs", "targets"},
    SEGMENTS: {"segments"},
    TEXT: {"text"},
}
"""Columns that each format reads."""
_CONTENT = {"system", "history", "tools", "functions"}
"""Columns that change the prompt wherever they stand."""
_SYSTEMS = {"system_prompt", "system_message"}
"""Other names of `system`. A chat may repeat its system prompt there."""
_WORDS = ("response", "answer", "output", "completion", "messages", "conversation", "conversations")
"""Words for an answer in the names of columns."""
_CHOSEN = ("chosen", *(f"chosen_{word}" for word in _WORDS), *(f"{word}_chosen" for word in _WORDS))
_REJECTED = tuple(name.replace("chosen", "rejected") for name in _CHOSEN)
_PREFERENCES = (*_CHOSEN, *_REJECTED)
_NUMBERED = (("0", "1"), ("1", "2"), ("a", "b"), ("A", "B"), ("j", "k"))
# Two answers to one prompt, the better one first if the names say so.
_PAIRS = (
    ("preferred_output", "non_preferred_output"),
    ("preferred", "dispreferred"),
    ("accepted", "rejected"),
    ("human_ref_A", "human_ref_B"),
    *((f"{word}_{first}", f"{word}_{second}") for word in _WORDS for first, second in _NUMBERED),
)
_NAMED_BETTER = (*_CHOSEN, "preferred_output", "preferred", "accepted")
_LABELS = ("label", "kto_tag")
# False in one of these says that the answer is wrong or not wanted.
_WANTED = (
    *("desirable", "is_desirable", "correct", "is_correct", "chosen", "is_chosen", "preferred", "is_preferred"),
    *("accepted", "is_accepted", "is_good", "thumbs_up"),
)
_ANSWERS = ("completion", "output", "targets", "messages", "conversations")
_MEDIA = ("images", "image", "videos", "video", "audios", "audio")
# Marks of LLaVA, Qwen, Phi and InternVL, such as `<image>`, `<|image_1|>` and `<|vision_start|>`.
_PLACEHOLDER = re.compile(
    r"<\|?(?:image|video|audio|vision_start|vision_end|audio_bos|audio_eos|imagehere)(?:_pad|_placeholder)?[_-]?\d*\|?>",
    re.IGNORECASE,
)
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_TURN = {
    *("role", "content", "from", "value", "train", "weight", "loss_weight", "loss", "train_detail"),
    *("training", "trainable"),
    *("tool_calls", "function_call"),
}
# A mask may name the turns that carry loss, or those that do not.
_MASKS = ("mask", "masked", "is_masked", "loss_mask")
_OF_TOOL = {"name", "tool_call_id"}
_PART = {"type", "text", "value"}
# Columns and keys for the same. The first one is read.
_SAME = (("messages", "conversations"), ("tools", "functions"))
_SAME_IN_TURN = (("role", "from"), ("content", "value"))
_OTHER_KINDS = {*_PREFERENCES, *(name for names in _PAIRS for name in names), *_LABELS, *_MEDIA, "truncated_cells"}
_OTHER_KINDS |= {*_WANTED, "_task_hash"}
_NUMBER_OR_LETTER = re.compile(r"\(?([A-Za-z]|\d{1,2})[).:]?")


def refuse_other_kinds(row: Mapping[str, Any], where: str) -> None:
    """Refuse a row of preferences or with media, whatever its format.

    Args:
        row: The row, under the names that `recognise` knows.
        where: Place of the row, for messages.

    Raises:
        DataError: The row holds preferences, pictures, videos or sound.
    """
    if _OTHER_KINDS.isdisjoint(row) and _OTHER_KINDS.isdisjoint(map(lowered, row)):
        return
    # Column names in capitals count as the same names.
    row = {lowered(name): value for name, value in row.items()} | dict(row)
    pair = [name for name in _PREFERENCES if isinstance(row.get(name), str | list | dict) and row[name]]
    pair = pair or next(([*names] for names in _PAIRS if all(_is_there(row.get(name)) for name in names)), [])
    if pair:
        raise DataError(
            f"{where}: preference data, not an example to learn: the row has {' and '.join(map(repr, pair))}",
            hint=_better_answer(row, pair[0]),
        )
    for name in _LABELS:
        # Next to a text alone, a label is a class.
        if _is_verdict(row.get(name)) and any(_is_there(row.get(answer)) for answer in _ANSWERS):
            raise DataError(
                f"{where}: preference data, not an example to learn: {name!r} says whether the answer is wanted",
                hint=f"Keep the rows with {name} = true. Then leave the column out by `columns` in [[data.task]].",
            )
    for name in _WANTED:
        # As text, `correct` may be the answer to a question.
        is_false = _is_verdict(row.get(name)) and str(row[name]).strip().lower() == "false"
        if row.get(name) is False or (is_false and name != "correct"):
            raise DataError(
                f"{where}: {name!r} is false, so the row says that its answer is not wanted",
                hint="Remove such rows. Or leave the column out by `columns` in [[data.task]].",
            )
    if "_task_hash" in row and row.get("answer") in ("reject", "ignore"):
        raise DataError(f"{where}: an annotator of Prodigy chose {row['answer']!r}", hint="Remove that row.")
    if row.get("truncated_cells"):
        raise DataError(
            f"{where}: the server of the hub cut off the text of {row['truncated_cells']!r:.60}",
            hint="Download the data set itself. Its viewer shows the start of long texts only.",
        )
    for name in _MEDIA:
        # In CSV, an empty list is a text.
        if _is_there(row.get(name)) and row[name] is not False and row[name] not in ("[]", "None", "null"):
            raise DataError(f"{where}: {name!r} holds media, and curator trains on text", hint="Remove that row.")


def refuse_choice_number(raw: Mapping[str, Any], columns: Mapping[str, str], where: str) -> None:
    """Refuse a row whose configured answer is the number or the letter of a choice, as in MMLU.

    Args:
        raw: The row as it stands in the file.
        columns: Column by the name that `recognise` knows.
        where: Place of the row, for messages.

    Raises:
        DataError: The row lists choices, which its prompt does not hold, and the answer is a number or a letter.
    """
    choices = next((name for name in ("choices", "options") if isinstance(raw.get(name), list)), "")
    for name in ("completion", "output", "targets"):
        value = raw.get(columns.get(name, ""))
        is_number = isinstance(value, int | float)
        if choices and (is_number or _is_letter(value, raw[choices], _prompt(raw, columns))):
            raise DataError(
                f"{where}: {columns[name]!r} is the {'number' if is_number else 'letter'} of one of the choices in"
                f" {choices!r}, and no text",
                hint="Write the question with its choices into `prompt`, and the text of the choice into `completion`.",
            )


def refuse_named_choice(raw: Mapping[str, Any], prompt: str, answer: str, where: str) -> None:
    """Refuse a row whose answer is the number or the letter of a choice, as in MMLU.

    If the prompt holds all choices, the letter is an answer.

    Args:
        raw: The row as it stands in the file.
        prompt: What the row says before its answer.
        answer: The answer.
        where: Place of the row, for messages.

    Raises:
        DataError: The answer names a choice by its number or letter.
    """
    named = _NUMBER_OR_LETTER.fullmatch(answer.strip())
    if named is None:
        return
    # A column without a name has a number.
    columns = [name for name in choice_columns(raw) if not name.isdecimal() and str(raw[name]).strip()]
    listed = choices_of(raw) or tuple(str(raw[name]) for name in columns if len(columns) > 1)
    if not listed or answer.strip() in map(str.strip, listed):
        return
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(listed)]
    is_number = named[1].isdecimal()
    is_name = int(named[1]) <= len(listed) if is_number else named[1].upper() in letters
    if is_name and not all(choice.strip() in prompt for choice in listed):
        place = next((name for name in ("choices", "options") if raw.get(name)), "") or ", ".join(columns)
        raise DataError(
            f"{where}: the answer {answer.strip()!r} is the {'number' if is_number else 'letter'} of one of the choices"
            f" in {place!r:.60}, and no text",
            hint="Write the question with its choices into `prompt`, and the text of the choice into `completion`.",
        )


def _prompt(raw: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    return " ".join(
        str(raw.get(columns[name])) for name in ("prompt", "instruction", "input", "inputs") if name in columns
    )


def _is_letter(value: Any, choices: list[Any], prompt: str) -> bool:
    """Return whether an answer is the letter of a choice that the prompt does not hold."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)]
    if not isinstance(value, str) or len(value.strip()) != 1 or value.strip() not in letters:
        return False
    return value not in choices and not all(str(choice) in prompt for choice in choices)


def _better_answer(row: Mapping[str, Any], name: str) -> str:
    """Return how to learn the better answer of a pair."""
    value = row[name]
    prompt = next((field for field in ("prompt", "instruction", "question", "input", "history") if row.get(field)), "")
    if prompt and isinstance(row[prompt], Mapping) and row[prompt].get("messages"):
        prompt = f"{prompt}.messages"
    if name in _REJECTED and any(_is_there(row.get(answer)) for answer in _ANSWERS):
        return "Leave that column out by `columns` in [[data.task]] to learn the better answers."
    if name not in _NAMED_BETTER:
        return "Write the better answer into `completion`, and its prompt into `prompt`."
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        fields = {"messages": name} if len(value) > 1 or not prompt else {"prompt": prompt, "completion": name}
    elif isinstance(value, str):
        fields = {"prompt": prompt, "completion": name} if prompt else {"text": name}
        if prompt == "instruction" and row.get("input"):
            fields = {"instruction": prompt, "input": "input", "output": name}
    else:
        return "Write the better answer as the last turn of the conversation, and remove both answers."
    listed = ", ".join(f'{field} = "{column}"' for field, column in fields.items())
    return f"Set columns = {{ {listed} }} in [[data.task]] to learn the better answers."


def unused_columns(row: Mapping[str, Any], kind: str, where: str) -> tuple[str, ...]:
    """Return the columns that a format does not read, and refuse a row whose prompt they would change.

    Args:
        row: The row, under the names that `recognise` knows.
        kind: Name of its format.
        where: Place of the row, for messages.

    Returns:
        Names of the columns and of the keys of turns (`messages[].key`) that hold something and are not read.

    Raises:
        DataError: A column is part of the prompt, or a turn holds reasoning.
    """
    # Of two columns for the same, one is read.
    second = {other for first, other in _SAME if other in row and row.get(first)}
    read = _READ[kind] - second if second else _READ[kind]
    unread = [name for name, value in row.items() if name not in read and _is_there(value)]
    for name in unread:
        if (name in _CONTENT and name not in second) or (name in _SYSTEMS and kind in (PROMPT, FLAN)):
            raise DataError(
                f"{where}: {name!r} is not read in rows of the format {kind}",
                hint="Use `messages`, or `instruction` and `output`, which both read that column.",
            )
    if kind in (OPENAI, TULU, SHAREGPT) and _is_there(row.get("messages")) and _is_there(row.get("conversations")):
        # A row has one chat.
        unread.append("conversations")
    found = dict.fromkeys(map(str, unread))
    for field in ("messages", "conversations", "prompt", "completion"):
        turns = row.get(field) if field in read else None
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, Mapping):
                found |= dict.fromkeys(f"{field}[].{key}" for key in _unread_keys(turn, where))
    return tuple(found)


def refuse_placeholders(texts: list[str], where: str) -> None:
    """Refuse a row whose text stands for a picture, a video or sound.

    Args:
        texts: What each turn, or prompt and completion, say.
        where: Place of the row, for messages.

    Raises:
        DataError: A text begins or ends with a placeholder such as `<image>`.
    """
    for text in texts:
        stripped = text.strip()
        if not (stripped.startswith("<") or stripped.endswith(">")):
            continue
        for mark in _PLACEHOLDER.finditer(stripped):
            if mark.start() == 0 or mark.end() == len(stripped):
                raise DataError(
                    f"{where}: {mark[0]} stands for media, and curator trains on text", hint="Remove that row."
                )


def _unread_keys(turn: Mapping[str, Any], where: str) -> list[str]:
    read = _TURN
    if not _OF_TOOL.isdisjoint(turn):
        speaker = turn.get("role") or turn.get("from")
        read = _TURN | _OF_TOOL if isinstance(speaker, str) and known_role(speaker) == "tool" else _TURN
    unread = [str(key) for key, value in turn.items() if key not in read and _is_there(value)]
    for ours, other in _SAME_IN_TURN:
        # Of two fields for the same, one is read.
        if other in turn and ours in turn and _is_there(turn[other]) and _is_there(turn[ours]):
            unread += [other] * (turn[ours] != turn[other])
    parts = turn.get("content")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping):
            unread += [f"content[].{key}" for key, value in part.items() if key not in _PART and _is_there(value)]
    for key in unread:
        if key in _MASKS and isinstance(turn[key], int):
            raise DataError(
                f"{where}: a turn holds {key!r}, which curator does not read",
                hint="Write `train`: true for a turn to learn, and false for another one.",
            )
        # Gemini marks a part of reasoning by `thought`.
        if (key in _REASONING and turn.get(key) is not False) or key == "content[].thought":
            raise DataError(
                f"{where}: a turn holds {key!r}, which curator does not read",
                hint="Write the reasoning into `content` the way the model writes it, or remove the key.",
            )
    return unread


def _is_there(value: Any) -> bool:
    """Return whether a cell holds something: not None, not empty, and not pandas' NaN."""
    return value is not None and value == value and value not in ("", [], {}, ())


def _is_verdict(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))

"""Recognise the format of a row, and convert the row to one of the contents of rows.py.

| name | fields |
|---|---|
| OpenAI messages | `messages` (or `conversations`) of turns with `role` and `content`; `tools`, `system` |
| Tülu | the same, with `id` and `dataset` or `source` |
| ShareGPT | `conversations` (or `messages`) of turns with `from` and `value`; `tools`, `system` |
| conversational prompt–completion | `prompt` and `completion`, as lists of turns; `tools` |
| prompt–completion | `prompt`, `completion` |
| Alpaca | `instruction`, `output`; `input`, `system`, `history`, `tools` |
| FLAN | `inputs`, `targets` |
| segments | `segments` of text, each with `label` and `text` (axolotl's `input_output`) |
| text | `text` |
"""

import json
from collections.abc import Mapping
from typing import Any

from curator.core.errors import DataError
from curator.core.figures import first_of
from curator.data.nested import cell
from curator.data.rows import Content
from curator.data.shapes import WANTED, lowered
from curator.data.suggestions import answer_column, columns_line, keys_line, other_kind
from curator.data.text_fields import check_text, text_of
from curator.data.tool_calls import calls_of, parsed, tool_calls_of, tools_of

OPENAI = "OpenAI messages"
TULU = "Tülu"
SHAREGPT = "ShareGPT"
CONVERSATIONAL = "conversational prompt–completion"
PROMPT = "prompt–completion"
ALPACA = "Alpaca"
FLAN = "FLAN"
SEGMENTS = "segments"
TEXT = "text"

_FIELDS = (
    "Use `messages` or `conversations`, or `prompt` + `completion`, or `instruction` (+ `input`) + `output`,"
    " or `inputs` + `targets`, or `text`. Set `columns` in [[data.task]] if the columns have other names."
)
_PART_HINT = "Remove the row. curator trains on text only."
_PART_HINTS = {
    **dict.fromkeys(
        ("tool_use", "toolUse", "functionCall", "function_call"),
        "Write the call into `tool_calls` of the turn, as OpenAI does.",
    ),
    **dict.fromkeys(
        ("tool_result", "toolResult", "functionResponse", "function_response"),
        "Write the answer of the tool as a turn of the role `tool`, as OpenAI does.",
    ),
    **dict.fromkeys(
        ("reasoning", "thinking", "reasoningContent"),
        "Write the reasoning as text the way the model writes it, or remove the part.",
    ),
}
# OpenAI's Responses API names the parts of text after their side.
_TEXT_PARTS = ("text", "input_text", "output_text")
UNKNOWN = "unknown row format"
"""Start of the message about a row without a format."""
TURN_FIELDS = ("role", "content")
"""Fields of a turn. All other fields belong to a row."""
# Speakers of ShareGPT files, which have no common standard, and their roles.
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "function_call": "assistant",
    "function": "tool",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_call": "assistant",
    "tool_response": "tool",
}
# Speakers whose text is a tool call, in LLaMA-Factory and ms-swift.
_CALLERS = ("function_call", "tool_call")


def known_role(speaker: str) -> str | None:
    """Return the role of a speaker that is known without `roles`, or None."""
    return _SPEAKERS.get(speaker.lower())


def renamed(raw: dict[str, Any], columns: Mapping[str, str], roles: Mapping[str, str]) -> dict[str, Any]:
    """Rename the columns, turn fields and speakers of a row to the names that `recognise` knows.

    Args:
        raw: Row as read from the file.
        columns: Column of the row by curator's field name, or a path into a column. If it names a column, no other
            columns are read. `role` and `content` are fields of each turn.
        roles: Role (`user`, `assistant`, `system` or `tool`) by speaker.
    """
    top = {field: column for field, column in columns.items() if field not in TURN_FIELDS}
    row = {field: cell(raw, column) for field, column in top.items()} if top else dict(raw)
    inside = {field: columns[field] for field in TURN_FIELDS if field in columns}
    if inside or roles:
        for field in ("messages", "conversations", "prompt", "completion"):
            turns: Any = row.get(field)
            if isinstance(turns, list):
                row[field] = [_renamed_turn(turn, inside, roles) for turn in turns]
    return row


def _renamed_turn(turn: Any, inside: Mapping[str, str], roles: Mapping[str, str]) -> Any:
    if not isinstance(turn, dict):
        return turn
    turn = {key: value for key, value in turn.items() if key not in inside.values()} | {
        field: turn.get(column) for field, column in inside.items()
    }
    for key in ("role", "from"):
        if isinstance(turn.get(key), str) and turn[key] in roles:
            turn[key] = roles[turn[key]]
    return turn


def recognise(row: dict[str, Any], where: str, *, raw: dict[str, Any] | None = None) -> tuple[str, Content]:
    """Recognise the format of a row and return its content. A null field counts as missing.

    Args:
        row: Row under the names of the table above.
        where: Place of the row, for error messages.
        raw: Row as it stands in the file, for error messages. `row` if None.

    Returns:
        Name of the format, and the content of the row.

    Raises:
        DataError: No format fits, or a field has a wrong type or value.
    """
    for field in ("messages", "conversations"):
        if row.get(field) is not None and (field == "messages" or not _has_other_than_turns(row)):
            turns = _turns(row[field], field, where)
            if turns[-1]["role"] == "user":
                _refuse_answer_elsewhere(row, field, where)
            return _chat_format(row, field), _chat(turns, row, where)
    if _has(row, "prompt", "completion"):
        return _prompt(row, where)
    if _has(row, "instruction", "output"):
        return ALPACA, _alpaca(row, where)
    if _has(row, "inputs", "targets"):
        return FLAN, {"instruction": text_of(row, "inputs", where), "response": text_of(row, "targets", where)}
    if row.get("segments") is not None:
        return SEGMENTS, {"segments": _segments(row["segments"], where)}
    if row.get("text") is not None:
        return TEXT, {"text": text_of(row, "text", where)}
    raw = row if raw is None else raw
    names = [str(key) for key, value in raw.items() if value is not None and value == value]
    found = first_of(names, 20) or "none"
    null = [str(key) for key, value in raw.items() if (value is None or value != value) and lowered(key) in WANTED]
    if null:
        found += f"; null: {', '.join(null)}"
    kind, hint = other_kind(row)
    hint = hint or columns_line(raw) or (f"Add the missing text, or remove the row. {_FIELDS}" if null else _FIELDS)
    raise DataError(f"{where}: {kind or f'{UNKNOWN} (fields: {found})'}", hint=hint)


def _refuse_answer_elsewhere(row: dict[str, Any], field: str, where: str) -> None:
    """Refuse a chat that ends with a question if another column holds the answer.

    Raises:
        DataError: The row has such a column.
    """
    name = answer_column(row)
    if name:
        more = [other for other in ("system", "tools") if row.get(other)]
        listed = ", ".join(f'{ours} = "{ours}"' for ours in more)
        raise DataError(
            f"{where}: the turns in {field!r} end with a question, and {name!r} holds the answer",
            hint=f'Set columns = {{ prompt = "{field}", completion = "{name}"{", " if more else ""}{listed} }} in'
            " [[data.task]].",
        )


def _has(raw: dict[str, Any], *fields: str) -> bool:
    return all(raw.get(field) is not None for field in fields)


def _has_other_than_turns(raw: dict[str, Any]) -> bool:
    """Return whether a row holds more than its `conversations`. A text next to turns repeats them."""
    pairs = (("prompt", "completion"), ("instruction", "output"), ("inputs", "targets"))
    return any(_has(raw, *fields) for fields in pairs) or (_has(raw, "text") and not _is_chat(raw["conversations"]))


def _chat_format(raw: dict[str, Any], field: str) -> str:
    if raw[field][0].get("role") is None:
        return SHAREGPT
    return TULU if _has(raw, "id") and (_has(raw, "dataset") or _has(raw, "source")) else OPENAI


def _prompt(raw: dict[str, Any], where: str) -> tuple[str, Content]:
    if not any(_is_chat(raw[field]) for field in ("prompt", "completion")):
        return PROMPT, {field: text_of(raw, field, where) for field in ("prompt", "completion")}
    turns = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        if _is_chat(raw[field]):
            part = _turns(raw[field], field, where)
        else:
            part = [{"role": role, "content": text_of(raw, field, where)}]
        if field == "prompt":
            # No turn of the prompt carries loss, not even the assistant's.
            part = [turn | {"train": False} if turn["role"] == "assistant" else turn for turn in part]
        turns += part
    return CONVERSATIONAL, _chat(turns, raw, where)


def _segments(segments: Any, where: str) -> list[dict[str, Any]]:
    for part in segments if isinstance(segments, list) and segments else [None]:
        if not (isinstance(part, dict) and isinstance(part.get("label"), bool) and isinstance(part.get("text"), str)):
            raise DataError(
                f"{where}: 'segments' must be a list of parts with `label` and `text`, not {segments!r:.60}",
                hint='Write [{"label": false, "text": "question"}, {"label": true, "text": "answer"}].',
            )
        check_text(part["text"], "the text of a segment", where)
    return [{"label": part["label"], "text": part["text"]} for part in segments]


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)


def _alpaca(raw: dict[str, Any], where: str) -> Content:
    extra = text_of(raw, "input", where) if raw.get("input") is not None else ""
    # Some rows say everything in the input.
    prompt = "\n\n".join(filter(None, (text_of(raw, "instruction", where), extra)))
    response = text_of(raw, "output", where)
    history: Any = raw.get("history") or []
    if not (history or raw.get("system") or raw.get("tools")):
        return {"instruction": prompt, "response": response}
    turns: list[dict[str, Any]] = []
    for exchange in history if isinstance(history, list) else [history]:
        if not isinstance(exchange, list | tuple) or len(exchange) != 2:
            raise DataError(
                f"{where}: 'history' must be a list of pairs, not {history!r:.60}",
                hint='Write [["first question", "first answer"], …].',
            )
        for role, text in zip(("user", "assistant"), exchange, strict=True):
            turns.append({"role": role, "content": text_of({"history": text}, "history", where)})
    turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return _chat(turns, raw, where)


# -- chats --------------------------------------------------------------------------------------------------------


def _chat(turns: list[dict[str, Any]], raw: dict[str, Any], where: str) -> Content:
    """Combine turns with the system prompt and the tools of their row."""
    if raw.get("system"):
        system, _ = _content(raw, "system", where)
        if turns[0]["role"] != "system":
            turns = [{"role": "system", "content": system}, *turns]
        elif turns[0]["content"] != system:
            raise DataError(
                f"{where}: two system prompts: one in 'system', one in the first turn", hint="Keep one of them."
            )
    tools = tools_of(raw, where)
    return {"messages": turns} | ({"tools": tools} if tools else {})


def _turns(turns: Any, field: str, where: str) -> list[dict[str, Any]]:
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: {field!r} must be a list of turns, not {turns!r:.60}", hint=_FIELDS)
    made: list[dict[str, Any]] = []
    for turn in turns:
        added = _turn(turn, field, where)
        if made and _calls_on(turn, made[-1], added):
            made[-1]["tool_calls"] += added["tool_calls"]
        else:
            made.append(added)
    if field != "prompt" and not any(turn["role"] == "assistant" for turn in made):
        unknown = list(dict.fromkeys(turn["role"] for turn in made if known_role(turn["role"]) is None))
        if unknown and unknown != ["developer"]:
            raise DataError(
                f"{where}: no turn has the role 'assistant', and the role {unknown[-1]!r:.60} is unknown",
                hint=f"Set {_roles_line(unknown)} in [[data.task]].",
            )
    return made


def _calls_on(turn: dict[str, Any], before: dict[str, Any], added: dict[str, Any]) -> bool:
    """Return whether a turn adds a call to the calls of the turn before it, as ms-swift writes parallel calls."""
    if not isinstance(turn, dict) or (turn.get("role") or turn.get("from")) not in _CALLERS:
        return False
    return "tool_calls" in before and before.get("train") == added.get("train")


def _roles_line(unknown: list[str]) -> str:
    """Return the line that maps unknown roles. The last one most likely answers the others."""
    words = [json.dumps(role[:60], ensure_ascii=False) for role in unknown]
    mapped = [f'{word} = "user"' for word in words[:-1]] + [f'{words[-1]} = "assistant"']
    return f"roles = {{ {', '.join(mapped)} }}"


def _turn(turn: Any, column: str, where: str) -> dict[str, Any]:
    """Convert a turn to the form that chat templates read: role, content and optional tool calls."""
    speaker = (turn.get("role") or turn.get("from")) if isinstance(turn, dict) else None
    if not isinstance(speaker, str):
        raise DataError(
            f"{where}: each turn needs `role` and `content` (or `from` and `value`), not {turn!r:.60}",
            hint=keys_line(turn, column) or 'Write {"role": "user", "content": "…"}.',
        )
    check_text(speaker, "the role of a turn", where)
    role = _role(turn, speaker, where)
    field = "value" if turn.get("content") is None and turn.get("value") is not None else "content"
    calls = tool_calls_of(turn, where)
    if speaker in _CALLERS:
        calls, content = calls_of(parsed(text_of(turn, field, where), "a function call", where), where), ""
    elif calls and turn.get(field) is None:
        content = ""
    else:
        content, listed = _content(turn, field, where)
        calls = calls + listed
    made: dict[str, Any] = {"role": role, "content": content}
    if calls:
        made["tool_calls"] = calls
    if role == "tool":
        made |= {key: text_of(turn, key, where) for key in ("name", "tool_call_id") if turn.get(key)}
    trained = _carries_loss(turn, role, where)
    return made if trained or role != "assistant" else made | {"train": False}


def _role(turn: dict[str, Any], speaker: str, where: str) -> str:
    role = known_role(speaker)
    if turn.get("role") is not None:
        return role or speaker
    if role is None:
        raise DataError(
            f"{where}: unknown speaker of a turn: {speaker!r}",
            hint=f"Use one of: {', '.join(_SPEAKERS)}. Map other speakers by `roles` in [[data.task]].",
        )
    return role


def _carries_loss(turn: dict[str, Any], role: str, where: str) -> bool:
    """Return whether a turn carries loss, by `train` of axolotl, `weight` of OpenAI, or `loss` of ms-swift.

    Raises:
        DataError: The turn has `train_detail` or a fractional weight, or trains on a role other than the assistant.
    """
    if turn.get("train_detail") is not None:
        raise DataError(
            f"{where}: unsupported field in a turn: 'train_detail'",
            hint="Set `train` to true or false for the whole turn.",
        )
    for field in ("train", "training", "trainable", "weight", "loss_weight", "loss"):
        value = turn.get(field)
        if value is None:
            continue
        if value not in (0, 1):
            raise DataError(
                f"{where}: {field!r} of a turn must be 0 or 1, not {value!r:.60}",
                hint="Set 1 to train on the turn, or 0 to leave it out of the loss.",
            )
        if not value:
            return False
        if field == "train" and role != "assistant":
            raise DataError(
                f"{where}: 'train' is true for a turn with role {role!r}, but only assistant turns carry loss",
                hint="Remove `train` from the turn, or use `prompt` and `completion`.",
            )
    return True


def _content(turn: dict[str, Any], field: str, where: str) -> tuple[str, list[dict[str, Any]]]:
    """Return text and calls of a turn. OpenAI allows a list of text parts. LLaMA-Factory also lists calls as parts."""
    value: Any = turn.get(field)
    if not _is_chat(value):
        return text_of(turn, field, where), []
    texts, calls = [], []
    for part in value:
        # Gemini and Bedrock name a part by its only key.
        kind = part.get("type") or ("text" if {"text", "value"} & part.keys() else next(iter(part), "text"))
        name = "text" if part.get("text") is not None else "value"
        if kind in _TEXT_PARTS:
            texts.append(text_of(part, name, where))
        elif kind == "tool_call" and isinstance(part.get("value"), str):
            calls += calls_of(parsed(part["value"], "a tool call", where), where)
        else:
            raise DataError(
                f"{where}: unsupported part in a turn: type {kind!r:.60}", hint=_PART_HINTS.get(kind, _PART_HINT)
            )
    return "".join(texts), calls

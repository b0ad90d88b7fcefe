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
from collections.abc import Iterable, Mapping
from typing import Any

from curator.core.errors import DataError
from curator.data.rows import Content
from curator.data.shapes import suggestion

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
TURN_FIELDS = ("role", "content")
"""Fields of a turn. All other fields belong to a row."""
# Speakers of ShareGPT files, which have no common standard, and their roles.
_SPEAKERS = {
    "human": "user",
    "user": "user",
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
}


def known_role(speaker: str) -> str | None:
    """Return the role of a speaker that is known without `roles`, or None."""
    return _SPEAKERS.get(speaker)


def renamed(raw: dict[str, Any], columns: Mapping[str, str], roles: Mapping[str, str]) -> dict[str, Any]:
    """Rename the columns, turn fields and speakers of a row to the names that `recognise` knows.

    Args:
        raw: Row as read from the file.
        columns: Column of the row by curator's field name. If it names a column, no other columns are read. `role` and
            `content` are fields of each turn.
        roles: Role (`user`, `assistant`, `system` or `tool`) by speaker.
    """
    top = {field: column for field, column in columns.items() if field not in TURN_FIELDS}
    row = {field: raw.get(column) for field, column in top.items()} if top else dict(raw)
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


def recognise(raw: dict[str, Any], where: str, *, columns: Iterable[str] | None = None) -> tuple[str, Content]:
    """Recognise the format of a row and return its content. A null field counts as missing.

    Args:
        raw: Row as read from the file, or the result of `renamed`.
        where: Place of the row, for error messages.
        columns: Columns of the row before `renamed`, for error messages.

    Returns:
        Name of the format, and the content of the row.

    Raises:
        DataError: No format fits, or a field has a wrong type or value.
    """
    for field in ("messages", "conversations"):
        if raw.get(field) is not None and (field == "messages" or not _has_pair_or_text(raw)):
            turns = _turns(raw[field], field, where)
            return _chat_format(raw, field), _chat(turns, raw, where)
    if _has(raw, "prompt", "completion"):
        return _prompt(raw, where)
    if _has(raw, "instruction", "output"):
        return ALPACA, _alpaca(raw, where)
    if _has(raw, "inputs", "targets"):
        return FLAN, {"instruction": _text(raw, "inputs", where), "response": _text(raw, "targets", where)}
    if raw.get("segments") is not None:
        return SEGMENTS, {"segments": _segments(raw["segments"], where)}
    if raw.get("text") is not None:
        return TEXT, {"text": _text(raw, "text", where)}
    names = [*(columns or (str(key) for key, value in raw.items() if value is not None))]
    found = (", ".join(names[:20]) or "none") + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    raise DataError(f"{where}: unknown row format (fields: {found})", hint=suggestion(raw) or _FIELDS)


def _has(raw: dict[str, Any], *fields: str) -> bool:
    return all(raw.get(field) is not None for field in fields)


def _has_pair_or_text(raw: dict[str, Any]) -> bool:
    pairs = (("prompt", "completion"), ("instruction", "output"), ("inputs", "targets"), ("text",))
    return any(_has(raw, *fields) for fields in pairs)


def _chat_format(raw: dict[str, Any], field: str) -> str:
    if raw[field][0].get("role") is None:
        return SHAREGPT
    return TULU if _has(raw, "id") and (_has(raw, "dataset") or _has(raw, "source")) else OPENAI


def _prompt(raw: dict[str, Any], where: str) -> tuple[str, Content]:
    if not any(_is_chat(raw[field]) for field in ("prompt", "completion")):
        return PROMPT, {field: _text(raw, field, where) for field in ("prompt", "completion")}
    turns = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        if _is_chat(raw[field]):
            part = _turns(raw[field], field, where)
        else:
            part = [{"role": role, "content": _text(raw, field, where)}]
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
    return [{"label": part["label"], "text": part["text"]} for part in segments]


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)


def _alpaca(raw: dict[str, Any], where: str) -> Content:
    extra = _text(raw, "input", where) if raw.get("input") is not None else ""
    prompt = _text(raw, "instruction", where) + (f"\n\n{extra}" if extra else "")
    response = _text(raw, "output", where)
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
            turns.append({"role": role, "content": _text({"history": text}, "history", where)})
    turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return _chat(turns, raw, where)


# -- chats --------------------------------------------------------------------------------------------------------


def _chat(turns: list[dict[str, Any]], raw: dict[str, Any], where: str) -> Content:
    """Combine turns with the system prompt and the tools of their row."""
    if raw.get("system"):
        system = _text(raw, "system", where)
        if turns[0]["role"] != "system":
            turns = [{"role": "system", "content": system}, *turns]
        elif turns[0]["content"] != system:
            raise DataError(
                f"{where}: two system prompts: one in 'system', one in the first turn", hint="Keep one of them."
            )
    tools = _tools(raw, where)
    return {"messages": turns} | ({"tools": tools} if tools else {})


def _turns(turns: Any, field: str, where: str) -> list[dict[str, Any]]:
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: {field!r} must be a list of turns, not {turns!r:.60}", hint=_FIELDS)
    return [_turn(turn, where) for turn in turns]


def _turn(turn: Any, where: str) -> dict[str, Any]:
    """Convert a turn to the form that chat templates read: role, content and optional tool calls."""
    speaker = (turn.get("role") or turn.get("from")) if isinstance(turn, dict) else None
    if not isinstance(speaker, str):
        raise DataError(
            f"{where}: each turn needs `role` and `content` (or `from` and `value`), not {turn!r:.60}",
            hint='Write {"role": "user", "content": "…"}.',
        )
    _check_text(speaker, "the role of a turn", where)
    role = _role(turn, speaker, where)
    field = "value" if turn.get("content") is None and turn.get("value") is not None else "content"
    calls = _tool_calls(turn, where)
    if speaker == "function_call":
        calls, content = _calls_of(_parsed(_text(turn, field, where), "a function call", where), where), ""
    elif calls and turn.get(field) is None:
        content = ""
    else:
        content = _content(turn, field, where)
    made: dict[str, Any] = {"role": role, "content": content}
    if calls:
        made["tool_calls"] = calls
    if role == "tool":
        made |= {key: _text(turn, key, where) for key in ("name", "tool_call_id") if turn.get(key)}
    trained = _carries_loss(turn, role, where)
    return made if trained or role != "assistant" else made | {"train": False}


def _role(turn: dict[str, Any], speaker: str, where: str) -> str:
    if turn.get("role") is not None:
        return _SPEAKERS.get(speaker, speaker)
    if speaker not in _SPEAKERS:
        raise DataError(
            f"{where}: unknown speaker of a turn: {speaker!r}",
            hint=f"Use one of: {', '.join(_SPEAKERS)}. Map other speakers by `roles` in [[data.task]].",
        )
    return _SPEAKERS[speaker]


def _carries_loss(turn: dict[str, Any], role: str, where: str) -> bool:
    """Return whether a turn carries loss, by axolotl's `train` and OpenAI's `weight`.

    Raises:
        DataError: The turn has `train_detail` or a fractional weight, or trains on a role other than the assistant.
    """
    if turn.get("train_detail") is not None:
        raise DataError(
            f"{where}: unsupported field in a turn: 'train_detail'",
            hint="Set `train` to true or false for the whole turn.",
        )
    for field in ("train", "weight"):
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


def _content(turn: dict[str, Any], field: str, where: str) -> str:
    """Return the text of a turn. OpenAI also allows a list of text parts."""
    value: Any = turn.get(field)
    if not _is_chat(value):
        return _text(turn, field, where)
    for part in value:
        if part.get("type", "text") != "text":
            raise DataError(
                f"{where}: unsupported part in a turn: type {part.get('type')!r:.60}",
                hint="Remove the row. curator trains on text only.",
            )
    return "".join(_text(part, "text", where) for part in value)


# -- tools --------------------------------------------------------------------------------------------------------


def _tools(raw: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the tools of a chat as chat templates read them: `{"type": "function", "function": {…}}`."""
    field = "tools" if raw.get("tools") else "functions"
    tools: Any = raw.get(field) or []
    if isinstance(tools, str):
        tools = _parsed(tools, f"{field!r}", where) if tools.strip() else []
    tools = tools if isinstance(tools, list) else [tools]
    return [_tool(_parsed(tool, f"{field!r}", where) if isinstance(tool, str) else tool, where) for tool in tools]


def _tool(tool: Any, where: str) -> dict[str, Any]:
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise DataError(
            f"{where}: a tool without a `name`: {tool!r:.60}",
            hint='Write {"type": "function", "function": {"name": "…", "description": "…", "parameters": {…}}}.',
        )
    _check_text(tool, "a tool", where)
    return tool if "function" in tool else {"type": "function", "function": tool}


def _tool_calls(turn: dict[str, Any], where: str) -> list[dict[str, Any]]:
    calls = turn.get("tool_calls") or turn.get("function_call") or []
    if isinstance(calls, str):
        calls = _parsed(calls, "'tool_calls'", where)
    return _calls_of(calls, where) if calls else []


def _calls_of(calls: Any, where: str) -> list[dict[str, Any]]:
    return [_call(call, where) for call in (calls if isinstance(calls, list) else [calls])]


def _call(call: Any, where: str) -> dict[str, Any]:
    """Convert a tool call to the form that chat templates read. OpenAI's arguments are text, a template's an object."""
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise DataError(
            f"{where}: a tool call without a `name`: {call!r:.60}",
            hint='Write {"type": "function", "function": {"name": "…", "arguments": {…}}}.',
        )
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        arguments = _parsed(arguments, f"the arguments of {inner['name']!r}", where) if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise DataError(
            f"{where}: the arguments of {inner['name']!r:.60} must be an object, not {arguments!r:.60}",
            hint='Write {"city": "Paris"}, or the same as JSON text.',
        )
    made = {"type": "function", "function": {"name": inner["name"], "arguments": arguments}}
    if isinstance(call.get("id"), str):
        made["id"] = call["id"]
    _check_text(made, "a tool call", where)
    return made


def _parsed(text: str, what: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: not valid JSON in {what:.60}: {text!r:.60}", hint="Fix or remove the row."
        ) from error


# -- text ---------------------------------------------------------------------------------------------------------


def _text(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: {name!r} must be text, not {value!r:.60}", hint='Put the value in quotes: "5" instead of 5.'
        )
    _check_text(value, f"{name!r}", where)
    return value


def _check_text(value: Any, what: str, where: str) -> None:
    """Check that a value can be written as JSON in UTF-8."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text.encode()
    except TypeError as error:
        raise DataError(f"{where}: {what} cannot be written as JSON: {error}", hint="Fix or remove the row.") from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {what} holds half a surrogate pair at character {error.start + 1}",
            hint="Fix the \\u escape in the row.",
        ) from error

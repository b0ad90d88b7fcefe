"""What one row says, in whichever of the known formats it says it.

A content is one of

    {"messages": [{"role", "content"}, …]}      chat
    {"prompt", "completion"}                    used word for word
    {"instruction", "response"}                 Alpaca and FLAN; the chat template, where the tokenizer has one
    {"text"}                                    loss on every token

What a row says is hashed, so that equal examples are equal whatever file, format or order they come in.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from curator.errors import DataError

Content = dict[str, Any]

_PAIRS = (
    ("prompt", "completion"),
    ("instruction", "output"),
    ("inputs", "targets"),
)
_FIELDS = (
    "A row needs `messages`, or `prompt` + `completion`, or `instruction` (+ `input`) + `output`,"
    " or `inputs` + `targets`, or `text`."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One example as it was read."""

    number: int
    """Position in the task, from 0."""
    file: str
    """File or hub id."""
    line: int
    """Line in the file, from 1; 0 where rows are not lines."""
    content: Content
    problem: str = ""
    """Why it cannot be used, and in a second line what to do; its content then says nothing."""

    @property
    def hash(self) -> str:
        """Hash of what the row says, in whichever format it says it."""
        return content_hash(self.content)

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return place(self.file, self.line, self.number)


def place(file: str, line: int, number: int) -> str:
    """`file:line` where rows are lines; else the row's number in the task, from 1."""
    return f"{file}:{line}" if line else f"{file}, row {number + 1}"


def content_hash(content: Content) -> str:
    """Hash a normalised content (32 hexadecimal digits); a prompt and a one-turn chat that say the same are equal."""
    if "messages" in content:
        said = [[m["role"], m["content"]] for m in content["messages"]]
    elif "text" in content:
        said = [["text", content["text"]]]
    else:
        prompt, completion = pair(content)
        said = [["user", prompt], ["assistant", completion]]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()[:32]


def pair(content: Content) -> tuple[str, str]:
    """Prompt and completion of a content that has the two."""
    if "prompt" in content:
        return content["prompt"], content["completion"]
    return content["instruction"], content["response"]


def trainable(content: Content) -> Content:
    """A content under the names that trainers know."""
    if "instruction" in content:
        return {"instruction": content["instruction"], "output": content["response"]}
    return content


def is_empty(content: Content) -> bool:
    """Whether nothing is there to be learned: no completion, no assistant's turn, no text."""
    if "messages" in content:
        return not any(m["role"] == "assistant" and m["content"].strip() for m in content["messages"])
    if "text" in content:
        return not content["text"].strip()
    return not pair(content)[1].strip()


def normalise(raw: dict[str, Any], where: str) -> Content:
    """Recognise a row's format; a field that is None is one that is not there.

    Args:
        raw: The row as it was read.
        where: Its place, for messages.

    Raises:
        DataError: No format fits, or a field is not text.
    """
    if raw.get("messages") is not None:
        return {"messages": _messages(raw["messages"], where)}
    for first, second in _PAIRS:
        if raw.get(first) is None or raw.get(second) is None:
            continue
        said = _text(raw, first, where), _text(raw, second, where)
        if first == "prompt":
            return dict(zip(("prompt", "completion"), said, strict=True))
        extra = _text(raw, "input", where) if first == "instruction" and raw.get("input") is not None else ""
        return {"instruction": said[0] + (f"\n\n{extra}" if extra else ""), "response": said[1]}
    if raw.get("text") is not None:
        return {"text": _text(raw, "text", where)}
    names = [str(key) for key, value in raw.items() if value is not None]
    found = (", ".join(names[:20]) or "none") + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    raise DataError(f"{where}: not the right fields (found: {found})", hint=_FIELDS)


def _messages(messages: Any, where: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: 'messages' must be a list of turns, this is {messages!r:.60}", hint=_FIELDS)
    turns = []
    for turn in messages:
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise DataError(
                f"{where}: each turn needs `role` and `content`, this is {turn!r:.60}",
                hint='Write {"role": "user", "content": "…"}.',
            )
        if turn.get("tool_calls"):
            raise DataError(
                f"{where}: a turn holds `tool_calls`, which curator does not train on",
                hint="Write the call into the turn's `content`, as the model should write it.",
            )
        turns.append({"role": turn["role"], "content": _text(turn, "content", where)})
    return turns


def _text(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: {name!r} must be text, this is {value!r:.60}", hint='Put it in quotes: "5" rather than 5.'
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {name!r} holds half a surrogate pair, which is no text, at character {error.start + 1}",
            hint="Mend the \\u escape in that row.",
        ) from error
    return value

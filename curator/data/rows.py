"""Represent the content of a row independently of its format, and hash it.

A content has one of these forms:

    {"messages": [turn, …], "tools"}            chat; `tools` is optional
    {"prompt", "completion"}                    used verbatim
    {"instruction", "response"}                 Alpaca and FLAN; rendered by the chat template if there is one
    {"segments": [{"label", "text"}, …]}        text as the model reads it, special tokens included; loss where labelled
    {"text"}                                    loss on every token

A turn is `{"role", "content"}`. A turn of the assistant that calls tools has `tool_calls`.
A tool response has `name` and `tool_call_id`. An assistant turn without loss has `"train": False`.
formats.py converts rows to contents.

The hash depends on the content only. Equal examples have equal hashes in any file, format or order.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

Content = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Hold one example as read from its source."""

    number: int
    """Position in the task, from 0."""
    file: str
    """File or hub id."""
    line: int
    """Line in the file, from 1. 0 if rows are not lines."""
    content: Content
    format: str = ""
    """Name of the row's format (formats.py)."""
    unused: tuple[str, ...] = ()
    """Columns that have a value and are not read (columns.py)."""
    notes: tuple[str, ...] = ()
    """In the first row of a task: what curator assumed about the files, and which parts of them it leaves out."""
    choices: tuple[str, ...] = ()
    """Answers to choose from, which only the metric `choice` reads. Empty for most rows."""
    problem: str = ""
    """Reason why the row cannot be used, and the hint on a second line. The content is then empty."""

    @property
    def hash(self) -> str:
        """Return the hash of the content. It does not depend on the format."""
        return content_hash(self.content)

    @property
    def place(self) -> str:
        """Return the place of the row for error messages."""
        return place(self.file, self.line, self.number)


def place(file: str, line: int, number: int) -> str:
    """Return `file:line` if rows are lines, else the file and the row's number in the task.

    Args:
        file: File or hub id.
        line: Line in the file from 1, or 0.
        number: Position in the task from 0.
    """
    return f"{file}:{line}" if line else f"{file}, row {number + 1}"


def content_hash(content: Content) -> str:
    """Hash a content (32 hexadecimal digits). A prompt and a chat of one exchange with equal text have equal hashes.

    The hash ignores the ids of tool calls, because they are random. It also ignores which turns carry loss.
    """
    parts: list[list[Any]]
    if "messages" in content:
        parts = [_hashed_parts(turn) for turn in content["messages"]]
        if content.get("tools"):
            parts.insert(0, ["tools", content["tools"]])
    elif "segments" in content:
        parts = [["segment", part["label"], part["text"]] for part in content["segments"]]
    elif "text" in content:
        parts = [["text", content["text"]]]
    else:
        prompt, completion = pair(content)
        parts = [["user", prompt], ["assistant", completion]]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:32]


def _hashed_parts(turn: Content) -> list[Any]:
    calls = [[call["function"]["name"], call["function"]["arguments"]] for call in turn.get("tool_calls", ())]
    return [turn["role"], turn["content"], *([calls] if calls else [])]


def pair(content: Content) -> tuple[str, str]:
    """Return prompt and completion of a content that is neither a chat, nor segments, nor a text."""
    if "prompt" in content:
        return content["prompt"], content["completion"]
    return content["instruction"], content["response"]


def texts(content: Content) -> list[str]:
    """Return everything that a content says, turn by turn."""
    if "messages" in content:
        return [turn["content"] for turn in content["messages"]]
    if "segments" in content:
        return [part["text"] for part in content["segments"]]
    return [content["text"]] if "text" in content else list(pair(content))


def trainable(content: Content) -> Content:
    """Return a content with the field names that trainers read."""
    if "instruction" in content:
        return {"instruction": content["instruction"], "output": content["response"]}
    return content


def is_empty(content: Content) -> bool:
    """Return whether a content has nothing to train on: no completion, no assistant turn with loss, and no text."""
    if "messages" in content:
        return not any(map(_carries_loss, content["messages"]))
    if "segments" in content:
        return not any(part["label"] and part["text"].strip() for part in content["segments"])
    if "text" in content:
        return not content["text"].strip()
    return not pair(content)[1].strip()


def has_answer(content: Content) -> bool:
    """Return whether a content has a part that may carry loss: for a chat, a turn of the assistant."""
    return "messages" not in content or any(turn["role"] == "assistant" for turn in content["messages"])


def _carries_loss(turn: Content) -> bool:
    output = turn["content"].strip() or turn.get("tool_calls")
    return turn["role"] == "assistant" and turn.get("train", True) and bool(output)

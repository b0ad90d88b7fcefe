"""What one row says, in whichever of the known formats it says it.

A content is one of

    {"messages": [turn, …], "tools"}            chat; `tools` only where there are any
    {"prompt", "completion"}                    used word for word
    {"instruction", "response"}                 Alpaca and FLAN; the chat template, where the tokenizer has one
    {"text"}                                    loss on every token

and a turn is `{"role", "content"}`, with `tool_calls` where the assistant calls tools, with the `name` and
`tool_call_id` of a tool's answer, and with `"train": False` where an assistant's turn carries no loss. formats.py
brings rows into these.

What a row says is hashed, so that equal examples are equal whatever file, format or order they come in.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

Content = dict[str, Any]


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
    format: str = ""
    """Name of the format it was written in (formats.py)."""
    unused: tuple[str, ...] = ()
    """Columns that hold something and are not read (columns.py)."""
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
    """Hash what a row says (32 hexadecimal digits); a prompt and a one-turn chat that say the same are equal.

    The ids of tool calls, which are drawn at random, and which turns are learned are no part of it.
    """
    said: list[list[Any]]
    if "messages" in content:
        said = [_said(turn) for turn in content["messages"]]
        if content.get("tools"):
            said.insert(0, ["tools", content["tools"]])
    elif "text" in content:
        said = [["text", content["text"]]]
    else:
        prompt, completion = pair(content)
        said = [["user", prompt], ["assistant", completion]]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()[:32]


def _said(turn: Content) -> list[Any]:
    calls = [[call["function"]["name"], call["function"]["arguments"]] for call in turn.get("tool_calls", ())]
    return [turn["role"], turn["content"], *([calls] if calls else [])]


def pair(content: Content) -> tuple[str, str]:
    """Prompt and completion of a content that has the two."""
    if "prompt" in content:
        return content["prompt"], content["completion"]
    return content["instruction"], content["response"]


def texts(content: Content) -> list[str]:
    """Return everything that a content says, turn by turn."""
    if "messages" in content:
        return [turn["content"] for turn in content["messages"]]
    return [content["text"]] if "text" in content else list(pair(content))


def trainable(content: Content) -> Content:
    """A content under the names that trainers know."""
    if "instruction" in content:
        return {"instruction": content["instruction"], "output": content["response"]}
    return content


def is_empty(content: Content) -> bool:
    """Whether nothing is there to be learned: no completion, no assistant's turn, no text."""
    if "messages" in content:
        return not any(map(_learned, content["messages"]))
    if "text" in content:
        return not content["text"].strip()
    return not pair(content)[1].strip()


def _learned(turn: Content) -> bool:
    said = turn["content"].strip() or turn.get("tool_calls")
    return turn["role"] == "assistant" and turn.get("train", True) and bool(said)

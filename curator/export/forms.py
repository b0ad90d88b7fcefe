"""Ways to write a row, and what a trainer makes of each.

`write` turns a content into the row of a file, or None where it cannot stand in this form; `read` says which token
ids and labels the trainer gets from that row. A form is faithful to a row when these are what curator trains on and
takes gradients of (`same`). What a trainer does was read in its source, and is compared with the trainer itself by
tests/export/test_trainers.py.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curator.data.rows import Content, pair, trainable
from curator.data.tokens import IGNORED, Encoded, Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Labelled = tuple[list[int], list[int]]
"""Token ids and labels, equally long."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a model's rows become tokens."""

    tokenizer: "PreTrainedTokenizerBase"
    encoder: Encoder
    max_length: int
    architecture: str = ""
    """Class of the model in transformers, if the model's configuration names it."""

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text; with `special`, with those that the tokenizer adds by itself."""
        return list(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    @property
    def eos(self) -> str:
        """The end-of-text token."""
        return str(self.tokenizer.eos_token or "")


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a row.

    Attributes:
        name: For reports.
        words: What a row looks like.
        write: The row, or None.
        read: What the trainer makes of it, or None where it makes nothing of it that curator would.
    """

    name: str
    words: str
    write: Callable[[Content, Encoded, Encoding], dict[str, Any] | None]
    read: Callable[[dict[str, Any], Encoding], Labelled | None]


def is_faithful(form: Form, content: Content, encoded: Encoded, encoding: Encoding) -> bool:
    """Whether a trainer that reads a row in this form is given what curator's model is."""
    row = form.write(content, encoded, encoding)
    found = None if row is None else form.read(row, encoding)
    return found is not None and same(found, encoded)


def same(found: Labelled, wanted: Encoded) -> bool:
    """Whether two examples have the same loss.

    The first token is given, never predicted, so its label is without effect; so are tokens after the last that
    carries loss, which no other token sees.
    """
    return _essence(*found) == _essence(list(wanted.input_ids), list(wanted.labels))


def _essence(ids: list[int], labels: list[int]) -> Labelled:
    end = max((n for n, label in enumerate(labels) if n and label != IGNORED), default=-1) + 1
    return ids[:end], labels[1:end]


def pieces(content: Content, encoded: Encoded, encoding: Encoding) -> list[tuple[bool, str]]:
    """The text of a row in parts that carry loss and parts that do not, with its special tokens written out."""
    text, spans = encoded.text, encoded.spans
    before, after = "", ""
    if not encoding.encoder.is_templated(content):
        first, last = encoding.encoder.special_tokens
        before, after = ("".join(encoding.tokenizer.convert_ids_to_tokens(ids)) for ids in (first, last))
    found: list[tuple[bool, str]] = [(False, before)]
    place = 0
    for start, end in zip(spans[::2], spans[1::2], strict=True):
        found += [(False, text[place:start]), (True, text[start:end])]
        place = end
    found.append((False, text[place:]))
    if after and not text.endswith(after):
        found.append((bool(spans) and spans[-1] == len(text), after))
    joined: list[tuple[bool, str]] = []
    for carries, part in found:
        if part and joined and joined[-1][0] == carries:
            joined[-1] = (carries, joined[-1][1] + part)
        elif part:
            joined.append((carries, part))
    return joined


def read_pieces(parts: list[tuple[bool, str]], encoding: Encoding) -> Labelled:
    """Token ids of parts that are tokenized one by one, without special tokens of the tokenizer's own."""
    ids: list[int] = []
    labels: list[int] = []
    for carries, text in parts:
        some = encoding.ids(text)
        ids += some
        labels += some if carries else [IGNORED] * len(some)
    return ids, labels


# -- forms that several trainers share ----------------------------------------------------------------------------


def _write_tokens(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any]:
    return {
        "input_ids": list(encoded.input_ids),
        "attention_mask": [1] * len(encoded.input_ids),
        "labels": list(encoded.labels),
    }


def _read_tokens(row: dict[str, Any], encoding: Encoding) -> Labelled:
    return row["input_ids"], row["labels"]


def _read_nothing(row: dict[str, Any], encoding: Encoding) -> Labelled | None:
    return None


PLAIN = Form(
    "rows", "rows as they are in the data", lambda content, encoded, encoding: trainable(content), _read_nothing
)

TOKENS = Form(
    "tokens", "token ids and labels, as curator made them with the model's tokenizer", _write_tokens, _read_tokens
)


def as_messages(content: Content) -> list[dict[str, str]] | None:
    """A content as turns of text; None where it says more: tools, calls of these, turns that carry no loss."""
    if "messages" in content:
        plain = "tools" not in content and all(set(turn) == {"role", "content"} for turn in content["messages"])
        return list(content["messages"]) if plain else None
    if "text" in content:
        return [{"role": "assistant", "content": content["text"]}]
    prompt, completion = pair(content)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def write_messages(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any] | None:
    """The turns of a chat or an instruction, where the chat template renders them."""
    turns = as_messages(content)
    return {"messages": turns} if turns is not None and encoding.encoder.is_templated(content) else None


def read_marked_messages(row: dict[str, Any], encoding: Encoding) -> Labelled | None:
    """Labels by the `{% generation %}` blocks of the chat template, where it has any."""
    template = getattr(encoding.tokenizer, "chat_template", None)
    if not isinstance(template, str) or not re.search(r"\{%-?\s*generation\s*-?%\}", template):
        return None
    found: Any = encoding.tokenizer.apply_chat_template(
        row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = list(found["input_ids"]), found["assistant_masks"]
    labels = [token if inside else IGNORED for token, inside in zip(ids, mask, strict=True)]
    return ids[: encoding.max_length], labels[: encoding.max_length]


MARKED_MESSAGES = Form(
    "messages",
    "messages, which the model's own chat template renders and marks for the loss",
    write_messages,
    read_marked_messages,
)


def write_turns(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any] | None:
    """Rendered text as turns: the user's carry no loss and the assistant's do; for templates that add nothing."""
    parts = pieces(content, encoded, encoding)
    while parts and not parts[-1][0]:
        parts.pop()
    if not parts:
        return None
    if parts[0][0]:
        parts.insert(0, (False, ""))
    return {"messages": [{"role": "assistant" if carries else "user", "content": text} for carries, text in parts]}


def parts_of(row: dict[str, Any]) -> list[tuple[bool, str]]:
    """The parts that `write_turns` wrote."""
    return [(turn["role"] == "assistant", turn["content"]) for turn in row["messages"]]

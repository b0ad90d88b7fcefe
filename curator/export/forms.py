"""Ways to write a row, and the tokens that a trainer reads from each.

`write` turns a content into a row of a file, or returns None if the form cannot hold the content. `read` predicts the
token ids and labels of the trainer. A form is faithful to a row if curator trains on the same ids and labels (`same`).
The predictions follow the source of each trainer. tests/export/test_trainers.py compares them with the trainers.
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
"""Token ids and labels, of equal length."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Hold the tokenizer and the settings that turn rows into tokens."""

    tokenizer: "PreTrainedTokenizerBase"
    encoder: Encoder
    max_length: int
    architecture: str = ""
    """Class of the model in transformers, if the model's configuration names it."""

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Return the token ids of a text. With `special`, include the tokens that the tokenizer adds to a text."""
        return list(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    @property
    def eos(self) -> str:
        """The end-of-text token, or an empty text."""
        return str(self.tokenizer.eos_token or "")


@dataclass(frozen=True, slots=True)
class Form:
    """Describe one way to write a row.

    Attributes:
        name: Name in reports.
        words: Description of a row, for the README of an export.
        write: Returns the row, or None if the form cannot hold the content.
        read: Returns the trainer's token ids and labels, or None if the trainer cannot read the row faithfully.
    """

    name: str
    words: str
    write: Callable[[Content, Encoded, Encoding], dict[str, Any] | None]
    read: Callable[[dict[str, Any], Encoding], Labelled | None]


def is_faithful(form: Form, content: Content, encoded: Encoded, encoding: Encoding) -> bool:
    """Return whether a trainer reads the tokens and labels of curator from a row in this form."""
    row = form.write(content, encoded, encoding)
    found = None if row is None else form.read(row, encoding)
    return found is not None and same(found, encoded)


def same(found: Labelled, wanted: Encoded) -> bool:
    """Return whether two examples have the same loss.

    No model predicts the first token, so its label has no effect. Tokens after the last token with loss have no
    effect either.
    """
    return _essence(*found) == _essence(list(wanted.input_ids), list(wanted.labels))


def _essence(ids: list[int], labels: list[int]) -> Labelled:
    end = max((n for n, label in enumerate(labels) if n and label != IGNORED), default=-1) + 1
    return ids[:end], labels[1:end]


def pieces(content: Content, encoded: Encoded, encoding: Encoding) -> list[tuple[bool, str]]:
    """Split the text of a row into parts, each with or without loss. Special tokens are part of the text."""
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
    """Return token ids and labels of parts that are tokenized one by one, without added special tokens."""
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
    "rows", "rows of the data, unchanged", lambda content, encoded, encoding: trainable(content), _read_nothing
)

TOKENS = Form(
    "tokens", "token ids and labels, encoded by curator with the model's tokenizer", _write_tokens, _read_tokens
)


def as_messages(content: Content) -> list[dict[str, str]] | None:
    """Return a content as turns of text. Return None for segments, tools, calls, and assistant turns without loss."""
    if "segments" in content:
        return None
    if "messages" in content:
        plain = "tools" not in content and all(set(turn) == {"role", "content"} for turn in content["messages"])
        return list(content["messages"]) if plain else None
    if "text" in content:
        return [{"role": "assistant", "content": content["text"]}]
    prompt, completion = pair(content)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def write_messages(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any] | None:
    """Return the turns of a chat or an instruction, or None if the chat template does not render them."""
    turns = as_messages(content)
    return {"messages": turns} if turns is not None and encoding.encoder.is_templated(content) else None


def read_marked_messages(row: dict[str, Any], encoding: Encoding) -> Labelled | None:
    """Return ids and labels by the `{% generation %}` blocks of the chat template, or None without such blocks."""
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
    "messages, which the model's chat template renders and marks for the loss",
    write_messages,
    read_marked_messages,
)


def write_turns(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any] | None:
    """Return rendered text as turns, for templates that add nothing. Only the assistant's turns carry loss."""
    parts = pieces(content, encoded, encoding)
    while parts and not parts[-1][0]:
        parts.pop()
    if not parts:
        return None
    if parts[0][0]:
        parts.insert(0, (False, ""))
    return {"messages": [{"role": "assistant" if carries else "user", "content": text} for carries, text in parts]}


def parts_of(row: dict[str, Any]) -> list[tuple[bool, str]]:
    """Return the parts that `write_turns` wrote."""
    return [(turn["role"] == "assistant", turn["content"]) for turn in row["messages"]]

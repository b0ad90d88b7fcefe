"""From what a row says to what the model sees: chat template, token ids, and which tokens carry loss."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curator.core.errors import DataError
from curator.data.chat import Chat, Shape, Turn, render, shared
from curator.data.rows import Content, pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """What the model is given for one example."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    """For a causal model as long as `input_ids`, −100 where there is no loss; else the decoder's tokens."""

    @property
    def length(self) -> int:
        """Tokens of the longer side."""
        return max(len(self.input_ids), len(self.labels))


IGNORED = -100
"""Label of a token that carries no loss, as in transformers."""

# Characters that are tokenized whatever max_length is.
_LONG = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One example as the model sees it."""

    text: str
    spans: tuple[int, ...]
    """Start and end, in characters, of each part of `text` that carries loss."""
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    completion_tokens: int
    """Tokens that carry loss."""
    truncated: bool

    @property
    def token_hash(self) -> str:
        """Hash of the token ids and labels (32 hexadecimal digits)."""
        digest = hashlib.sha256()
        for ids in (self.input_ids, self.labels):
            digest.update(np.asarray([len(ids), *ids], dtype="<i4").tobytes())
        return digest.hexdigest()[:32]


NOTHING = Encoded(text="", spans=(), input_ids=(), labels=(), completion_tokens=0, truncated=False)
"""What the model sees of a row that cannot be used."""


class Encoder:
    """Encodes contents with a model's own tokenizer.

    Args:
        tokenizer: The tokenizer.
        max_length: Longest example in tokens; the end of a longer one is cut off.
        encoder_decoder: Whether prompt and completion go to the two halves of an encoder–decoder.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, encoder_decoder: bool) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._encoder_decoder = encoder_decoder
        self._dropped: dict[Shape, frozenset[int]] = {}
        self._before, self._after = special_tokens(tokenizer)
        if not self._after and tokenizer.eos_token_id is not None:
            # A model that never sees the end of an answer does not learn to stop.
            self._after = [int(tokenizer.eos_token_id)]

    @property
    def special_tokens(self) -> tuple[list[int], list[int]]:
        """Token ids before and after a text that the chat template has not rendered."""
        return list(self._before), list(self._after)

    def is_templated(self, content: Content) -> bool:
        """Whether the chat template renders a content, and brings its special tokens."""
        return "messages" in content or (
            "instruction" in content and bool(getattr(self._tokenizer, "chat_template", None))
        )

    def render(self, messages: list[Turn], **options: Any) -> str:
        """Turns as the chat template writes them.

        Raises:
            DataError: It refuses them.
        """
        return render(self._tokenizer, messages, **options)

    def encode(self, content: Content) -> Encoded:
        """Encode one example.

        Raises:
            DataError: The content does not fit the model: a chat without a template, or plain text for an
                encoder–decoder.
        """
        text, spans, templated = self._render(content)
        before, after = ([], []) if templated else (self._before, self._after)
        if self._encoder_decoder:
            if "text" in content:
                raise DataError(
                    "a row with `text` alone has no prompt, which an encoder–decoder needs",
                    hint="Use rows with `prompt` and `completion`.",
                )
            start, end = spans[-2:] if spans else (len(text), len(text))
            source = before + self._ended(self._ids(text[:start]))
            labels = self._ended(self._ids(text[start:end]))
            longest = max(len(source), len(labels))
            source, labels = source[: self._max_length], labels[: self._max_length]
            counted = len(labels)
        else:
            ids, carries = self._marked_ids(text, spans)
            after = self._ended(ids)[len(ids) :] if after else []
            source = before + ids + after
            ends_with_loss = bool(spans) and spans[-1] == len(text)
            marks = [False] * len(before) + carries.tolist() + [ends_with_loss] * len(after)
            longest = len(source)
            source, marks = source[: self._max_length], marks[: self._max_length]
            labels = [token if mark else IGNORED for token, mark in zip(source, marks, strict=True)]
            # The first token is given, never predicted.
            counted = sum(label != IGNORED for label in labels[1:])
        return Encoded(
            text=text,
            spans=tuple(spans),
            input_ids=tuple(source),
            labels=tuple(labels),
            completion_tokens=counted,
            truncated=longest > self._max_length,
        )

    def _render(self, content: Content) -> tuple[str, list[int], bool]:
        """Text, spans that carry loss, and whether the chat template has added the special tokens."""
        if "text" in content:
            return content["text"], [0, len(content["text"])], False
        if "messages" in content:
            return *self._render_chat(content["messages"], content.get("tools")), True
        prompt, completion = pair(content)
        if "instruction" in content:
            if self.is_templated(content):
                turns = [
                    {"role": "user", "content": prompt},
                    {"role": "assistant", "content": completion},
                ]
                return *self._render_chat(turns), True
            prompt += "\n" if prompt and not prompt[-1].isspace() else ""
        text = prompt + completion
        return text, [len(prompt), len(text)], False

    def _render_chat(self, messages: list[Turn], tools: list[Any] | None = None) -> tuple[str, list[int]]:
        if not getattr(self._tokenizer, "chat_template", None):
            raise DataError(
                "the rows are chats, but the model's tokenizer has no chat template",
                hint="Use a chat model, or rows with `prompt` and `completion`.",
            )
        chat = Chat(self._tokenizer, messages, tools, self._dropped)
        return chat.text, chat.spans()

    def _ended(self, ids: list[int]) -> list[int]:
        """Ids with the end-of-text token, once."""
        return ids if self._after and ids[-len(self._after) :] == self._after else ids + self._after

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenized(text)["input_ids"])

    def _tokenized(self, text: str, **options: Any) -> Any:
        """The tokens of a text; of a very long one those of its beginning, where these are more than are kept.

        Where a text is cut decides its last tokens, never those that lie as many tokens before the cut.
        """
        call: Any = partial(self._tokenizer.__call__, add_special_tokens=False, verbose=False, **options)
        if len(text) > (reach := _LONG + 100 * self._max_length):
            encoded = call(text[:reach])
            if len(encoded["input_ids"]) > 2 * self._max_length:
                return encoded
        return call(text)

    def _marked_ids(self, text: str, spans: list[int]) -> tuple[list[int], npt.NDArray[np.bool_]]:
        """Token ids, and which of them lie in a span; one that straddles a boundary is partly the model's to write."""
        pairs = list(zip(spans[::2], spans[1::2], strict=True))
        if not self._tokenizer.is_fast:
            ids = self._ids(text)
            carries = np.zeros(len(ids), dtype=bool)
            for start, end in pairs:
                carries[self._shared_tokens(text[:start], ids) : self._shared_tokens(text[:end], ids)] = True
            return ids, carries
        encoded = self._tokenized(text, return_offsets_mapping=True)
        places = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        starts, ends = places[:, 0], places[:, 1]
        # Some tokenizers do not count the blanks that a token holds; they are between it and the one before.
        starts[1:] = np.minimum(starts[1:], ends[:-1])
        carries = np.zeros(len(places), dtype=bool)
        for start, end in pairs:
            carries |= (ends > start) & (starts < end)
        return list(encoded["input_ids"]), carries

    def _shared_tokens(self, prefix: str, ids: list[int]) -> int:
        """How many tokens a text shares with its prefix: for tokenizers that keep no account of places."""
        return shared(self._ids(prefix), ids)


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Token ids that the tokenizer puts before and after a text by itself."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []

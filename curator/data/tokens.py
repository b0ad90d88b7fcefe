"""Encode the content of a row for the model: chat template, token ids, and the tokens that carry loss."""

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
    """Hold the model's input for one example."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    """Causal model: as long as `input_ids`, −100 for tokens without loss. Encoder–decoder: tokens of the decoder."""

    @property
    def length(self) -> int:
        """Return the number of tokens of the longer side."""
        return max(len(self.input_ids), len(self.labels))


IGNORED = -100
"""Label of a token without loss, as in transformers."""

# Number of characters that are always tokenized, for any max_length.
_LONG = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Hold one encoded example: its text, tokens and labels."""

    text: str
    spans: tuple[int, ...]
    """Start and end, in characters, of each part of `text` that carries loss, as one flat tuple."""
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    completion_tokens: int
    """Number of tokens that carry loss."""
    truncated: bool

    @property
    def token_hash(self) -> str:
        """Return the hash of the token ids and labels (32 hexadecimal digits)."""
        digest = hashlib.sha256()
        for ids in (self.input_ids, self.labels):
            digest.update(np.asarray([len(ids), *ids], dtype="<i4").tobytes())
        return digest.hexdigest()[:32]


NOTHING = Encoded(text="", spans=(), input_ids=(), labels=(), completion_tokens=0, truncated=False)
"""Empty example. It stands for a row that cannot be used."""


class Encoder:
    """Encode contents with a model's tokenizer.

    Args:
        tokenizer: Tokenizer of the model.
        max_length: Maximum length of an example in tokens. Longer examples are truncated at the end.
        encoder_decoder: Whether the model is an encoder–decoder. Then the encoder reads the prompt, and the decoder
            writes the completion.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, encoder_decoder: bool) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._encoder_decoder = encoder_decoder
        self._dropped: dict[Shape, frozenset[int]] = {}
        self._before, self._after = special_tokens(tokenizer)
        if not self._after and tokenizer.eos_token_id is not None:
            # Without an end-of-text token in the examples, a model does not learn to stop.
            self._after = [int(tokenizer.eos_token_id)]

    @property
    def special_tokens(self) -> tuple[list[int], list[int]]:
        """Return the token ids before and after a text that the chat template does not render."""
        return list(self._before), list(self._after)

    def is_templated(self, content: Content) -> bool:
        """Return whether a content is rendered with its special tokens: by the chat template, or in the data."""
        return (
            "messages" in content
            or "segments" in content
            or ("instruction" in content and bool(getattr(self._tokenizer, "chat_template", None)))
        )

    def render(self, messages: list[Turn], **options: Any) -> str:
        """Render turns with the chat template.

        Args:
            messages: Turns of the chat.
            options: Further arguments of `apply_chat_template`.

        Raises:
            DataError: The template rejects the turns.
        """
        return render(self._tokenizer, messages, **options)

    def encode(self, content: Content) -> Encoded:
        """Encode one example.

        Raises:
            DataError: The content is a chat and the tokenizer has no template, or the template rejects the chat. Or
                the content is plain text and the model is an encoder–decoder.
        """
        text, spans, templated = self._render(content)
        before, after = ([], []) if templated else (self._before, self._after)
        if self._encoder_decoder:
            if "text" in content:
                raise DataError(
                    "a row with only `text` has no prompt, but an encoder–decoder needs a prompt",
                    hint="Use rows with `prompt` and `completion`.",
                )
            start, end = spans[-2:] if spans else (len(text), len(text))
            source = before + self._ended(self._ids(text[:start]))
            labels = self._ended(self._ids(text[start:end]))
            longest = max(len(source), len(labels))
            source, labels = source[: self._max_length], labels[: self._max_length]
            counted = len(labels)
        else:
            parts = content.get("segments")
            ids, carries = self._marked_ids(text, spans) if parts is None else self._ids_of_segments(parts)
            after = self._ended(ids)[len(ids) :] if after else []
            source = before + ids + after
            ends_with_loss = bool(spans) and spans[-1] == len(text)
            marks = [False] * len(before) + carries.tolist() + [ends_with_loss] * len(after)
            longest = len(source)
            source, marks = source[: self._max_length], marks[: self._max_length]
            labels = [token if mark else IGNORED for token, mark in zip(source, marks, strict=True)]
            # No earlier token predicts the first token.
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
        """Return the text, the spans that carry loss, and whether the chat template added the special tokens."""
        if "text" in content:
            return content["text"], [0, len(content["text"])], False
        if "messages" in content:
            return *self._render_chat(content["messages"], content.get("tools")), True
        if "segments" in content:
            return *_joined(content["segments"]), True
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
        """Append the end-of-text token unless the ids end with it."""
        return ids if self._after and ids[-len(self._after) :] == self._after else ids + self._after

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenized(text)["input_ids"])

    def _tokenized(self, text: str, **options: Any) -> Any:
        """Tokenize a text. Tokenize only the beginning of a very long text if its tokens exceed `max_length`.

        A cut changes only tokens near the cut. Twice `max_length` tokens keep the first `max_length` tokens exact.
        """
        call: Any = partial(self._tokenizer.__call__, add_special_tokens=False, verbose=False, **options)
        if len(text) > (reach := _LONG + 100 * self._max_length):
            encoded = call(text[:reach])
            if len(encoded["input_ids"]) > 2 * self._max_length:
                return encoded
        return call(text)

    def _marked_ids(self, text: str, spans: list[int]) -> tuple[list[int], npt.NDArray[np.bool_]]:
        """Return token ids and whether each token carries loss.

        A token across the start of a span carries loss, because the model writes part of the token.
        """
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
        # Some tokenizers leave the blanks of a token out of its offsets. The blanks follow the previous token.
        starts[1:] = np.minimum(starts[1:], ends[:-1])
        carries = np.zeros(len(places), dtype=bool)
        for start, end in pairs:
            carries |= (ends > start) & (starts < end)
        return list(encoded["input_ids"]), carries

    def _ids_of_segments(self, segments: list[dict[str, Any]]) -> tuple[list[int], npt.NDArray[np.bool_]]:
        """Return token ids and whether each token carries loss. axolotl also tokenizes segment by segment."""
        ids, carries = [], []
        for part in segments:
            found = self._ids(part["text"])
            ids += found
            carries += [part["label"]] * len(found)
        return ids, np.asarray(carries, dtype=bool)

    def _shared_tokens(self, prefix: str, ids: list[int]) -> int:
        """Count the tokens that a text shares with its prefix. Slow tokenizers report no offsets."""
        return shared(self._ids(prefix), ids)


def _joined(segments: list[dict[str, Any]]) -> tuple[str, list[int]]:
    """Return the text of segments, and the spans that carry loss. Adjacent segments with loss are one span."""
    text, spans = "", list[int]()
    for part in segments:
        start, text = len(text), text + part["text"]
        if part["label"] and spans and spans[-1] == start:
            spans[-1] = len(text)
        elif part["label"]:
            spans += [start, len(text)]
    return text, spans


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Return the token ids that the tokenizer adds before and after a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []

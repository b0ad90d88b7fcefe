"""Encode the content of a row for the model: chat template, token ids, and the tokens that carry loss."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curator.core.errors import DataError
from curator.data.chat import Turn, shared
from curator.data.chat_process import ChatRenderer
from curator.data.lost_characters import may_lose_characters, refuse_lost_characters
from curator.data.rows import Content, pair
from curator.data.token_ranges import carries_loss

if TYPE_CHECKING:
    from tokenizers import Encoding as FastEncoding
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


@dataclass(frozen=True, slots=True)
class Rendered:
    """Hold the text of one example before it is tokenized."""

    text: str
    spans: tuple[int, ...]
    """Start and end, in characters, of each part of `text` that carries loss, as one flat tuple."""
    templated: bool
    """Whether the chat template added the special tokens, or the data hold them."""
    segments: tuple[tuple[str, bool], ...] = ()
    """Parts of `text` that are tokenized apart, each with whether it carries loss. Empty for a whole text."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenArrays:
    """Hold one encoded example as arrays, which take a tenth of the memory of tuples."""

    rendered: Rendered
    input_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    completion_tokens: int
    """Number of tokens that carry loss."""
    truncated: bool

    @property
    def token_hash(self) -> str:
        """Return the hash of the token ids and labels (32 hexadecimal digits)."""
        return _token_hash(self.input_ids, self.labels)


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
        return _token_hash(np.asarray(self.input_ids, dtype="<i4"), np.asarray(self.labels, dtype="<i4"))


def _token_hash(*arrays: npt.NDArray[np.int32]) -> str:
    digest = hashlib.sha256()
    for ids in arrays:
        digest.update(np.asarray([len(ids)], dtype="<i4").tobytes())
        digest.update(ids.astype("<i4", copy=False).tobytes())
    return digest.hexdigest()[:32]


NOTHING = TokenArrays(
    rendered=Rendered("", (), False),
    input_ids=np.zeros(0, np.int32),
    labels=np.zeros(0, np.int32),
    completion_tokens=0,
    truncated=False,
)
"""Empty example. It stands for a row that cannot be used."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Hold the tokens of one text, as a tokenizer returns them."""

    ids: list[int]
    places: "FastEncoding | None"
    """Places of the tokens in the text. None for slow tokenizers, which report no places."""


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
        self._chats = ChatRenderer(tokenizer)
        self._loses = may_lose_characters(tokenizer)
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

    def encode(self, content: Content) -> Encoded:
        """Encode one example.

        Raises:
            DataError: As `rendered` and `finish`.
        """
        rendered = self.rendered(content)
        found = self.finish(rendered, self.tokenize([rendered])[0])
        return Encoded(
            text=rendered.text,
            spans=rendered.spans,
            input_ids=tuple(found.input_ids.tolist()),
            labels=tuple(found.labels.tolist()),
            completion_tokens=found.completion_tokens,
            truncated=found.truncated,
        )

    # An example is encoded in three steps. The second step holds no lock of Python, so it can run in another thread.

    def rendered(self, content: Content) -> Rendered:
        """Return the text of an example: the first of the three steps of `encode`.

        Raises:
            DataError: The content is a chat and the tokenizer has no template, or the template rejects the chat. Or
                the content is plain text and the model is an encoder–decoder.
        """
        (found,) = self.rendered_all([content])
        if isinstance(found, DataError):
            raise found
        return found

    def rendered_all(self, contents: Sequence[Content]) -> list[Rendered | DataError]:
        """Return the texts of examples, or the errors of those that cannot be rendered, as `rendered` does.

        Args:
            contents: Contents (n). Another process renders all chats among them at once.
        """
        chats = {n: chat for n, content in enumerate(contents) if (chat := self._chat(content)) is not None}
        texts: dict[int, tuple[str, list[int]] | DataError] = {}
        if getattr(self._tokenizer, "chat_template", None):
            texts = dict(zip(chats, self._chats.render(list(chats.values())), strict=True))
        return [self._rendered(content, n in chats, texts.get(n)) for n, content in enumerate(contents)]

    def _rendered(
        self, content: Content, is_chat: bool, chat: "tuple[str, list[int]] | DataError | None"
    ) -> Rendered | DataError:
        if isinstance(chat, DataError):
            return chat
        if chat is not None:
            return Rendered(chat[0], tuple(chat[1]), True)
        if is_chat:
            return DataError(
                "the rows are chats, but the model's tokenizer has no chat template",
                hint="Use a chat model, set chat_template under [data], or use rows with `prompt` and `completion`.",
            )
        if self._encoder_decoder and "text" in content:
            return DataError(
                "a row with only `text` has no prompt, but an encoder–decoder needs a prompt",
                hint="Use rows with `prompt` and `completion`.",
            )
        text, spans, templated = self._plain(content)
        segments = tuple((part["text"], part["label"]) for part in content.get("segments", ()))
        return Rendered(text, tuple(spans), templated, segments)

    def tokenize(self, rows: Sequence[Rendered]) -> list[list[Pieces]]:
        """Tokenize several texts at once: the second of the three steps of `encode`.

        A fast tokenizer splits the texts among its own threads.

        Args:
            rows: Results of `rendered` (n).

        Raises:
            DataError: The tokenizer fails, for example because its regular expression takes too long.

        Returns:
            Tokens of the text of each row (n). A row of segments has one text for each. An encoder–decoder has two
            texts: the prompt and the completion.
        """
        texts = [self._texts(row) for row in rows]
        tokenized = iter(self._tokenized([text for parts in texts for text in parts]))
        return [[next(tokenized) for _ in parts] for parts in texts]

    def finish(self, row: Rendered, pieces: Sequence[Pieces]) -> TokenArrays:
        """Add special tokens and labels: the last of the three steps of `encode`.

        Args:
            row: Result of `rendered`.
            pieces: Result of `tokenize` for the row.

        Raises:
            DataError: The tokenizer leaves out a character of the text.
        """
        if self._loses:
            for text, part in zip(self._texts(row), pieces, strict=True):
                refuse_lost_characters(self._tokenizer, text, part.places)
        before, after = ([], []) if row.templated else (self._before, self._after)
        if self._encoder_decoder:
            source = before + self._ended(pieces[0].ids)
            written = self._ended(pieces[1].ids)
            return TokenArrays(
                rendered=row,
                input_ids=np.asarray(source[: self._max_length], dtype=np.int32),
                labels=np.asarray(written[: self._max_length], dtype=np.int32),
                completion_tokens=min(len(written), self._max_length),
                truncated=max(len(source), len(written)) > self._max_length,
            )
        ids, carries = self._tokens(row, pieces)
        after = self._ended(ids)[len(ids) :] if after else []
        source = before + ids + after
        marks = np.zeros(len(source), dtype=bool)
        marks[len(before) : len(before) + len(ids)] = carries
        # The model writes the end of a text whose last part carries loss.
        marks[len(before) + len(ids) :] = bool(row.spans) and row.spans[-1] == len(row.text)
        input_ids = np.asarray(source[: self._max_length], dtype=np.int32)
        labels = np.where(marks[: self._max_length], input_ids, np.int32(IGNORED))
        return TokenArrays(
            rendered=row,
            input_ids=input_ids,
            labels=labels,
            # No earlier token predicts the first token.
            completion_tokens=int(np.count_nonzero(labels[1:] != IGNORED)),
            truncated=len(source) > self._max_length,
        )

    def _texts(self, row: Rendered) -> list[str]:
        if not self._encoder_decoder:
            return [text for text, _ in row.segments] or [row.text]
        start, end = row.spans[-2:] if row.spans else (len(row.text), len(row.text))
        return [row.text[:start], row.text[start:end]]

    def _chat(self, content: Content) -> "tuple[list[Turn], list[Any] | None] | None":
        """Return turns and tools of a content that the chat template renders, or None."""
        if "messages" in content:
            return content["messages"], content.get("tools")
        if "instruction" in content and self.is_templated(content):
            prompt, completion = pair(content)
            return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}], None
        return None

    def _plain(self, content: Content) -> tuple[str, Sequence[int], bool]:
        """Return the text, the spans that carry loss, and whether the data hold the special tokens."""
        if "text" in content:
            return content["text"], [0, len(content["text"])], False
        if "segments" in content:
            return *_joined(content["segments"]), True
        prompt, completion = pair(content)
        if "instruction" in content:
            prompt += "\n" if prompt and not prompt[-1].isspace() else ""
        text = prompt + completion
        return text, [len(prompt), len(text)], False

    def _ended(self, ids: list[int]) -> list[int]:
        """Append the end-of-text token unless the ids end with it."""
        return ids if self._after and ids[-len(self._after) :] == self._after else ids + self._after

    def _tokenized(self, texts: Sequence[str]) -> list[Pieces]:
        """Tokenize texts. Tokenize only the beginning of a very long text if its tokens exceed `max_length`.

        A cut changes only tokens near the cut. Twice `max_length` tokens keep the first `max_length` tokens exact.
        """
        reach = _LONG + 100 * self._max_length
        found = self._called([text[:reach] for text in texts])
        short = [n for n, text in enumerate(texts) if len(text) > reach and len(found[n].ids) <= 2 * self._max_length]
        for number, whole in zip(short, self._called([texts[n] for n in short]), strict=True):
            found[number] = whole
        return found

    def _called(self, texts: list[str]) -> list[Pieces]:
        if not texts:
            return []
        call: Any = self._tokenizer
        try:
            called = call(
                texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
            )
        except BaseException as error:
            # The tokenizers library ends a regular expression that takes too long, by an error outside of `Exception`.
            # It raises `Exception` itself for a word that the vocabulary lacks.
            if type(error).__name__ not in ("PanicException", "Exception"):
                raise
            raise DataError(
                f"the tokenizer cannot split a text: {error}", hint="Use another model, or remove the text."
            ) from error
        places = called.encodings if self._tokenizer.is_fast else None
        return [Pieces(ids, places[n] if places else None) for n, ids in enumerate(called["input_ids"])]

    def _tokens(self, row: Rendered, pieces: Sequence[Pieces]) -> tuple[list[int], npt.NDArray[np.bool_]]:
        """Return token ids and whether each carries loss. axolotl also tokenizes segment by segment."""
        if not row.segments:
            return pieces[0].ids, self._carries_loss(row, pieces[0])
        carries = np.repeat([label for _, label in row.segments], [len(part.ids) for part in pieces])
        return [token for part in pieces for token in part.ids], carries

    def _carries_loss(self, row: Rendered, pieces: Pieces) -> npt.NDArray[np.bool_]:
        """Return whether each token of a text carries loss (tokens,), as `carries_loss` does."""
        spans = list(zip(row.spans[::2], row.spans[1::2], strict=True))
        if pieces.places is not None:
            return carries_loss(pieces.places, spans, len(row.text))
        carries = np.zeros(len(pieces.ids), dtype=bool)
        for start, end in spans:
            first, last = (self._shared_tokens(row.text[:edge], pieces.ids) for edge in (start, end))
            carries[first:last] = True
        return carries

    def _shared_tokens(self, prefix: str, ids: list[int]) -> int:
        """Count the tokens that a text shares with its prefix. Slow tokenizers report no offsets."""
        return shared(self._tokenized([prefix])[0].ids, ids)


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
    """Return the token ids that the tokenizer adds before and after a text.

    Raises:
        DataError: The tokenizer cannot split a text.
    """
    try:
        bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        full = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    except Exception as error:
        raise DataError(
            f"the tokenizer cannot split a text: {error}", hint="Give the tokenizer a token for unknown words."
        ) from error
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []

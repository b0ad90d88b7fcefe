"""Find the parts of a chat that carry loss from the parts of another chat of the same shape.

`chat.Chat` renders a chat about five times for each turn of the assistant. Chats with the same roles have the same
text around their turns. This module therefore locates the turns once, in a chat with marks instead of texts.
It renders each further chat once, and compares the whole result with the text around the marks.
A chat that differs anywhere is left to `chat.Chat`: for example, its template rewrites a turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.core.errors import DataError
from curator.data.chat import Chat, Turn, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_Key = tuple[tuple[str, bool], ...]
# Private-use characters, other than those of `chat.Chat`.
_OPEN, _CLOSE = "\ue0f3", "\ue0f4"
_PRIVATE = ("\ue0f1", "\ue0f2", _OPEN, _CLOSE)
# Keys of a turn whose content is all that a template can write.
_PLAIN_KEYS = {"role", "content", "train"}


@dataclass(frozen=True, slots=True)
class _Outline:
    """Hold the text around the turns of a shape, and the parts that carry loss."""

    around: tuple[str, ...]
    """Text before the first turn, between the turns, and after the last turn (turns + 1)."""
    parts: tuple[tuple[int, int, int], ...]
    """(turn, characters before its content, characters after its content) of each part that carries loss."""

    def spans(self, text: str, contents: Sequence[str]) -> list[int] | None:
        """Return start and end of each part, as one flat list. None if the text is not made of these pieces."""
        if not text.startswith(self.around[0]):
            return None
        place = len(self.around[0])
        places = []
        for content, after in zip(contents, self.around[1:], strict=True):
            # Many templates trim contents.
            for written in (content, content.strip()):
                end = place + len(written)
                if text.startswith(written, place) and text.startswith(after, end):
                    break
            else:
                return None
            places.append((place, end))
            place = end + len(after)
        if place != len(text):
            return None
        return [
            edge for turn, before, after in self.parts for edge in (places[turn][0] - before, places[turn][1] + after)
        ]


class Outlines:
    """Hold the outlines of all shapes of chats seen so far.

    Args:
        tokenizer: Tokenizer with a chat template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._seen: set[_Key] = set()
        self._known: dict[_Key, _Outline | None] = {}

    def render(self, messages: Sequence[Turn]) -> tuple[str, list[int]] | None:
        """Return text and loss parts of a chat without tools, as `Chat.text` and `Chat.spans` do.

        Args:
            messages: Turns of the chat.

        Returns:
            The text, and start and end in characters of each part, as one flat list. None if only `Chat` can tell.

        Raises:
            DataError: The template rejects the turns.
        """
        if not all(_is_plain(turn) for turn in messages):
            return None
        key = tuple((turn["role"], bool(turn.get("train", True))) for turn in messages)
        if key not in self._seen:
            # An outline costs as much as one chat, so a shape that occurs once gets none.
            self._seen.add(key)
            return None
        if key not in self._known:
            self._known[key] = self._outline(messages)
        outline = self._known[key]
        if outline is None:
            return None
        text = render(self._tokenizer, messages, tools=None)
        spans = outline.spans(text, [turn["content"] for turn in messages])
        return None if spans is None else (text, spans)

    def _outline(self, messages: Sequence[Turn]) -> _Outline | None:
        marks = [f"{_OPEN}{number}{_CLOSE}" for number in range(len(messages))]
        try:
            chat = Chat(self._tokenizer, [turn | {"content": mark} for turn, mark in zip(messages, marks, strict=True)])
            spans = chat.spans()
        except DataError:
            return None
        if any(chat.text.count(mark) != 1 for mark in marks):
            return None
        starts = [chat.text.index(mark) for mark in marks]
        ends = [start + len(mark) for start, mark in zip(starts, marks, strict=True)]
        if starts != sorted(starts):
            return None
        around = [chat.text[end:start] for end, start in zip([0, *ends], [*starts, len(chat.text)], strict=True)]
        parts = []
        for first, last in zip(spans[::2], spans[1::2], strict=True):
            inside = [turn for turn, start in enumerate(starts) if first <= start and ends[turn] <= last]
            if len(inside) != 1:
                return None
            parts.append((inside[0], starts[inside[0]] - first, last - ends[inside[0]]))
        return _Outline(tuple(around), tuple(parts))


def _is_plain(turn: Turn) -> bool:
    content = turn["content"]
    return turn.keys() <= _PLAIN_KEYS and bool(content.strip()) and not any(mark in content for mark in _PRIVATE)

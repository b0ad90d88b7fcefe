"""A chat as the model's template writes it, and which parts of that the model has to write.

These are the assistant's turns: in each all between the prompt for generation and the marker that ends the turn, the
marker with it. Where a turn stands is found by writing something else in its place, because a template may trim what is
said, reorder it, or hold the same words elsewhere.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from curator.core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = dict[str, Any]

Shape = tuple[Any, ...]
"""Whether a chat has tools, then role, tool calls and text of each turn: what decides which turns a template writes."""

# Of two private characters, so that it shares neither beginning nor end with what people write.
_PLACEHOLDER = "\ue0f1\ue0f2"
# What is said to curator, and not to a template.
_OURS = ("train",)


class Chat:
    """One chat, rendered.

    Args:
        tokenizer: With a chat template.
        messages: The turns.
        tools: The tools that may be called, if any.
        dropped: Cache of the turns that the template leaves out, by the shape of a chat.

    Raises:
        DataError: The template refuses the turns, or takes no tools where there are some.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        messages: Sequence[Turn],
        tools: list[Any] | None = None,
        dropped: "dict[Shape, frozenset[int]] | None" = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._tools = tools or None
        self._messages: Sequence[Turn] = messages
        if any("tool_calls" in turn for turn in messages):
            self.text = self._write_calls()
        else:
            self.text = self._template(messages)
        if self._tools and self._prefix(self._messages, tools=None) == self.text:
            raise DataError(
                "the row offers tools, but the model's chat template has no place for them",
                hint="Use a model with a template for tools, or remove `tools` from the row.",
            )
        for number in self._dropped(dropped):
            role = self._messages[number]["role"]
            if role == "tool":
                raise DataError(
                    "the row holds a tool's answer, which the model's chat template leaves out",
                    hint="Use a model with a template for tools, or write the answer into the user's turn.",
                )
            raise DataError(
                f"the model's chat template leaves out turn {number + 1}, of the role {role!r}",
                hint="Set roles = { … } in [[data.task]] to name it user, assistant, system or tool.",
            )

    def _dropped(self, known: "dict[Shape, frozenset[int]] | None") -> list[int]:
        """Return the turns with text that the template leaves out. Chats of one shape are rendered once."""
        shape: Shape = (
            bool(self._tools),
            *((turn["role"], "tool_calls" in turn, bool(turn["content"].strip())) for turn in self._messages),
        )
        known = {} if known is None else known
        if shape not in known:
            spoken = [n for n, turn in enumerate(self._messages) if turn["content"].strip()]
            marks = {n: f"{_PLACEHOLDER}{n}{_PLACEHOLDER}" for n in spoken}
            marked = self._prefix(
                [turn | {"content": marks.get(n, turn["content"])} for n, turn in enumerate(self._messages)]
            )
            lost = [n for n in spoken if marks[n] not in marked]
            # A template may refuse or rewrite the marks. Then each turn is changed alone.
            known[shape] = frozenset(n for n in lost if self._marked(n) == self.text)
        return sorted(known[shape])

    def spans(self) -> list[int]:
        """Start and end, in characters, of each part of the text that carries loss."""
        spans: list[int] = []
        for number, turn in enumerate(self._messages):
            if turn["role"] == "assistant" and turn.get("train", True):
                start, end = self._find_call(number) if "tool_calls" in turn else self._find_turn(number)
                if start < end:
                    spans += [start, end]
        return spans

    def _find_turn(self, number: int) -> tuple[int, int]:
        """Start and end of a turn; nothing (start = end) where the template leaves it out."""
        marked = self._marked(number)
        start = shared(self.text, marked)
        if start == len(self.text) == len(marked):
            return start, start
        end = len(self.text) - shared(self.text[start:][::-1], marked[start:][::-1])
        return self._opened(number, start), end + len(self._closing(number, end))

    def _find_call(self, number: int) -> tuple[int, int]:
        """Start and end of a turn that calls tools.

        What the template puts around a call is the model's to write, too. It begins where plain text would begin in
        its place.
        """
        start, end = self._find_turn(number)
        plain = self._prefix([*self._messages[:number], {"role": "assistant", "content": _PLACEHOLDER}])
        begins = shared(self.text, plain)
        if begins < start and plain[begins:].lstrip().startswith(_PLACEHOLDER):
            start = begins
        return start, end

    def _opened(self, number: int, start: int) -> int:
        """Where the prompt for generation ends, if that is before `start`.

        A finished turn may hold more before the content than the prompt for it, an empty thought for example; the model
        has to write that, too.
        """
        before = self._messages[:number]
        prompt = self._prefix(before, add_generation_prompt=True)
        if prompt != self._prefix(before) and len(prompt) <= start and self.text.startswith(prompt):
            return len(prompt)
        return start

    def _closing(self, number: int, end: int) -> str:
        """What stands between the last word of a turn and its end, and follows there."""
        finished = self._prefix([*self._messages[:number], _replaced(self._messages[number])])
        closing = finished.rpartition(_PLACEHOLDER)[2].rstrip()
        return closing if self.text.startswith(closing, end) else ""

    def _marked(self, number: int) -> str:
        """The text with something else in the place of all that one turn says."""
        return self._template(
            [*self._messages[:number], _replaced(self._messages[number]), *self._messages[number + 1 :]]
        )

    def _write_calls(self) -> str:
        """The text of a chat with tool calls, their arguments as objects or, where a template wants it so, as text."""
        refused: DataError | None = None
        for write in (_as_they_are, _as_text):
            self._messages = [_with_arguments(turn, write) for turn in self._messages]
            try:
                text = self._template(self._messages)
            except DataError as error:
                refused = refused or error
                continue
            if not any(_python(call) in text for call in _calls(self._messages)):
                break
        else:
            if refused is not None:
                raise refused
        for number, turn in enumerate(self._messages):
            if (
                "tool_calls" in turn
                and self._template(
                    [*self._messages[:number], _replaced(turn, calls_alone=True), *self._messages[number + 1 :]]
                )
                == text
            ):
                raise DataError(
                    "the row calls tools, but the model's chat template leaves the calls out",
                    hint="Use a model with a template for tools, or write the call into the turn's `content`.",
                )
        return text

    def _prefix(self, messages: Sequence[Turn], **options: Any) -> str:
        """As `_template`; empty where a template refuses a chat that is not finished."""
        try:
            return self._template(messages, **options) if messages else ""
        except DataError:
            return ""

    def _template(self, messages: Sequence[Turn], **options: Any) -> str:
        return render(self._tokenizer, messages, **({"tools": self._tools} | options))


def render(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Turn], **options: Any) -> str:
    """Turns as a chat template writes them.

    Raises:
        DataError: It refuses them.
    """
    said = [{key: value for key, value in turn.items() if key not in _OURS} for turn in messages]
    try:
        return str(tokenizer.apply_chat_template(said, tokenize=False, **options))
    except Exception as error:
        # A template is a program of the model's authors, and fails as programs do.
        words = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "Is the template meant for such turns?"
        raise DataError(f"the chat template refuses the turns: {words}", hint=hint) from error


def shared(left: Sequence[object], right: Sequence[object]) -> int:
    """Length of the common beginning."""
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return place
    return min(len(left), len(right))


def _replaced(turn: Turn, *, calls_alone: bool = False) -> Turn:
    """A turn that says something else: other words, calls of other functions, other words in their arguments."""
    other = dict(turn)
    if "tool_calls" in turn:
        other["tool_calls"] = [
            call | {"function": {"name": _PLACEHOLDER, "arguments": _other(call["function"]["arguments"])}}
            for call in turn["tool_calls"]
        ]
    if not calls_alone and (turn["content"] or "tool_calls" not in turn):
        other["content"] = _PLACEHOLDER
    return other


def _other(value: Any) -> Any:
    """Arguments with other words; what is no text stays."""
    if isinstance(value, dict):
        return {key: _other(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_other(item) for item in value]
    return _PLACEHOLDER if isinstance(value, str) else value


def _calls(messages: Sequence[Turn]) -> list[Any]:
    return [call["function"]["arguments"] for turn in messages for call in turn.get("tool_calls", ())]


def _python(arguments: Any) -> str:
    """How Python, and no JSON, writes arguments: what a template makes of an object that it takes for text."""
    return str(arguments) if isinstance(arguments, dict) and arguments else _PLACEHOLDER


def _with_arguments(turn: Turn, write: Callable[[Any], Any]) -> Turn:
    if "tool_calls" not in turn:
        return turn
    return turn | {
        "tool_calls": [
            call | {"function": call["function"] | {"arguments": write(call["function"]["arguments"])}}
            for call in turn["tool_calls"]
        ]
    }


def _as_they_are(arguments: Any) -> Any:
    return arguments


def _as_text(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False)

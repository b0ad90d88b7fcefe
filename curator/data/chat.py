"""Render a chat with the model's template, and find the parts that carry loss.

The assistant's turns carry loss.
Such a part starts after the generation prompt, and includes the marker that ends the turn.
`Chat` renders the chat again with a placeholder in one turn, and locates the turn by the difference.
A search for the turn's text would fail: a template may trim, reorder or repeat the text.
"""

import html
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from curator.core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = dict[str, Any]

Shape = tuple[Any, ...]
"""Whether a chat has tools, then role, tool calls and text of each turn: what decides which turns a template writes."""

# Two different private-use characters: neither a prefix nor a suffix of the placeholder occurs in real text.
_PLACEHOLDER = "\ue0f1\ue0f2"
# Turns of a chat that is long: rendering it once for each turn would take quadratic time.
_MANY = 40
# Turns of a long chat that are measured apart, and characters before a turn that two similar turns share.
_MEASURED, _HEADER = 16, 8
_SCALAR = re.compile(r"(?:-?\d[\d.eE+-]{0,40}|true|false|null|True|False|None)")
# Thoughts without text, which templates add and remove.
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>")
# Keys of a turn that curator reads and that templates must not see.
_OWN_KEYS = ("train",)


class Chat:
    """Hold one rendered chat.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: Turns of the chat.
        tools: Tools that the assistant may call.
        dropped: Cache of the turns that the template leaves out, by the shape of a chat.

    Raises:
        DataError: The template rejects the turns, or omits the tools, the calls, or a turn or part of it.
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
                "the row lists tools, but the model's chat template omits them",
                hint="Use a model with a template for tools, or remove `tools` from the row.",
            )
        for number in self._dropped(dropped):
            role = self._messages[number]["role"]
            if role == "tool":
                raise DataError(
                    "the row has a tool response, but the model's chat template omits it",
                    hint="Use a model with a template for tools, or write the response into the user's turn.",
                )
            hint = "Set roles = { … } in [[data.task]] to name the role user, assistant, system or tool."
            if role in ("user", "assistant", "system"):
                hint = "Use a model whose template writes such turns, or remove the text of the turn."
            raise DataError(f"the model's chat template leaves out turn {number + 1}, of the role {role!r}", hint=hint)
        self._refuse_cut_turns()

    def _refuse_cut_turns(self) -> None:
        """Refuse a chat if the template leaves out part of a turn, for example the reasoning of an earlier turn."""
        written: tuple[str, ...] = ()
        for number, turn in enumerate(self._messages):
            if turn["role"] == "tool" or turn["content"].strip() in self.text:
                continue
            written = written or tuple(map(_without_blanks, (self.text, html.unescape(self.text))))
            content = _EMPTY_THOUGHT.sub("", turn["content"])
            # A template may write a text as JSON.
            forms = (content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1])
            if not any(_without_blanks(form) in text for form in forms for text in written):
                raise DataError(
                    f"the model's chat template leaves out part of turn {number + 1}, of the role {turn['role']!r}",
                    hint="Set chat_template under [data] to a template that writes the whole turn,"
                    " or remove the part, such as reasoning between <think> and </think>.",
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
        """Return start and end, in characters, of each part of the text that carries loss, as one flat list."""
        learned = [
            number
            for number, turn in enumerate(self._messages)
            if turn["role"] == "assistant" and turn.get("train", True)
        ]
        found = self._find_many(learned) if len(self._messages) > _MANY else None
        if found is None:
            found = [self._find(number) for number in learned]
        return [edge for start, end in found if start < end for edge in (start, end)]

    def _find(self, number: int) -> tuple[int, int]:
        return self._find_call(number) if "tool_calls" in self._messages[number] else self._find_turn(number)

    def _find_many(self, numbers: Sequence[int]) -> list[tuple[int, int]] | None:
        """Return start and end of turns as `_find` does, with few renderings, or None if only `_find` can tell.

        One rendering with marks in all turns locates the contents. `_find` measures the text around a content that
        carries loss. Another turn between the same roles, with the same text around its content, is like it.
        """
        places = self._locate(numbers)
        if places is None:
            return None
        found: list[tuple[int, int]] = []
        known: dict[tuple[object, ...], list[tuple[str, re.Pattern[str]]]] = {}
        measured = 0
        for number, (start, end) in zip(numbers, places, strict=True):
            roles = tuple(turn["role"] for turn in self._messages[max(number - 1, 0) : number + 2])
            models = known.setdefault((roles, "tool_calls" in self._messages[number]), [])
            for before, after in models:
                closing = after.match(self.text, end)
                if closing is not None and self.text.endswith(before, 0, start):
                    found.append((start - len(before) + _HEADER, closing.end()))
                    break
            else:
                measured += 1
                if measured > _MEASURED:
                    return None
                first, last = self._find(number)
                if not _HEADER <= first <= start <= end <= last:
                    return None
                found.append((first, last))
                models.append((self.text[first - _HEADER : start], _with_any_numbers(self.text[end:last])))
        return found

    def _locate(self, numbers: Sequence[int]) -> list[tuple[int, int]] | None:
        """Return start and end of the contents or calls of turns, or None if the template rewrites them."""
        marks = {number: f"{_PLACEHOLDER}{number}{_PLACEHOLDER}" for number in numbers}
        marked = self._prefix(
            [_replaced(turn, marks[n]) if n in marks else turn for n, turn in enumerate(self._messages)]
        )
        around, place = [], 0
        for mark in marks.values():
            first, last = marked.find(mark), marked.rfind(mark)
            if first < place:
                return None
            around.append(marked[place:first])
            place = last + len(mark)
        around.append(marked[place:])
        if not self.text.startswith(around[0]):
            return None
        places = []
        start = len(around[0])
        for number, after in zip(numbers, around[1:], strict=True):
            end = self._end(number, start, after, is_last=number == numbers[-1])
            if end < start:
                return None
            places.append((start, end))
            start = end + len(after)
        return places if start == len(self.text) else None

    def _end(self, number: int, start: int, after: str, *, is_last: bool) -> int:
        """Return the end of a content that starts at `start`, or −1 if `after` does not follow it."""
        turn = self._messages[number]
        if "tool_calls" not in turn:
            for written in (turn["content"], turn["content"].strip()):
                end = start + len(written)
                if self.text.startswith(written, start) and self.text.startswith(after, end):
                    return end
            return -1
        if is_last:
            return len(self.text) - len(after) if self.text.endswith(after) else -1
        # The template decides how a call is written. A short text may occur within the call.
        return self.text.find(after, start) if len(after) >= _HEADER else -1

    def _find_turn(self, number: int) -> tuple[int, int]:
        """Return start and end of a turn, in characters. Both are equal if the template omits the turn."""
        marked = self._marked(number)
        start = shared(self.text, marked)
        if start == len(self.text) == len(marked):
            return start, start
        end = len(self.text) - shared(self.text[start:][::-1], marked[start:][::-1])
        return self._content_start(number, start), end + len(self._closing(number, end))

    def _find_call(self, number: int) -> tuple[int, int]:
        """Return start and end of a turn that calls tools, in characters.

        The model also writes the markup around a call.
        The markup starts where plain text would start in the same turn.
        """
        start, end = self._find_turn(number)
        plain = self._prefix([*self._messages[:number], {"role": "assistant", "content": _PLACEHOLDER}])
        plain_start = shared(self.text, plain)
        if plain_start < start and plain[plain_start:].lstrip().startswith(_PLACEHOLDER):
            start = plain_start
        return start, end

    def _content_start(self, number: int, start: int) -> int:
        """Return the end of the generation prompt if it lies before `start`, else `start`.

        A template may put text between the generation prompt and the content, for example an empty thought.
        The model writes this text, so the text carries loss.
        """
        before = self._messages[:number]
        prompt = self._prefix(before, add_generation_prompt=True)
        if prompt != self._prefix(before) and len(prompt) <= start and self.text.startswith(prompt):
            return len(prompt)
        return start

    def _closing(self, number: int, end: int) -> str:
        """Return the text that ends a turn after its content, or an empty string if other text follows at `end`."""
        finished = self._prefix([*self._messages[:number], _replaced(self._messages[number])])
        closing = finished.rpartition(_PLACEHOLDER)[2].rstrip()
        return closing if self.text.startswith(closing, end) else ""

    def _marked(self, number: int) -> str:
        """Render the chat with a placeholder instead of the content of one turn."""
        return self._template(
            [*self._messages[:number], _replaced(self._messages[number]), *self._messages[number + 1 :]]
        )

    def _write_calls(self) -> str:
        """Render a chat with tool calls, with arguments as objects, or as JSON text if the template needs text."""
        refused: DataError | None = None
        for write in (_unchanged, _as_text):
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
        calling = {
            n: f"{_PLACEHOLDER}{n}{_PLACEHOLDER}" for n, turn in enumerate(self._messages) if "tool_calls" in turn
        }
        marked = self._prefix(
            [
                _replaced(turn, calling[n], calls_alone=True) if n in calling else turn
                for n, turn in enumerate(self._messages)
            ]
        )
        for number, turn in enumerate(self._messages):
            if (
                number in calling
                and calling[number] not in marked
                and self._template(
                    [*self._messages[:number], _replaced(turn, calls_alone=True), *self._messages[number + 1 :]]
                )
                == text
            ):
                raise DataError(
                    "the row calls tools, but the model's chat template omits the calls",
                    hint="Use a model with a template for tools, or write the call into the turn's `content`.",
                )
        return text

    def _prefix(self, messages: Sequence[Turn], **options: Any) -> str:
        """Render the first turns of a chat. Return an empty string if the template rejects an unfinished chat."""
        try:
            return self._template(messages, **options) if messages else ""
        except DataError:
            return ""

    def _template(self, messages: Sequence[Turn], **options: Any) -> str:
        return render(self._tokenizer, messages, **({"tools": self._tools} | options))


def render(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Turn], **options: Any) -> str:
    """Render turns with the tokenizer's chat template.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: Turns of the chat.
        options: Further arguments of `apply_chat_template`.

    Raises:
        DataError: The template rejects the turns.
    """
    turns = [{key: value for key, value in turn.items() if key not in _OWN_KEYS} for turn in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except Exception as error:
        # A template is a program of the model's authors and can raise any exception.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "Check that the template supports these roles in this order."
        if type(error).__name__ == "TemplateSyntaxError":
            hint = "Correct the template, or set chat_template under [data] to another one."
        elif isinstance(tokenizer.chat_template, dict) and "no default specified" in reason:
            reason = "the tokenizer has several templates, but not one with the name default"
            hint = (
                f"Set chat_template under [data] to one of these names: {', '.join(sorted(tokenizer.chat_template))}."
            )
        raise DataError(f"the chat template rejects the turns: {reason}", hint=hint) from error


def shared(left: Sequence[object], right: Sequence[object]) -> int:
    """Return the length of the common prefix of two texts or of two lists."""
    same, differs = 0, min(len(left), len(right)) + 1
    # Bisect: a comparison of slices is a hundred times as fast as a loop over characters.
    while differs - same > 1:
        middle = (same + differs) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def _with_any_numbers(text: str) -> re.Pattern[str]:
    """Return a pattern of a text that may hold other numbers. The arguments of a call may end with numbers."""
    return re.compile(_SCALAR.pattern.join(map(re.escape, _SCALAR.split(text))))


def _without_blanks(text: str) -> str:
    """Return a text without its blanks and line breaks, which templates trim."""
    return "".join(text.split())


def _replaced(turn: Turn, mark: str = _PLACEHOLDER, *, calls_alone: bool = False) -> Turn:
    """Replace the content of a turn, the names of its calls and the text in their arguments with a mark."""
    other = dict(turn)
    if "tool_calls" in turn:
        other["tool_calls"] = [
            call | {"function": {"name": mark, "arguments": _replaced_text(call["function"]["arguments"], mark)}}
            for call in turn["tool_calls"]
        ]
    if not calls_alone and (turn["content"] or "tool_calls" not in turn):
        other["content"] = mark
    return other


def _replaced_text(value: Any, mark: str) -> Any:
    """Replace every string in the arguments of a call. Other values stay."""
    if isinstance(value, dict):
        return {key: _replaced_text(item, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced_text(item, mark) for item in value]
    return mark if isinstance(value, str) else value


def _calls(messages: Sequence[Turn]) -> list[Any]:
    return [call["function"]["arguments"] for turn in messages for call in turn.get("tool_calls", ())]


def _python(arguments: Any) -> str:
    """Return the Python notation of arguments, which appears when a template prints an object as text."""
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


def _unchanged(arguments: Any) -> Any:
    return arguments


def _as_text(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False)

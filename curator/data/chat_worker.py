"""Render chats in a process of its own, with a limit of time and of memory. `curator.data.chat_process` starts it.

The process reads one JSON line for each batch, and writes one JSON line for each chat:

    {"template": …, "special_tokens": …, "chats": [[turns, tools], …]}
    {"text": …, "spans": […]} or {"error": …, "hint": …}, with "line" and "syntax" for a template that is not valid

A template is a program of its authors. Only the system can end arithmetic with large numbers, so the system counts the
time: it ends the process when a chat takes too long.
"""

import importlib
import json
import signal
import sys
from typing import TYPE_CHECKING, Any, cast

from curator.core.allocation import limit_memory
from curator.core.errors import DataError
from curator.data.chat import Chat, Shape, Turn
from curator.data.outlines import Outlines

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Templates whose outlines are kept.
_KEPT = 8
# Largest length of a rendered chat, in characters, in addition to ten times its JSON text.
_LONGEST = 2**24


class Template:
    """Render chats with one chat template, as a tokenizer does.

    Args:
        chat_template: Text of the template, or texts by name.
        special_tokens: Text of the special tokens by name.
    """

    def __init__(self, chat_template: Any, special_tokens: dict[str, Any]) -> None:
        from transformers.tokenization_utils_base import PreTrainedTokenizerBase

        self._base = PreTrainedTokenizerBase
        self.chat_template = chat_template
        self.special_tokens_map = special_tokens
        tokenizer = cast("PreTrainedTokenizerBase", self)
        self._outlines = Outlines(tokenizer)
        self._dropped: dict[Shape, frozenset[int]] = {}

    def get_chat_template(self, *arguments: Any) -> str:
        """Choose a template by its name, as a tokenizer does."""
        return self._base.get_chat_template(cast("PreTrainedTokenizerBase", self), *arguments)

    def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:
        """Render turns as a tokenizer does."""
        return self._base.apply_chat_template(cast("PreTrainedTokenizerBase", self), *arguments, **options)

    def render(self, messages: list[Turn], tools: list[Any] | None) -> tuple[str, list[int]]:
        """Return the text of a chat and the parts that carry loss, as start and end in one flat list.

        Raises:
            DataError: The template rejects the turns, or omits parts of them.
        """
        known = None if tools else self._outlines.render(messages)
        if known is not None:
            return known
        chat = Chat(cast("PreTrainedTokenizerBase", self), messages, tools, self._dropped)
        return chat.text, chat.spans()


def answer(template: Template, messages: list[Turn], tools: list[Any] | None, *, most: int) -> dict[str, Any]:
    """Render one chat, and return the line that describes the result.

    Args:
        template: The template.
        messages: Turns of the chat.
        tools: Tools that the assistant may call.
        most: Largest length of the text in characters.
    """
    try:
        text, spans = template.render(messages, tools)
    except DataError as error:
        found: dict[str, Any] = {"error": error.message, "hint": error.hint}
        if type(error.__cause__).__name__ == "TemplateSyntaxError":
            found |= {"line": getattr(error.__cause__, "lineno", 0), "syntax": str(error.__cause__)}
        return found
    if len(text) > most:
        return {"error": f"the chat template writes {len(text):,} characters", "hint": "Use another chat template."}
    return {"text": text, "spans": spans}


def main() -> None:
    """Answer batches until standard input ends."""
    seconds, memory = float(sys.argv[1]), int(sys.argv[2])
    # Ctrl-C is for the process that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # The limit of memory applies to what chats take.
    importlib.import_module("transformers.tokenization_utils_base")
    limit_memory(memory)
    templates: dict[str, Template] = {}
    for line in sys.stdin.buffer:
        request = json.loads(line)
        key = json.dumps([request["template"], request["special_tokens"]])
        if key not in templates:
            while len(templates) >= _KEPT:
                del templates[next(iter(templates))]
            templates[key] = Template(request["template"], request["special_tokens"])
        for chat in request["chats"]:
            # Counts the time of the processor: a busy machine does not end an honest template.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            found = answer(templates[key], *chat, most=_LONGEST + 10 * len(line))
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

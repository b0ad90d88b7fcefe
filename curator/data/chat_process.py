"""Render chats in another process, which the system ends when a chat template takes too much time or memory."""

import atexit
import json
import subprocess
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curator.core.errors import DataError
from curator.core.interpreters import module_command
from curator.data.chat import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 10.0
"""Largest time of the processor for one chat. Honest templates take milliseconds."""
MEMORY = 2**30
"""Largest memory for one chat in bytes, in addition to that of the process."""
# A template is given up after so many ended processes, unless most chats are fine.
_ENDED, _SHARE = 3, 0.01

Chat = tuple[Sequence[Turn], list[Any] | None]
Answer = dict[str, Any]


class TemplateInvalid(DataError):
    """A chat template is not valid Jinja.

    Args:
        message: Message of the error.
        hint: Hint of the error.
        fault: Line of the template, and what is wrong with it.
    """

    def __init__(self, message: str, *, hint: str, fault: str) -> None:
        super().__init__(message, hint=hint)
        self.fault = fault


class _Worker:
    """Hold the process that renders chats. One process serves all templates of this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def answers(self, template: Any, special_tokens: dict[str, Any], chats: Sequence[Chat]) -> list[Answer | None]:
        """Render chats until one of them ends the process.

        Returns:
            Answers of the first chats. None, as the last answer, for the chat that ended the process.
        """
        request = {"template": template, "special_tokens": special_tokens, "chats": chats}
        line = json.dumps(request, default=str).encode() + b"\n"
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            found: list[Answer | None] = []
            try:
                # The process reads the whole line before it answers.
                process.stdin.write(line)
                process.stdin.flush()
                while len(found) < len(chats):
                    answer = process.stdout.readline()
                    if not answer.endswith(b"\n"):
                        break
                    found.append(json.loads(answer))
            except BrokenPipeError:
                pass
            except BaseException:
                # The next answers would be those of this batch.
                self.stop()
                raise
            if len(found) < len(chats):
                found.append(None)
                self.stop()
            return found

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(  # noqa: S603 - starts this interpreter, from a list of words
                # -P: files of the working folder must not shadow Python modules.
                [*module_command("curator.data.chat_worker", str(SECONDS), str(MEMORY))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C ends this process, which then ends that one.
                start_new_session=True,
            )
        return self._process

    def stop(self) -> None:
        """End the process. A waiting call of `answers` in another thread returns at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


_WORKER = _Worker()
atexit.register(_WORKER.stop)


def stop() -> None:
    """End the process that renders chats. The next chat starts a new one."""
    _WORKER.stop()


class ChatRenderer:
    """Render chats with the chat template of a tokenizer.

    Args:
        tokenizer: Tokenizer with a chat template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._rendered = self._ended = 0

    def render(self, chats: Sequence[Chat]) -> list[tuple[str, list[int]] | DataError]:
        """Return text and loss parts of chats, or the error of a chat that cannot be rendered.

        Args:
            chats: Turns and tools of each chat (n).
        """
        found: list[tuple[str, list[int]] | DataError] = []
        while len(found) < len(chats):
            if self._is_given_up():
                return [*found, *[_ended()] * (len(chats) - len(found))]
            for answer in self._answers(chats[len(found) :]):
                self._rendered += 1
                self._ended += answer is None
                found.append(_result(answer))
        return found

    def _answers(self, chats: Sequence[Chat]) -> Sequence[Answer | None]:
        template = self._tokenizer.chat_template
        if not self._is_usual():
            # The class of the tokenizer has its own way to render chats.
            return [_in_this_process(self._tokenizer, chat) for chat in chats]
        return _WORKER.answers(template, dict(self._tokenizer.special_tokens_map), chats)

    def _is_usual(self) -> bool:
        from transformers import PreTrainedTokenizerBase

        kind = type(self._tokenizer)
        return all(
            getattr(kind, name, None) is getattr(PreTrainedTokenizerBase, name)
            for name in ("apply_chat_template", "get_chat_template")
        )

    def _is_given_up(self) -> bool:
        return self._ended >= _ENDED and self._ended > _SHARE * self._rendered


def _in_this_process(tokenizer: "PreTrainedTokenizerBase", chat: Chat) -> Answer:
    from curator.data.chat import Chat as RenderedChat

    try:
        rendered = RenderedChat(tokenizer, *chat)
        return {"text": rendered.text, "spans": rendered.spans()}
    except DataError as error:
        return {"error": error.message, "hint": error.hint}


def _result(answer: Answer | None) -> tuple[str, list[int]] | DataError:
    if answer is None:
        return _ended()
    if "syntax" in answer:
        fault = f"line {answer['line']}: {answer['syntax']}"
        return TemplateInvalid(answer["error"], hint=answer["hint"], fault=fault)
    if "error" in answer:
        return DataError(answer["error"], hint=answer["hint"])
    return answer["text"], answer["spans"]


def _ended() -> DataError:
    return DataError(
        f"the chat template rejects the turns: it takes more than {SECONDS:g} seconds or {MEMORY >> 20:,} MiB",
        hint="Use another model or set data.chat_template. Split a very long chat.",
    )

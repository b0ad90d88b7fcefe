"""Read the messages that a browser sends to a served session. The browser is untrusted: every value is checked."""

import json
from dataclasses import dataclass

LONGEST = 256 * 1024
"""Longest message in bytes. A longer paste closes the session."""
WIDEST, TALLEST = 500, 200
"""Largest window of a session, in cells."""
_DEFAULT = (80, 24)
_LONGEST_PING = 64


class MalformedError(ValueError):
    """Report a message that no page of curator sends."""


@dataclass(frozen=True, slots=True)
class Stdin:
    """Keys and pasted text."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """Size of the window, in cells."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Text to send back."""

    word: str


@dataclass(frozen=True, slots=True)
class Focus:
    """Whether the page has the focus."""

    focused: bool


Message = Stdin | Resize | Ping | Focus


def parse(text: str) -> Message:
    """Read one message: a JSON list of a type and its value.

    Raises:
        MalformedError: The text is not such a message.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedError("not JSON") from None
    match found:
        case ["stdin", str(data)]:
            try:
                return Stdin(data.encode())
            except UnicodeEncodeError:
                raise MalformedError("not Unicode") from None
        case ["resize", {"width": int(width), "height": int(height)}] if bool not in (type(width), type(height)):
            return Resize(*window(width, height))
        case ["ping", str(word)] if len(word) <= _LONGEST_PING:
            return Ping(word)
        case ["focus"] | ["blur"]:
            return Focus(found[0] == "focus")
    raise MalformedError("unknown message")


def window(width: int, height: int) -> tuple[int, int]:
    """Return the size of a window within the limits."""
    return min(max(width, 1), WIDEST), min(max(height, 1), TALLEST)


def asked_window(width: str | None, height: str | None) -> tuple[int, int]:
    """Return the size of the window in the address of a socket, within the limits."""
    found = []
    for text, default in zip((width, height), _DEFAULT, strict=True):
        # `int` refuses more than 4,300 digits by an error, and accepts other signs than digits.
        plain = text is not None and len(text) < 10 and text.isascii() and text.isdigit()
        found.append(int(text) if text is not None and plain else default)
    return window(*found)

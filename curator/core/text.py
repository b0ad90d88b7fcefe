"""The one choke point for foreign text on its way to a terminal.

Task names, examples, file names, model output and error messages may hold escape sequences, bidirectional overrides or
markup. All that is printed passes through `clean` (plain text) or `styled` (text for Rich, where brackets mean
nothing).
"""

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Cc control, Cf format (bidi overrides, zero width), Cs surrogate, Co private use, Zl/Zp line and paragraph separator.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; what came from elsewhere may hold halves of characters."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def clean(text: object, *, limit: int = 0, lines: bool = False) -> str:
    """Make foreign text safe to print.

    Args:
        text: Anything; it is turned into a string first.
        limit: Longest result in characters, 0 for no limit; what is cut is marked by an ellipsis.
        lines: Keep line breaks; by default they are replaced too, so that the result is one line.

    Returns:
        The text with every control, format and surrogate character replaced by U+FFFD.
    """
    safe = str(text)
    # Nearly all text is printable, which is narrower than safe, and known at once.
    if not safe.isprintable():
        safe = "".join(
            c if (lines and c == "\n") or unicodedata.category(c) not in _UNSAFE else _REPLACEMENT for c in safe
        )
    return safe if limit <= 0 or len(safe) <= limit else safe[: max(limit - 1, 0)] + "…"


def styled(text: object, style: str = "", *, limit: int = 0) -> "Text":
    """Wrap foreign text for Rich: cleaned, and never read as markup.

    Args:
        text: Anything; it is turned into a string first.
        style: Rich style of the whole text.
        limit: As in `clean`.
    """
    from rich.text import Text

    return Text(clean(text, limit=limit), style=style)

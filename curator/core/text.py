"""Clean untrusted text before it reaches a terminal.

Task names, examples, file names, model output and error messages may contain escape sequences, bidirectional overrides
or markup. Everything that curator prints passes through `clean` (plain text) or `styled` (text for Rich, without
markup).
"""

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Cc control, Cf format (bidi overrides, zero width), Cs surrogate, Co private use, Zl/Zp line and paragraph separator.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
# Format characters that are part of the spelling: soft hyphen, non-joiner and joiner of Persian, Indic scripts and
# emoji, and Arabic, Syriac and Kaithi signs that enclose numbers.
_SPELLING = frozenset(
    map(chr, (0xAD, 0x200C, 0x200D, *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD))
)


def is_text(text: str) -> bool:
    """Return whether a text is valid UTF-8. Text from outside may contain lone surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def clean(text: object, *, limit: int = 0, lines: bool = False) -> str:
    """Make untrusted text safe to print.

    Args:
        text: Any object. It is converted to a string first.
        limit: Maximum length of the result in characters. 0 for no limit. An ellipsis marks cut text.
        lines: Whether to keep line breaks. By default they are replaced too, so that the result is one line.

    Returns:
        The text with every control, format and surrogate character replaced by U+FFFD. Joiners, soft hyphens and
        variation selectors stay, because the spelling of words and emoji needs them.
    """
    safe = str(text)
    # Fast path: printable text is safe.
    if not safe.isprintable():
        safe = "".join(
            c if (lines and c == "\n") or c in _SPELLING or unicodedata.category(c) not in _UNSAFE else _REPLACEMENT
            for c in safe
        )
    return safe if limit <= 0 or len(safe) <= limit else safe[: max(limit - 1, 0)] + "…"


def styled(text: object, style: str = "", *, limit: int = 0) -> "Text":
    """Convert untrusted text to clean Rich text, without reading markup.

    Args:
        text: Any object. It is converted to a string first.
        style: Rich style of the whole text.
        limit: Maximum length of the result in characters, as in `clean`.
    """
    from rich.text import Text

    return Text(clean(text, limit=limit), style=style)

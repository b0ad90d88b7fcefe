"""`clean` and `styled` remove every character that controls a terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.text import clean, styled


def test_clean_escape_sequences_are_replaced() -> None:
    assert clean("\x1b[31mred\x1b]0;title\x07\r\n\t") == "�[31mred�]0;title����"
    assert clean("\x9b31m") == "�31m"


def test_clean_bidirectional_overrides_are_replaced() -> None:
    assert clean("a\u202eb\u2066c\u200bd\u2028e\u2029f\ufeff") == "a�b�c�d�e�f�"


@pytest.mark.parametrize(
    "word",
    [
        "می\u200cخواهم",
        "क्\u200dष",
        "ශ්\u200dරී",
        "👨\u200d👩\u200d👧\u200d👦",
        "❤\ufe0f",
        "Donau\u00addampfer",
        "\u0600\u0661\u0662",
    ],
    ids=["persian", "hindi", "sinhala", "family", "variation", "soft hyphen", "arabic number"],
)
def test_clean_spelling_of_any_script_is_unchanged(word: str) -> None:
    assert clean(word) == word
    assert clean(f"\u202e{word}\x1b") == f"�{word}�"


def test_clean_surrogates_are_replaced() -> None:
    assert clean("file\udcff").encode() == "file�".encode()


def test_clean_with_lines_keeps_line_breaks() -> None:
    assert clean("a\nb\rc", lines=True) == "a\nb�c"
    assert clean("a\nb") == "a�b"


def test_clean_printable_text_is_unchanged() -> None:
    assert clean("Grüße, 你好, नमस्ते, 🙂 [bold] {x}") == "Grüße, 你好, नमस्ते, 🙂 [bold] {x}"


def test_clean_with_limit_ends_with_ellipsis() -> None:
    assert clean("abcdef", limit=4) == "abc…"
    assert clean("abcd", limit=4) == "abcd"
    assert clean("abcd", limit=1) == "…"


def test_styled_markup_is_plain_text() -> None:
    assert styled("[red]x[/red]\x1b").plain == "[red]x[/red]�"


@given(st.text())
def test_clean_any_text_has_no_control_characters(text: str) -> None:
    safe = clean(text)
    assert len(safe) == len(text)
    kept = {"\u00ad", "\u200c", "\u200d", "\u06dd", "\u070f", "\u0890", "\u0891", "\u08e2", "\U000110bd", "\U000110cd"}
    kept |= {chr(number) for number in range(0x600, 0x606)}
    assert all(unicodedata.category(c)[0] != "C" or unicodedata.category(c) == "Cn" or c in kept for c in safe)
    assert clean(safe) == safe

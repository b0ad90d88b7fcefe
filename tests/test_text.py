"""Nothing that steers a terminal comes through."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from curator.core.text import clean, styled


def test_escapes_are_replaced() -> None:
    assert clean("\x1b[31mred\x1b]0;title\x07\r\n\t") == "�[31mred�]0;title����"
    assert clean("\x9b31m") == "�31m"


def test_bidirectional_overrides_and_separators_are_replaced() -> None:
    assert clean("a\u202eb\u2066c\u200bd\u2028e\u2029f\ufeff") == "a�b�c�d�e�f�"


def test_surrogates_can_be_printed() -> None:
    assert clean("file\udcff").encode() == "file�".encode()


def test_lines_are_kept_when_wanted() -> None:
    assert clean("a\nb\rc", lines=True) == "a\nb�c"
    assert clean("a\nb") == "a�b"


def test_what_people_write_stays() -> None:
    assert clean("Grüße, 你好, नमस्ते, 🙂 [bold] {x}") == "Grüße, 你好, नमस्ते, 🙂 [bold] {x}"


def test_limit() -> None:
    assert clean("abcdef", limit=4) == "abc…"
    assert clean("abcd", limit=4) == "abcd"
    assert clean("abcd", limit=1) == "…"


def test_rich_reads_no_markup() -> None:
    assert styled("[red]x[/red]\x1b").plain == "[red]x[/red]�"


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    safe = clean(text)
    assert len(safe) == len(text)
    assert all(unicodedata.category(c)[0] != "C" or unicodedata.category(c) == "Cn" for c in safe)
    assert clean(safe) == safe

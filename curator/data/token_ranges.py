"""Find the tokens of parts of a text, by the places that a fast tokenizer reports."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Encoding

_Range = tuple[int, int]
# First token, and token after the last.


def carries_loss(encoding: "Encoding", spans: Sequence[tuple[int, int]], length: int) -> npt.NDArray[np.bool_]:
    """Return whether each token overlaps a part of a text (tokens,).

    A token across the start of a part counts, because the model writes part of the token.

    Args:
        encoding: Tokens of the text.
        spans: Start and end of each part, in characters.
        length: Characters of the text.
    """
    carries = np.zeros(len(encoding), dtype=bool)
    unknown = []
    for start, end in spans:
        found = _asked(encoding, start, end, length)
        if found is None:
            unknown.append((start, end))
        else:
            carries[found[0] : found[1]] = True
    # The list of all places takes ten times as long as single questions.
    return carries | compared(encoding, unknown) if unknown else carries


def _asked(encoding: "Encoding", start: int, end: int, length: int) -> _Range | None:
    """Ask for the tokens at both edges. None if a character at an edge has no token."""
    if start >= end or length == 0:
        return 0, 0
    first = encoding.char_to_token(start)
    last = _end(encoding, end, length)
    return None if first is None or last is None else (first, last)


def _end(encoding: "Encoding", end: int, length: int) -> int | None:
    """Return the first token that starts at `end` or later."""
    count = len(encoding)
    if end == length:
        places = encoding.token_to_chars(count - 1) if count else None
        return count if places is not None and places[0] < end <= places[1] else None
    token = encoding.char_to_token(end)
    if token is None:
        return None
    places = encoding.token_to_chars(token)
    if places is None:
        return None
    if places[0] == end:
        # A blank before `end` without a token belongs to this token.
        earlier = encoding.token_to_chars(token - 1) if token else None
        return token if earlier is not None and earlier[0] < end == earlier[1] else None
    # The token lies across the end. Several tokens can share one character.
    while token < count:
        places = encoding.token_to_chars(token)
        if places is None or places[0] >= end:
            break
        token += 1
    return token


def compared(encoding: "Encoding", spans: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Compare the places of all tokens with each part. The slow form of `carries_loss`."""
    places = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    starts, ends = places[:, 0].copy(), places[:, 1]
    # Some tokenizers leave the blanks of a token out of its offsets. The blanks follow the previous token.
    starts[1:] = np.minimum(starts[1:], ends[:-1])
    carries = np.zeros(len(places), dtype=bool)
    for start, end in spans:
        carries |= (ends > start) & (starts < end)
    return carries

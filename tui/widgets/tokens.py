"""The tokens of an example, to be read one by one. No Textual."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from curator.data.tokens import IGNORED
from tui.widgets.lines import Part


class Vocabulary:
    """What token ids mean, where the model's folder says so.

    Args:
        folder: The model's folder; without a `tokenizer.json` in it, ids stay numbers.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = None
        path = folder / "tokenizer.json"
        if path.is_file():
            # Loaded when somebody looks at tokens, which few do.
            from tokenizers import Tokenizer

            try:
                self._tokenizer = Tokenizer.from_file(str(path))
            except Exception:  # The library raises nothing more special.
                self._tokenizer = None

    def words(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; its number where that is not known."""
        if self._tokenizer is None:
            return [str(token) for token in ids]
        found: list[str] = []
        before: list[int] = []
        for token in ids:
            found.append(self._word(before, token))
            before = [token]
        return found

    def _word(self, before: list[int], token: int) -> str:
        if self._tokenizer.id_to_token(token) is None:
            return str(token)
        alone = str(self._tokenizer.decode([token], skip_special_tokens=False))
        if not before:
            return alone
        # Many tokenizers drop the blank before a token that stands by itself.
        left = str(self._tokenizer.decode(before, skip_special_tokens=False))
        both = str(self._tokenizer.decode([*before, token], skip_special_tokens=False))
        return both[len(left) :] if both.startswith(left) else alone


@lru_cache(maxsize=1)
def _vocabulary(folder: Path, changed: int) -> Vocabulary:
    return Vocabulary(folder)


def vocabulary_of(folder: Path) -> Vocabulary:
    """The vocabulary in a model's folder, read again when its file has changed.

    Raises:
        OSError: The file's date cannot be read.
    """
    path = folder / "tokenizer.json"
    return _vocabulary(folder, path.stat().st_mtime_ns if path.is_file() else 0)


def token_parts(ids: Sequence[int], labels: Sequence[int], vocabulary: Vocabulary) -> list[Part]:
    """Tokens to be read: `│` between them, `▸` where loss begins, and a style on those that carry it.

    Args:
        ids: Token ids.
        labels: Of each token −100 or its id; of an encoder–decoder the decoder's tokens, which are shown after the
            encoder's.
        vocabulary: What ids mean.
    """
    decoder = len(ids) != len(labels) or any(a not in (IGNORED, b) for a, b in zip(labels, ids, strict=True))
    if decoder:
        written = [token for token in labels if token != IGNORED]
        return [
            *_token_parts(ids, [False] * len(ids), vocabulary),
            "\n",
            *_token_parts(written, [True] * len(written), vocabulary),
        ]
    return _token_parts(ids, [label != IGNORED for label in labels], vocabulary)


def _token_parts(ids: Sequence[int], carries: Sequence[bool], vocabulary: Vocabulary) -> list[Part]:
    parts: list[Part] = []
    before = False
    for word, loss in zip(vocabulary.words(ids), carries, strict=True):
        parts.append(("▸", "accent") if loss and not before else ("│", "dim"))
        shown = word.replace("\r\n", "\n").replace("\n", "↵\n").replace("\t", "⇥")
        parts.append((shown, "loss token") if loss else shown)
        before = loss
    return parts

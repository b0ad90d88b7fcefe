"""The tokens of an example. This module imports no Textual."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from curator.data.tokens import IGNORED
from tui.widgets.lines import Part


class Vocabulary:
    """The texts of token ids, from the tokenizer of a model.

    Args:
        folder: Folder of the model. Without `tokenizer.json`, token ids stay numbers.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = None
        path = folder / "tokenizer.json"
        if path.is_file():
            # Import late, because few users look at tokens.
            from tokenizers import Tokenizer

            try:
                self._tokenizer = Tokenizer.from_file(str(path))
            except Exception:  # The library raises plain exceptions.
                self._tokenizer = None

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds, or its id if the token is unknown."""
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
        # Many tokenizers drop the blank before a single token.
        left = str(self._tokenizer.decode(before, skip_special_tokens=False))
        both = str(self._tokenizer.decode([*before, token], skip_special_tokens=False))
        return both[len(left) :] if both.startswith(left) else alone


@lru_cache(maxsize=1)
def _vocabulary(folder: Path, changed: int) -> Vocabulary:
    return Vocabulary(folder)


def vocabulary_of(folder: Path) -> Vocabulary:
    """Return the vocabulary in the folder of a model. A changed file is read again.

    Raises:
        OSError: The date of the file cannot be read.
    """
    path = folder / "tokenizer.json"
    return _vocabulary(folder, path.stat().st_mtime_ns if path.is_file() else 0)


def token_parts(ids: Sequence[int], labels: Sequence[int], vocabulary: Vocabulary) -> list[Part]:
    """Return the tokens for display: `│` between tokens, `▸` before the first token with loss, and a style.

    Args:
        ids: Token ids.
        labels: −100 or the id of each token. An encoder–decoder has tokens of the decoder here, shown last.
        vocabulary: Texts of the token ids.
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

"""Refuse text of which a tokenizer leaves out characters without a word.

Byte-pair encoding drops a character that its vocabulary lacks. A tokenizer with a token for unknown text, or with
tokens for single bytes, drops nothing.
"""

import json
from typing import TYPE_CHECKING, Any

from curator.core.errors import DataError
from curator.core.text import clean

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase


def may_lose_characters(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether a tokenizer drops characters that its vocabulary lacks."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    parts = json.loads(backend.to_str())
    model = parts["model"]
    return (
        model.get("type") == "BPE"
        and not model.get("byte_fallback")
        and model.get("unk_token") is None
        and not any("ByteLevel" in json.dumps(parts.get(part)) for part in ("normalizer", "pre_tokenizer"))
    )


def refuse_lost_characters(tokenizer: "PreTrainedTokenizerBase", text: str, places: "Encoding | None") -> None:
    """Compare a text with the places of its tokens.

    Args:
        tokenizer: The tokenizer.
        text: The text.
        places: Places of its tokens. None if they are not known. Only the beginning of a long text may have tokens.

    Raises:
        DataError: A character lies in no token. Blanks may lie between tokens.
    """
    if places is None:
        return
    read = "".join(text[start:end] for start, end in places.offsets)
    # The library counts the places without the characters that it drops.
    known = dict.fromkeys(text[: len(text) if len(read) < len(text) else 0])
    lost = "".join(c for c in known if c.strip() and not tokenizer(c, add_special_tokens=False)["input_ids"])
    if lost:
        raise DataError(
            f"the tokenizer leaves out {clean(lost[:20], limit=60)!r}, because its vocabulary lacks these characters",
            hint="Use a model whose tokenizer knows these characters, or remove them from the text.",
        )

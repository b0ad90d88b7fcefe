"""Read the answers to choose from that a row lists."""

from collections.abc import Mapping
from typing import Any

_LISTS = ("choices", "options")
# Key of the texts in an object of lists, as in ARC and CommonsenseQA.
_TEXTS = "text"
_SCORES = "target_scores"
COLUMNS = (*_LISTS, _SCORES)
"""Columns that may list the answers to choose from."""


def choices_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the answers to choose from, or an empty tuple for a row without them.

    Args:
        row: A row as it stands in the file. `choices` or `options` holds a list of texts, a list of objects with
            `text`, an object with a list `text`, or an object of texts. `target_scores` of BIG-bench holds the texts
            as keys.
    """
    for name in _LISTS:
        found = _texts(row.get(name))
        if found:
            return found
    scores = row.get(_SCORES)
    return _all_texts(list(scores)) if isinstance(scores, dict) else ()


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        inner = value.get(_TEXTS)
        return _all_texts(inner if isinstance(inner, list | tuple) else list(value.values()))
    if isinstance(value, list | tuple):
        return _all_texts([item.get(_TEXTS) if isinstance(item, dict) else item for item in value])
    return ()


def _all_texts(items: Any) -> tuple[str, ...]:
    """Return items as texts, or an empty tuple unless all are texts or numbers and at least two differ."""
    if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in items):
        return ()
    texts = tuple(dict.fromkeys(str(item) for item in items))
    return texts if len(texts) > 1 else ()

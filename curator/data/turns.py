"""Read the turns of a chat, in the ways that public data sets write them."""

import ast
import json
import re
from typing import Any

from curator.data.json_files import without_repeated_keys

# Names of the two texts of an exchange, in Capybara, Firefly, xtuner and others.
_ASKED = ("input", "human", "user", "prompt", "question", "query", "instruction")
_ANSWERED = ("output", "assistant", "bot", "gpt", "response", "answer", "completion")
# numpy writes no comma between the items of an array. Within a text, Python writes a line break as `\\n`.
_ADJACENT = re.compile(r"""(['"])\s+(?=['"])""")
_ARRAY = re.compile(r"array\((\[.*?\])(?:,\s*dtype=[\w.]+)?\)", re.DOTALL)
_NO_COMMA = re.compile(r"\}\s*\n\s*\{")


def turns_of(value: str | dict[str, Any] | list[Any]) -> Any:
    """Return turns as a list of objects with a role. Return the value itself if it holds no turns.

    Args:
        value: Turns as JSON text, as a list for each key, as texts of user and assistant in turn, or as exchanges.
    """
    if isinstance(value, list):
        # In LIMA and UltraChat, the texts of user and assistant alternate.
        if len(value) > 1 and all(isinstance(text, str) for text in value):
            return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(value)]
        return _of_exchanges(value) or value
    if isinstance(value, dict):
        # `datasets` writes a sequence of objects in this way.
        lists = list(value.values())
        keys = {"role", "from"} & value.keys()
        if not keys or not all(isinstance(items, list) and len(items) == len(lists[0]) for items in lists):
            return value
        return [dict(zip(value, items, strict=True)) for items in zip(*lists, strict=True)]
    found = parsed_list(value)
    return value if found is None or not all(isinstance(turn, dict) for turn in found) else found


def parsed_list(text: str) -> list[Any] | None:
    """Return a non-empty list that a text holds as JSON or, as pandas writes it to CSV, as Python. None if not."""
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return None
    try:
        value = json.loads(stripped, object_pairs_hook=without_repeated_keys)
    except json.JSONDecodeError:
        value = _python(stripped) or _python(_NO_COMMA.sub("},{", stripped))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and value else None


def parsed_cell(text: str) -> list[Any] | dict[str, Any] | None:
    """Return the list or the object that a cell holds as JSON, or as pandas writes it to CSV. None if not."""
    stripped = text.strip()
    if (stripped[:1], stripped[-1:]) not in (("[", "]"), ("{", "}")):
        return None
    try:
        value = json.loads(stripped, object_pairs_hook=without_repeated_keys)
    except json.JSONDecodeError:
        plain = _ARRAY.sub(r"\1", stripped)
        value, apart = _python(plain), _python(_ADJACENT.sub(r"\1, ", plain))
        # Python joins two texts without a comma between them. A text may hold quotes, too.
        value = apart if _size(apart) > _size(value) else value
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list | dict) and value else None


def _size(value: Any) -> int:
    """Return the number of values in nested lists and objects."""
    if isinstance(value, list | dict):
        return 1 + sum(map(_size, value.values() if isinstance(value, dict) else value))
    return 0 if value is None else 1


def _python(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _of_exchanges(items: list[Any]) -> list[dict[str, Any]]:
    """Return the turns of exchanges, each with a question and its answer, or an empty list."""
    turns = []
    for item in items:
        if not isinstance(item, dict) or {"role", "from"} & item.keys():
            return []
        asked = [name for name in _ASKED if isinstance(item.get(name), str)]
        answered = [name for name in _ANSWERED if isinstance(item.get(name), str)]
        if len(asked) != 1 or len(answered) != 1:
            return []
        if isinstance(item.get("system"), str) and item["system"]:
            turns.append({"role": "system", "content": item["system"]})
        # Other fields stay, so that they are reported as unused.
        rest = {name: value for name, value in item.items() if name not in (asked[0], answered[0], "system")}
        turns.append(rest | {"role": "user", "content": item[asked[0]]})
        turns.append({"role": "assistant", "content": item[answered[0]]})
    return turns

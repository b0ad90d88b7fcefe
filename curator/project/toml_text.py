"""Write values as TOML."""

import json
from typing import Any

from curator.core.text import clean


def quoted(text: str) -> str:
    """Return a TOML basic string. JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def one_line(text: str) -> str:
    """Return foreign text on one line."""
    return " ".join(clean(text).split())


def toml_of(value: Any) -> str:
    """Return a value in TOML."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quoted(key)} = {toml_of(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    # Python writes 1e-05, which is valid TOML.
    return repr(value)

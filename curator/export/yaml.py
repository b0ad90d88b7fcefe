"""Plain values as YAML, of which JSON's strings and numbers are a part."""

import json
import re
from typing import Any

_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")
_SIMPLE = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
# What YAML takes for something else than text.
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "~", ".inf", ".nan", "."}


def to_yaml(values: dict[str, Any], comment: str = "") -> str:
    """A YAML document of nested dictionaries, lists and plain values, in ASCII: some trainers open it in any encoding.

    Args:
        values: The document; None is `null`.
        comment: Lines that stand before it.
    """
    head = "".join(f"# {line}\n" for line in comment.encode("ascii", "backslashreplace").decode().splitlines())
    return head + "".join(f"{line}\n" for line in _block(values))


def _block(value: Any) -> list[str]:
    lines: list[str] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                lines += [f"{_scalar(key)}:", *(f"  {line}" for line in _block(inner))]
            else:
                lines.append(f"{_scalar(key)}: {_scalar(inner)}")
        return lines
    for item in value:
        inner_lines = _block(item) if isinstance(item, dict | list) and item else [_scalar(item)]
        lines += [f"{'- ' if n == 0 else '  '}{line}" for n, line in enumerate(inner_lines)]
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _SIMPLE.fullmatch(value) and value.lower() not in _WORDS:
            return value
        # JSON writes a character outside the first 65,536 as two, which YAML does not join.
        return _PAIR.sub(_join, json.dumps(value))
    if isinstance(value, float):
        # YAML 1.1 takes 3e-05 for text: a number has a point.
        mantissa, e, exponent = repr(value).partition("e")
        return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else repr(value)
    return json.dumps(value)


def _join(found: "re.Match[str]") -> str:
    high, low = (int(part, 16) for part in found.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"

"""What an artifact was made from: a key for finding it again, and the differences when it no longer fits."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Inputs = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InputChange:
    """One field in which two sets of inputs differ; None where a side has no such field."""

    field: str
    then: Any
    now: Any

    def __str__(self) -> str:
        """As `field: then → now`, hashes shortened."""
        if self.then is None:
            return f"{self.field} is new"
        if self.now is None:
            return f"{self.field} is gone"
        return f"{self.field}: {_short(self.then)} → {_short(self.now)}"


def key_of(inputs: Inputs) -> str:
    """Hash of inputs (32 hexadecimal digits), the same for equal values in any order of keys."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def hash_of(items: Iterable[str]) -> str:
    """Hash of strings in their order (32 hexadecimal digits)."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def input_changes(then: Inputs, now: Inputs) -> list[InputChange]:
    """Fields in which `now` differs from `then`, by dotted name."""
    before, after = _flat(then), _flat(now)
    return [
        InputChange(field, before.get(field), after.get(field))
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field)
    ]


def _flat(inputs: Inputs, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) in (32, 64) and set(value) <= set("0123456789abcdef"):
        return value[:8]
    return json.dumps(value, ensure_ascii=False)

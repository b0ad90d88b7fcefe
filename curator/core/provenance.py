"""Hash the inputs of an artifact to a key, and compare the inputs of two artifacts."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Inputs = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InputChange:
    """One field in which two sets of inputs differ. None if a side lacks the field."""

    field: str
    then: Any
    now: Any

    def __str__(self) -> str:
        """Format the change as `field: then → now`, with shortened hashes."""
        if self.then is None:
            return f"{self.field} was added"
        if self.now is None:
            return f"{self.field} was removed"
        return f"{self.field}: {_short(self.then)} → {_short(self.now)}"


def key_of(inputs: Inputs) -> str:
    """Hash inputs to 32 hexadecimal digits, independent of the order of keys."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def hash_of(items: Iterable[str]) -> str:
    """Hash a sequence of strings to 32 hexadecimal digits. The order matters."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def input_changes(then: Inputs, now: Inputs) -> list[InputChange]:
    """Return the fields in which `now` differs from `then`, sorted by dotted name."""
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

"""The base of all report classes: rounding, fields, and the JSON document that `--json` prints."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from curator.core.interval import Interval

SCHEMA_VERSION = 1
# Decimal places of every loss and affinity that leaves the program. Rounding hides the order in which numbers were
# added, so that equal inputs print equal output. The noise of an estimate is much larger than the last place.
_DIGITS = 6
# Public names of the field `estimate`.
_INTERVAL_NAMES = ("estimated_loss", "estimated_loss_low", "estimated_loss_high")


def rounded(value: float) -> float:
    """Round a loss or an affinity as it leaves the program."""
    return round(float(value), _DIGITS)


def rounded_if_known(value: float | None) -> float | None:
    """Round a value as `rounded` does. Return None if the value is unknown."""
    return None if value is None else rounded(value)


def rounded_interval(found: Interval) -> Interval:
    """Round an estimate and both ends of its interval as `rounded` does."""
    return Interval(rounded(found.value), rounded(found.low), rounded(found.high))


def one_or_list(names: tuple[str, ...]) -> str | list[str]:
    """Return the name if there is one name, else the list of names."""
    return names[0] if len(names) == 1 else list(names)


class Estimated:
    """Give a report class with a field `estimate` the three public numbers of the estimate."""

    __slots__ = ()
    estimate: Interval

    @property
    def estimated_loss(self) -> float:
        """Estimated target loss, nats per target token."""
        return self.estimate.value

    @property
    def estimated_loss_low(self) -> float:
        """Lower end of the 90 % interval."""
        return self.estimate.low

    @property
    def estimated_loss_high(self) -> float:
        """Upper end of the 90 % interval."""
        return self.estimate.high


class Report:
    """Turn a frozen dataclass into the JSON document that a command prints with `--json`.

    A subclass lists the names of the document in `_document`. If the list is empty, the names are those of the fields.
    """

    __slots__ = ()
    _document: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document that the command prints with `--json`."""
        document: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        for name in self._document or field_names(type(self)):
            value = getattr(self, name)
            document[name] = one_or_list(value) if name == "target" else _as_json(value)
        return document


def field_names(kind: type[Any]) -> list[str]:
    """Return the public names of a dataclass's values, in order. An estimate stands for a value and two ends."""
    names: list[str] = []
    for field in dataclasses.fields(kind):
        if not field.name.startswith("_"):
            names += _INTERVAL_NAMES if field.type is Interval else [field.name]
    return names


def field_values(value: Any) -> dict[str, Any]:
    """Return the values of a dataclass by public name, as `field_names` lists them."""
    return {name: getattr(value, name) for name in field_names(type(value))}


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {name: _as_json(inner) for name, inner in field_values(value).items()}
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_as_json(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value

"""Read a field of a row that must be text."""

import json
from typing import Any

from curator.core.errors import DataError
from curator.data.suggestions import answer_line

_ANSWERS = ("completion", "output", "targets")


def text_of(fields: dict[str, Any], name: str, where: str) -> str:
    """Return a field that must be text.

    Args:
        fields: The row, or a turn of it.
        name: Name of the field.
        where: Place of the row, for error messages.

    Raises:
        DataError: The field is missing, has another type, or cannot be written as UTF-8.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        if isinstance(value, list) and len(value) > 1 and name in _ANSWERS:
            raise DataError(
                f"{where}: {name!r} holds {len(value):,} answers instead of one text",
                hint=answer_line(fields, name),
            )
        raise DataError(f"{where}: {name!r} must be text, not {value!r:.60}", hint=_text_hint(fields, name))
    check_text(value, f"{name!r}", where)
    return value


def _text_hint(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, bool):
        return 'Write the value as text, for example "yes" or "no".'
    if isinstance(value, list | dict):
        return answer_line(fields, name) if name in _ANSWERS else "Write the value as one text."
    if value is not None and not isinstance(value, int | float):
        return "Write the value as text."
    return 'Put the value in quotes: "5" instead of 5.' if value is not None else "Add the missing text."


def check_text(value: Any, what: str, where: str) -> None:
    """Check that a value can be written as JSON in UTF-8."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {what} holds half a surrogate pair at character {error.start + 1}",
            hint="Fix the \\u escape in the row.",
        ) from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {what} cannot be written as JSON: {error}", hint="Fix or remove the row.") from error

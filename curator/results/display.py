"""Show results in notebooks as data frames and as HTML."""

import dataclasses
import html
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

from curator.core.figures import fixed
from curator.core.text import clean
from curator.results.base import field_names, field_values

if TYPE_CHECKING:
    import pandas

# Rows of a table, and characters of a text, that a notebook shows.
_ROWS, _LETTERS = 20, 160
# Items of a list, and characters of a text, that a `repr` shows.
_NAMES, _NAME_LETTERS = 4, 60
Row = dict[str, Any]


class Shown:
    """A result that has a table.

    The field named in `_table` holds the rows. Without `_table`, the result itself is the only row.
    The columns are the public values of a row's class.
    """

    __slots__ = ()
    _table: ClassVar[str] = ""

    def __init_subclass__(cls, **given: Any) -> None:
        """Give every result the short `repr`. `dataclass` keeps a `__repr__` that is there before it."""
        super().__init_subclass__(**given)
        cls.__repr__ = Shown.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """Return one line with the small values and the sizes of the tables. `to_frame` returns the tables."""
        parts = [f"{name}={_short(getattr(self, name))}" for name in field_names(type(self))]
        return f"{type(self).__name__}({', '.join(parts)})"

    def rows(self) -> list[Row]:
        """Return the rows of the table, by column."""
        values = getattr(self, self._table) if self._table else (self,)
        return [value if isinstance(value, dict) else field_values(value) for value in values]

    def columns(self) -> list[str]:
        """Return the names of the columns, also of an empty table."""
        kind: Any = type(self)
        if self._table:
            kind = get_args(get_type_hints(kind)[self._table])[0]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return field_names(kind)
        return list(dict.fromkeys(name for row in self.rows() for name in row))

    def to_frame(self) -> "pandas.DataFrame":
        """Return the table as a data frame. Losses are in nats per target token."""
        import pandas

        return pandas.DataFrame(self.rows(), columns=self.columns())

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the result of `to_frame`. This is its earlier name."""
        return self.to_frame()

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows: the other fields, then the first rows of the table."""
        facts = field_values(self).items() if self._table else ()
        small = [(name, value) for name, value in facts if name != self._table and not _is_large(value)]
        return _facts(small) + _html_table(self.columns(), *self.first(_ROWS))

    def first(self, count: int) -> tuple[list[Row], int]:
        """Return the first `count` rows, and the number of all rows."""
        rows = self.rows()
        return rows[:count], len(rows)


def plain(value: Any) -> Any:
    """Convert a value to JSON types: numbers, strings, lists, objects and null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _short(value: Any) -> str:
    """Return a value as a `repr` shows it: a text or a list is cut, and a table is a number of rows."""
    if _is_large(value):
        return f"<{len(value)} rows>"
    if isinstance(value, tuple | list):
        more = f", … {len(value)} in all" if len(value) > _NAMES else ""
        return f"[{', '.join(map(_short, value[:_NAMES]))}{more}]"
    if isinstance(value, str | Path):
        # The `repr` of a text escapes what steers a terminal.
        return repr(clean(value, limit=_NAME_LETTERS))
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or isinstance(value, bool | int):
        return repr(value)
    return f"<{type(value).__name__}>"


def _is_large(value: Any) -> bool:
    """Return whether a value is a table."""
    return isinstance(value, dict) or (
        isinstance(value, tuple) and any(not isinstance(inner, str | int | float) for inner in value)
    )


def _facts(facts: list[tuple[str, Any]]) -> str:
    if not facts:
        return ""
    parts = (f"{_escaped(name.replace('_', ' '))}: <b>{_cell(value)}</b>" for name, value in facts)
    return f"<p>{' · '.join(parts)}</p>"


def _html_table(columns: list[str], rows: list[Row], total: int) -> str:
    head = "".join(f"<th>{_escaped(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{_align(row[name])}>{_cell(row[name])}</td>" for name in columns) + "</tr>"
        for row in rows
    )
    more = f"<p>the first {len(rows):,} of {total:,} rows</p>" if total > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _align(value: Any) -> str:
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return "" if is_number else ' style="text-align: left"'


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "✓" if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return fixed(value)
    if isinstance(value, tuple | list):
        return _escaped(", ".join(map(str, value)) or "–")
    if isinstance(value, dict):
        return _escaped(", ".join(f"{name}: {inner}" for name, inner in value.items()) or "–")
    return _escaped(str(value) if isinstance(value, Path) else value)


def _escaped(text: object) -> str:
    return html.escape(clean(text, limit=_LETTERS))

"""What a format is, and where to find one by its name."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from curator.export.forms import Form
from curator.export.store import Store

if TYPE_CHECKING:
    from curator.export.plan import Plan, PlannedTask


def _nothing(plan: "Plan") -> dict[str, str]:
    return {}


def _none(plan: "Plan") -> list[str]:
    return []


def _never(task: "PlannedTask") -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How to write for one trainer."""

    name: str
    trainer: str = ""
    """The trainer's name; empty where none is meant in particular, and nothing is promised."""
    tested: str = ""
    """What of it was tested, and in which version."""
    forms: tuple[Form, ...]
    """Ways to write the rows, from the most readable to the surest; the first is taken of which the trainer makes what
    curator made."""
    stores: dict[str, Store]
    """Kind of data file, by form."""
    config_names: tuple[str, ...] = ()
    """Files beside the data."""
    files: Callable[["Plan"], dict[str, str]] = _nothing
    """Their text, by name."""
    command: str = ""
    """What trains, from within the folder."""
    samples: Callable[["PlannedTask"], bool] = _never
    """Whether the trainer's own mechanism takes just as many rows of a task as its weight says, none of them more
    often than it must, and the same ones every time."""
    notes: Callable[["Plan"], list[str]] = _none
    """What people should know of a plan."""
    plain: bool = False
    """Whether letters, digits and underscores are all that may stand in a task's name."""

    def store_of(self, form: Form | None) -> Store:
        """The kind of data file for a form; for the first one where it is not chosen yet."""
        return self.stores[(form or self.forms[0]).name]


def find_format(name: str) -> Format:
    """A format by its name, one of `FORMATS`."""
    module = import_module(f"curator.export.{name.replace('-', '_')}")
    return cast(Format, module.FORMAT)

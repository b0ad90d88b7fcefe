"""The table of notes on tasks, examples and selections."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from curator.workspace.store.access import Database
from curator.workspace.store.schema import utc_now

Kind = Literal["task", "example", "selection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text that a person wrote about a task, an example or a selection."""

    kind: Kind
    name: str
    """Name of the task or of the selection. For an example, name of its task."""
    sha256: str
    """Hash of the example's content. Empty for a task or a selection."""
    text: str
    made: datetime


class Notes(Database):
    """Store and read notes. Each task, example or selection has one note at most."""

    def put_note(self, kind: Kind, name: str, sha256: str, text: str) -> None:
        """Store a note. An empty text removes the note."""
        with self.write() as connection:
            connection.execute("DELETE FROM notes WHERE kind = ? AND name = ? AND sha256 = ?", [kind, name, sha256])
            if text:
                connection.execute("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", [kind, name, sha256, text, utc_now()])

    def notes(self) -> list[Note]:
        """Return all notes, by kind, name and hash."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT kind, name, sha256, text, made FROM notes ORDER BY kind, name, sha256"
            ).fetchall()
        return self.decoded(rows, _note)


def _note(kind: Any, name: str, sha256: str, text: str, made: datetime) -> Note:
    if not all(isinstance(value, str) for value in (kind, name, sha256, text)):
        raise TypeError("a value of a note is missing")
    return Note(kind=kind, name=name, sha256=sha256, text=text, made=made.replace(tzinfo=UTC))

"""The tables of selections and of the edits that users make in sessions."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from curator.workspace.store.access import Database, put_artifact
from curator.workspace.store.records import StoredEdit, StoredSelection, StoredSession
from curator.workspace.store.schema import Connection, utc_now


class SelectionTable(Database):
    """Store and read selections and edits."""

    def put_selection(
        self,
        key: str,
        name: str,
        *,
        target: str,
        method: str,
        loss: float,
        manifest: str,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
    ) -> None:
        """Store a selection with its manifest and its artifact. A selection with the same key is replaced."""
        with self.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO selections VALUES (?, ?, ?, ?, ?, ?, ?)",
                [key, name, target, method, loss, manifest, utc_now()],
            )
            put_artifact(connection, "select", key, inputs, outputs)

    def selection(self, key: str) -> str | None:
        """Return the manifest of a selection as JSON, or None if the selection is not stored."""
        with self.read() as connection:
            if connection is None:
                return None
            rows = connection.execute("SELECT manifest FROM selections WHERE key = ?", [key]).fetchall()
        return rows[0][0] if rows else None

    def put_manifest(self, key: str, manifest: str) -> None:
        """Replace the manifest of a selection by another JSON text."""
        with self.write() as connection:
            connection.execute("UPDATE selections SET manifest = ? WHERE key = ?", [manifest, key])

    def renew_selection(self, key: str) -> None:
        """Set the time of a stored selection to now, so that it is the newest one."""
        with self.write() as connection:
            connection.execute("UPDATE selections SET created = ? WHERE key = ?", [utc_now(), key])

    def selection_named(self, name: str) -> str | None:
        """Return the manifest of the newest selection with a name as JSON, or None if no selection has the name."""
        with self.read() as connection:
            if connection is None:
                return None
            rows = connection.execute(
                "SELECT manifest FROM selections WHERE name = ? ORDER BY created DESC, key LIMIT 1", [name]
            ).fetchall()
        return rows[0][0] if rows else None

    def selections(self) -> list[StoredSelection]:
        """Return every selection, newest first."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT key, name, target, method, loss, manifest, created FROM selections ORDER BY created DESC, key"
            ).fetchall()
        return self.decoded(rows, _selection)

    # -- names ----------------------------------------------------------------------------------------------------

    def rename_selections(
        self, renamed: Sequence[tuple[str, StoredSelection, dict[str, Any], dict[str, Any]]], before: str
    ) -> None:
        """Replace selections by the same ones under another name, with the note on the name, in one transaction.

        Args:
            renamed: Key before, and the selection with its new key, name and manifest, and its inputs and outputs.
            before: Name before.
        """
        with self.write() as connection:
            for key, new, inputs, outputs in renamed:
                connection.execute("DELETE FROM selections WHERE key = ?", [key])
                connection.execute(
                    "INSERT OR REPLACE INTO selections VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        new.key,
                        new.name,
                        new.target,
                        new.method,
                        new.loss,
                        new.manifest,
                        new.created.astimezone(UTC).replace(tzinfo=None),
                    ],
                )
                put_artifact(connection, "select", new.key, inputs, outputs)
            after = renamed[0][1].name
            connection.execute("DELETE FROM notes WHERE kind = 'selection' AND name = ?", [after])
            connection.execute("UPDATE notes SET name = ? WHERE kind = 'selection' AND name = ?", [after, before])

    def delete_selections(self, name: str, target: str) -> int:
        """Delete all selections with a name, and return their number. `restore_selections` brings them back."""
        with self.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO deleted_selections SELECT *, ? FROM selections WHERE name = ? AND target = ?",
                [utc_now(), name, target],
            )
            return _count(connection.execute("DELETE FROM selections WHERE name = ? AND target = ?", [name, target]))

    def restore_selections(self, name: str, target: str) -> int:
        """Restore the selections of a name that were deleted last, and return their number."""
        with self.write() as connection:
            last = connection.execute(
                "SELECT max(deleted) FROM deleted_selections WHERE name = ? AND target = ?", [name, target]
            ).fetchall()[0][0]
            there = [name, target, last]
            connection.execute(
                "INSERT OR REPLACE INTO selections SELECT * EXCLUDE deleted FROM deleted_selections"
                " WHERE name = ? AND target = ? AND deleted = ?",
                there,
            )
            return _count(
                connection.execute(
                    "DELETE FROM deleted_selections WHERE name = ? AND target = ? AND deleted = ?", there
                )
            )

    def deleted_selections(self) -> list[tuple[StoredSelection, datetime]]:
        """Return every deleted selection with the time of its deletion, the last deleted first."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT key, name, target, method, loss, manifest, created, deleted FROM deleted_selections"
                " ORDER BY deleted DESC, created DESC, key"
            ).fetchall()
        return self.decoded(rows, lambda *row: (_selection(*row[:7]), row[7].replace(tzinfo=UTC)))

    # -- edits ----------------------------------------------------------------------------------------------------

    def put_edits(self, session: str, target: str, edits: Sequence[StoredEdit]) -> None:
        """Append edits to the history of a session. For a stored edit, only the loss is updated."""
        with self.write() as connection:
            connection.executemany(
                "INSERT INTO edits VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET loss = coalesce(excluded.loss, edits.loss)",
                [
                    (
                        session,
                        e.number,
                        target,
                        e.kind,
                        e.label,
                        json.dumps(e.changes, ensure_ascii=False),
                        e.loss,
                        e.made.astimezone(UTC).replace(tzinfo=None),
                    )
                    for e in edits
                ],
            )

    def sessions(self, target: str, *, most: int = 9) -> list[StoredSession]:
        """Return the sessions of a target with their histories. The session that was changed last is the first.

        Args:
            target: Names of the targets, joined by `+`.
            most: Largest number of sessions.
        """
        with self.read() as connection:
            if connection is None:
                return []
            found = connection.execute(
                "SELECT session FROM edits WHERE target = ? GROUP BY session"
                " ORDER BY max(made) DESC, max(number) DESC LIMIT ?",
                [target, most],
            ).fetchall()
            rows = [(name, *_edit_rows(connection, name)) for (name,) in found]
        return self.decoded(
            rows, lambda name, *edits: StoredSession(id=name, edits=tuple(_edit(*edit) for edit in edits))
        )

    def stamps(self) -> tuple[str, str]:
        """Return two texts that show changes by any process.

        Returns:
            A text that changes when a selection is saved or removed, and a text that changes with results of stages
            and with measured losses.
        """
        with self.read() as connection:
            if connection is None:
                return "", ""
            selections = connection.execute(
                "SELECT count(*), max(created), sum(hash(key || name)) FROM selections"
            ).fetchall()
            # Estimates and calibrations that this process stores change nothing here.
            stages = connection.execute(
                "SELECT count(*), max(created) FROM artifacts WHERE stage NOT IN ('select', 'calibration')"
            ).fetchall()
            measured = connection.execute("SELECT count(*), max(made) FROM measurements").fetchall()
        return str(selections), f"{stages} {measured}"


def _count(deletion: Connection) -> int:
    """Return the number of rows that a statement deleted."""
    return int(deletion.fetchall()[0][0])


def _selection(
    key: str, name: str, target: str, method: str, loss: float, manifest: str, created: datetime
) -> StoredSelection:
    if not all(isinstance(value, str) for value in (key, name, target, method, manifest)):
        raise TypeError("a value of a selection is missing")
    return StoredSelection(
        key=key,
        name=name,
        target=target,
        method=method,
        loss=float(loss),
        manifest=manifest,
        created=created.replace(tzinfo=UTC),
    )


def _edit_rows(connection: Connection, session: str) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT number, kind, label, changes, loss, made FROM edits WHERE session = ? ORDER BY number", [session]
    ).fetchall()


def _edit(number: int, kind: str, label: str, changes: str, loss: float | None, made: datetime) -> StoredEdit:
    if not isinstance(kind, str) or not isinstance(label, str):
        raise TypeError("a value of an edit is missing")
    return StoredEdit(
        number=number, kind=kind, label=label, changes=json.loads(changes), loss=loss, made=made.replace(tzinfo=UTC)
    )

"""Write an export, all of it or nothing."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from curator.core.errors import DataError
from curator.core.files import sha256_of, whole_folder
from curator.core.folders import entries_below
from curator.data.rows import trainable
from curator.export.data_files import turn_keys_of
from curator.export.format import ROWS, Plan, PlannedTask
from curator.export.forms import PLAIN
from curator.export.plan import RECORD_NAME, check_folder
from curator.export.spool import SpooledRow
from curator.select.manifest import MANIFEST_NAME, rebased, render


def write(plan: Plan) -> None:
    """Write data, configs and manifest into a partial folder, and rename the folder when it is complete.

    Removes the spool in any case.

    Raises:
        ConfigError: The folder holds other files by now.
        DataError: A file cannot be written, or the spool was removed before.
    """
    folder = plan.folder
    try:
        check_folder(folder, plan.manifest, plan.here)
        with whole_folder(folder) as partial:
            _write_into(partial, plan)
    except OSError as error:
        hint = "Check free disk space and write permissions, or choose another folder with -o."
        raise DataError(f"cannot write {folder}: {error}", hint=hint) from error
    finally:
        if plan.spool is not None:
            plan.spool.close()


def _write_into(folder: Path, plan: Plan) -> None:
    store = plan.format.data_file_of(plan.form)
    parts = [*plan.training, *plan.held_out]
    rows = {part.stem: _Rows(plan, part) for part in parts}
    tables = store.kind != "jsonl" and plan.form is PLAIN
    keys = set[str]().union(*map(turn_keys_of, rows.values())) if tables else ()
    for part in parts:
        store.write(folder / plan.file(part), rows[part.stem], turn_keys=keys)
    store.finish(folder, [plan.file(part) for part in parts])
    for part in (*plan.tasks, *plan.validation):
        path = plan.rows_of_data(part)
        if path and path != plan.file(part):
            ROWS.write(folder / path, _RowsOfData(plan, part))
    manifest = render(rebased(plan.manifest, plan.here, plan.folder))
    (folder / MANIFEST_NAME).write_text(manifest, encoding="utf-8")
    for name, text in plan.configs.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    names = sorted(path.relative_to(folder).as_posix() for path in entries_below(folder))
    record = {name: sha256_of(folder / name) for name in names if name != MANIFEST_NAME}
    # Without the name of the folder, equal exports have equal records.
    report = {key: value for key, value in plan.report.to_json().items() if key not in ("folder", "files")}
    text = json.dumps(report | {"written": record}, ensure_ascii=False, indent=1) + "\n"
    (folder / RECORD_NAME).write_text(text, encoding="utf-8")


class _Rows(Iterable[dict[str, Any]]):
    """Yield the rows of one task in the form of the export. Each iteration reads the spool from the start."""

    def __init__(self, plan: Plan, task: PlannedTask) -> None:
        self._plan, self._task = plan, task

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self._plan.spool is not None
        times = Counter(self._task.sample(self._task.available))
        for place, row in enumerate(self._plan.spool.read(self._task.stem)):
            if times[place]:
                yield from repeat(_row(self._plan, row), times[place])


class _RowsOfData(_Rows):
    """Yield each row of one task once, in the form of the data."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self._plan.spool is not None
        for row in self._plan.spool.read(self._task.stem):
            yield trainable(row.content)


def _row(plan: Plan, row: SpooledRow) -> dict[str, Any]:
    if plan.form is None or plan.form is PLAIN or plan.encoding is None or row.encoded is None:
        return trainable(row.content)
    written = plan.form.write(row.content, row.encoded, plan.encoding)
    if written is None:
        raise DataError(
            f"cannot write a row for {plan.format.trainer}: {row.place}",
            hint="Leave the task out, or export jsonl.",
        )
    return written

"""Write rows as JSON Lines, Parquet or Arrow files."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

_BATCH = 1000
VALIDATION = "validation"
"""Name of the split, and of the file, with held-out rows."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """Describe a kind of data file.

    Attributes:
        kind: `jsonl`, `parquet` or `arrow`. For `arrow`, each task is a folder that `datasets.load_from_disk` reads.
        folder: Subfolder of the files in the export. In a subfolder, `arrow` files are the shards of one `DatasetDict`.
    """

    kind: Literal["jsonl", "parquet", "arrow"]
    folder: str = ""

    def path(self, stem: str, *, held_out: bool = False) -> str:
        """Return the path of a task's rows, relative to the folder of the export."""
        if self.kind == "arrow" and self.folder:
            return f"{self.folder}/{VALIDATION if held_out else 'train'}/{stem}.arrow"
        name = stem if self.kind == "arrow" else f"{stem}.{self.kind}"
        return f"{self.folder}/{name}" if self.folder else name

    def write(self, path: Path, rows: Iterable[dict[str, Any]], *, turn_keys: Collection[str] = ()) -> None:
        """Write the rows of one task.

        Args:
            path: The file or folder to write.
            rows: At least one row. Tables iterate over the rows three times, first for the names of columns and keys.
            turn_keys: Keys of the turns of all tasks. Tables of several tasks can be joined if their turns have the
                same keys.

        Raises:
            OSError: The file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.kind == "jsonl":
            with path.open("wb") as file:
                for row in rows:
                    file.write(_line(row))
        elif self.kind == "parquet":
            _write_parquet(path, rows, turn_keys)
        elif self.folder:
            _write_arrow(path, rows, turn_keys)
        else:
            path.mkdir()
            schema = _write_arrow(path / "data-00000-of-00001.arrow", rows, turn_keys)
            describe_dataset(path, ["data-00000-of-00001.arrow"], schema)

    def finish(self, folder: Path, files: list[str]) -> None:
        """Describe the shards of all tasks as one `DatasetDict`, if this kind of data file has shards.

        Args:
            folder: Folder of the export.
            files: Paths of all data files, relative to the folder.
        """
        if self.kind == "arrow" and self.folder:
            import pyarrow as pa

            splits: dict[Path, list[str]] = {}
            for file in map(Path, files):
                splits.setdefault(file.parent, []).append(file.name)
            for split, names in splits.items():
                with pa.OSFile(str(folder / split / names[0])) as source, pa.ipc.open_stream(source) as reader:
                    schema = reader.schema
                describe_dataset(folder / split, names, schema)
            text = json.dumps({"splits": [split.name for split in splits]})
            (folder / self.folder / "dataset_dict.json").write_text(text, encoding="utf-8")


def _line(row: dict[str, Any]) -> bytes:
    """Return a row as one line of JSON. UTF-8 cannot hold halves of surrogate pairs, so they are escaped."""
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row) + "\n").encode()


def turn_keys_of(rows: Iterable[dict[str, Any]]) -> set[str]:
    """Return the keys of the turns of all rows."""
    return {key for row in rows for turn in row.get("messages", ()) for key in turn}


def _tables(rows: Iterable[dict[str, Any]], turn_keys: Collection[str]) -> Iterator[Any]:
    """Yield tables of at most 1,000 rows. Each table has the columns of all rows, and turns have the given keys.

    Objects of any shape become JSON text, which curator and trainers read: `tools`, and the arguments of calls.
    """
    import pyarrow as pa

    function = pa.struct([("name", pa.string()), ("arguments", pa.string())])
    call = pa.struct([("type", pa.string()), ("id", pa.string()), ("function", function)])
    keys = {
        "role": pa.string(),
        "content": pa.string(),
        "tool_calls": pa.list_(call),
        "name": pa.string(),
        "tool_call_id": pa.string(),
        "train": pa.bool_(),
    }
    used = {*turn_keys, *turn_keys_of(rows)}
    unknown = used - keys.keys()
    if unknown:
        # An Arrow struct would drop the key in silence.
        raise ValueError(f"a turn has the unknown key {min(unknown)!r}")
    turn = pa.struct([(key, kind) for key, kind in keys.items() if key in used or key in ("role", "content")])
    types = {
        "messages": pa.list_(turn),
        "input_ids": pa.list_(pa.int32()),
        "attention_mask": pa.list_(pa.int8()),
        "segments": pa.list_(pa.struct([("label", pa.bool_()), ("text", pa.string())])),
        "labels": pa.list_(pa.int32()),
    }
    names = dict.fromkeys(name for row in rows for name in row)
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    waiting = iter(rows)
    while batch := list(islice(waiting, _BATCH)):
        yield pa.Table.from_pylist([_as_cells(row) for row in batch], schema=schema)


def _as_cells(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose objects of any shape are JSON text."""
    cells = dict(row)
    if "tools" in row:
        cells["tools"] = json.dumps(row["tools"], ensure_ascii=False)
    if any("tool_calls" in turn for turn in row.get("messages", ())):
        cells["messages"] = [
            turn | {"tool_calls": [_call_as_cells(call) for call in turn["tool_calls"]]}
            if "tool_calls" in turn
            else turn
            for turn in row["messages"]
        ]
    return cells


def _call_as_cells(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    text = json.dumps(function["arguments"], ensure_ascii=False)
    return call | {"function": function | {"arguments": text}}


def _write_parquet(path: Path, rows: Iterable[dict[str, Any]], turn_keys: Collection[str]) -> None:
    import pyarrow.parquet as pq

    tables = _tables(rows, turn_keys)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _write_arrow(path: Path, rows: Iterable[dict[str, Any]], turn_keys: Collection[str]) -> Any:
    import pyarrow as pa

    tables = _tables(rows, turn_keys)
    first = next(tables)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
    return first.schema


def describe_dataset(folder: Path, files: list[str], schema: Any) -> None:
    """Write the two JSON files that `datasets.load_from_disk` needs next to Arrow files, since version 2.0."""
    from hashlib import sha256

    digest = sha256()
    for name in files:
        digest.update((folder / name).read_bytes())
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": digest.hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    info = {"citation": "", "description": "", "homepage": "", "license": ""}
    features = {field.name: _feature(field.type) for field in schema}
    (folder / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps(info | {"features": features}, indent=2), encoding="utf-8")


def _feature(type: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_list(type):
        inner = _feature(type.value_type)
        # Every version reads a list with one struct as a list of structs.
        return [inner] if pa.types.is_struct(type.value_type) else {"feature": inner, "_type": "Sequence"}
    if pa.types.is_struct(type):
        return {field.name: _feature(field.type) for field in type}
    return {"dtype": str(type), "_type": "Value"}

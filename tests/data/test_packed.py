"""Test that curator reads packed files and Arrow files, and says what is wrong with a damaged one."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import pair_rows

from curator.core.errors import DataError
from curator.core.remote import RemoteFile
from curator.data import readers
from curator.data.readers import is_task_file, task_name
from curator.data.sources import Source
from curator.data.task_rows import read_task

ROWS = pair_rows("x", 3)
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstd,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
packings = pytest.mark.parametrize("ending", PACK)


def contents(path: Path) -> list[dict[str, object]]:
    return [row.content for row in read_task(Source(name="t", files=(path,)))]


@packings
@pytest.mark.parametrize("kind", [".jsonl", ".jsonlines", ".ndjson", ".json", ".csv"])
def test_read_task_packed_file_gives_the_rows_of_the_plain_file(tmp_path: Path, ending: str, kind: str) -> None:
    plain = tmp_path / f"a.v1{kind}"
    plain.write_bytes(b"prompt,completion\na,b\n" if kind == ".csv" else TEXT)
    packed = tmp_path / f"a.v1{kind}{ending}"
    packed.write_bytes(PACK[ending](plain.read_bytes()))
    assert is_task_file(packed)
    assert task_name(packed) == "a.v1"
    assert contents(packed) == contents(plain)


@packings
def test_read_task_joined_packed_parts_are_all_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(PACK[ending](TEXT) * 2)
    assert contents(path) == ROWS * 2


@packings
def test_read_task_cut_off_packed_file_raises_data_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(PACK[ending](TEXT * 50)[:-9])
    with pytest.raises(DataError, match=r"cannot read .*a\.jsonl"):
        contents(path)


@packings
def test_read_task_damaged_packed_file_raises_data_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    packed = bytearray(PACK[ending](TEXT * 50))
    packed[len(packed) // 2 : len(packed) // 2 + 8] = b"\xff" * 8
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"a\.jsonl"):
        contents(path)


@packings
def test_read_task_wrong_ending_names_what_the_file_is(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(TEXT)
    with pytest.raises(DataError, match=r"is not a \w+ file") as caught:
        contents(path)
    assert caught.value.hint == f"Rename the file without {ending}, or pack it again."
    bare = tmp_path / "a.jsonl"
    bare.write_bytes(PACK[ending](TEXT))
    with pytest.raises(DataError, match="is packed with"):
        contents(bare)


def test_read_task_zip_under_another_name_is_to_be_unpacked(tmp_path: Path) -> None:
    """curator reads no archive, so another name does not help."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"PK\x03\x04 rows")
    with pytest.raises(DataError, match="is packed with zip") as caught:
        contents(path)
    assert caught.value.hint == "Unpack the file."


@packings
def test_read_task_long_line_of_packed_file_is_bounded(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small packed file can hold a line that exceeds the memory."""
    monkeypatch.setattr(readers, "_LONGEST", 2**16)
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(PACK[ending](TEXT + b" " * 2**20))
    with pytest.raises(DataError, match=r"a\.jsonl\.\w+:4: line is longer than"):
        contents(path)


@packings
def test_read_task_remote_packed_file_gives_the_rows(ending: str) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe(f"/packed/a.jsonl{ending}", PACK[ending](TEXT))
    try:
        file = RemoteFile(f"memory://packed/a.jsonl{ending}")
        assert [row.content for row in read_task(Source(name="t", files=(file,)))] == ROWS
    finally:
        memory.rm("/packed", recursive=True)


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_read_task_arrow_file_and_stream_give_the_rows(tmp_path: Path, kind: str) -> None:
    path, table = tmp_path / "[a].arrow", pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink:
        write = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with write(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    assert contents(path) == ROWS


@pytest.mark.parametrize("kind", [".arrow", ".parquet"])
def test_read_task_pointer_instead_of_a_table_is_named(tmp_path: Path, kind: str) -> None:
    """A clone without Git LFS has pointers in the place of its tables."""
    path = tmp_path / f"train{kind}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match="is a Git LFS pointer, not the data"):
        contents(path)


def test_read_task_damaged_arrow_file_raises_data_error(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(b"ARROW1")
    with pytest.raises(DataError, match=r"cannot load .*a\.arrow"):
        contents(path)

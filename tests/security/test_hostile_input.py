"""Hostile data, names and configurations: one clear error or a correct result, and no side effects."""

import gzip
import json
import logging
import time
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HOSTILE, MakeProject, make_tokenizer, pair_rows, write_rows
from hostile import Outcome, nothing_changes, run_cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curator.core.errors import ConfigError, DataError
from curator.core.load_config import load_config
from curator.core.text import clean
from curator.data import readers
from curator.data.rows import Row
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.data.tokens import Encoder

GOOD = b'{"prompt": "a", "completion": "b"}\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    """Return a project with one task. Tests add files `tasks/hostile…`."""
    folder = tmp_path_factory.mktemp("outside") / "project"
    (folder / "tasks").mkdir(parents=True)
    write_rows(folder / "tasks" / "target.jsonl", pair_rows("target", 6))
    text = (
        f'[model]\nname_or_path = {json.dumps(str(tiny_llama_folder))}\n[data]\ntasks = "tasks/*"\ntarget = "target"\n'
    )
    (folder / "curator.toml").write_text(text + "max_length = 64\n")
    return folder


def check(folder: Path, name: str, content: bytes, *codes: int) -> Outcome:
    """Run `curator check` on the project with one more file. No file outside `.curator/` may change."""
    for old in (folder / "tasks").glob("hostile*"):
        old.unlink()
    (folder / "tasks" / name).write_bytes(content)
    with nothing_changes(folder.parent, but="project/.curator"):
        done = run_cli("check", "-p", folder, "-q").check(*codes)
    assert name in done.err or done.code == 0
    return done


def row(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


@pytest.mark.parametrize(
    ("ending", "content", "words"),
    [
        ("jsonl", b"", "holds no rows"),
        ("jsonl", b"\0" * 100, ":1: not valid JSON"),
        ("jsonl", GOOD + b"\xff\xfe\n", ":2: not UTF-8 (byte 0xff)"),
        ("jsonl", b"[" * 100_000 + b"]" * 100_000, ":1: not valid JSON: nested too deeply"),
        ("jsonl", GOOD + b'{"a":' * 100_000, ":2: not valid JSON: nested too deeply"),
        ("jsonl", b'{"messages":' + b"[" * 900 + b"]" * 900 + b"}\n", ":1: each turn needs"),
        ("jsonl", b'{"prompt": ' + b"9" * 5000 + b', "completion": "b"}\n', ":1: not valid JSON: Exceeds the limit"),
        ("jsonl", b'{"prompt": NaN, "completion": "b"}\n', ":1: unknown row format (fields: completion; null: prompt)"),
        ("jsonl", b'{"\\ud800": "\\ud800"}\n', ":1: unknown row format (fields: \ufffd)"),
        ("jsonl", row(**{"\x1b[31m\u202e": "x"}), ":1: unknown row format (fields: \ufffd[31m\ufffd)"),
        ("jsonl", row(prompt=["\x1b[31m" * 99], completion="b"), ":1: 'prompt' must be text"),
        ("jsonl", row(**{f"k{n}": n for n in range(100_000)}), "k19 and 99,980 more)"),
        ("json", b'[{"prompt": "a", "completion": "b"},\n 5]', ":2: a row must be a JSON object, not 5"),
        ("json", b"[1, 2", ":1: not valid JSON: unexpected end"),
        ("csv", b'prompt,completion\na,b\n"a,b\n', ":3: not valid CSV"),
        ("csv", b"\x1b[31m,label\na,b\n", ":2: unknown row format (fields: \ufffd[31m, label)"),
        ("tsv", b"prompt\tcompletion\na\n", ":2: 1 cells, but the header has 2"),
        ("parquet", b"PAR1" + b"\0" * 100 + b"PAR1", "cannot load "),
        ("jsonl.gz", gzip.compress(GOOD, mtime=0)[:-5], "cannot read "),
    ],
)
def test_read_task_invalid_file_names_file_and_line(tmp_path: Path, ending: str, content: bytes, words: str) -> None:
    path = tmp_path / f"hostile.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_task(Source(name="hostile", files=(path,)))
    message = clean(caught.value.message, lines=True)
    assert path.name in message
    assert words in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("jsonl", GOOD + b"\xff\n\0\n" + b"[" * 100_000 + b'\n{"\\ud800": 1}\n' + row(**{"\x1b[31m\u202e": "x"})),
        ("csv", b"\x1b[31m,\xe2\x80\xae\na,b\n"),
        ("parquet", b"PAR1" + b"\0" * 100 + b"PAR1"),
    ],
    ids=["jsonl", "csv", "parquet"],
)
def test_check_invalid_file_exits_with_code_3(folder: Path, ending: str, content: bytes) -> None:
    check(folder, f"hostile.{ending}", content, 3)


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("jsonl", b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") * 2),
        ("jsonl", b'{"prompt": "a", "completion": "b", "x":' + b"[" * 900 + b"]" * 900 + b"}\n"),
        ("jsonl", row(prompt="NUL\0 \x1b[31m \u202e \u2028 \x85", completion="\x9b\ufeffx") + GOOD),
        ("jsonl", row(prompt="a", completion="x " * 100_000) + row(prompt="a b " * 50_000, completion="b") + GOOD),
        ("jsonl", row(text="one two " * 1_250_000) + GOOD),
        ("csv", b'prompt,completion\n"' + b"x" * 10_000_000 + b'",b\na,b\n'),
        ("csv", b"prompt,completion\na\0,b\n"),
    ],
    ids=["BOM and CRLF", "deep", "control characters", "100,000 tokens", "10 MB line", "10 MB cell", "NUL in CSV"],
)
def test_check_unusual_file_is_read(folder: Path, ending: str, content: bytes) -> None:
    check(folder, f"hostile.{ending}", content, 0)


def test_check_hostile_file_name_is_not_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("datasets")
    level = logger.level
    for old in (folder / "tasks").glob("hostile*"):
        old.unlink()
    path = folder / "tasks" / "hostile\x1b[31m\x1b]0;PWNED\x07.parquet"
    path.write_bytes(b"x")
    assert "hostile\ufffd[31m" in run_cli("check", "-p", folder, "-q").check(3).err
    assert not caplog.records
    assert logger.level == level


def test_read_task_parquet_without_rows_raises_data_error(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"prompt": [], "completion": []})
    rows.to_parquet(tmp_path / "none.parquet")
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "bare.parquet")
    for name in ("none", "bare"):
        with pytest.raises(DataError, match=rf"{name}\.parquet holds no rows"):
            read_task(Source(name="t", files=(tmp_path / f"{name}.parquet",)))


def test_read_task_parquet_batches_keep_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_ROWS", 4)
    numbers = [str(n) for n in range(12)]
    table = pa.table({"text": numbers})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        for part in (table[:0], table[:5], table[5:]):
            writer.write_table(part)
    rows = read_task(Source(name="t", files=(tmp_path / "t.parquet",)))
    assert [row.content["text"] for row in rows] == numbers


def test_read_task_csv_with_many_columns_is_fast(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",".join(["text", *map(str, range(50_000))]) + "\n" + "a," * 50_000 + "b\n")
    begun = time.process_time()
    assert len(read_task(Source(name="t", files=(path,)))) == 1
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "\ud800", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}], "system": "\ud800"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]},
        {"messages": [{"role": "tool", "content": "a", "name": "\ud800"}]},
        {"messages": [{"role": "tool", "content": "a", "tool_call_id": "\ud800"}]},
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "\ud800"}]},
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f", "parameters": {"\ud800": 1}}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "\ud800"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "id": "\ud800"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": ["\ud800"]}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"x": "\\ud800"}'}]}]},
        {"conversations": [{"from": "function_call", "value": '{"name": "\\ud800"}'}]},
        {"instruction": "a", "output": "b", "history": [["a", "\ud800"]]},
    ],
    ids=lambda fields: json.dumps(fields)[:90],
)
def test_read_task_lone_surrogate_in_chat_is_bad_row(tmp_path: Path, fields: dict[str, Any]) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps(fields) + "\n")
    with pytest.raises(DataError, match=r"t\.jsonl:1: .* holds half a surrogate pair"):
        read_task(Source(name="t", files=(tmp_path / "t.jsonl",)))


def test_encode_long_text_equals_start_of_whole() -> None:
    tokenizer = make_tokenizer(bos=True)
    encoder = Encoder(tokenizer, max_length=50, encoder_decoder=False)
    for text in ("one two carry digit " * 2000, "a" * 40_000, "the 🙂é\u0301\n" * 9000):
        whole = tokenizer(text, add_special_tokens=True)["input_ids"]
        encoded = encoder.encode({"text": text})
        assert list(encoded.input_ids) == whole[:50]
        assert encoded.truncated
        assert encoded.completion_tokens == 49
        # A prompt that is too long leaves no token for the completion.
        assert encoder.encode({"prompt": text, "completion": "b"}).completion_tokens == 0


def test_read_task_huge_compressed_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_LONGEST", 2**20)
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD + b" " * 2**21, mtime=0))
    with pytest.raises(DataError, match=r"t\.jsonl\.gz:2: line is longer than 1 MiB"):
        read_task(Source(name="t", files=(path,)))


FRAGMENTS = st.sampled_from(
    [
        *(letter.encode() for letter in '{}[]",:\n\r\0\u202e'),
        *(b"\xff", b"\xef\xbb\xbf", b"\\ud800", b"\x1b[31m", b"prompt", b"NaN", b"1e999"),
        *(GOOD, GOOD.strip(), b"prompt,completion\n", b"a,b\n"),
    ]
)
TOML = st.lists(st.sampled_from([*"[]{}.=\"'\n#", "a", "data", "1e9", "true"]), max_size=40).map("".join)


@settings(max_examples=300)
@given(
    parts=st.lists(FRAGMENTS | st.binary(max_size=20), max_size=12),
    ending=st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz"]),
    packed=st.booleans(),
)
def test_read_task_any_bytes_gives_rows_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], ending: str, packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    content = b"".join(parts)
    path.write_bytes(gzip.compress(content, mtime=0) if packed and ending.endswith(".gz") else content)
    rows, error = outcome(path, keep_bad=True)
    if error is not None:
        assert path.name in error.message
        assert error.hint
        return
    assert rows
    assert all(len(row.problem) < 1000 and len(row.hash) == 32 for row in rows)
    same, error = outcome(path, keep_bad=False)
    assert (error is not None) == any(row.problem for row in rows)
    assert same == (rows if error is None else [])


def outcome(path: Path, *, keep_bad: bool) -> tuple[list[Row], DataError | None]:
    try:
        return read_task(Source(name="t", files=(path,)), keep_bad=keep_bad), None
    except DataError as error:
        return [], error


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(FRAGMENTS | st.binary(max_size=20), max_size=12))
def test_check_any_bytes_exits_with_code_0_or_3(folder: Path, content: list[bytes]) -> None:
    check(folder, "hostile.jsonl", b"".join(content), 0, 3)


# -- names --------------------------------------------------------------------------------------------------------

NAMES = [
    *HOSTILE,
    "../../evil",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..",
    ".",
    " ",
    "CON",
    "x\ny",
    "é" * 150,
    "\u00e9",
    "e\u0301",
    "Case",
    "case",
    "'; DROP TABLE examples; --",
    '"; DELETE FROM artifacts; --',
    "[bold]x[/bold]",
    "{{7*7}} ${x} %s %n",
    "-p",
    "--help",
]


def named_project(make: MakeProject, names: list[str], **tables: Any) -> Path:
    """Create a project with these task names. The files have plain names."""
    folder = make(tasks={"target": pair_rows("target", 12)}, data={"tasks": None}, **tables)
    tables_of = [("target", "tasks/target.jsonl")]
    for number, name in enumerate(names):
        write_rows(folder / "tasks" / f"t{number}.jsonl", pair_rows(f"t{number}", 3))
        tables_of.append((name, f"tasks/t{number}.jsonl"))
    text = (folder / "curator.toml").read_text()
    for name, path in tables_of:
        quoted = json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
        text += f"[[data.task]]\nname = {quoted}\npath = {json.dumps(path)}\n"
    (folder / "curator.toml").write_text(text, encoding="utf-8")
    return folder


def test_commands_hostile_task_names_are_safe(make_project: MakeProject, tmp_path: Path) -> None:
    folder = named_project(make_project, NAMES, train={"epochs": 1}, gradients={"points": [1.0]}, select={"subsets": 5})
    with nothing_changes(tmp_path, but="project/.curator"):
        done = run_cli("check", "-p", folder).check(0)
        assert "! 'Case' and 'case' look alike" in done.out
        assert done.out.count("look alike") == 2
    includes = [part for name in NAMES for part in ("--include", name)]
    done = run_cli("select", "-p", folder, "--name", "\x1b[31mbest", *includes).check(0)
    for command in (["status"], ["examples", "../../evil"], ["estimate", *NAMES[:-2]]):
        run_cli(*command[:1], "-p", folder, "--", *command[1:]).check(0)
    assert json.loads(run_cli("status", "-p", folder, "--json").out)["selections"][0]["name"] == "\x1b[31mbest"
    before = {path for path in tmp_path.rglob("*") if ".curator" not in path.parts}
    run_cli("export", folder / "curator-manifest.json", "-o", tmp_path / "out").check(0)
    made = {path for path in tmp_path.rglob("*") if ".curator" not in path.parts} - before
    assert {path.parent for path in made if path.is_file()} == {tmp_path / "out"}
    assert {"curator-manifest.json", "curator-export.json"} <= {path.name for path in made}
    # The folder, its record and manifest, README, the validation file, and a file for each task and the target.
    validation = json.loads((tmp_path / "out" / "curator-export.json").read_text())["validation"]
    assert tmp_path / "out" / validation in made
    assert len(made) == 1 + 2 + 1 + 1 + len(NAMES)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=300))
def test_check_any_task_name_exits_with_code_0(folder: Path, name: str) -> None:
    quoted = json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
    other = folder.parent / "named"
    other.mkdir(exist_ok=True)
    text = (folder / "curator.toml").read_text().replace('tasks = "tasks/*"\n', "").replace('"target"\n', f"{quoted}\n")
    text += f"[[data.task]]\nname = {quoted}\npath = {json.dumps(str(folder / 'tasks' / 'target.jsonl'))}\n"
    (other / "curator.toml").write_text(text, encoding="utf-8")
    run_cli("check", "-p", other).check(0)


# -- curator.toml -------------------------------------------------------------------------------------------------

BASE = '[model]\nname_or_path = "m"\n[data]\ntasks = "t/*"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE + "max_length = " + "9" * 5000, "Exceeds the limit"),
        (BASE + "max_length = 0x" + "f" * 100_000, "Exceeds the limit"),
        (BASE + "max_length = " + "9" * 4000, "data.max_length: must be less than 2147483648, not 9999"),
        (BASE + "max_length = 99999999999999999999", "data.max_length: must be less than 2147483648"),
        (BASE + "validation = 1e400", "data.validation: must be a finite number"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "{a = " * 5000, "nested too deeply"),
        ("a = " + "[" * 900 + "]" * 900, "nested too deeply"),
        (".".join("a" * 20_000) + " = 1", "nested too deeply"),
        ("[" + " . ".join(['"a"'] * 20_000) + "]", "nested too deeply"),
        (BASE + BASE, "Cannot declare"),
        (BASE + "a" * 10**6 + " = 1", "unknown key"),
        (BASE + "".join(f"k{n} = 1\n" for n in range(5000)), "more mistakes are not listed"),
        ('[project]\nname = "' + "a" * 10**6 + '"\n' + BASE, "project.name: must have at most 200 characters"),
        (BASE.replace('tasks = "t/*"\n', "") + '[[data.task]]\nname = "a"\npath = "b"\n' * 5, "task names: a"),
        (BASE + '"\\u001b[31m\\u202e" = 1', "unknown key"),
        (BASE + "#" * 2**24, "larger than 16 MiB"),
    ],
    ids=range(17),
)
def test_load_config_huge_file_gives_short_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "curator.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "curator.toml")
    assert words in caught.value.message
    assert run_cli("check", "-p", tmp_path).check(2).out == ""


@settings(max_examples=100)
@given(text=st.text(max_size=60) | TOML)
def test_load_config_any_text_raises_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ConfigError):
        load_config(path)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (f'tasks = "{"x" * 300}"\n', "data.tasks: "),
        (f'tasks = "{"x" * 5000}/*.jsonl"\n', "data.tasks: "),
        (f'[[data.task]]\nname = "a"\npath = "{"x" * 300}"\n', "task 'a': "),
        (f'[[data.task]]\nname = "a"\npath = ["{"x" * 5000}.jsonl", "b.jsonl"]\n', "task 'a': "),
    ],
    ids=["glob", "folder of a glob", "path", "paths"],
)
def test_check_too_long_path_names_key(tmp_path: Path, data: str, key: str) -> None:
    (tmp_path / "curator.toml").write_text(BASE.replace('tasks = "t/*"\n', data))
    done = run_cli("check", "-p", tmp_path, "-q").check(3)
    assert f"{key}the path is too long: " in done.err
    assert "curator.toml" in done.err


def test_check_broken_link_names_link(folder: Path, tmp_path: Path) -> None:
    text = (folder / "curator.toml").read_text().replace('tasks = "tasks/*"\n', "").replace('"target"\n', '"a"\n')
    (tmp_path / "curator.toml").write_text(text + '[[data.task]]\nname = "a"\npath = "tasks"\n')
    (tmp_path / "tasks").mkdir()
    for target in ("nothing", "link.jsonl"):
        link = tmp_path / "tasks" / "link.jsonl"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        done = run_cli("check", "-p", tmp_path, "-q").check(3)
        assert f"cannot read {link}: " in done.err
        assert "the target if the file is a link" in done.err

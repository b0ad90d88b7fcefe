"""Parsers of binary data files, of a model's folder and of chat templates."""

import contextlib
import functools
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

from curator.core.config import ModelSection
from curator.core.errors import CuratorError
from curator.data import chat_process
from curator.data.chat_templates import find_template, named_templates, use_template
from curator.data.model_files import find_tokenizer, identity_files, load_architecture, load_tokenizer, weight_files
from curator.data.sources import Source
from curator.data.task_rows import read_task

_TABLE = pa.table(
    {
        "prompt": ["a", "b"],
        "completion": ["c", None],
        "messages": [[{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]],
    }
)
_TEMPLATES = [
    b"{% for message in messages %}<|{{ message['role'] }}|>{{ message.content | trim }}{{ eos_token }}"
    b"{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{% endfor %}",
    b"{%- set ns = namespace(n=0) -%}{%- macro show(m) -%}{{ m.content|tojson }}{%- endmacro -%}"
    b"{%- for m in messages[::-1] -%}{%- set ns.n = ns.n + 1 -%}{{ show(m) ~ ns.n * 2 }}{%- endfor -%}"
    b"{%- if tools %}{{ raise_exception('no tools') }}{% endif -%}",
]


def _parquet() -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(_TABLE, stream)
    return stream.getvalue()


def _arrow() -> bytes:
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, _TABLE.schema) as writer:
        writer.write_table(_TABLE)
    return stream.getvalue()


def _rows(folder: Path, name: str, content: bytes) -> None:
    # The library caches by path, size and time.
    for left in folder.iterdir():
        left.unlink()
    (folder / name).write_bytes(content)
    read_task(Source(name="t", files=(folder / name,)), keep_bad=True)


@functools.cache
def _saved_folder() -> Path:
    """Save a data set with its two descriptions."""
    import datasets

    folder = Path(tempfile.mkdtemp(prefix="curator-fuzz-"))
    datasets.Dataset(_TABLE).save_to_disk(str(folder))
    return folder


def _saved_texts() -> list[bytes]:
    return [
        name.encode() + b"\n" + (_saved_folder() / name).read_bytes() for name in ("state.json", "dataset_info.json")
    ]


def _saved(folder: Path, content: bytes) -> None:
    """Read a saved data set with one damaged description. The first line names the file."""
    for left in folder.iterdir():
        left.unlink()
    for path in _saved_folder().iterdir():
        shutil.copy(path, folder / path.name)
    name, _, text = content.partition(b"\n")
    (folder / ("state.json" if name == b"state.json" else "dataset_info.json")).write_bytes(text)
    read_task(Source(name="t", folder=folder, files=(*sorted(folder.iterdir()),)), keep_bad=True)


@functools.cache
def _model() -> Path:
    """Make the folder of a tiny model."""
    # The benchmarks are scripts, not a package. They leave the path at once: `benchmarks/tui.py` would hide `tui`.
    sys.path.append(str(_BENCHMARKS))
    try:
        from synthetic_project import make_model
    finally:
        sys.path.remove(str(_BENCHMARKS))

    folder = Path(tempfile.mkdtemp(prefix="curator-fuzz-"))
    make_model(folder)
    config = folder / "tokenizer_config.json"
    values = json.loads(config.read_text()) | {"chat_template": _TEMPLATES[0].decode()}
    config.write_text(json.dumps(values))
    return folder


def _model_text(name: str) -> Callable[[], list[bytes]]:
    return lambda: [(_model() / name).read_bytes()]


def _model_file(folder: Path, name: str, content: bytes) -> None:
    """Read the folder of a model in which one file is damaged."""
    for left in folder.iterdir():
        left.unlink()
    for path in _model().iterdir():
        shutil.copy(path, folder / path.name)
    (folder / name).write_bytes(content)
    section = ModelSection(name_or_path=str(folder))
    readers: tuple[Callable[[], Any], ...] = (
        lambda: find_tokenizer(section, folder),
        lambda: identity_files(folder),
        lambda: weight_files(folder),
        lambda: named_templates(folder),
        lambda: load_architecture(folder, section),
        lambda: load_tokenizer(folder, section),
    )
    for read in readers:
        with contextlib.suppress(CuratorError):
            read()


def _index() -> bytes:
    return json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()


@functools.cache
def _tokenizer() -> Any:
    # Damaged templates that never end are rare, and need ten seconds each otherwise.
    vars(chat_process)["SECONDS"] = 1.0
    return load_tokenizer(_model(), ModelSection(name_or_path=str(_model())))


def _template(folder: Path, content: bytes) -> None:
    (folder / "template.jinja").write_bytes(content)
    tokenizer = _tokenizer()
    use_template(tokenizer, find_template("template.jinja", folder, _model()))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat_process.ChatRenderer(tokenizer).render([(turns, None), (turns * 2, [{"type": "function"}])])


PARSERS: dict[str, tuple[Callable[[], Sequence[bytes]], Callable[[Path, bytes], None]]] = {
    "Parquet": (lambda: [_parquet()], lambda folder, content: _rows(folder, "rows.parquet", content)),
    "Arrow": (lambda: [_arrow()], lambda folder, content: _rows(folder, "rows.arrow", content)),
    "saved data set": (_saved_texts, _saved),
    "chat template": (lambda: _TEMPLATES, _template),
    "config.json of a model": (_model_text("config.json"), lambda f, content: _model_file(f, "config.json", content)),
    "tokenizer_config.json": (
        _model_text("tokenizer_config.json"),
        lambda f, content: _model_file(f, "tokenizer_config.json", content),
    ),
    "tokenizer.json": (_model_text("tokenizer.json"), lambda f, content: _model_file(f, "tokenizer.json", content)),
    "index of weights": (
        lambda: [_index()],
        lambda folder, content: _model_file(folder, "model.safetensors.index.json", content),
    ),
}
"""Valid texts and the call of a parser, by the name of the parser."""

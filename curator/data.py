"""Files and hub → tasks → rows.

`find_tasks` turns `[data]` into sources, `read_task` reads one of them through `datasets` into `Row`s with a normalised
content, which is one of

    {"messages": [{"role", "content"}, …]}      chat
    {"prompt", "completion"}                    used word for word
    {"instruction", "response"}                 Alpaca and FLAN; the chat template, where the tokenizer has one
    {"text"}                                    loss on every token

What a row says is hashed, so that equal examples are equal whatever file, format or order they come in.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.config import DataSection, TaskSource
from curator.errors import ConfigError, CuratorError, DataError

_LOADERS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
}
FORMATS = "JSONL, JSON, Parquet, CSV, TSV, or a folder that datasets.load_from_disk reads"

Content = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one task's rows come from."""

    name: str
    files: tuple[Path, ...] = ()
    """Local files, in the order in which they are read."""
    folder: Path | None = None
    """A folder that `datasets.load_from_disk` reads; `files` are then its parts."""
    hub: str = ""
    config: str = ""
    split: str = "train"
    revision: str = ""
    column: str = ""
    value: str | int | bool | None = None
    tags: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What decides which rows are read, beside the bytes of the files."""
        return {
            "hub": self.hub,
            "config": self.config,
            "split": self.split,
            "revision": self.revision,
            "column": self.column,
            "value": self.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One example as it was read."""

    number: int
    """Position in the task, from 0."""
    file: str
    """File or hub id."""
    line: int
    """Line in the file, from 1; 0 where rows are not lines."""
    content: Content

    @property
    def hash(self) -> str:
        """Hash of what the row says, in whichever format it says it."""
        return content_hash(self.content)


def content_hash(content: Content) -> str:
    """Hash a normalised content (32 hexadecimal digits); a prompt and a one-turn chat that say the same are equal."""
    if "messages" in content:
        said = [[m["role"], m["content"]] for m in content["messages"]]
    elif "text" in content:
        said = [["text", content["text"]]]
    else:
        prompt, completion = pair(content)
        said = [["user", prompt], ["assistant", completion]]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def pair(content: Content) -> tuple[str, str]:
    """Prompt and completion of a content that has the two."""
    if "prompt" in content:
        return content["prompt"], content["completion"]
    return content["instruction"], content["response"]


def is_empty(content: Content) -> bool:
    """Whether nothing is there to be learned: no completion, no assistant's turn, no text."""
    if "messages" in content:
        return not any(m["role"] == "assistant" and m["content"].strip() for m in content["messages"])
    if "text" in content:
        return not content["text"].strip()
    return not pair(content)[1].strip()


# -- finding tasks --------------------------------------------------------------------------------------------------


def find_tasks(data: DataSection, root: Path) -> list[Source]:
    """List the tasks that `[data]` names, by name.

    Args:
        data: The section.
        root: The project folder, to which paths are relative.

    Raises:
        DataError: A path does not exist, the glob matches nothing, or two files would be the same task.
    """
    if data.tasks:
        sources = [_from_file(path) for path in _matches(data.tasks, root, "data.tasks")]
    else:
        sources = [_from_table(task, root) for task in data.task]
    sources.sort(key=lambda source: source.name)
    for first, second in itertools.pairwise(sources):
        if first.name == second.name:
            raise DataError(
                f"two files would be the task {first.name!r}: {first.files[0]} and {second.files[0]}",
                hint="Rename one of them: a task is named after its file.",
            )
    return sources


def find_validation(data: DataSection, target: str, root: Path) -> Source | None:
    """The target's own validation file, if `[data]` names one.

    Raises:
        DataError: It does not exist.
    """
    path = data.validation_files.get(target)
    return None if path is None else _from_table(TaskSource(name=target, path=path), root)


def check_target(targets: tuple[str, ...], sources: list[Source]) -> None:
    """Make sure that every target is a task.

    Raises:
        ConfigError: There is no target, or one is no task.
    """
    import difflib

    names = [source.name for source in sources]
    if not targets:
        raise ConfigError(
            "no target task is named", hint="Set `target` under [data] in curator.toml, or pass --target."
        )
    for target in targets:
        if target not in names:
            near = difflib.get_close_matches(target, names, n=1)
            raise ConfigError(
                f"target {target!r} is no task of this project",
                hint=f"Did you mean {near[0]!r}?" if near else f"Tasks: {', '.join(names[:20])}.",
            )


def _matches(pattern: str, root: Path, key: str) -> list[Path]:
    base = Path(pattern)
    try:
        found = sorted(
            Path(base.anchor).glob(str(base.relative_to(base.anchor))) if base.is_absolute() else root.glob(pattern)
        )
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"{key}: {pattern!r} is no glob: {error}") from error
    found = [path for path in found if _suffix(path) in _LOADERS or _is_saved_dataset(path)]
    if not found:
        raise DataError(f"{key}: no file matches {pattern!r} in {root}", hint=f"A task is one of: {FORMATS}.")
    return found


def _from_file(path: Path) -> Source:
    if path.is_dir():
        return Source(name=path.name, folder=path, files=_parts(path))
    name = path.name.removesuffix(".gz")
    return Source(name=name[: -len(Path(name).suffix)], files=(path,))


def _from_table(task: TaskSource, root: Path) -> Source:
    filters: dict[str, Any] = {"column": task.column, "value": task.value, "tags": task.tags}
    if task.hub:
        return Source(
            name=task.name, hub=task.hub, config=task.config, split=task.split, revision=task.revision, **filters
        )
    path = root / task.path
    key = f"task {task.name!r}"
    if path.is_dir() and _is_saved_dataset(path):
        return Source(name=task.name, folder=path, files=_parts(path), split=task.split, **filters)
    if path.is_dir():
        files = tuple(sorted(p for p in path.iterdir() if _suffix(p) in _LOADERS))
        if not files:
            raise DataError(f"{key}: {path} holds no task file", hint=f"Known: {FORMATS}.")
    elif path.exists():
        if _suffix(path) not in _LOADERS:
            raise DataError(f"{key}: {path} is no known kind of file", hint=f"Known: {FORMATS}.")
        files = (path,)
    elif any(c in task.path for c in "*?["):
        files = tuple(_matches(task.path, root, key))
    else:
        raise DataError(f"{key}: {path} does not exist", hint="Correct `path` in curator.toml.")
    return Source(name=task.name, files=files, **filters)


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _is_saved_dataset(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _parts(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


# -- reading rows ---------------------------------------------------------------------------------------------------


def read_task(source: Source) -> list[Row]:
    """Read all rows of a task.

    Args:
        source: Where they are.

    Raises:
        DataError: A file cannot be read, a row has not the right fields (with file and line), or there are no rows.
    """
    rows: list[Row] = []
    for file, line, raw in _raw_rows(source):
        if source.column:
            if source.column not in raw:
                raise DataError(
                    f"{_place(file, line, len(rows))}: no column {source.column!r}",
                    hint=f"Columns here: {', '.join(map(str, raw))}.",
                )
            if str(raw[source.column]) != str(source.value):
                continue
        rows.append(Row(number=len(rows), file=file, line=line, content=_normalise(raw, file, line, len(rows))))
    if not rows:
        where = source.hub or ", ".join(str(file) for file in source.files[:3])
        kept = f" with {source.column} = {source.value!r}" if source.column else ""
        raise DataError(
            f"task {source.name!r}: {where} holds no rows{kept}", hint="Remove the task, or give it examples."
        )
    return rows


def _raw_rows(source: Source) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(file, line, row) as `datasets` gives them."""
    import datasets

    if source.hub:
        rows = _foreign(
            lambda: datasets.load_dataset(
                source.hub,
                source.config or None,
                split=source.split,
                revision=source.revision or None,
                streaming=True,
            ),
            source.hub,
        )
        yield from ((source.hub, 0, row) for row in _iterate(rows, source.hub))
    elif source.folder:
        saved = _foreign(lambda: datasets.load_from_disk(str(source.folder)), str(source.folder))
        if isinstance(saved, datasets.DatasetDict):
            if source.split not in saved:
                raise DataError(f"{source.folder}: no split {source.split!r}", hint=f"Splits here: {', '.join(saved)}.")
            saved = saved[source.split]
        yield from ((str(source.folder), 0, row) for row in _iterate(saved, str(source.folder)))
    else:
        for file in source.files:
            yield from _file_rows(file)


def _file_rows(file: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    import datasets

    loader = _LOADERS[_suffix(file)]
    if not file.exists():
        raise DataError(f"{file}: does not exist", hint="Correct the path in curator.toml.")
    if file.stat().st_size == 0:
        return
    lines = _line_numbers(file) if loader == "json" else None
    # Every CSV cell is text: a label 007 or NA must not become a number or a missing value.
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False} if loader == "csv" else {}
    if _suffix(file) == ".tsv":
        options["sep"] = "\t"
    try:
        rows = datasets.load_dataset(loader, data_files=str(file), split="train", streaming=True, **options)
        for number, row in enumerate(rows):
            yield str(file), lines[number] if lines and number < len(lines) else 0, row
    except CuratorError:
        raise
    except Exception as error:
        # `datasets` and Arrow raise many kinds; what people need is the line.
        _find_bad_line(file, lines)
        raise DataError(f"{file}: cannot be read as {loader}: {_cause(error)}", hint=f"Known: {FORMATS}.") from error


def _iterate(rows: Any, where: str) -> Iterator[dict[str, Any]]:
    iterator = iter(rows)
    while True:
        try:
            row = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(f"{where}: cannot be read: {_cause(error)}") from error
        yield row


def _foreign(load: Any, where: str) -> Any:
    try:
        return load()
    except Exception as error:
        raise DataError(
            f"{where}: cannot be loaded: {_cause(error)}",
            hint="Check the name, the split and, for a hub id, the network.",
        ) from error


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _line_numbers(file: Path) -> list[int] | None:
    """Line of each row of a JSON-lines file; None for one JSON document, or a compressed file."""
    if file.suffix == ".gz":
        return None
    numbers: list[int] = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text:
                continue
            if not numbers and text[:1] == b"[":
                return None
            numbers.append(number)
    return numbers


def _find_bad_line(file: Path, lines: list[int] | None) -> None:
    """Name the line that makes a JSON-lines file unreadable.

    Raises:
        DataError: There is one.
    """
    if lines is None:
        return
    with file.open("rb") as content:
        for number, line in enumerate(content, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{file}:{number}: not valid JSON: {error}", hint="Mend or remove that line."
                ) from error
            if not isinstance(row, dict):
                raise DataError(f"{file}:{number}: a row must be a JSON object, this is {row!r:.60}")
            _normalise(row, str(file), number, number - 1)


_PAIRS = (
    ("prompt", "completion"),
    ("instruction", "output"),
    ("inputs", "targets"),
)


def _normalise(raw: dict[str, Any], file: str, line: int, number: int) -> Content:
    """Recognise a row's format.

    Raises:
        DataError: No format fits.
    """
    place = _place(file, line, number)
    if raw.get("messages") is not None:
        return {"messages": _messages(raw["messages"], place)}
    for first, second in _PAIRS:
        if raw.get(first) is None or raw.get(second) is None:
            continue
        for field in (first, second, "input"):
            value = raw.get(field)
            if value is not None and not isinstance(value, str) and (field != "input" or first == "instruction"):
                raise DataError(f"{place}: {field!r} must be text, this is {value!r:.60}")
        if first == "prompt":
            return {"prompt": raw[first], "completion": raw[second]}
        extra = (raw.get("input") or "") if first == "instruction" else ""
        return {"instruction": raw[first] + (f"\n\n{extra}" if extra else ""), "response": raw[second]}
    if isinstance(raw.get("text"), str):
        return {"text": raw["text"]}
    found = ", ".join(str(key) for key, value in raw.items() if value is not None) or "none"
    raise DataError(
        f"{place}: not the right fields (found: {found})",
        hint="A row needs `messages`, or `prompt` + `completion`, or `instruction` (+ `input`) + `output`,"
        " or `inputs` + `targets`, or `text`.",
    )


def _messages(messages: Any, place: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{place}: 'messages' must be a list of turns, this is {messages!r:.60}")
    turns = []
    for turn in messages:
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise DataError(f"{place}: each turn needs `role` and `content`, this is {turn!r:.60}")
        if not isinstance(turn.get("content"), str):
            raise DataError(f"{place}: the content of a turn must be text, this is {turn.get('content')!r:.60}")
        turns.append({"role": turn["role"], "content": turn["content"]})
    return turns


def _place(file: str, line: int, number: int) -> str:
    return f"{file}:{line}" if line else f"{file}, row {number + 1}"

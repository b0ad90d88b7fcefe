"""Read `curator.toml`, and explain each mistake in it."""

import difflib
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from curator.core.config import Config, DataSection, TaskSource
from curator.core.errors import ConfigError

# Largest file that is read; one of 10,000 tasks takes 2 MB.
_MOST_BYTES = 2**24
# A key of so many parts, where none has more than three: reading it takes time that grows with their square.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:["']?[\w-]{1,40}["']?[ \t]*\.[ \t]*){50}""")
# Mistakes that are looked at, and that are listed; characters of a foreign word that are.
_LOOKED_AT, _LISTED, _LONGEST = 200, 20, 100


def load_config(path: Path) -> Config:
    """Read and check `curator.toml`.

    Args:
        path: The file.

    Raises:
        ConfigError: The file is missing, is not TOML, or holds an unknown key, a wrong type or a value out of range.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file",
            hint="Run `curator init DIR` to make a project, or pass -p/--project DIR.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(
            f"{path}: larger than {_MOST_BYTES // 2**20} MiB", hint="Name the tasks by a glob or by a column."
        )
    try:
        if _DEEP_KEY.search(text):
            raise RecursionError
        values = tomllib.loads(text)
        # Through JSON, because strict mode takes a TOML array for a tuple only from there. No key takes a date, which
        # JSON does not have; it becomes what no key takes either.
        document = json.dumps(values, default=lambda date: [[str(date)]])
    except (ValueError, RecursionError) as error:
        # ValueError also of a number with thousands of digits.
        what = "nested too deeply" if isinstance(error, RecursionError) else f"{error}"
        raise ConfigError(f"{path}: not valid TOML: {what}", hint="Mend the line named.") from error
    try:
        return Config.model_validate_json(document)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)
        problems = _explain(values, [dict(item) for item in mistakes[:_LOOKED_AT]])
        if len(mistakes) > _LOOKED_AT or len(problems) > _LISTED:
            problems = [*problems[:_LISTED], "and more like these"]
        raise ConfigError(
            f"{path}: " + "\n  ".join(problems),
            hint="Every key is explained in the file that `curator init` writes.",
        ) from error


def _explain(values: dict[str, Any], problems: list[dict[str, Any]]) -> list[str]:
    """Turn pydantic's errors into one line for each mistake: `key: what is wrong (the fix)`."""
    by_place: dict[tuple[str | int, ...], list[dict[str, Any]]] = {}
    for problem in problems:
        by_place.setdefault(_place(values, problem), []).append(problem)
    lines = []
    for place, found in by_place.items():
        # A key that takes a word or a list fails as both; the mistake is in the list's item.
        if not any(other[: len(place)] == place and len(other) > len(place) for other in by_place) or any(
            problem["type"] == "value_error" for problem in found
        ):
            lines.append(f"{_name(place)}: {_mistake(values, place, found)}")
    return lines


def _place(values: Any, problem: dict[str, Any]) -> tuple[str | int, ...]:
    """Where in the file a problem lies: pydantic's location without its names for the alternatives of a key."""
    place: list[str | int] = []
    for part in problem["loc"]:
        here = _at(values, place)
        if isinstance(here, dict if isinstance(part, str) else list):
            place.append(part)
    return tuple(place)


def _at(values: Any, place: Sequence[str | int]) -> Any:
    for part in place:
        if isinstance(values, dict) and part not in values:
            return None
        values = values[part]
    return values


def _name(place: tuple[str | int, ...]) -> str:
    """The key as people write it, the items of a list counted from 1."""
    words = [f"[{part + 1}]" if isinstance(part, int) else f".{_short(part)}" for part in place]
    return "".join(words).removeprefix(".") or "the file"


def _mistake(values: dict[str, Any], place: tuple[str | int, ...], found: list[dict[str, Any]]) -> str:
    kinds = {problem["type"] for problem in found}
    if "json_invalid" in kinds:
        return "nested too deeply"
    if "extra_forbidden" in kinds:
        known = _known_keys([part for part in place[:-1] if isinstance(part, str)])
        near = difflib.get_close_matches(_short(str(place[-1])), known, n=1)
        return "unknown key (" + (f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}") + ")"
    if "missing" in kinds:
        return "missing; it must be given"
    if kinds & {"too_short", "string_too_short"}:
        return "must not be empty"
    if "string_too_long" in kinds:
        return f"must have at most {found[0]['ctx']['max_length']} characters"
    if "value_error" in kinds:
        return "; ".join(problem["msg"].removeprefix("Value error, ") for problem in found)
    # Of the alternatives of a key, the one that has the right type says what is wrong.
    near_misses = [p for p in found if p["type"] != "literal_error" and not p["type"].endswith("_type")] or found
    wanted = [problem["msg"].removeprefix("Input should be ") for problem in near_misses]
    for pydantics, tomls in _TOML_WORDS.items():
        wanted = [words.replace(pydantics, tomls) for words in wanted]
    value = _at(values, place)
    return f"must be {' or '.join(wanted)}" + ("" if isinstance(value, dict) else f", not {_short(_toml(value))}")


_TOML_WORDS = {"a valid array": "a list", "an object": "a table", "a valid integer": "an integer", "a valid ": "a "}


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _toml(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        return str(value)


def _known_keys(path: list[str]) -> list[str]:
    """Keys that may stand in the table at `path`."""
    model: type[BaseModel] = Config
    for part in path:
        if model is DataSection and part == "task":
            model = TaskSource
            continue
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)

"""Read `curator.toml` and explain each mistake."""

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
from curator.core.files import open_regular

# Maximum file size in bytes. A file with 10,000 tasks takes 2 MB.
_MOST_BYTES = 2**24
# Dotted keys with 50 parts or more. Valid keys have at most three. `tomllib` takes quadratic time for long keys.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:["']?[\w-]{1,40}["']?[ \t]*\.[ \t]*){50}""")
# Maximum number of mistakes that are explained and listed. Maximum number of characters of an untrusted word.
_LOOKED_AT, _LISTED, _LONGEST = 200, 20, 100


def load_config(path: Path) -> Config:
    """Read and check `curator.toml`.

    Args:
        path: The file.

    Raises:
        ConfigError: The file is missing, is not TOML, or holds an unknown key, a wrong type or a value out of range.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(_MOST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"file does not exist: {path}",
            hint="Run `curator init DIR` to create a project, or pass -p/--project DIR.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", hint="Check the permissions of the file, and save it as UTF-8."
        ) from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(
            f"file is larger than {_MOST_BYTES // 2**20} MiB: {path}",
            hint="Set `tasks` to a glob or use `task_column`.",
        )
    try:
        if _DEEP_KEY.search(text):
            raise RecursionError
        values = tomllib.loads(text)
        # Through JSON: in strict mode, pydantic accepts arrays as tuples only from JSON. JSON has no dates, and no key
        # accepts a date, so a date becomes a nested list, which no key accepts either.
        document = json.dumps(values, default=lambda date: [[str(date)]])
    except (ValueError, RecursionError) as error:
        # A number with thousands of digits also raises a ValueError.
        reason = "nested too deeply" if isinstance(error, RecursionError) else f"{error}"
        raise ConfigError(f"{path}: not valid TOML: {reason}", hint="Correct the TOML syntax of the file.") from error
    try:
        return Config.model_validate_json(document)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)
        problems = _explain(values, [dict(item) for item in mistakes[:_LOOKED_AT]])
        if len(mistakes) > _LOOKED_AT or len(problems) > _LISTED:
            problems = [*problems[:_LISTED], "more mistakes are not listed"]
        raise ConfigError(
            f"{path}: " + "\n  ".join(problems),
            hint="Correct these keys. `curator init` writes a file that explains every key.",
        ) from error


def _explain(values: dict[str, Any], problems: list[dict[str, Any]]) -> list[str]:
    """Convert pydantic's errors to one line for each mistake: `key: mistake (fix)`."""
    by_place: dict[tuple[str | int, ...], list[dict[str, Any]]] = {}
    for problem in problems:
        by_place.setdefault(_place(values, problem), []).append(problem)
    lines = []
    for place, found in by_place.items():
        # A key that accepts a string or a list fails as both. The error of the list's item is the useful one.
        if not any(other[: len(place)] == place and len(other) > len(place) for other in by_place) or any(
            problem["type"] == "value_error" for problem in found
        ):
            lines.append(f"{_name(place)}: {_mistake(values, place, found)}")
    return lines


def _place(values: Any, problem: dict[str, Any]) -> tuple[str | int, ...]:
    """Return the place of a problem in the file: pydantic's location without its names for the types of a union."""
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
    """Format a place as a dotted key. Items of a list count from 1."""
    words = [f"[{part + 1}]" if isinstance(part, int) else f".{_short(part)}" for part in place]
    return "".join(words).removeprefix(".") or "the file"


def _mistake(values: dict[str, Any], place: tuple[str | int, ...], found: list[dict[str, Any]]) -> str:
    kinds = {problem["type"] for problem in found}
    if "json_invalid" in kinds:
        return "nested too deeply"
    if "extra_forbidden" in kinds:
        known = _known_keys([part for part in place[:-1] if isinstance(part, str)])
        near = difflib.get_close_matches(_short(str(place[-1])), known, n=1)
        return "unknown key (" + (f"use `{near[0]}`" if near else f"known keys: {', '.join(known)}") + ")"
    if "missing" in kinds:
        return "required key is missing"
    if kinds & {"too_short", "string_too_short"}:
        return "must not be empty"
    if "string_too_long" in kinds:
        return f"must have at most {found[0]['ctx']['max_length']} characters"
    if "value_error" in kinds:
        return "; ".join(problem["msg"].removeprefix("Value error, ") for problem in found)
    # For a union, report the error of the type that matches the value.
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
    """Return the valid keys of the table at `path`."""
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

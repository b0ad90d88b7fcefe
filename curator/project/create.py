"""Create a project from what a program holds in memory: tasks, a model, a tokenizer and settings."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pydantic import BaseModel

from curator.core.config import Config, target_names
from curator.core.errors import ConfigError
from curator.core.files import CONFIG_NAME, file_names, open_regular, write_whole
from curator.core.load_config import load_config
from curator.project.new_project import Written, write_project
from curator.project.saved_objects import save_model, save_rows

if TYPE_CHECKING:
    from curator.project.saved_objects import Model, Rows, Tokenizer

    Tasks: TypeAlias = Mapping[str, Rows | Path | str] | Sequence[Path | str] | Rows | Path | str
    """Tasks by name, or files, folders, globs and hub ids, or rows with a column that names the task."""

Settings = Mapping[str, Mapping[str, Any]]
"""Values by section and key of `curator.toml`."""


def create_project(
    folder: Path,
    tasks: "Tasks",
    *,
    target: str | Sequence[str] | None,
    model: "Model",
    tokenizer: "Tokenizer | None",
    validation: "Mapping[str, Rows | Path | str] | None",
    task_column: str,
    settings: Settings | None,
    replace: bool,
) -> Written:
    """Write a project. Arguments and errors are those of `Project.create`."""
    path = folder / CONFIG_NAME
    if path.exists() and not replace:
        raise ConfigError(
            f"project exists already: {path}", hint="Open the project with `Project.open`, or pass `replace=True`."
        )
    values = _checked(settings or {})
    named, sources = _placed(tasks, folder, task_column)
    held_out = _saved(validation or {}, folder / "validation")
    if held_out:
        values["data", "validation_files"] = {
            name: os.path.relpath(place, folder) if Path(place).exists() else place for name, place in held_out.items()
        }
    place = save_model(model, tokenizer, folder)
    earlier = None
    if path.exists():
        with open_regular(path) as file:
            earlier = file.read()
    written = write_project(
        folder,
        sources,
        model=place,
        target=target_names(target) or None,
        task_column=task_column,
        named=named,
        settings=values,
        replace=replace,
    )
    try:
        load_config(path)
    except ConfigError:
        # An invalid file would make the next call fail for another reason.
        path.unlink() if earlier is None else write_whole(path, earlier)
        raise
    return written


def _placed(tasks: "Tasks", folder: Path, task_column: str) -> tuple[dict[str, str], list[str]]:
    """Save rows in memory. Return the place of each named task, and places of tasks without names."""
    if isinstance(tasks, str | Path):
        return {}, [str(tasks)]
    if isinstance(tasks, Mapping):
        if task_column and tasks:
            raise ConfigError(
                "cannot combine named tasks with `task_column`", hint="Pass one data set whose column names the task."
            )
        return _saved(tasks, folder / "tasks"), []
    if isinstance(tasks, list | tuple) and all(isinstance(place, str | Path) for place in tasks):
        return {}, [str(place) for place in tasks]
    if not task_column:
        raise ConfigError(
            "rows have no task",
            hint='Pass `task_column="task"`, the column that names the task, or a mapping: {"name": rows}.',
        )
    return {}, [str(save_rows(cast("Rows", tasks), folder / "tasks" / "rows", "rows"))]


def _saved(tasks: "Mapping[str, Rows | Path | str]", folder: Path) -> dict[str, str]:
    """Return the file, address or hub id of each task. Save tasks that are rows in memory."""
    files = dict(zip(tasks, file_names(list(tasks)), strict=True))
    return {
        name: str(rows) if isinstance(rows, str | Path) else str(save_rows(rows, folder / files[name], name))
        for name, rows in tasks.items()
    }


def _checked(settings: Settings) -> dict[tuple[str, str], Any]:
    """Return settings by section and key.

    Raises:
        ConfigError: A section or a key is unknown.
    """
    values: dict[tuple[str, str], Any] = {}
    for section, keys in settings.items():
        _known(section, Config.model_fields, "section")
        model = cast("type[BaseModel]", Config.model_fields[section].annotation)
        for key, value in keys.items():
            _known(key, model.model_fields, f"key of [{section}]")
            if value is not None:
                values[section, key] = value
    return values


def _known(name: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise ConfigError(
            f"unknown {what}: {name!r}", hint=f"Use {near[0]!r}." if near else f"Use one of: {', '.join(names)}."
        )

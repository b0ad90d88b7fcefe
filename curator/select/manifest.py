"""Read and write the manifest of a selection, `curator-manifest.json`.

A manifest records the selected tasks, their files, the method and the settings. Programs that train read manifests.
Paths are relative to the manifest's folder if possible. Equal inputs give equal bytes, except for `created`.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from curator.core.config import CsvOptions, ModelSection, target_names
from curator.core.errors import DataError, ManifestMismatch
from curator.core.figures import first_of
from curator.core.files import File, located, read_whole_text, refuse_endless, relative_to, sha256_of, write_whole
from curator.core.hub_ids import checked_hub_id
from curator.data.json_files import without_repeated_keys
from curator.data.left_out import DROPPED, VALIDATION

if TYPE_CHECKING:
    from curator.data.model_files import ModelFiles

SCHEMA_VERSION = 1
MANIFEST_NAME = "curator-manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class ModelIdentity(_Part):
    """The base model."""

    name_or_path: str
    revision: str
    sha256: str
    """Hash of the files that the model's output depends on."""
    tokenizer_sha256: str = ""
    """Hash of the same files without the weights, and of `chat_template`. Empty in manifests of earlier versions."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights. `auto` is bfloat16 on a GPU that supports bfloat16, else float32."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    chat_template: str = ""
    """Text of the chat template that the project sets instead of the model's own."""

    @classmethod
    def of(cls, section: ModelSection, files: "ModelFiles") -> Self:
        """Return the identity of a project's base model.

        Args:
            section: Section `[model]` of the configuration.
            files: The model's files.
        """
        return cls(
            name_or_path=section.name_or_path,
            revision=section.revision,
            sha256=files.sha256,
            tokenizer_sha256=files.tokenizer_sha256,
            dtype=section.dtype,
            quantization=section.quantization,
            chat_template=files.chat_template,
        )


# Larger than any data set, and small enough for exact sums and products of floats.
Count = Annotated[int, Field(ge=0, le=2**50)]


def _plain_path(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path must not hold a NUL")
    return path


class TaskFile(_Part):
    """One file of a task."""

    path: Annotated[str, AfterValidator(_plain_path)]
    sha256: str
    """Hash of the bytes. For a hub data set, the hash of the rows."""
    rows: Count


_SOURCE: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("hub", "config", "split", "revision", "column", "rows"), str),
    "value": (str, int, bool, type(None)),
    **dict.fromkeys(("saved_dataset", "streaming"), bool),
    **dict.fromkeys(("columns", "roles", "csv"), dict),
}


def _plain_source(source: dict[str, Any]) -> dict[str, Any]:
    for key, value in source.items():
        kinds = _SOURCE.get(key)
        if kinds is None:
            raise ValueError(f"unknown key of a source: {key!r}")
        if not isinstance(value, kinds):
            raise ValueError(f"wrong type: {key}")
        if key == "hub":
            checked_hub_id(str(value))
        if key == "csv":
            try:
                CsvOptions.model_validate(value)
            except ValidationError as error:
                raise ValueError("wrong options: csv") from error
            continue
        if isinstance(value, dict) and not all(isinstance(word, str) for word in (*value, *value.values())):
            raise ValueError(f"not a table of texts: {key}")
    return source


Origin = Annotated[dict[str, Any], AfterValidator(_plain_source)]
"""Source of the rows in addition to files: hub id, split, filter and names of columns."""


def _check_numbers(numbers: Sequence[int], files: Sequence[TaskFile], field: str) -> int:
    """Check the numbers of rows that are not used. Return how many rows of the files are left.

    Raises:
        ValueError: The files do not have a row of this number, or a number occurs twice.
    """
    rows = sum(file.rows for file in files)
    unknown = next((number for number in numbers if not 0 <= number < rows), None)
    if unknown is not None:
        raise ValueError(f"`{field}` names row {unknown}, but the files have {rows:,} rows, from 0")
    if len(set(numbers)) < len(numbers):
        twice = next(number for number, count in Counter(numbers).items() if count > 1)
        raise ValueError(f"`{field}` names row {twice} twice")
    return rows - len(numbers)


def _check_count(given: int, counted: int, field: str) -> None:
    if given != counted:
        raise ValueError(f"`{field}` is {given:,}, but the rows of the files give {counted:,}")


class TaskEntry(_Part):
    """One auxiliary task."""

    name: str
    selected: bool
    weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Weight of a selected task: 0.5 for half of its examples, 2 for all examples twice."""
    examples: Count
    """Training examples, without the rows that are left out."""
    tokens: Count
    """Tokens of the training examples, prompt and completion."""
    files: Annotated[tuple[TaskFile, ...], Field(min_length=1)]
    affinity: float
    affinity_standard_error: float | None
    """None if all or none of the sampled subsets hold the task."""
    left_out: dict[str, tuple[int, ...]] = {}
    """Numbers of the rows that are not trained on, from 0, by reason."""
    source: Origin = {}

    @model_validator(mode="after")
    def _rows_agree(self) -> Self:
        _check_count(self.examples, _check_numbers(_numbers(self.left_out), self.files, "left_out"), "examples")
        return self


class TargetEntry(_Part):
    """One target task. Every subset includes its training examples."""

    name: str
    examples: Count
    tokens: Count
    validation_examples: Count
    files: Annotated[tuple[TaskFile, ...], Field(min_length=1)]
    validation_files: tuple[TaskFile, ...] = ()
    validation_source: Origin = {}
    """Source of the rows of `validation_files`, in addition to the files."""
    validation_left_out: tuple[int, ...] | None = None
    """Numbers of the rows of `validation_files` that are not used, from 0. None if they are not known."""
    left_out: dict[str, tuple[int, ...]] = {}
    source: Origin = {}

    @model_validator(mode="after")
    def _rows_agree(self) -> Self:
        _check_count(self.examples, _check_numbers(_numbers(self.left_out), self.files, "left_out"), "examples")
        held_out = len(self.left_out.get(VALIDATION, ()))
        if self.validation_files and self.validation_left_out is None:
            # An early version of curator did not record which rows were used.
            return self
        if self.validation_files:
            unused = self.validation_left_out or ()
            held_out = _check_numbers(unused, self.validation_files, "validation_left_out")
        _check_count(self.validation_examples, held_out, "validation_examples")
        return self


def _numbers(left_out: Mapping[str, Sequence[int]]) -> list[int]:
    return [number for numbers in left_out.values() for number in numbers]


class DroppedExample(_Part):
    """One row of a task that the selection does not train on."""

    task: str
    sha256: str
    """Hash of the row's content. Equal rows have equal hashes."""
    number: Count
    """Number of the row in the task, from 0."""
    place: str
    """Name of the file and line of the row."""


EntryT = TypeVar("EntryT", TaskEntry, TargetEntry)


class Edit(_Part):
    """One change that a person made to a selection."""

    task: str
    selected: bool
    by: str


class Manifest(_Part):
    """A selection and its provenance."""

    schema_version: Literal[1] = 1
    created: str
    curator_version: str
    project: str
    name: str
    target: str | tuple[str, ...]
    method: str
    """Name of the method that selected the tasks, or `manual` for a selection that a person edited."""
    started_from: str = ""
    """Name of the selection that a person edited, or `all tasks`. `edits` lead from it to this selection."""
    options: dict[str, Any] = {}
    """Options of the method: budgets, threshold, pins."""
    model: ModelIdentity
    lora: dict[str, Any]
    train: dict[str, Any]
    data: dict[str, Any]
    gradients: dict[str, Any]
    estimate: dict[str, Any]
    targets: tuple[TargetEntry, ...]
    tasks: tuple[TaskEntry, ...]
    estimated_loss: float
    estimated_loss_low: float
    estimated_loss_high: float
    reference: dict[str, float] = {}
    """Estimated loss of all tasks and of the target alone."""
    indistinguishable: tuple[str, ...] = ()
    """Names in `reference` whose loss does not differ from the selection's beyond the noise."""
    measured_loss: float | None = None
    """Loss after fine-tuning on the selection. None if it was not measured."""
    edits: tuple[Edit, ...] = ()
    steps: tuple[dict[str, Any], ...] = Field(default=())
    """Steps of the method that led to the selection."""
    dropped_examples: tuple[DroppedExample, ...] = ()
    """Rows that the selection drops from its tasks, by task and by number. `left_out` of a task lists them too."""

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets."""
        return target_names(self.target)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [*(target.name for target in self.targets), *(task.name for task in self.tasks)]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise ValueError(f"several tasks have the same name: {first_of(twice, 5)}")
        return self

    @model_validator(mode="after")
    def _target_is_described(self) -> Self:
        described = [entry.name for entry in self.targets]
        if sorted(described) != sorted(self.target_names):
            named = ", ".join(map(repr, self.target_names)) or "no task"
            raise ValueError(
                f"`target` names {named}, and `targets` describes {', '.join(map(repr, described)) or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _dropped_rows_are_left_out(self) -> Self:
        listed: dict[str, list[int]] = {}
        for row in self.dropped_examples:
            listed.setdefault(row.task, []).append(row.number)
        left_out = {task.name: task.left_out[DROPPED] for task in self.tasks if DROPPED in task.left_out}
        if {name: tuple(sorted(numbers)) for name, numbers in listed.items()} != left_out:
            raise ValueError(f"`dropped_examples` and the rows that tasks leave out as {DROPPED!r} differ")
        return self


def render(manifest: Manifest) -> str:
    """Return the text of a manifest's file."""
    return _text(manifest.model_dump(mode="json"))


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def files_of(entry: TaskEntry | TargetEntry) -> dict[str, tuple[TaskFile, ...]]:
    """Return the fields of an entry that name files, with the files. Rows of the hub have none."""
    found = {} if entry.source.get("hub") else {"files": entry.files}
    if isinstance(entry, TargetEntry) and not entry.validation_source.get("hub"):
        found["validation_files"] = entry.validation_files
    return found


def check_manifest_file(path: Path) -> None:
    """Check that a manifest can be written, before other work starts.

    Raises:
        DataError: The path is a folder, or leads through a file, or its folder is write-protected.
    """
    above = next(folder for folder in path.parents if folder.exists())
    problem = (
        "it is a folder"
        if path.is_dir()
        else f"{above} is not a folder"
        if not above.is_dir()
        else f"{above} is write-protected"
        if not os.access(above, os.W_OK)
        else ""
    )
    if problem:
        raise DataError(f"cannot write {path}: {problem}", hint="Choose another place with -o.")


def write_manifest(manifest: Manifest, path: Path) -> bool:
    """Write a manifest completely or not at all. Leave an equal file untouched.

    Args:
        manifest: Its paths are absolute or relative to the folder of `path`.
        path: The file to write.

    Returns:
        Whether the file was written.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        if path.exists() and _same(manifest, path):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, render(manifest).encode())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}", hint="Choose another place with -o.") from error
    return True


def rebased(manifest: Manifest, old: Path, new: Path) -> Manifest:
    """Return a manifest with its paths relative to another folder.

    The ids of hub data sets and hub models, addresses of remote files, and absolute paths of models stay.

    Args:
        manifest: Its paths are absolute or relative to `old`.
        old: Folder that the paths are relative to, absolute.
        new: Folder that the new paths are relative to, absolute.
    """

    def files(files: tuple[TaskFile, ...]) -> tuple[TaskFile, ...]:
        return tuple(file.model_copy(update={"path": relative_to(str(located(file.path, old)), new)}) for file in files)

    def moved(entry: EntryT) -> EntryT:
        return entry.model_copy(update={name: files(found) for name, found in files_of(entry).items()})

    model, name = manifest.model, manifest.model.name_or_path
    # A name that is not a folder is the id of a hub model.
    if not Path(name).is_absolute() and (old / name).is_dir():
        model = model.model_copy(update={"name_or_path": relative_to(os.path.normpath(old / name), new)})
    return manifest.model_copy(
        update={
            "model": model,
            "targets": tuple(map(moved, manifest.targets)),
            "tasks": tuple(map(moved, manifest.tasks)),
        }
    )


def is_same_selection(one: Manifest, other: Manifest) -> bool:
    """Return whether two manifests are equal except for the time, the paths and the measured loss."""
    places = {"__all__": {"files": {"__all__": {"path"}}, "validation_files": {"__all__": {"path"}}}}
    apart: Any = {
        "created": True,
        "measured_loss": True,
        # The hash of the model stays. A local model has another path in another folder.
        "model": {"name_or_path"},
        "targets": places,
        "tasks": places,
    }
    return one.model_dump(exclude=apart) == other.model_dump(exclude=apart)


def record_measured(path: Path, manifest: Manifest, loss: float) -> bool:
    """Write a measured loss into a manifest's file, and keep the rest of the file.

    Args:
        path: The file.
        manifest: The manifest that was read from the file before.
        loss: Measured loss, nats per target token.

    Returns:
        Whether the file holds the loss. It does not if the file holds another selection by now.

    Raises:
        DataError: The file cannot be read or written.
    """
    if not is_same_selection(read_manifest(path), manifest):
        return False
    document = json.loads(read_whole_text(path))
    if document.get("measured_loss") != loss:
        try:
            write_whole(path, _text(document | {"measured_loss": loss}).encode())
        except OSError as error:
            raise DataError(f"cannot write {path}: {error}", hint="Check write permissions.") from error
    return True


def _same(manifest: Manifest, path: Path) -> bool:
    try:
        there = read_manifest(path)
    except DataError:
        return False
    return there.model_copy(update={"created": manifest.created}) == manifest


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        DataError: The file is missing, or is not a manifest of this version of curator.
    """
    refuse_endless(path)
    try:
        text = read_whole_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="Name a manifest that `curator select` wrote.") from error
    hint = "Name a manifest that `curator select` wrote."
    manifest = _parsed(text, str(path), hint=hint)
    try:
        json.loads(text, object_pairs_hook=without_repeated_keys)
    except ValueError as error:
        raise DataError(f"cannot read {path}: {error}", hint="Remove one of the two.") from error
    return manifest


def stored_manifest(text: str) -> Manifest:
    """Read the manifest of a selection in a store, which another person may have written.

    Raises:
        DataError: The text is not a manifest of this version of curator.
    """
    hint = "Run `curator export-store DIR` to save the readable rows. Then delete `.curator/store.duckdb`."
    return _parsed(text, "a selection in the store", hint=hint)


def _parsed(text: str, place: str, *, hint: str) -> Manifest:
    """Read the text of a manifest. An error names the place of the text."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole text"
        message = (
            f"not a manifest of this version of curator: {place}: {where}: {first['msg'].removeprefix('Value error, ')}"
        )
        raise DataError(message, hint=hint) from error


def check_files(manifest: Manifest, folder: Path) -> None:
    """Check that the files of the targets and of the selected tasks have not changed.

    Args:
        manifest: The manifest.
        folder: Folder that the manifest's paths are relative to.

    Raises:
        DataError: A file cannot be read.
        ManifestMismatch: A file has changed.
    """
    for name, path, wanted, found in changed_files(manifest, folder):
        raise ManifestMismatch(
            f"task {name!r}: {path} has changed: sha256 {wanted[:12]}… in the manifest, {found[:12]}… now",
            hint="Run `curator select --rehash` in the project, or pass --allow-changed.",
        )


def changed_files(manifest: Manifest, folder: Path) -> Iterator[tuple[str, File, str, str]]:
    """Yield the changed files of the targets and of the selected tasks.

    Args:
        manifest: The manifest.
        folder: Folder that the manifest's paths are relative to.

    Yields:
        Name of the task, the file, its hash in the manifest, and its present hash.

    Raises:
        DataError: A file cannot be read.
    """
    entries: list[TaskEntry | TargetEntry] = [*manifest.targets, *(t for t in manifest.tasks if t.selected)]
    for entry in entries:
        for file in itertools.chain.from_iterable(files_of(entry).values()):
            path = located(file.path, folder)
            found = sha256_of(path)
            if found != file.sha256:
                yield entry.name, path, file.sha256, found


def now() -> str:
    """Return the present time in UTC, in seconds, for `created`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""Save what a program holds in memory as files of a project: rows, a model and a tokenizer.

A project reads files only. So its results can be cached by content, and its manifests can be exported later.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from curator.core.config import ModelSection
from curator.core.errors import ConfigError, DataError
from curator.core.files import CHECK_DISK, partial_name, remove_left_over, whole_folder, write_whole
from curator.data.model_files import find_model, first_line, identity_files

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Rows: TypeAlias = Dataset | IterableDataset | Iterable[Mapping[str, Any]]
    """Rows in memory, each with the columns of a known format."""
    Model: TypeAlias = PreTrainedModel | Path | str
    Tokenizer: TypeAlias = PreTrainedTokenizerBase | Path | str

MODEL = "model"
"""Folder of a saved model in the project."""
_BATCH = 1000


def save_rows(rows: "Rows", place: Path, name: str) -> Path:
    """Write rows as one file: a data set as Parquet, and other rows as JSON Lines.

    Args:
        rows: A `datasets.Dataset`, or mappings from column to value. Mappings may have different columns.
        place: The file without its ending. Its folder is created if missing.
        name: Name of the task for errors.

    Returns:
        The file.

    Raises:
        ConfigError: `rows` is a `DatasetDict`, or is not a collection of rows.
        DataError: A row is not a mapping, a value has no JSON form, or the file cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if hasattr(rows, "to_parquet") and hasattr(rows, "features"):
            return _save_dataset(rows, place)
        if isinstance(rows, Mapping):
            raise ConfigError(
                f"task {name!r} is a mapping, not rows", hint='Pass one split of a `DatasetDict`: `data["train"]`.'
            )
        if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
            raise ConfigError(
                f"task {name!r} is not a collection of rows: {type(rows).__name__}",
                hint="Pass a `datasets.Dataset`, a list of mappings, or a path.",
            )
        path = place.with_name(f"{place.name}.jsonl")
        write_whole(path, b"".join(_line(row, number, name) for number, row in enumerate(rows)))
    except OSError as error:
        raise DataError(f"cannot write {place}: {error}", hint=CHECK_DISK) from error
    return path


def _save_dataset(rows: Any, place: Path) -> Path:
    """Write a data set, with its own column types."""
    path = place.with_name(f"{place.name}.parquet")
    remove_left_over(path.parent, path.name)
    partial = path.with_name(partial_name(path.name))
    try:
        rows.to_parquet(str(partial), batch_size=_BATCH)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _line(row: Any, number: int, name: str) -> bytes:
    if not isinstance(row, Mapping):
        raise DataError(
            f"row {number + 1} of task {name!r} is not a mapping: {type(row).__name__}",
            hint='Pass rows such as {"prompt": "…", "completion": "…"}.',
        )
    try:
        return (json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise DataError(
            f"row {number + 1} of task {name!r} has no JSON form: {error}",
            hint="Use texts, finite numbers, lists and mappings as values.",
        ) from error


def save_model(model: "Model", tokenizer: "Tokenizer | None", folder: Path) -> str:
    """Save a model and its tokenizer into the project, if the program holds one of them in memory.

    Args:
        model: A model of transformers, a folder, or a hub id.
        tokenizer: A tokenizer of transformers, a folder or a hub id. None takes that of a folder or hub id `model`.
        folder: Folder of the project.

    Returns:
        Folder of the saved model, or `model` itself if nothing was saved.

    Raises:
        ConfigError: The model is quantized or has an adapter, or the model in memory has no tokenizer.
        DataError: The model or the tokenizer cannot be read or written.
    """
    if isinstance(model, str | Path):
        if tokenizer is None:
            return str(model)
        return _save_beside(find_model(ModelSection(name_or_path=str(model)), Path.cwd()), tokenizer, folder)
    _check_model(model)
    if tokenizer is None:
        raise ConfigError("a model in memory has no tokenizer", hint="Pass `tokenizer` as well.")
    loaded = _loaded(tokenizer)
    try:
        with whole_folder(folder / MODEL) as partial:
            model.save_pretrained(str(partial))
            loaded.save_pretrained(str(partial))
    except OSError as error:
        raise DataError(f"cannot write {folder / MODEL}: {error}", hint=CHECK_DISK) from error
    return str(folder / MODEL)


def _check_model(model: Any) -> None:
    if not hasattr(model, "save_pretrained") or not hasattr(model, "config"):
        raise ConfigError(
            f"not a model of transformers: {type(model).__name__}",
            hint="Pass a `PreTrainedModel`, a folder, or a hub id.",
        )
    if hasattr(model, "peft_config"):
        raise ConfigError(
            "the model has a peft adapter, and curator adds its own",
            hint="Pass the base model, or merge the adapter with `merge_and_unload()`.",
        )
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None) is not None:
        raise ConfigError(
            "a quantized model in memory has lost the weights of its base",
            hint="Pass the folder or the hub id of the base, and set `quantization` under [model].",
        )


def _save_beside(model: Path, tokenizer: "Tokenizer", folder: Path) -> str:
    """Join the weights of one folder with another tokenizer. Weights are linked, because they may be large."""
    loaded = _loaded(tokenizer)
    try:
        with whole_folder(folder / MODEL) as partial:
            for path in identity_files(model):
                place = partial / path.relative_to(model)
                place.parent.mkdir(parents=True, exist_ok=True)
                if path.suffix == ".safetensors":
                    place.symlink_to(path.resolve())
                elif not _is_of_tokenizer(path):
                    shutil.copyfile(path, place)
            loaded.save_pretrained(str(partial))
    except OSError as error:
        raise DataError(f"cannot write {folder / MODEL}: {error}", hint=CHECK_DISK) from error
    return str(folder / MODEL)


def _is_of_tokenizer(path: Path) -> bool:
    """Return whether a file belongs to a tokenizer. Files of another tokenizer could change the saved one."""
    kept = ("config.json", "generation_config.json")
    return path.name not in kept and not path.name.endswith((".safetensors.index.json", ".py"))


def _loaded(tokenizer: "Tokenizer") -> Any:
    if not isinstance(tokenizer, str | Path):
        return tokenizer
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(tokenizer), trust_remote_code=False)
    except Exception as error:
        raise DataError(
            f"cannot read tokenizer {str(tokenizer)!r}: {first_line(error)}",
            hint="Pass a tokenizer, the folder of a tokenizer, or a hub id.",
        ) from error

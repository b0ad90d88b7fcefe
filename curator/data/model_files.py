"""Find a model's files, hash them, and load its configuration and tokenizer, but not its weights."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from curator.core.config import ModelSection
from curator.core.errors import DataError
from curator.core.file_states import FileChanged, FileState
from curator.core.files import File, read_small_json, read_whole_text, sha256_of
from curator.core.hub_ids import is_hub_id
from curator.core.provenance import hash_of
from curator.core.remote import RemoteFile
from curator.core.text import clean
from curator.data.chat_templates import find_template, use_template
from curator.data.foreign_models import check_weights, drop_kernels, ignored_files
from curator.data.hub_errors import unreachable
from curator.data.weight_bytes import refuse_incomplete
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Locate and identify the base model on disk."""

    folder: Path
    sha256: str
    """Hash of all files that decide the model's behaviour."""
    tokenizer_sha256: str
    """Hash of the same files without the weights, and of the project's chat template."""
    chat_template: str = ""
    """Text of the chat template that the project sets instead of the model's own. Empty if the project sets none."""


def hash_files(store: Store, paths: Sequence[File], *, remember: bool = True) -> dict[File, str]:
    """Hash files with SHA-256. Reuse a stored hash if the state of the file is unchanged.

    Args:
        store: Store of known hashes.
        paths: Files to hash.
        remember: Whether to write new hashes to the store.

    Raises:
        DataError: A file cannot be read.
    """
    try:
        states = {path: FileState.of(path) for path in dict.fromkeys(paths)}
        known = store.file_hashes([str(path) for path in states])
        hashes: dict[File, str] = {}
        new = []
        for path, state in states.items():
            found, digest = known.get(str(path), (None, ""))
            if found == state:
                hashes[path] = digest
                continue
            hashes[path] = sha256_of(path)
            if FileState.of(path) == state and _is_settled(path, state):
                new.append((str(path), state, hashes[path]))
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename}: {error.strerror}",
            hint="Check the permissions of the file, and the target if the file is a link.",
        ) from error
    if new and remember:
        store.put_file_hashes(new)
    return hashes


def _is_settled(path: File, state: FileState) -> bool:
    """Return whether a later change of a file changes its state.

    Two changes within one tick of the file system's clock leave the same times.
    """
    return isinstance(path, RemoteFile) or time.time_ns() - max(state.mtime_ns, state.changed_ns) > 10**9


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a model folder: `*.safetensors`, and the files that an index of shards names.

    Args:
        folder: The model folder.

    Raises:
        DataError: An index is not valid, or names a file that is missing or outside the folder.
    """
    found = set(folder.glob("*.safetensors"))
    for index in sorted(folder.glob("*.safetensors.index.json")):
        for name in _index_targets(index):
            path = folder / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise DataError(
                    f"{index} names a file outside the model folder: {name!r}", hint="Do not use this model."
                )
            try:
                there = path.is_file()
            except OSError as error:
                raise DataError(f"{index} names an impossible file: {error}", hint="Do not use this model.") from error
            if not there:
                raise DataError(f"missing weights: {path}, which {index.name} names", hint="Download the model again.")
            found.add(path)
    return sorted(found)


# Largest index of shards in bytes. That of a model with a trillion weights has a few MB.
_LARGEST_INDEX = 2**26


def _index_targets(index: Path) -> list[str]:
    try:
        named = json.loads(read_whole_text(index, most=_LARGEST_INDEX))["weight_map"]
        return sorted({str(name) for name in named.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(
            f"cannot read the index of weights {index}: {error}", hint="Download the model again."
        ) from error


def identify_model(workspace: Workspace, *, remember: bool = True) -> ModelFiles:
    """Find the base model and hash its files.

    Args:
        workspace: The project.
        remember: Whether to write new hashes to the store.

    Raises:
        ConfigError: The project's chat template cannot be found.
        DataError: The model cannot be found or read, has no safetensors weights, or has incomplete files.
    """
    folder = find_model(workspace.config.model, workspace.root)
    template = find_template(workspace.config.data.chat_template, workspace.root, folder)
    files = identity_files(folder)
    refuse_incomplete(files)
    hashes = hash_files(workspace.store, files, remember=remember)
    return ModelFiles(
        folder=folder,
        sha256=hash_of(_lines(folder, hashes)),
        tokenizer_sha256=_tokenizer_hash(folder, hashes, template),
        chat_template=template,
    )


def _lines(folder: Path, hashes: Mapping[File, str]) -> list[str]:
    return [f"{Path(str(path)).relative_to(folder).as_posix()}={digest}" for path, digest in hashes.items()]


def _tokenizer_hash(folder: Path, hashes: Mapping[File, str], template: str) -> str:
    lines = _lines(folder, {path: digest for path, digest in hashes.items() if path.suffix != ".safetensors"})
    return hash_of([*lines, *([f"chat_template={template}"] if template else [])])


def check_tokenizer(model: ModelFiles) -> None:
    """Check in a worker, after the tokenizer was read, that its files are those that identify the model.

    Raises:
        FileChanged: A file differs from that of the process that started the worker.
        DataError: A file cannot be read.
    """
    try:
        small = [path for path in identity_files(model.folder) if path.suffix != ".safetensors"]
        hashes: dict[File, str] = {path: sha256_of(path) for path in small}
    except OSError as error:
        raise DataError(f"cannot read the tokenizer in {model.folder}: {error}", hint="Check the folder.") from error
    if _tokenizer_hash(model.folder, hashes, model.chat_template) != model.tokenizer_sha256:
        raise FileChanged(model.folder)


def check_unchanged(workspace: Workspace, model: ModelFiles) -> None:
    """Check, after files of a model were read, that they still have the hashes that identify the model.

    Args:
        workspace: The project.
        model: Result of `identify_model` before the files were read.

    Raises:
        FileChanged: A file of the model has changed.
        ConfigError, DataError: As `identify_model`.
    """
    if identify_model(workspace, remember=False) != model:
        raise FileChanged(model.folder)


_WEIGHTS = "adapter_model.safetensors"
# Files that decide a model's behaviour. Readmes, caches and weights in other formats do not.
_IDENTITY = (
    *("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.vocab", "*.bpe", "*.spm"),
    *("additional_chat_templates/*.jinja", "*.py"),
)


def find_model(section: ModelSection, root: Path) -> Path:
    """Return the folder that holds a model. Download a hub model unless it is in the cache.

    Args:
        section: Section `[model]` of the configuration.
        root: Project folder. A path is relative to it.

    Raises:
        DataError: The folder or hub id does not exist, or has no safetensors weights.
    """
    folder = find_tokenizer(section, root)
    if not weight_files(folder):
        raise DataError(
            f"no weights (*.safetensors) in model folder {folder}{_other_weights(folder)}",
            hint="Save the model with save_pretrained(), which writes safetensors.",
        )
    return folder


# Weights in formats that curator does not read, and what they are.
_OTHER_WEIGHTS = {
    "*.bin": "a pickle, which can run code",
    "*.pth": "a pickle, which can run code",
    "*.pt": "a pickle, which can run code",
    "*.gguf": "a GGUF file, which cannot be trained",
    "*.h5": "a file of TensorFlow",
    "*.msgpack": "a file of Flax",
    "onnx/*.onnx": "a file of ONNX, which cannot be trained",
    "*.onnx": "a file of ONNX, which cannot be trained",
    "global_step*": "a checkpoint of DeepSpeed, which zero_to_fp32.py converts",
    "*/*.distcp": "a sharded checkpoint of torch, which `accelerate merge-weights` converts",
}


def _other_weights(folder: Path) -> str:
    """Say what the first file of weights in another format is."""
    for pattern, kind in _OTHER_WEIGHTS.items():
        other = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
        if other:
            return f" ({clean(other[0], limit=100)} is {kind})"
    return ""


def find_tokenizer(section: ModelSection, root: Path, *, download: bool = True) -> Path:
    """Return the folder that holds a model's tokenizer and architecture. The weights may be missing.

    Args:
        section: Section `[model]` of the configuration.
        root: Project folder. A path is relative to it.
        download: Whether a hub model may be downloaded. If not, it must be in the cache.

    Raises:
        DataError: The folder or hub id does not exist, or has no `config.json`.
    """
    folder = root / section.name_or_path
    if not folder.is_dir():
        if not is_hub_id(section.name_or_path):
            raise DataError(
                f"no such model folder: {folder}", hint="Correct `name_or_path` under [model] in curator.toml."
            )
        folder = _from_hub(section, download=download)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        # transformers would load the adapter into the model, also from a pickle.
        beside = "next to" if (folder / "config.json").is_file() else "not"
        raise DataError(
            f"model folder {folder} holds a LoRA adapter, {beside} a model{_base_of(adapter)}",
            hint="Set `name_or_path` under [model] to the base model, or merge the adapter into it.",
        )
    if not (folder / "config.json").is_file() and (folder / _WEIGHTS).is_file():
        raise DataError(
            f"model folder {folder} holds a LoRA adapter ({_WEIGHTS}), not a model",
            hint="Set `name_or_path` under [model] to the base model, or merge the adapter into it.",
        )
    if not (folder / "config.json").is_file():
        raise DataError(f"no config.json in model folder {folder}", hint=_hint_without_config(folder))
    return folder


def _hint_without_config(folder: Path) -> str:
    """Return what to do about a model folder without `config.json`."""
    below = sorted((path.parent for path in folder.glob("*/config.json")), key=lambda path: _number_at_end(path.name))
    if below:
        return f"Set `name_or_path` under [model] to the folder below: {clean(below[-1].name, limit=100)}."
    if any(folder.glob("*.gguf")):
        return "Convert the GGUF file to a transformers model. curator trains on safetensors weights."
    return "Set `name_or_path` under [model] to a transformers model."


def _number_at_end(name: str) -> tuple[int, str]:
    """Return the number at the end of a name, such as that of a checkpoint, and the name."""
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits or 0), name


def _base_of(adapter: Path) -> str:
    try:
        base = read_small_json(adapter).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return ""
    return f" (base model: {base!r:.200})" if isinstance(base, str) and base else ""


def _from_hub(section: ModelSection, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted: dict[str, Any] = {
        "repo_id": section.name_or_path,
        "revision": section.revision or None,
        "allow_patterns": list(_IDENTITY[:-1]),
    }
    try:
        return Path(snapshot_download(local_files_only=True, **wanted))
    except (LocalEntryNotFoundError, ValueError):
        if not download:
            raise DataError(
                f"model {section.name_or_path!r} is not in the cache, and no curator.toml names the model",
                hint="Pass --allow-outside to download the model, if you trust the author of the manifest.",
            ) from None
    try:
        return Path(snapshot_download(**wanted))
    except Exception as error:
        name = section.name_or_path
        if isinstance(error, HfHubHTTPError):
            raise DataError(
                f"model {name!r} is not a local folder, and the hub does not give it: {first_line(error)}",
                hint="Correct `name_or_path` under [model]. For a private model, set HF_TOKEN.",
            ) from error
        raise unreachable("model", name, error) from error


def identity_files(folder: Path) -> list[Path]:
    """Return the sorted files of a model folder that decide the model's behaviour."""
    found = {path for pattern in _IDENTITY for path in folder.glob(pattern) if path.is_file()}
    return sorted(found | set(weight_files(folder)))


def load_architecture(folder: Path, section: ModelSection) -> "PreTrainedConfig":
    """Read a model's configuration, which describes its architecture.

    The configuration may name kernels: native code of the hub, which transformers downloads and runs if the package
    `kernels` is installed. Without `trust_remote_code`, transformers chooses among its own implementations instead.

    Args:
        folder: Result of `find_model` or `find_tokenizer`.
        section: Section `[model]` of the configuration.

    Raises:
        DataError: The configuration cannot be read, or needs its own code and `trust_remote_code` is false.
    """
    from transformers import AutoConfig

    try:
        found = cast(
            "PreTrainedConfig", AutoConfig.from_pretrained(folder, trust_remote_code=section.trust_remote_code)
        )
    except Exception as error:
        raise DataError(
            f"cannot use config.json of model {folder}: {first_line(error)}", hint=code_hint(error)
        ) from error
    check_weights(found, folder)
    if not section.trust_remote_code:
        drop_kernels(found)
    return found


def load_tokenizer(folder: Path, section: ModelSection, chat_template: str = "") -> "PreTrainedTokenizerBase":
    """Read a model's tokenizer.

    Args:
        folder: Result of `find_model` or `find_tokenizer`.
        section: Section `[model]` of the configuration.
        chat_template: Text of the template that replaces the tokenizer's own. Empty to keep the tokenizer's own.

    Raises:
        ConfigError: The chat template is not valid.
        DataError: The tokenizer cannot be read, or needs its own code and `trust_remote_code` is false.
    """
    from transformers import AutoTokenizer

    ignored = ignored_files(folder)
    try:
        tokenizer = cast(
            "PreTrainedTokenizerBase",
            AutoTokenizer.from_pretrained(folder, trust_remote_code=section.trust_remote_code, **ignored),
        )
    except Exception as error:
        raise DataError(
            f"cannot read the tokenizer of model {folder}: {first_line(error)}", hint=code_hint(error)
        ) from error
    if chat_template:
        use_template(tokenizer, chat_template)
    return tokenizer


def is_of_the_disk(error: Exception) -> bool:
    """Return whether an error means a failed write. safetensors and torch wrap the error of the operating system."""
    words = ("No space left", "write failed", "unexpected pos", "File too large", "Read-only file system")
    return isinstance(error, OSError) or any(word in str(error) for word in words)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def code_hint(error: BaseException) -> str:
    """Return what to do about an error of transformers."""
    if "trust_remote_code" in str(error):
        return (
            "Set trust_remote_code = true under [model] if you trust the model's authors."
            " Otherwise curator does not run the model's Python code."
        )
    if "does not recognize this architecture" in str(error):
        return "Update transformers (`pip install --upgrade transformers`), or choose another model."
    if any(words in str(error) for words in ("requires a GPU", "GPU is required", "No GPU")):
        return "Use a machine with a GPU, or choose a model that is not quantized."
    if isinstance(error, ImportError) or "pip install" in str(error):
        return "Install the package that the error names, or choose a model that is not quantized."
    return "Check that the folder holds a complete transformers model: config, weights and tokenizer."

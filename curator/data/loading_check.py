"""Check that the files of a model hold each of its weights, without reading the numbers.

transformers fills missing weights with random numbers, and converts packed integers as if they were weights.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.core import distributed
from curator.core.config import ModelSection
from curator.core.errors import DataError
from curator.core.figures import first_of
from curator.core.provenance import key_of
from curator.core.text import clean
from curator.data.model_files import ModelFiles, code_hint, first_line, load_architecture, weight_files
from curator.data.target_modules import without_weights
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    import torch

_STAGE = "weights of the model"
# Names that a message lists.
_NAMED = 5
# Types of numbers in safetensors files that no layer of a language model multiplies with, except after unpacking.
_PACKED = {"I8": "int8", "U8": "uint8", "I16": "int16", "I32": "int32", "I64": "int64", "BOOL": "bool"}
DAMAGED = "transformers would start missing weights at random. Download the model again, or choose another model."
"""Hint for a model whose files do not hold its weights."""
# Names of weights that transformers looks for.
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def check_loading(workspace: Workspace, model: ModelFiles) -> None:
    """Check that transformers finds each weight of a model in its files, in its shape.

    The result of a successful check is stored, because the check imports torch.

    Args:
        workspace: The project.
        model: Files of the model.

    Raises:
        DataError: Weights are missing, unknown, packed or of another shape, a package is missing, or transformers
            cannot build the model.
    """
    from importlib.metadata import version

    section = workspace.config.model
    inputs: dict[str, Any] = {
        "model": model.sha256,
        "trust_remote_code": section.trust_remote_code,
        "transformers": version("transformers"),
    }
    key = key_of(inputs)
    if workspace.store.artifact(_STAGE, key) is not None:
        return
    _check(model.folder, section)
    if distributed.is_main():
        workspace.store.put_artifact(_STAGE, key, inputs, {})


def _check(folder: Path, section: ModelSection) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    architecture = load_architecture(folder, section)
    _check_names(folder, architecture)
    if _is_quantized(folder, architecture):
        # Its weights have other names and shapes until the package of the method unpacks them.
        return
    auto: Any = AutoModelForSeq2SeqLM if getattr(architecture, "is_encoder_decoder", False) else AutoModelForCausalLM
    try:
        with _silenced():
            base, report = auto.from_pretrained(
                folder,
                config=architecture,
                # Weights on this device have shapes, but no numbers.
                device_map={"": "meta"},
                use_safetensors=True,
                trust_remote_code=section.trust_remote_code,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        # The attempt may have changed the configuration.
        fresh = load_architecture(folder, section)
        with _silenced():
            built = None if _is_final(error) else without_weights(fresh, trusted=section.trust_remote_code)
        if built is None:
            raise refusal(folder, error) from error
        # The model may need numbers. The training loads the model, and reports the reason.
        return
    problem = loading_problem(report) or _packed(folder, base)
    if problem:
        raise DataError(f"model {folder} is damaged or of another kind: {problem}", hint=DAMAGED)


def _check_names(folder: Path, architecture: Any) -> None:
    """Refuse weights under names that transformers does not look for, such as shards without their index."""
    if getattr(architecture, "transformers_weights", None) or any((folder / n).is_file() for n in (_SINGLE, _INDEX)):
        return
    found = weight_files(folder)
    raise DataError(
        f"model folder {folder} holds {_listed('files of weights', [clean(path.name, limit=80) for path in found])},"
        f" but neither {_SINGLE} nor {_INDEX}",
        hint=f"Rename the file to {_SINGLE}. Several files need their index: download the model again.",
    )


def _is_quantized(folder: Path, architecture: Any) -> bool:
    """Return whether transformers knows how a model is quantized. It reads weights of unknown methods as they are.

    Raises:
        DataError: The package that unpacks the weights is missing, or the method is not named.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    text = architecture.get_text_config(decoder=True)
    method: Any = getattr(architecture, "quantization_config", None) or getattr(text, "quantization_config", None)
    if method is None:
        return False
    try:
        with _silenced():
            values = method if isinstance(method, dict) else method.to_dict()
            if not AutoHfQuantizer.supports_quant_method(values):  # type: ignore[no-untyped-call]
                return False
            quantizer: Any = AutoHfQuantizer.from_config(copy.deepcopy(method), pre_quantized=True)
            quantizer.validate_environment(device_map=None, weights_only=True)
    except Exception as error:
        if _is_final(error):
            raise refusal(folder, error) from error
    return True


def _is_final(error: Exception) -> bool:
    """Return whether a model cannot be loaded on any machine with the installed packages."""
    words = str(error)
    return (
        isinstance(error, OSError) or "quant_method" in words or (isinstance(error, ImportError) and "GPU" not in words)
    )


def refusal(folder: Path, error: Exception) -> DataError:
    """Return the error for a model that transformers cannot load."""
    words = first_line(error)
    named = words if not isinstance(error, LookupError) else f"{type(error).__name__}: {words}"
    return DataError(f"cannot load model {folder}: {named}", hint=code_hint(error))


def loading_problem(report: dict[str, Any]) -> str:
    """Describe weights that transformers did not load as they are in the files. Return "" if all are loaded.

    Args:
        report: Loading info that `from_pretrained` returns with `output_loading_info`.
    """
    parts = []
    for key, words in (
        # transformers starts them at random.
        ("missing_keys", "missing"),
        ("mismatched_keys", "of another shape"),
        ("unexpected_keys", "unknown to the model"),
        ("error_msgs", "not loaded"),
    ):
        names = sorted({_named(item) for item in report.get(key) or ()})
        if names:
            parts.append(_listed(f"weights {words}", names))
    return "; ".join(parts)


def _named(item: Any) -> str:
    if not isinstance(item, tuple):
        return str(item)
    shapes = ["×".join(map(str, shape)) or "one number" for shape in item[1:3]]
    return f"{item[0]} ({shapes[0]} instead of {shapes[1]})" if len(shapes) == 2 else str(item[0])


def _listed(words: str, names: list[str]) -> str:
    return f"{len(names):,} {words}: {first_of(names, _NAMED)}"


def _packed(folder: Path, base: "torch.nn.Module") -> str:
    """Describe weights that the files store as integers, although the model multiplies with fractions."""
    from safetensors import safe_open

    fractions = {name for name, weight in base.named_parameters() if weight.is_floating_point()}
    found: dict[str, list[str]] = {}
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            for name in fractions.intersection(file.keys()):
                kind = file.get_slice(name).get_dtype()
                if kind in _PACKED:
                    found.setdefault(_PACKED[kind], []).append(name)
    return "; ".join(
        _listed(f"weights stored as {kind}, which transformers does not unpack", sorted(names))
        for kind, names in found.items()
    )


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep transformers from printing bars and tables, which the error of the check replaces."""
    import logging as levels

    from transformers.utils import logging

    before = logging.get_verbosity()
    restore: Callable[[], None] | None = logging.enable_progress_bar if logging.is_progress_bar_enabled() else None
    logging.set_verbosity(levels.CRITICAL)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if restore is not None:
            restore()

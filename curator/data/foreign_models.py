"""Keep a foreign model from loading other files and code than its own: weights, tokenizers and kernels.

The hash of a model covers the files that `curator.data.model_files` lists. transformers would read others, too.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from curator.core.errors import DataError
from curator.core.files import read_whole_text

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Largest configuration of a tokenizer in bytes.
_LARGEST = 2**26
# Implementations within torch and transformers, by the attribute that names one of them.
_OWN = {
    "_attn_implementation_internal": ("eager", "sdpa", "flex_attention"),
    "_experts_implementation_internal": ("eager", "grouped_mm", "batched_mm"),
}


def drop_kernels(config: "PreTrainedConfig") -> None:
    """Leave the choice to transformers where a configuration or a part of it names other implementations."""
    from transformers import PreTrainedConfig

    for part in [config, *(value for value in vars(config).values() if isinstance(value, PreTrainedConfig))]:
        for name, own in _OWN.items():
            if getattr(part, name, None) not in own:
                setattr(part, name, None)


def check_weights(config: "PreTrainedConfig", folder: Path) -> None:
    """Refuse weights that a configuration names, and that do not count as files of the model, such as a pickle.

    Args:
        config: The model's configuration.
        folder: Folder of the model.

    Raises:
        DataError: The configuration names such weights.
    """
    named = getattr(config, "transformers_weights", None)
    counts = isinstance(named, str) and named.endswith((".safetensors", ".safetensors.index.json"))
    if named is not None and (not counts or Path(named).name != named):
        raise DataError(
            f"config.json of model {folder} names other weights: {named!r:.200}", hint="Do not use this model."
        )


def ignored_files(folder: Path) -> dict[str, None]:
    """Return arguments by which transformers ignores the files that `tokenizer_config.json` names.

    Early versions of transformers wrote paths of the author's machine, and transformers finds the files itself.

    Raises:
        DataError: The configuration names files where only a hostile author names some.
    """
    path = folder / "tokenizer_config.json"
    try:
        values = json.loads(read_whole_text(path, most=_LARGEST)) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        # The tokenizer's own loader reports a damaged file.
        return {}
    if not isinstance(values, dict):
        return {}
    versions = values.get("fast_tokenizer_files")
    named = [name for name in versions if isinstance(name, str)] if isinstance(versions, list) else [versions]
    named = [name for name in named if isinstance(name, str) and Path(name).name != name]
    named += [name for name in (values.get("vocab"), values.get("merges")) if isinstance(name, str)]
    if named:
        raise DataError(
            f"{path} names files outside the model folder: {named[0]!r:.200}", hint="Do not use this model."
        )
    return {key: None for key in values if key.endswith("_file")}

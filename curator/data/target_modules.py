"""Check that LoRA can be put on the configured modules of a model, without reading its weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from curator.core import distributed
from curator.core.config import LoraSection
from curator.core.errors import ConfigError
from curator.core.provenance import key_of
from curator.data.model_files import ModelFiles, first_line, load_architecture
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    import torch

_STAGE = "target modules"
# Names that a hint lists.
_NAMED = 12


def check_target_modules(workspace: Workspace, model: ModelFiles) -> None:
    """Check that the model has the modules of `lora.target_modules`, and that peft accepts them.

    The result of a successful check is stored, because the check imports torch.

    Args:
        workspace: The project.
        model: Files of the model.

    Raises:
        ConfigError: A module does not exist, or peft refuses the modules. The hint names modules that can be used.
        DataError: The configuration of the model cannot be read.
    """
    from importlib.metadata import version

    config, lora = workspace.config.model, workspace.config.lora
    inputs: dict[str, Any] = {
        "model": model.tokenizer_sha256,
        "target_modules": lora.target_modules,
        "peft": version("peft"),
        "transformers": version("transformers"),
    }
    key = key_of(inputs)
    if workspace.store.artifact(_STAGE, key) is not None:
        return
    _check(model.folder, load_architecture(model.folder, config), lora, trusted=config.trust_remote_code)
    if distributed.is_main():
        workspace.store.put_artifact(_STAGE, key, inputs, {})


def _check(folder: Path, architecture: Any, lora: LoraSection, *, trusted: bool) -> None:
    base = without_weights(architecture, trusted=trusted)
    if base is None:
        return
    # peft changes the model.
    linear = _linear_names(base)
    named = lora.target_modules
    reason = ""
    if not isinstance(named, str):
        missing = [name for name in named if not _has(base, name)]
        reason = f"the model has no module {', '.join(map(repr, missing))}" if missing else ""
    reason = reason or _refusal(base, named)
    if not reason:
        return
    usable = [name for name in linear if not _refusal(without_weights(architecture, trusted=trusted), name)]
    shown = ", ".join(f'"{name}"' for name in usable[:_NAMED])
    raise ConfigError(
        f"cannot use lora.target_modules = {named if isinstance(named, str) else list(named)!r} with model {folder}:"
        f" {reason}",
        hint=f"Set target_modules = [{shown}] under [lora], or some of these."
        if usable
        else "Choose another model. LoRA can be put on no linear layer of this model.",
    )


def without_weights(architecture: Any, *, trusted: bool) -> "torch.nn.Module | None":
    """Build a model on torch's device `meta`, which holds no numbers. Return None if the model needs numbers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForSeq2SeqLM if getattr(architecture, "is_encoder_decoder", False) else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return cast("torch.nn.Module", auto.from_config(architecture, trust_remote_code=trusted))
    except Exception:
        # The training loads the model with its weights, and reports the reason.
        return None


def _refusal(base: "torch.nn.Module | None", named: str | tuple[str, ...]) -> str:
    """Return the reason why peft cannot put LoRA on modules, or "" if it can. The modules of `base` change.

    Args:
        base: Model on the device `meta`.
        named: "all-linear", one name, or several names.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    if base is None:
        return "the model cannot be built"
    wanted = named if named == "all-linear" else [named] if isinstance(named, str) else list(named)
    kind = TaskType.SEQ_2_SEQ_LM if base.config.is_encoder_decoder else TaskType.CAUSAL_LM  # type: ignore[union-attr]
    try:
        get_peft_model(cast(Any, base), LoraConfig(task_type=kind, r=1, target_modules=wanted), low_cpu_mem_usage=True)
    except (ValueError, TypeError) as error:
        return first_line(error)
    return ""


def _has(base: "torch.nn.Module", name: str) -> bool:
    """Return whether a module has a name, or ends in it, as peft compares names."""
    return any(path == name or path.endswith(f".{name}") for path, _ in base.named_modules())


def _linear_names(base: "torch.nn.Module") -> list[str]:
    """Return the names of the linear layers without the head, most frequent first."""
    from collections import Counter

    import torch
    from transformers.pytorch_utils import Conv1D

    head = cast(Any, base).get_output_embeddings()
    counted = Counter(
        path.rpartition(".")[2]
        for path, module in base.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    )
    return [name for name, _ in counted.most_common()]

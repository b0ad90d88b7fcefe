"""Load a base model with a fresh LoRA adapter, and fix the order of its trainable parameters.

`find_model` turns a name into a local folder; `load_tokenizer` and `load_model` read from it, safetensors only.
What comes out is a `TunedModel`: the model, its device, and the one `ParameterLayout` by which gradients are laid
out.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from curator.core.config import LoraSection, ModelSection
from curator.core.errors import ConfigError, DataError, ManifestMismatch
from curator.core.files import umask
from curator.core.performance import OtherPrograms, reasons
from curator.data.model_files import _WEIGHTS, _code_hint, _first_line, find_model, is_of_the_disk, load_architecture
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """Names and shapes of the trainable parameters, in one fixed order.

    Args:
        shapes: Shape of each parameter by name, in the order of `named_parameters`.
    """

    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: "torch.nn.Module") -> "ParameterLayout":
        """Read the layout off a model's parameters that require a gradient."""
        return cls({name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad})

    @property
    def size(self) -> int:
        """Number of trainable coordinates p."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def sha256(self) -> str:
        """Hash of names, shapes and order."""
        return hashlib.sha256(json.dumps(list(self.shapes.items())).encode()).hexdigest()

    def flatten(self, tensors: Mapping[str, "torch.Tensor"]) -> "torch.Tensor":
        """Lay tensors out as one vector (p,).

        Raises:
            ManifestMismatch: A parameter is missing or has another shape.
        """
        import torch

        for name, shape in self.shapes.items():
            found = tuple(tensors[name].shape) if name in tensors else None
            if found != shape:
                raise ManifestMismatch(f"parameter {name}: the layout says {shape}, the tensors {found}")
        return torch.cat([tensors[name].reshape(-1) for name in self.shapes])

    def unflatten(self, vector: "torch.Tensor") -> dict[str, "torch.Tensor"]:
        """Cut a vector (p,) into tensors by name.

        Raises:
            ManifestMismatch: The vector has another length.
        """
        if vector.shape != (self.size,):
            raise ManifestMismatch(f"layout of {self.size} coordinates, vector of shape {tuple(vector.shape)}")
        tensors, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            tensors[name] = vector[start:stop].reshape(shape)
            start = stop
        return tensors


def pick_device() -> "torch.device":
    """CUDA (this process's GPU), else MPS, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(section: ModelSection, device: "torch.device") -> "torch.dtype":
    """The dtype of the frozen base model; LoRA itself is float32."""
    import torch

    if section.dtype != "auto":
        return cast("torch.dtype", getattr(torch, section.dtype))
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if half else torch.float32


class TunedModel:
    """A base model with a LoRA adapter.

    Attributes:
        model: The peft model, on its device.
        layout: Its trainable parameters.
        encoder_decoder: Whether it has two halves.
        device: Where it is.
    """

    def __init__(self, model: "PeftModel", *, encoder_decoder: bool) -> None:
        self.model = model
        self.layout = ParameterLayout.of(model)
        self.encoder_decoder = encoder_decoder

    @property
    def device(self) -> "torch.device":
        """Device of the model."""
        return cast("torch.device", self.model.device)

    def reset(self, seed: int) -> None:
        """Begin the adapter anew, as for a new fine-tuning run."""
        import torch
        from peft.tuners.lora import LoraLayer

        # On the CPU, so that a seed means the same start on every device.
        torch.manual_seed(seed)
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                for adapter in module.active_adapters:
                    module.reset_lora_parameters(adapter, True)  # type: ignore[no-untyped-call]

    def save_adapter(self, folder: Path) -> str:
        """Write the adapter so that `PeftModel.from_pretrained` reads it; all of it or nothing.

        Returns:
            SHA-256 of the weights' file.
        """
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            self.model.save_pretrained(str(partial))
            # safetensors makes files that nobody else may read.
            for path in partial.iterdir():
                path.chmod(0o666 & ~umask())
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not is_of_the_disk(error):
                raise
            raise DataError(f"{folder}: cannot be written: {error}", hint="Is the disk full?") from error
        return hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()

    def load_adapter(self, folder: Path, *, sha256: str = "") -> None:
        """Read adapter weights that `save_adapter` wrote.

        Args:
            folder: Where they are.
            sha256: What `save_adapter` said of their file; empty where that is not known.

        Raises:
            DataError: They cannot be read.
            ManifestMismatch: They are others, or belong to another model or LoRA configuration.
        """
        from peft import get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights = load_file(folder / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"adapter {folder}: cannot be read: {error}", hint="Run `curator train --fresh` to make it anew."
            ) from error
        found = hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
        if sha256 and found != sha256:
            raise ManifestMismatch(
                f"adapter {folder}: sha256 {found[:12]}…, meta-training wrote {sha256[:12]}…",
                hint="Run `curator train --fresh`.",
            )
        here = {name: tuple(t.shape) for name, t in get_peft_model_state_dict(self.model).items()}
        there = {name: tuple(t.shape) for name, t in weights.items()}
        if here != there:
            name = min(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
            raise ManifestMismatch(
                f"adapter {folder}: {name} has shape {there.get(name)}, the model wants {here.get(name)}",
                hint="Run `curator train --fresh`.",
            )
        set_peft_model_state_dict(self.model, weights)


def load_model(folder: Path, section: ModelSection, lora: LoraSection) -> TunedModel:
    """Load a base model and put a LoRA adapter on it.

    Args:
        folder: From `find_model`.
        section: `[model]`.
        lora: `[lora]`.

    Raises:
        DataError: The model cannot be loaded.
        ConfigError: LoRA finds none of its target modules, or quantization has no GPU.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = load_architecture(folder, section)
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    device = pick_device()
    if device.type == "cuda":
        # LoRA's own products are in float32; tf32 is as exact as what bfloat16 layers give them.
        torch.set_float32_matmul_precision("high")
    options: dict[str, Any] = {
        "dtype": pick_dtype(section, device),
        "use_safetensors": True,
        "trust_remote_code": section.trust_remote_code,
    }
    if section.attention != "auto":
        options["attn_implementation"] = section.attention
    if section.quantization != "none":
        if device.type != "cuda":
            raise ConfigError(
                f"model.quantization = {section.quantization!r} needs a CUDA GPU, this machine has none",
                hint='Set quantization = "none".',
            )
        from transformers import BitsAndBytesConfig

        four = section.quantization == "4bit"
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=four,
            load_in_8bit=not four,
            bnb_4bit_compute_dtype=options["dtype"],
            bnb_4bit_quant_type="nf4",
        )
        options["device_map"] = {"": device.index or 0}
    auto: Any = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    try:
        base, report = auto.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:
        raise DataError(f"model {folder}: cannot be loaded: {_first_line(error)}", hint=_code_hint(error)) from error
    # transformers fills weights that are missing with random numbers, and only prints a table.
    problem = loading_problem(report)
    if problem:
        raise DataError(
            f"model {folder} is damaged or of another kind: {problem}",
            hint="Download the model again, or choose another model.",
        )
    if section.quantization != "none":
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    peft_config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=cast("int", lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
    )
    try:
        model = get_peft_model(base, peft_config)
    except ValueError as error:
        raise ConfigError(
            f"lora.target_modules = {lora.target_modules!r} does not fit {folder}: {_first_line(error)}",
            hint='Use "all-linear", or names of modules that the model has.',
        ) from error
    if section.quantization == "none":
        model.to(device)
    model.config.use_cache = False
    torch.set_grad_enabled(True)
    return TunedModel(model, encoder_decoder=encoder_decoder)


def loading_problem(report: dict[str, Any]) -> str:
    """Return what transformers reports about weights that did not come from the files; "" if there is nothing.

    Args:
        report: `output_loading_info` of `from_pretrained`.
    """
    parts = []
    for key, words in (
        ("missing_keys", "missing"),
        ("mismatched_keys", "of another shape"),
        ("unexpected_keys", "unknown to the model"),
        ("error_msgs", "not loaded"),
    ):
        names = sorted({str(item[0] if isinstance(item, tuple) else item) for item in report.get(key) or ()})
        if names:
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            parts.append(f"{len(names):,} weights {words}: {', '.join(names[:5])}{more}")
    return "; ".join(parts)


def load_project_model(workspace: Workspace) -> TunedModel:
    """Load the project's base model with a new LoRA adapter. Warn where this machine is slower than it could be.

    Args:
        workspace: The project.

    Raises:
        ConfigError, DataError: As `find_model` and `load_model`.
    """
    config = workspace.config
    others = OtherPrograms()
    tuned = load_model(find_model(config.model, workspace.root), config.model, config.lora)
    for words in reasons(tuned.device, pick_dtype(config.model, tuned.device), others):
        workspace.reporter.warn(words)
    return tuned

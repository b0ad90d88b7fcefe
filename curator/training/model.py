"""Load a base model with a new LoRA adapter, and fix the order of its trainable parameters.

`load_model` reads weights from safetensors only.
It returns a `TunedModel`: the model and the `ParameterLayout` of its gradients.
"""

import copy
import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from curator.core import distributed
from curator.core.config import LoraSection, ModelSection
from curator.core.errors import ConfigError, DataError, ManifestMismatch
from curator.core.files import sha256_of, umask
from curator.core.folders import remove_folder
from curator.core.performance import slow_arithmetic
from curator.data.loading_check import DAMAGED, loading_problem, refusal
from curator.data.model_files import (
    _WEIGHTS,
    ModelFiles,
    check_unchanged,
    first_line,
    identify_model,
    is_of_the_disk,
    load_architecture,
)
from curator.training.sharding import is_sharded, sharding_options
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """Fix names, shapes and order of the trainable parameters.

    Args:
        shapes: Shape of each parameter by name, in the order of `named_parameters`.
    """

    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: "torch.nn.Module") -> "ParameterLayout":
        """Return the layout of the parameters that require a gradient."""
        return cls({name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad})

    @property
    def size(self) -> int:
        """Return the number of trainable coordinates p."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def sha256(self) -> str:
        """Return a hash of names, shapes and order."""
        return hashlib.sha256(json.dumps(list(self.shapes.items())).encode()).hexdigest()

    def flatten(self, tensors: Mapping[str, "torch.Tensor"]) -> "torch.Tensor":
        """Concatenate tensors to one vector (p,).

        Args:
            tensors: Tensor of each parameter by name.

        Raises:
            ManifestMismatch: A parameter is missing or has another shape.
        """
        import torch

        for name, shape in self.shapes.items():
            found = tuple(tensors[name].shape) if name in tensors else None
            if found != shape:
                raise ManifestMismatch(f"parameter {name} has shape {found}, but the layout has {shape}")
        device = next(iter(tensors.values())).device
        return torch.cat([tensors[name].reshape(-1).to(device) for name in self.shapes])

    def unflatten(self, vector: "torch.Tensor") -> dict[str, "torch.Tensor"]:
        """Cut a vector into tensors by parameter name.

        Args:
            vector: Coordinates of all parameters (p,).

        Raises:
            ManifestMismatch: The vector has another length.
        """
        if vector.shape != (self.size,):
            raise ManifestMismatch(
                f"vector has shape {tuple(vector.shape)}, but the layout has {self.size} coordinates"
            )
        tensors, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            tensors[name] = vector[start:stop].reshape(shape)
            start = stop
        return tensors


def pick_device() -> "torch.device":
    """Return the CUDA device of this process, else MPS, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(section: ModelSection, device: "torch.device") -> "torch.dtype":
    """Return the dtype of the frozen base model. LoRA weights are always float32.

    Args:
        section: Section `[model]` of the configuration.
        device: Device of the model.
    """
    import torch

    if section.dtype != "auto":
        return cast("torch.dtype", getattr(torch, section.dtype))
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if half else torch.float32


class TunedModel:
    """Hold a base model with a LoRA adapter.

    Attributes:
        model: peft model on its device.
        layout: Layout of the trainable parameters.
        encoder_decoder: Whether the model is an encoder–decoder.
    """

    def __init__(self, model: "PeftModel", *, encoder_decoder: bool) -> None:
        self.model = model
        self.layout = ParameterLayout.of(model)
        self.encoder_decoder = encoder_decoder
        self._by_key: dict[str, torch.nn.Parameter] | None = None

    @property
    def device(self) -> "torch.device":
        """Return the device of the model. With `device_map`, return that of the inputs, where sums are kept."""
        return cast("torch.device", self.model.device)

    @property
    def devices(self) -> "dict[str, torch.device]":
        """Return the device of each trainable parameter by name."""
        return {name: p.device for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def sharded(self) -> bool:
        """Return whether several processes hold the weights together, so that they must make equally many passes."""
        return bool(getattr(self.model, "is_distributed_loading_by_transformers", False))

    def inference(self) -> AbstractContextManager[object]:
        """Return the fastest context without gradients."""
        import torch

        # Layers that are gathered in inference mode cannot be trained afterwards.
        return torch.no_grad() if self.sharded else torch.inference_mode()

    def reset(self, seed: int) -> None:
        """Reinitialize the adapter for a new fine-tuning run.

        Args:
            seed: Seed of the LoRA weights. A seed gives the same weights on every device.
        """
        import torch
        from peft.tuners.lora import LoraLayer

        # peft draws the weights on the CPU.
        torch.manual_seed(seed)
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                for adapter in module.active_adapters:
                    module.reset_lora_parameters(adapter, True)  # type: ignore[no-untyped-call]

    def weights_not_finite(self) -> list[str]:
        """Return the names of the base model's weights that hold NaN or an infinite number."""
        import torch

        return [
            name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            for name, p in self.model.named_parameters()
            if not p.requires_grad and p.is_floating_point() and p.device.type != "meta" and not self.sharded
            if not bool(torch.isfinite(p).all())
        ]

    def adapter_weights(self) -> "torch.Tensor":
        """Return a copy of all weights of the adapter in one vector (p,)."""
        named = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        return self.layout.flatten(named).clone()

    def put_adapter_weights(self, vector: "torch.Tensor") -> None:
        """Set all weights of the adapter from the result of `adapter_weights` (p,)."""
        import torch

        named = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, values in self.layout.unflatten(vector).items():
                named[name].copy_(values)

    def _parameters_by_key(self) -> "dict[str, torch.nn.Parameter]":
        """Return the adapter's parameters by their keys in a file of weights.

        peft finds the keys again at each call, which takes longer than a training step of a small model.
        """
        import torch
        from peft import get_peft_model_state_dict

        if self._by_key is None:
            named = self.model.named_parameters(remove_duplicate=False)
            parameters = [(name, p) for name, p in named if p.requires_grad or not self.sharded]
            # peft maps names to keys. Numbers in the place of weights show which key belongs to which parameter.
            numbers = {name: torch.tensor(number) for number, (name, _) in enumerate(parameters)}
            found = get_peft_model_state_dict(self.model, state_dict=numbers)
            self._by_key = {key: parameters[int(number)][1] for key, number in found.items()}
        return self._by_key

    def trained_state(self) -> "dict[str, torch.Tensor] | None":
        """Return the trained weights by name for `save_pretrained`, if processes share the base. Else return None.

        Without them, peft and the Trainer would gather the whole base in every process.
        """
        return {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad} if self.sharded else None

    def save_adapter(self, folder: Path, *, card: bool = True) -> str:
        """Write the adapter as a whole or not at all. `PeftModel.from_pretrained` can read the folder.

        Args:
            folder: Folder to write. An existing folder is replaced.
            card: Whether to write a model card, too.

        Returns:
            SHA-256 of the file of weights.

        Raises:
            DataError: The disk is full, or the folder cannot be written.
        """
        partial = folder.with_name(folder.name + ".partial")
        remove_folder(partial)
        try:
            if card:
                self.model.save_pretrained(str(partial), state_dict=self.trained_state())
            else:
                self._save_weights(partial)
            # safetensors creates files that other users may not read.
            for path in partial.iterdir():
                path.chmod(0o666 & ~umask())
            remove_folder(folder)
            partial.replace(folder)
        except Exception as error:
            remove_folder(partial)
            if not is_of_the_disk(error):
                raise
            hint = "Check free disk space and write permissions."
            raise DataError(f"cannot write {folder}: {error}", hint=hint) from error
        return sha256_of(folder / _WEIGHTS)

    def _save_weights(self, folder: Path) -> None:
        """Write what `save_pretrained` writes, without a model card."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True)
        tensors = {key: p.detach().cpu().contiguous() for key, p in self._parameters_by_key().items()}
        save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
        config = copy.copy(self.model.peft_config["default"])
        config.inference_mode = True
        config.save_pretrained(str(folder))

    def load_adapter(self, folder: Path, *, sha256: str = "") -> None:
        """Load adapter weights that `save_adapter` wrote.

        Args:
            folder: Folder of the adapter.
            sha256: Expected result of `save_adapter`. Empty to skip the check.

        Raises:
            DataError: The weights cannot be read.
            ManifestMismatch: The hash differs, or the shapes belong to another model or LoRA configuration.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights = load_file(folder / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"cannot read adapter {folder}: {error}", hint="Run `curator train --fresh` to train it again."
            ) from error
        found = sha256_of(folder / _WEIGHTS)
        if sha256 and found != sha256:
            raise ManifestMismatch(
                f"adapter {folder} has sha256 {found[:12]}…, but meta-training wrote {sha256[:12]}…",
                hint="Run `curator train --fresh` to train it again.",
            )
        parameters = self._parameters_by_key()
        here = {name: tuple(p.shape) for name, p in parameters.items()}
        there = {name: tuple(t.shape) for name, t in weights.items()}
        if here != there:
            name = min(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
            raise ManifestMismatch(
                f"adapter {folder}: {name} has shape {there.get(name)}, but the model has {here.get(name)}",
                hint="Run `curator train --fresh` to train it again.",
            )
        with torch.no_grad():
            for name, values in weights.items():
                parameters[name].copy_(values)


def load_model(folder: Path, section: ModelSection, lora: LoraSection) -> TunedModel:
    """Load a base model and add a LoRA adapter.

    Args:
        folder: Result of `find_model`.
        section: Section `[model]` of the configuration.
        lora: Section `[lora]` of the configuration.

    Raises:
        DataError: The model cannot be loaded.
        ConfigError: The model has no target module of LoRA, quantization is set without a CUDA GPU, or several
            processes cannot share the model.
    """
    import torch
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = load_architecture(folder, section)
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    device = pick_device()
    if device.type == "cuda":
        # LoRA multiplies in float32. Its inputs come from bfloat16 layers, so tf32 loses no accuracy.
        torch.set_float32_matmul_precision("high")
    options: dict[str, Any] = {
        # Without it, transformers reads the file again, with the kernels that `load_architecture` dropped.
        "config": config,
        "dtype": pick_dtype(section, device),
        "use_safetensors": True,
        "trust_remote_code": section.trust_remote_code,
        # transformers then reports these weights by name.
        "ignore_mismatched_sizes": True,
    }
    if section.attention != "auto":
        options["attn_implementation"] = section.attention
    if section.quantization != "none":
        if device.type != "cuda":
            raise ConfigError(
                f"no CUDA GPU for model.quantization = {section.quantization!r}",
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
    if section.device_map:
        if distributed.world_size() > 1:
            raise ConfigError(
                "model.device_map is set, and curator runs in several processes",
                hint="Start one process, or remove `device_map` under [model].",
            )
        options["device_map"] = section.device_map
    if is_sharded(section):
        options |= sharding_options(folder, config, section)
    auto: Any = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    try:
        base, report = auto.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:
        raise refusal(folder, error) from error
    # transformers fills missing weights with random numbers, and only prints a table.
    problem = loading_problem(report)
    if problem:
        raise DataError(
            f"model {folder} is damaged or of another kind: {problem}",
            hint=DAMAGED,
        )
    if section.quantization != "none":
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    try:
        model = get_peft_model(base, lora_config(lora, encoder_decoder=encoder_decoder))
    except ValueError as error:
        raise ConfigError(
            f"cannot use lora.target_modules = {lora.target_modules!r} with model {folder}: {first_line(error)}",
            hint='Use "all-linear", or names of modules of the model.',
        ) from error
    if section.quantization == "none" and not section.device_map and not is_sharded(section):
        model.to(device)
    model.config.use_cache = False
    torch.set_grad_enabled(True)
    return TunedModel(model, encoder_decoder=encoder_decoder)


def lora_config(lora: LoraSection, *, encoder_decoder: bool) -> "LoraConfig":
    """Return the settings of the adapter for peft."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=cast("int", lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
    )


def layout_of(folder: Path, section: ModelSection, lora: LoraSection) -> ParameterLayout:
    """Return the layout of a model's adapter, without its weights.

    Args:
        folder: Result of `find_model`.
        section: Section `[model]` of the configuration.
        lora: Section `[lora]` of the configuration.

    Raises:
        DataError: The configuration of the model cannot be read.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = load_architecture(folder, section)
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    auto: Any = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        base = auto.from_config(config, trust_remote_code=section.trust_remote_code)
        return ParameterLayout.of(get_peft_model(base, lora_config(lora, encoder_decoder=encoder_decoder)))


def load_project_model(workspace: Workspace, model: ModelFiles | None = None) -> TunedModel:
    """Load the project's base model with a new LoRA adapter. Warn if the machine can run it faster.

    Args:
        workspace: The project.
        model: The model that results are stored under. None for the model that is on disk now.

    Raises:
        FileChanged: A file of the model changed after it was hashed.
        ConfigError: The model has no target module of LoRA, or quantization is set without a CUDA GPU.
        DataError: The model cannot be found or loaded.
    """
    config = workspace.config
    model = model or identify_model(workspace)
    tuned = load_model(model.folder, config.model, config.lora)
    check_unchanged(workspace, model)
    if words := slow_arithmetic(tuned.device, pick_dtype(config.model, tuned.device)):
        workspace.reporter.warn(words)
    return tuned

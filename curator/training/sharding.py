"""Cut the weights of a base model among several processes (FSDP2), layer by layer.

transformers cuts the weights while it reads them, so that no process holds a whole model. A process gathers one layer
at a time, in the forward and in the backward pass. LoRA's weights are added later and stay whole in every process.
The gradient of one example needs the inputs and output gradients of LoRA's layers only, which the process has.

Every forward and backward pass gathers layers, so all processes must make equally many passes. A process that has no
batch left makes a pass over a short example (`GradientEngine.stand_by`).
"""

import re
from pathlib import Path
from typing import Any

from curator.core import distributed
from curator.core.config import ModelSection
from curator.core.errors import ConfigError

# The full weight of a layer is freed after its forward pass, and gathered again for its backward pass.
_FREE = "free_full_weight"


def is_sharded(section: ModelSection) -> bool:
    """Return whether this run cuts the weights of the model. A single process holds the whole model."""
    return section.shard == "layers" and distributed.world_size() > 1


def sharding_options(folder: Path, architecture: Any, section: ModelSection) -> dict[str, Any]:
    """Return the options of `from_pretrained` that cut the weights among all processes.

    Args:
        folder: Folder of the model, for messages.
        architecture: Result of `load_architecture`.
        section: Section `[model]` of the configuration.

    Raises:
        ConfigError: The weights of this model cannot be cut.
    """
    from transformers.distributed.configuration_utils import DistributedConfig

    for name, unset in (("quantization", "none"), ("device_map", "")):
        if getattr(section, name) != unset:
            raise ConfigError(
                f"model.shard and model.{name} exclude each other",
                hint=f"Remove `{name}` or `shard` under [model].",
            )
    distributed.join()
    plan = layer_plan(architecture, trusted=section.trust_remote_code)
    if not plan:
        raise ConfigError(
            f"cannot set model.shard for model {folder}: transformers names no layers of this model",
            hint='Set shard = "none" under [model].',
        )
    return {"distributed_config": DistributedConfig(fsdp_size=distributed.world_size(), fsdp_plan=plan)}


def layer_plan(architecture: Any, *, trusted: bool) -> dict[str, str]:
    """Return the plan of transformers that cuts each layer of a model, such as `{"model.layers.*": …}`.

    Args:
        architecture: Result of `load_architecture`.
        trusted: Whether to run Python code of the model's repository.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForSeq2SeqLM if getattr(architecture, "is_encoder_decoder", False) else AutoModelForCausalLM
    with torch.device("meta"):
        base = auto.from_config(architecture, trust_remote_code=trusted)
    layers = set(base._no_split_modules or ())
    names = (name for name, module in base.named_modules() if type(module).__name__ in layers)
    return {re.sub(r"\.\d+(?=\.|$)", ".*", name): _FREE for name in names}

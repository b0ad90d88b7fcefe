"""Sketches over 8-bit and 4-bit bases, on the CPU. They need bitsandbytes, which curator does not install."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curator.core.config import LoraSection
from curator.core.events import Reporter
from curator.data.tokens import IGNORED, TokenizedExample
from curator.gradients.engine import GradientEngine, gradient_of
from curator.gradients.projection import Projection, ProjectionSpec
from curator.training.model import TunedModel, lora_config

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
SPEC = ProjectionSpec(dim=64, seed=0)


def _load(folder: Path, bits: int) -> TunedModel:
    """Load a base as `load_model` does on a GPU. On a CPU, `load_model` refuses quantization, because it is slow."""
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    quantized: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_quant_type="nf4",
    )
    base = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=quantized, device_map={"": "cpu"}
    )
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    model = get_peft_model(base, lora_config(LoraSection(r=2, alpha=4), encoder_decoder=False))
    for module in model.modules():
        # On some processors, bitsandbytes would change the weights of a first layer for inference only.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            # A new adapter has gradients of zero for half of its weights.
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return TunedModel(model, encoder_decoder=False)


@pytest.mark.parametrize(("bits", "layer"), [(4, "Linear4bit"), (8, "Linear8bitLt")])
def test_sketches_quantized_base_equal_plain_autograd(tiny_llama_folder: Path, bits: int, layer: str) -> None:
    tuned = _load(tiny_llama_folder, bits)
    assert layer in {type(module).__name__ for module in tuned.model.modules()}
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 300, size=12 - n).tolist() for n in range(5)]
    examples = [TokenizedExample(row, [IGNORED] * 3 + row[3:]) for row in rows]
    engine = GradientEngine(tuned, SPEC, batch_tokens=4096, reporter=Reporter())
    assert len(engine.batches(examples)) == 1
    losses, found = engine.project(examples).arrays()
    projection = Projection(SPEC)
    for n, example in enumerate(examples):
        into = torch.zeros(1, SPEC.dim)
        loss, gradients = gradient_of(tuned, example)
        for name, gradient in gradients.items():
            projection.add(name, gradient.float().reshape(1, -1), into)
        expected = into.numpy()[0]
        assert losses[n] == pytest.approx(loss, rel=1e-4)
        assert np.linalg.norm(found[n] - expected) < 1e-3 * np.linalg.norm(expected)

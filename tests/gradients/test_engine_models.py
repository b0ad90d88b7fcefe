"""Test per-example gradients of many architectures against `torch.func`, which uses neither layers nor hooks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from curator.core.config import LoraSection, ModelSection
from curator.core.events import Event, Note, Reporter
from curator.data.tokens import IGNORED, TokenizedExample
from curator.gradients.engine import GradientEngine
from curator.gradients.projection import ProjectionSpec, project_slowly
from curator.training.model import TunedModel, load_model

SPEC = ProjectionSpec(dim=64, seed=3)
DECODER: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
# Configuration of each model type, and whether the engine processes a batch at once.
MODELS: dict[str, tuple[dict[str, Any], bool]] = {
    "llama": (DECODER, True),
    "qwen2": (DECODER, True),
    "qwen3": (DECODER, True),
    "gemma2": (DECODER, True),
    "mistral": (DECODER, True),
    "gpt2": ({"vocab_size": 200, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, True),
    "gpt_neox": (DECODER, True),
    "opt": (
        {
            "vocab_size": 200,
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
        },
        True,
    ),
    "t5": (
        {
            "vocab_size": 200,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
        },
        True,
    ),
    "mamba": ({"vocab_size": 200, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "pad_token_id": 0}, True),
    # The router uses its weight outside its layer.
    "mixtral": (DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2}, False),
}


def _tuned(kind: str, folder: Path, target_modules: object = "all-linear", **change: Any) -> TunedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(MODELS[kind][0] | change))
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    auto.from_config(config).save_pretrained(folder / kind)
    section = ModelSection(name_or_path=str(folder / kind), dtype="float32")
    tuned = load_model(folder / kind, section, LoraSection(r=2, alpha=4, target_modules=target_modules))  # type: ignore[arg-type]
    for _, parameter in tuned.model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.model.eval()
    return tuned


def _examples(tuned: TunedModel) -> list[TokenizedExample]:
    rng = np.random.default_rng(1)
    found = []
    for length in (9, 5, 7, 9, 3):
        ids = rng.integers(3, 200, size=length).tolist()
        prompt = int(rng.integers(1, length - 1))
        labels = ids[prompt:] if tuned.encoder_decoder else [IGNORED] * prompt + ids[prompt:]
        found.append(TokenizedExample(ids, labels))
    return found


def _by_torch_func(tuned: TunedModel, example: TokenizedExample) -> tuple[float, dict[str, np.ndarray]]:
    """Return loss and gradient of one example by `torch.func`."""
    trained = {n: p.detach() for n, p in tuned.model.named_parameters() if p.requires_grad}
    ids, labels = torch.tensor([list(example.input_ids)]), torch.tensor([list(example.labels)])

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        if tuned.encoder_decoder:
            start = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], dim=1)
            inputs, wanted = {"input_ids": ids, "decoder_input_ids": start}, labels
        else:
            inputs, wanted = {"input_ids": ids}, torch.cat([labels[:, 1:], torch.tensor([[IGNORED]])], dim=1)
        logits = torch.func.functional_call(tuned.model, parameters, (), inputs).logits
        return functional.cross_entropy(logits[0], wanted[0], ignore_index=IGNORED)

    if tuned.model.config.model_type == "mixtral":
        # peft swaps the router's weight in place, which `torch.func` does not allow.
        named = {n: p for n, p in tuned.model.named_parameters() if p.requires_grad}
        plain = loss({})
        return float(plain), {
            n: g.numpy() for n, g in zip(named, torch.autograd.grad(plain, [*named.values()]), strict=True)
        }
    gradient, value = torch.func.grad_and_value(loss)(trained)
    return float(value), {name: g.numpy() for name, g in gradient.items()}


def _compare(tuned: TunedModel, *, batched: bool) -> None:
    events: list[Event] = []
    engine = GradientEngine(tuned, SPEC, batch_tokens=10**6, reporter=Reporter(events.append))
    examples = _examples(tuned)
    losses, projected = engine.project(examples).arrays()
    assert batched == (not [event for event in events if isinstance(event, Note)]), events
    for row, example in enumerate(examples):
        loss, gradient = _by_torch_func(tuned, example)
        assert losses[row] == pytest.approx(loss, rel=1e-4)
        slow = project_slowly(SPEC, gradient)
        np.testing.assert_allclose(projected[row], slow, atol=2e-4 * np.abs(slow).max())
        assert np.abs(slow).max() > 1e-4


@pytest.mark.parametrize("kind", MODELS)
def test_project_every_architecture_equals_torch_func(kind: str, tmp_path: Path) -> None:
    # peft allows no adapter on the layers that Mamba's kernel reads directly.
    modules = ("in_proj", "x_proj") if kind == "mamba" else "all-linear"
    _compare(_tuned(kind, tmp_path, modules), batched=MODELS[kind][1])


def test_project_tied_embeddings_equals_torch_func(tmp_path: Path) -> None:
    tuned = _tuned("llama", tmp_path, ("embed_tokens", "q_proj", "lm_head"), tie_word_embeddings=True)
    assert any("embedding" in name for name in tuned.layout.shapes)
    _compare(tuned, batched=False)


class _Bypass(torch.nn.Module):
    """Use the weight of a linear layer without calling the layer, like a fused kernel."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.default = layer
        self.weight_user = lambda x: functional.linear(x, layer.weight)
        self.weight_user.weight = layer.weight  # type: ignore[attr-defined]

    def __getitem__(self, _: str) -> Callable[[torch.Tensor], torch.Tensor]:
        return self.weight_user

    def keys(self) -> list[str]:
        """Return the name of the adapter, as peft expects."""
        return ["default"]


def test_project_weight_used_outside_its_layer_warns_and_is_included(tmp_path: Path) -> None:
    tuned = _tuned("llama", tmp_path)
    name, parent = next((n, m) for n, m in tuned.model.named_modules() if n.endswith("layers.1.self_attn.v_proj"))
    parent.lora_A = _Bypass(parent.lora_A["default"])
    events: list[Event] = []
    engine = GradientEngine(tuned, SPEC, batch_tokens=10**6, reporter=Reporter(events.append))
    (example, *_) = _examples(tuned)
    _, projected = engine.project([example]).arrays()
    assert [event for event in events if isinstance(event, Note) and f"{name}.lora_A" in event.message]
    _, gradient = _by_torch_func(tuned, example)
    slow = project_slowly(SPEC, gradient)
    np.testing.assert_allclose(projected[0], slow, atol=2e-4 * np.abs(slow).max())

"""Test batched per-example gradients against plain autograd on one example at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from curator.core.config import LoraSection, ModelSection
from curator.core.events import Event, Note, Reporter
from curator.data.tokens import IGNORED, TokenizedExample
from curator.gradients.engine import GradientEngine, gradient_of
from curator.gradients.projection import ProjectionSpec, project_slowly
from curator.training.batches import by_length
from curator.training.model import TunedModel, load_model

SPEC = ProjectionSpec(dim=48, seed=5)


def _tuned(folder: Path, target_modules: object = "all-linear") -> TunedModel:
    section = ModelSection(name_or_path=str(folder), dtype="float32")
    lora = LoraSection(r=2, alpha=4, target_modules=target_modules)  # type: ignore[arg-type]
    tuned = load_model(folder, section, lora)
    tuned.reset(0)
    # LoRA's B starts at zero, where half of the gradients vanish.
    torch.manual_seed(1)
    for name, parameter in tuned.model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
            assert "lora" in name
    return tuned


def _examples(tuned: TunedModel, count: int = 9) -> list[TokenizedExample]:
    rng = np.random.default_rng(2)
    vocabulary = tuned.model.config.vocab_size
    examples = []
    for _ in range(count):
        ids = rng.integers(3, vocabulary, size=rng.integers(4, 15)).tolist()
        if tuned.encoder_decoder:
            labels = rng.integers(3, vocabulary, size=rng.integers(1, 6)).tolist()
        else:
            start = int(rng.integers(1, len(ids) - 1))
            labels = [IGNORED] * start + ids[start:]
        examples.append(TokenizedExample(ids, labels))
    return examples


@pytest.fixture(params=["llama", "gpt2", "t5"])
def tuned(request: pytest.FixtureRequest) -> TunedModel:
    return _tuned(request.getfixturevalue(f"tiny_{request.param}_folder"))


def test_project_batch_equals_autograd_per_example(tuned: TunedModel) -> None:
    events: list[Event] = []
    examples = _examples(tuned)
    losses, projected = (
        GradientEngine(tuned, SPEC, batch_tokens=10**6, reporter=Reporter(events.append)).project(examples).arrays()
    )
    assert not [e for e in events if isinstance(e, Note)], "the engine does not use the batched path"
    for row, example in enumerate(examples):
        loss, gradient = gradient_of(tuned, example)
        slow = project_slowly(SPEC, {name: g.numpy() for name, g in gradient.items()})
        assert losses[row] == pytest.approx(loss, rel=1e-5)
        np.testing.assert_allclose(projected[row], slow, rtol=1e-3, atol=1e-5 + 1e-4 * np.abs(slow).max())
        assert np.abs(slow).max() > 1e-3


def test_gradient_of_equals_central_differences(tuned: TunedModel) -> None:
    """Layers compute in float32, so the step cannot be tiny."""
    (example,) = _examples(tuned, 1)
    _, gradient = gradient_of(tuned, example)
    torch.manual_seed(0)
    direction = {name: torch.randn_like(g) for name, g in gradient.items()}
    slope = sum(float((gradient[name] * d).sum()) for name, d in direction.items())
    losses = []
    for step in (1e-3, -2e-3):
        with torch.no_grad():
            for name, parameter in tuned.model.named_parameters():
                if name in direction:
                    parameter += step * direction[name]
        losses.append(gradient_of(tuned, example)[0])
    assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(slope, rel=2e-2, abs=2e-3)


def test_project_batch_size_padding_and_order_do_not_matter(tuned: TunedModel) -> None:
    engine = GradientEngine(tuned, SPEC, batch_tokens=10**6, reporter=Reporter())
    examples = _examples(tuned)
    losses, projected = engine.project(examples).arrays()
    scale = np.abs(projected).max()
    backwards = engine.project(examples[::-1]).arrays()
    np.testing.assert_allclose(backwards[1][::-1], projected, atol=1e-5 * scale)
    np.testing.assert_allclose(backwards[0][::-1], losses, rtol=1e-5)
    for row, example in enumerate(examples):
        loss, alone = engine.project([example]).arrays()
        np.testing.assert_allclose(alone[0], projected[row], atol=1e-5 * scale)
        assert loss[0] == pytest.approx(losses[row], rel=1e-5)


def test_project_embedding_parameters_are_included(tiny_llama_folder: Path) -> None:
    events: list[Event] = []
    tuned = _tuned(tiny_llama_folder, ("embed_tokens", "q_proj"))
    assert any("embedding" in name for name in tuned.layout.shapes)
    engine = GradientEngine(tuned, SPEC, batch_tokens=10**6, reporter=Reporter(events.append))
    assert [e.level for e in events if isinstance(e, Note)] == ["warning"]
    (example,) = _examples(tuned, 1)
    _, projected = engine.project([example]).arrays()
    _, gradient = gradient_of(tuned, example)
    embedding = {n: g.numpy() for n, g in gradient.items() if "embedding" in n}
    assert max(np.abs(g).max() for g in embedding.values()) > 1e-4
    slow = project_slowly(SPEC, {n: g.numpy() for n, g in gradient.items()})
    np.testing.assert_allclose(projected[0], slow, rtol=1e-3, atol=1e-5)


def test_project_layer_used_twice_sums_both_uses(tiny_llama_folder: Path) -> None:
    tuned = _tuned(tiny_llama_folder)
    layers = tuned.model.get_base_model().model.layers
    layers[1] = layers[0]
    tuned = TunedModel(tuned.model, encoder_decoder=False)
    examples = _examples(tuned, 4)
    _, projected = GradientEngine(tuned, SPEC, batch_tokens=10**6, reporter=Reporter()).project(examples).arrays()
    for row, example in enumerate(examples):
        _, gradient = gradient_of(tuned, example)
        slow = project_slowly(SPEC, {n: g.numpy() for n, g in gradient.items()})
        np.testing.assert_allclose(projected[row], slow, rtol=1e-3, atol=1e-4 * np.abs(slow).max())


def test_project_batch_out_of_memory_is_halved(tuned: TunedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = GradientEngine(tuned, SPEC, batch_tokens=10**6, reporter=Reporter())
    examples = _examples(tuned)
    losses, projected = engine.project(examples).arrays()
    whole = engine._at_once

    def small(batch: list[TokenizedExample]) -> object:
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return whole(batch)

    monkeypatch.setattr(engine, "_at_once", small)
    halved = engine.project(examples).arrays()
    np.testing.assert_allclose(halved[0], losses, rtol=1e-5)
    np.testing.assert_allclose(halved[1], projected, atol=1e-5 * np.abs(projected).max())


def test_by_length_batches_hold_all_examples_within_budget() -> None:
    lengths = [5, 90, 3, 3, 40, 41, 7, 200]
    batches = list(by_length(lengths, 100))
    assert sorted(p for batch in batches for p in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[p] for p in batch) <= 100

"""Test that training records the gradient of every visit once, at the adapter and in the metric of the moment."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curator.core.config import LoraSection, ModelSection, TrainSection
from curator.core.errors import DataError
from curator.core.events import Reporter
from curator.data.tokens import TokenizedExample
from curator.gradients.capture import Capture, read_visits, visit_dtype
from curator.gradients.engine import gradient_of
from curator.gradients.example_groups import ExampleGroup
from curator.gradients.metric import Metric
from curator.gradients.projection import ProjectionSpec, project_slowly
from curator.gradients.visits import Visits, gradients_of
from curator.training import trainer
from curator.training.model import TunedModel, load_model
from curator.training.trainer import train_adapter

SPEC = ProjectionSpec(dim=24, seed=3)


class Following(Capture):
    """Capture that also keeps the adapter and the metric at the start of every batch."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.moments: list[tuple[int, list[int], dict[str, torch.Tensor], Metric]] = []

    def batch(self, step: int, positions: torch.Tensor, factor: float, inputs: Any) -> AbstractContextManager[None]:
        named = {n: p.detach().clone() for n, p in self._tuned.model.named_parameters() if p.requires_grad}
        self.moments.append((step, positions.tolist(), named, self._metric))
        return super().batch(step, positions, factor, inputs)


class Stopping(Capture):
    """Capture that stops the run after a step, as Ctrl-C does."""

    stop_at = 5

    def step(self, step: int, optimizer: Any) -> None:
        super().step(step, optimizer)
        if step == self.stop_at:
            raise KeyboardInterrupt


def _loaded(folder: Path) -> TunedModel:
    section = ModelSection(name_or_path=str(folder), dtype="float32")
    tuned = load_model(folder, section, LoraSection(r=2))
    for module in tuned.model.modules():
        # The gradient of a visit includes its dropout, which the plain gradient would draw again.
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return tuned


def _examples(tuned: TunedModel, count: int = 11) -> list[TokenizedExample]:
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 300, size=5 + n % 4).tolist() for n in range(count)]
    if tuned.encoder_decoder:
        return [TokenizedExample(row, row[2:]) for row in rows]
    return [TokenizedExample(row, [-100] * 3 + row[3:]) for row in rows]


def _train(tuned: TunedModel, folder: Path, capture: Capture, recipe: TrainSection) -> None:
    train_adapter(
        tuned, _examples(tuned), recipe, folder=folder, shares=[0.5, 1.0], average=None,
        reporter=Reporter(), stage="train", observer=capture,
    )  # fmt: skip
    capture.close()


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", ["tiny_llama_folder", "tiny_t5_folder"])
def test_capture_every_visit_equals_plain_gradient(
    kind: str, accumulation: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tuned = _loaded(request.getfixturevalue(kind))
    capture = Following(tuned, SPEC, tmp_path / "capture", Reporter())
    recipe = TrainSection(epochs=2, learning_rate=5e-3, batch_size=3, gradient_accumulation=accumulation)
    _train(tuned, tmp_path, capture, recipe)
    visits = np.concatenate(read_visits(tmp_path / "capture", SPEC.dim))
    assert len(visits) == 2 * 11
    assert (np.bincount(visits["position"]) == 2).all()
    recorded = gradients_of(visits)
    row = 0
    examples = _examples(tuned)
    named = dict(tuned.model.named_parameters())
    for step, positions, adapter, metric in capture.moments:
        with torch.no_grad():
            for name, value in adapter.items():
                named[name].copy_(value)
        for position in positions:
            assert (visits["step"][row], visits["position"][row]) == (step, position)
            _, gradients = gradient_of(tuned, examples[position])
            if metric.factors:
                scaled = {n: (g.reshape(-1) * metric.factors[n]).numpy() for n, g in gradients.items()}
                expected = project_slowly(SPEC, scaled)
                np.testing.assert_allclose(recorded[row], expected, rtol=0, atol=2e-3 * np.linalg.norm(expected))
            row += 1
    assert row == len(visits)
    assert all(metric.factors for step, _, _, metric in capture.moments if step > 1)


def test_capture_resumed_run_has_visits_of_whole_run(
    tiny_llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_CHECKPOINT_SECONDS", 0.0)
    recipe = TrainSection(epochs=3, learning_rate=5e-3, batch_size=3)

    def visits(name: str, stop_at: int | None) -> bytes:
        folder = tmp_path / name
        if stop_at is not None:
            tuned = _loaded(tiny_llama_folder)
            stopping = Stopping(tuned, SPEC, folder / "capture", Reporter())
            stopping.stop_at = stop_at
            with pytest.raises(KeyboardInterrupt):
                _train(tuned, folder, stopping, recipe)
            stopping.close()
            assert list((folder / "checkpoints").iterdir())
        tuned = _loaded(tiny_llama_folder)
        capture = Capture(tuned, SPEC, folder / "capture", Reporter())
        _train(tuned, folder, capture, recipe)
        assert capture.complete
        return (folder / "capture" / "visits-0000.bin").read_bytes()

    whole = visits("whole", None)
    assert visits("stopped", 5) == whole
    assert visits("stopped-late", 11) == whole


def test_capture_without_earlier_visits_is_incomplete(
    tiny_llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_CHECKPOINT_SECONDS", 0.0)
    recipe = TrainSection(epochs=3, learning_rate=5e-3, batch_size=3)

    tuned = _loaded(tiny_llama_folder)
    capture = Stopping(tuned, SPEC, tmp_path / "capture", Reporter())
    with pytest.raises(KeyboardInterrupt):
        _train(tuned, tmp_path, capture, recipe)
    (tmp_path / "capture" / "visits-0000.bin").unlink()
    again = Capture(tuned, SPEC, tmp_path / "capture", Reporter())
    _train(tuned, tmp_path, again, recipe)
    assert not again.complete


def test_capture_of_embedding_weights_is_incomplete(tiny_llama_folder: Path, tmp_path: Path) -> None:
    section = ModelSection(name_or_path=str(tiny_llama_folder), dtype="float32")
    tuned = load_model(tiny_llama_folder, section, LoraSection(r=2, target_modules=("embed_tokens", "q_proj")))
    capture = Capture(tuned, SPEC, tmp_path / "capture", Reporter())
    assert not capture.complete
    _train(tuned, tmp_path, capture, TrainSection(epochs=1, batch_size=4))
    assert (tmp_path / "step-000003" / "metric.safetensors").exists()


def test_metric_is_root_of_adams_factor(tmp_path: Path) -> None:
    metric = Metric.of_squares({"w": torch.tensor([[4.0, 9.0]])})
    np.testing.assert_allclose(metric.factors["w"].numpy(), [2**-0.5, 3**-0.5], rtol=1e-6)
    metric.save(tmp_path)
    again = Metric.load(tmp_path, torch.device("cpu"))
    assert torch.equal(again.factors["w"], metric.factors["w"])
    np.testing.assert_allclose(again.moved({"w": torch.tensor([[1.0, 1.0]])})["w"].numpy(), [2**0.5, 3**0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("examples", "column", "value"),
    [
        ('[["a", ["x"]], ["t", ["y"]]]', "position", 2**31 - 1),
        ('[["a", ["x"]], ["t", ["y"]]]', "position", -1),
        ('[["a", ["x"]], ["t", ["y"]]]', "length", np.nan),
        ('[["a", ["x"]], ["t", ["z"]]]', "step", 1),
        ("[" * 9000, "step", 1),
    ],
)
def test_visits_damaged_files_raise_data_error(tmp_path: Path, examples: str, column: str, value: float) -> None:
    visits = np.zeros(2, dtype=visit_dtype(4))
    visits["step"], visits["position"], visits["length"], visits["direction"] = 1, [0, 1], 1.0, np.eye(4)[:2]
    visits[column][1] = value
    (tmp_path / "visits-0000.bin").write_bytes(visits.tobytes())
    (tmp_path / "examples.json").write_text(examples)
    groups = [ExampleGroup(hashes=["x"], weights=[1.0]), ExampleGroup(hashes=["y"], weights=[1.0])]
    found = Visits(tmp_path, dim=4, rank=2, groups=groups, names=["a"])
    with pytest.raises(DataError, match=r"damaged|examples\.json"):
        found.sums((0, 1), np.eye(4, dtype=np.float32)[:, :2])
    with pytest.raises(DataError, match=r"damaged|examples\.json"):
        found.basis(2, (0, 1))

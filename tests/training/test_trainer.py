"""Test that training resumes exactly, that a seed decides the result, and that checkpoints are complete."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from curator.core.config import LoraSection, ModelSection, TrainSection
from curator.core.errors import DataError, NumericalError
from curator.core.events import Event, Reporter, StageFinished, StageProgress, StageStarted
from curator.data.tokens import TokenizedExample
from curator.gradients.capture import Capture
from curator.gradients.projection import ProjectionSpec
from curator.training.model import TunedModel, load_model
from curator.training.trainer import Checkpoint, measure_losses, steps_done, train_adapter

RECIPE = TrainSection(epochs=3, learning_rate=5e-3, batch_size=4)


@pytest.fixture
def tuned(tiny_llama_folder: Path) -> TunedModel:
    section = ModelSection(name_or_path=str(tiny_llama_folder), dtype="float32")
    return load_model(tiny_llama_folder, section, LoraSection(r=2))


def _examples(tuned: TunedModel, count: int = 22) -> list[TokenizedExample]:
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, tuned.model.config.vocab_size, size=8).tolist() for _ in range(count)]
    return [TokenizedExample(row, [-100] * 4 + row[4:]) for row in rows]


def _train(
    tuned: TunedModel,
    folder: Path,
    *sinks: object,
    seed: int | None = None,
    recipe: TrainSection = RECIPE,
    average: float = 0.0,
) -> list[Checkpoint]:
    return train_adapter(
        tuned, _examples(tuned), recipe, folder=folder, shares=[0.5, 1.0], average=average,
        reporter=Reporter(*sinks), stage="train", seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip


def test_train_adapter_lowers_and_reports_loss(tuned: TunedModel, tmp_path: Path) -> None:
    events: list[Event] = []
    examples = _examples(tuned)
    before = measure_losses(tuned, examples, batch_tokens=64).mean()
    checkpoints = _train(tuned, tmp_path, events.append)
    assert measure_losses(tuned, examples, batch_tokens=64).mean() < before - 0.1
    assert [(s.share, s.step) for s in checkpoints] == [(0.5, 9), (1.0, 18)]
    assert isinstance(events[0], StageStarted)
    assert events[0].total == 18
    assert isinstance(events[-1], StageFinished)
    assert any(isinstance(e, StageProgress) and e.loss is not None for e in events)
    assert not (tmp_path / "checkpoints").exists()


def test_train_adapter_last_checkpoint_is_end_and_seed_decides(tuned: TunedModel, tmp_path: Path) -> None:
    first = _train(tuned, tmp_path / "a")
    end = tuned.layout.flatten(dict(tuned.model.named_parameters())).detach().clone()
    again = _train(tuned, tmp_path / "b")
    other = _train(tuned, tmp_path / "c", seed=1)
    assert [s.sha256 for s in first] == [s.sha256 for s in again]
    assert first[-1].sha256 != other[-1].sha256
    tuned.load_adapter(tmp_path / "a" / first[-1].folder)
    assert torch.equal(tuned.layout.flatten(dict(tuned.model.named_parameters())), end)
    tuned.load_adapter(tmp_path / "a" / first[0].folder)
    assert not torch.equal(tuned.layout.flatten(dict(tuned.model.named_parameters())), end)


def test_train_adapter_checkpoint_is_mean_of_last_steps(tuned: TunedModel, tmp_path: Path) -> None:
    seen: dict[int, torch.Tensor] = {}

    def follow(event: Event) -> None:
        if isinstance(event, StageProgress):
            seen[event.done] = tuned.layout.flatten(dict(tuned.model.named_parameters())).detach().clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curator.core.events.Stage._interval", 0.0)
        checkpoints = _train(tuned, tmp_path, follow, average=0.2)
    end = tuned.layout.flatten(dict(tuned.model.named_parameters())).detach().clone()
    assert torch.equal(end, seen[18])
    for checkpoint in checkpoints:
        tuned.load_adapter(tmp_path / checkpoint.folder)
        mean = torch.stack([seen[s] for s in range(checkpoint.step - 3, checkpoint.step + 1)]).mean(dim=0)
        torch.testing.assert_close(tuned.layout.flatten(dict(tuned.model.named_parameters())), mean)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save a checkpoint whenever the share of steps allows one, without a minimum time."""
    monkeypatch.setattr("curator.training.trainer._CHECKPOINT_SECONDS", 0.0)


def test_train_adapter_saves_by_share_of_steps_and_by_time(
    tuned: TunedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr("curator.training.trainer.Recorder.save", lambda _, path: saved.append(int(path.name[11:])))
    monkeypatch.setattr("curator.training.trainer._CHECKPOINT_SECONDS", 3600.0)
    recipe = RECIPE.model_copy(update={"epochs": 7})
    _train(tuned, tmp_path / "quick", recipe=recipe)
    assert saved == []
    # The run has 42 steps of one second. At least 2.5 seconds separate two checkpoints.
    clock = iter(range(10**6))
    monkeypatch.setattr("curator.training.trainer._CHECKPOINT_SECONDS", 2.5)
    monkeypatch.setattr("curator.training.trainer.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    _train(tuned, tmp_path / "slow", recipe=recipe)
    assert saved
    assert all(step % 2 == 0 and step < 42 for step in saved)
    assert min(np.diff(saved)) >= 4


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("stop", [1, 8, 12, 17])
def test_train_adapter_resumed_run_equals_uninterrupted_run(tuned: TunedModel, tmp_path: Path, stop: int) -> None:
    class Stop(BaseException):
        pass

    def interrupt(event: Event) -> None:
        if isinstance(event, StageProgress) and event.done >= stop:
            raise Stop

    whole = _train(tuned, tmp_path / "whole", average=0.4)
    events: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curator.core.events.Stage._interval", 0.0)
        with pytest.raises(Stop):
            _train(tuned, tmp_path / "cut", interrupt, average=0.4)
    # The run must not resume from an incomplete checkpoint.
    broken = tmp_path / "cut" / "checkpoints" / "checkpoint-16"
    if not broken.exists():
        broken.mkdir(parents=True)
        (broken / "trainer_state.json").write_text("{")
    resumed = _train(tuned, tmp_path / "cut", events.append, average=0.4)
    assert [s.sha256 for s in resumed] == [s.sha256 for s in whole]
    assert isinstance(events[0], StageStarted)
    assert events[0].done == stop - 1


@pytest.mark.usefixtures("at_once")
def test_train_adapter_killed_during_cleanup_ignores_broken_checkpoint(tuned: TunedModel, tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    real = shutil.rmtree

    def half(folder: Path, **options: Any) -> None:
        if Path(folder).name != "checkpoints":
            real(folder, **options)
            return
        # A killed process removes some files, in an order that the file system decides.
        for path in Path(folder).glob("*/*"):
            if path.suffix in (".safetensors", ".pt", ".json"):
                path.unlink()
        raise Stop

    whole = _train(tuned, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curator.core.folders.shutil.rmtree", half)
        with pytest.raises(Stop):
            _train(tuned, tmp_path / "cut")
    assert list((tmp_path / "cut" / "checkpoints").iterdir())
    assert [s.sha256 for s in _train(tuned, tmp_path / "cut")] == [s.sha256 for s in whole]
    assert not (tmp_path / "cut" / "checkpoints").exists()


def test_train_adapter_infinite_loss_raises_numerical_error(tuned: TunedModel, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(NumericalError, match=r"loss became|NaN or infinity"):
        _train(tuned, tmp_path, recipe=recipe)


def test_measure_losses_batch_size_does_not_matter(tuned: TunedModel) -> None:
    examples = _examples(tuned)
    np.testing.assert_allclose(
        measure_losses(tuned, examples, batch_tokens=8), measure_losses(tuned, examples, batch_tokens=10**5), rtol=1e-5
    )


def test_steps_done_folder_with_foreign_name_is_ignored(tmp_path: Path) -> None:
    for name in ("checkpoint-7", "checkpoint-new", "checkpoint-" + "9" * 200):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "complete").touch()
    assert steps_done(tmp_path) == 7


class _FullDisk(Capture):
    """Capture that finds the disk full when a checkpoint is half written."""

    def checkpoint(self, checkpoint: Path) -> None:
        assert checkpoint.is_dir()
        raise DataError("no space", hint="")


def test_train_adapter_observer_finds_full_disk_leaves_no_checkpoint(
    tuned: TunedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curator.training.trainer._CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(DataError, match="no space"):
        train_adapter(
            tuned, _examples(tuned), RECIPE, folder=tmp_path, shares=[1.0], reporter=Reporter(), stage="train",
            observer=_FullDisk(tuned, ProjectionSpec(dim=8, seed=0), tmp_path / "capture", Reporter()),
        )  # fmt: skip
    assert list((tmp_path / "checkpoints").glob("*")) == []

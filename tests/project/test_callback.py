"""Gradients that a callback captures during the user's own training with TRL's `SFTTrainer`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeProject, pair_rows
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import curator
from curator.core.errors import ConfigError, StoreBusy
from curator.core.events import Event, Note, Reporter, StageStarted
from curator.project import callback
from curator.training.model import TunedModel

SUBSETS = [[], ["alpha"], ["beta", "gamma"], ["alpha", "beta", "gamma"]]
LORA: dict[str, Any] = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"}


def _project(make_project: MakeProject, name: str, events: list[Event] | None = None, **train: Any) -> curator.Project:
    folder = make_project(
        name,
        project={"name": "p"},
        estimate={"method": "trajectory"},
        gradients={"projection_dim": 16, "points": "auto"},
        train={"epochs": 3, "batch_size": 4, "learning_rate": 1e-3, **train},
    )
    return curator.Project.open(folder, reporter=Reporter() if events is None else Reporter(events.append))


def _trainer(project: curator.Project, tmp_path: Path, data: Any = None, **given: Any) -> SFTTrainer:
    recipe = project.config.train
    settings = {
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "seed": recipe.seed,
        "max_length": None,
        "weight_decay": 0.0,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    trainer = SFTTrainer(
        str(project.root / "model"),
        args=SFTConfig(str(tmp_path / "out"), **(settings | given)),
        train_dataset=project.to_datasets()["train"] if data is None else data,
        peft_config=LoraConfig(**LORA),
        callbacks=[curator.CuratorCallback(project)],
    )
    # The same initialization as a run of curator.
    TunedModel(trainer.model, encoder_decoder=False).reset(recipe.seed)
    return trainer


def _losses(project: curator.Project) -> np.ndarray:
    return np.array([estimate.estimated_loss for estimate in project.estimate_all(SUBSETS).estimates])


@pytest.mark.parametrize(
    ("train", "given"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({"gradient_accumulation": 2, "batch_size": 2}, {}, id="accumulation"),
        pytest.param({}, {"gradient_checkpointing": True}, id="checkpointing"),
        pytest.param(
            {},
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
            id="reentrant",
        ),
    ],
)
def test_callback_estimates_of_captured_run_equal_those_of_own_run(
    train: dict[str, Any], given: dict[str, Any], make_project: MakeProject, tmp_path: Path
) -> None:
    """The recipe, the order and the initialization are the same. The tolerance is 0.001 of the largest change."""
    own = _project(make_project, "own", **train)
    expected = _losses(own)
    events: list[Event] = []
    project = _project(make_project, "captured", events, **train)
    _trainer(project, tmp_path, **given).train()
    assert not [event for event in events if isinstance(event, Note) and "gradients" in event.message]
    before = len([e for e in events if isinstance(e, StageStarted) and e.stage == "train"])
    found = _losses(project)
    assert len([e for e in events if isinstance(e, StageStarted) and e.stage == "train"]) == before
    assert project.gradients().captured
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.ptp(expected))


def test_callback_other_initialization_gives_finite_estimates_from_its_start(
    make_project: MakeProject, tmp_path: Path
) -> None:
    project = _project(make_project, "captured")
    trainer = _trainer(project, tmp_path, seed=7)
    TunedModel(trainer.model, encoder_decoder=False).reset(5)
    trainer.train()
    assert np.isfinite(_losses(project)).all()
    assert project.train().cached
    assert project.select().selected == project.select().selected


def test_callback_settings_of_trainer_make_a_project_that_fits(
    make_project: MakeProject, tiny_llama_folder: Path, tmp_path: Path
) -> None:
    from datasets import Dataset

    rows = [{**row, "task": name} for name in ("alpha", "beta", "target") for row in pair_rows(name, 10)]
    args = SFTConfig(
        str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=4, learning_rate=1e-3, bf16=False,
        max_length=64, use_cpu=True, report_to="none", save_strategy="no", warmup_steps=0.1,
    )  # fmt: skip
    peft_config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    project = curator.Project.create(
        tmp_path / "p",
        Dataset.from_list(rows),
        task_column="task",
        target="target",
        model=tiny_llama_folder,
        settings=curator.CuratorCallback.settings(args, peft_config),
    )
    SFTTrainer(
        str(tiny_llama_folder),
        args=args,
        train_dataset=project.to_datasets()["train"],
        peft_config=peft_config,
        callbacks=[curator.CuratorCallback(project)],
    ).train()
    assert project.gradients().captured
    assert {task.name for task in project.select().tasks} == {"alpha", "beta"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learning_rate": 5e-3}, "train.learning_rate is 0.001 in the project and 0.005 in the trainer"),
        ({"max_steps": 3}, "max_steps is 3, and estimates assume -1"),
        ({"optim": "sgd"}, "optim is .*, and estimates assume AdamW"),
    ],
)
def test_callback_other_recipe_is_refused_before_training(
    given: dict[str, Any], words: str, make_project: MakeProject, tmp_path: Path
) -> None:
    project = _project(make_project, "captured")
    with pytest.raises(ConfigError, match=words):
        _trainer(project, tmp_path, **given).train()
    assert project.train().key


def test_callback_model_that_accelerate_cuts_is_refused(
    make_project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(_project(make_project, "captured"), tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="FSDP or DeepSpeed cuts the model"):
        trainer.train()


def test_callback_other_rows_are_refused_and_counted(make_project: MakeProject, tmp_path: Path) -> None:
    project = _project(make_project, "captured")
    data = project.to_datasets()
    mixed = data["train"].select(range(3, len(data["train"])))
    with pytest.raises(ConfigError, match=r"0 rows of the trainer are not .* 3 training examples"):
        _trainer(project, tmp_path, mixed).train()
    with pytest.raises(ConfigError, match=r"4 rows of the trainer are not .* 32 training examples"):
        _trainer(project, tmp_path, data["validation"]).train()


def test_callback_loss_with_other_weights_trains_and_captures_nothing(
    make_project: MakeProject, tmp_path: Path
) -> None:
    events: list[Event] = []
    project = _project(make_project, "captured", events)
    _trainer(project, tmp_path, loss_type="dft").train()
    notes = [event.message for event in events if isinstance(event, Note)]
    assert any("the trainer's loss is not the mean over tokens" in note for note in notes)
    assert not project.gradients().captured


def test_callback_stopped_training_stores_nothing_and_releases_the_project(
    make_project: MakeProject, tmp_path: Path
) -> None:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step >= 2

    events: list[Event] = []
    project = _project(make_project, "captured", events)
    trainer = _trainer(project, tmp_path)
    trainer.add_callback(Stop())
    trainer.train()
    assert any("stopped before its last step" in event.message for event in events if isinstance(event, Note))
    assert not project.is_ready()
    with project.workspace.job("test"):
        pass


def test_callback_second_trainer_of_a_project_is_refused(make_project: MakeProject, tmp_path: Path) -> None:
    """Both would write into the same folders. The first training continues."""
    from transformers import TrainerCallback

    refused: list[StoreBusy] = []

    class Second(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                with pytest.raises(StoreBusy, match="is in use") as caught:
                    other.train()
                refused.append(caught.value)

    project = _project(make_project, "captured", batch_size=16)
    other = _trainer(curator.Project.open(project.root), tmp_path / "other")
    trainer = _trainer(project, tmp_path)
    trainer.add_callback(Second())
    trainer.train()
    assert len(refused) == 1
    assert np.isfinite(_losses(project)).all()
    assert project.gradients().captured


def test_callback_training_that_ended_meanwhile_is_not_overwritten(
    make_project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second trainer looks for a finished training before it has compared all rows, which takes time."""
    project = _project(make_project, "captured", batch_size=16)
    first, second = _trainer(project, tmp_path), _trainer(project, tmp_path / "other", seed=7)
    check = callback._Positions.check

    def slow(positions: Any, dataset: Any) -> None:
        check(positions, dataset)
        monkeypatch.setattr(callback._Positions, "check", check)
        first.train()

    monkeypatch.setattr(callback._Positions, "check", slow)
    with pytest.raises(ConfigError, match="another training of the project has ended meanwhile"):
        second.train()
    assert np.isfinite(_losses(project)).all()
    assert project.gradients().captured


@pytest.mark.parametrize(
    "row",
    [
        {"input_ids": [1, 2], "labels": 3},
        {"input_ids": [2**40, 2], "labels": [1, 2]},
        {"input_ids": ["a"], "labels": ["b"]},
        {"labels": [1]},
    ],
    ids=["scalar", "large", "text", "missing"],
)
def test_callback_rows_without_tokens_are_refused(row: dict[str, Any]) -> None:
    positions = object.__new__(callback._Positions)
    positions._places = {}
    with pytest.raises(ConfigError, match="has no token ids and labels"):
        positions.check([row])

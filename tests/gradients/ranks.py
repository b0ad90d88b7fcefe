"""Program of `test_ranks.py`: ranks under torchrun work on projects whose base is cut among the ranks.

Usage: ranks.py CAPTURED PLAIN TRAINED. Each rank writes `rank-N.json` next to the projects.
The third project's base is whole in each rank. An `SFTTrainer` with `CuratorCallback` trains it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import curator
from curator.core import distributed
from curator.core.events import Event, Reporter, StageStarted
from curator.gradients.engine import GradientEngine
from curator.training import trainer
from curator.training.model import TunedModel

STOP = 16
"""Step of the first training that stops it. Every earlier step is a checkpoint."""


class StoppedError(Exception):
    """Stops the first training."""


def stopping(recorder: trainer.Recorder, step: int) -> None:
    """Stop the training at a step, on all ranks."""
    if step == STOP:
        raise StoppedError
    follow(recorder, step)


def counted(engine: GradientEngine) -> None:
    """Count the batches that a rank does not have."""
    stood_by.append(engine)
    stand_by(engine)


trainer._CHECKPOINT_SECONDS = 0.0
follow, stand_by = trainer.Recorder.step, GradientEngine.stand_by
stood_by: list[GradientEngine] = []
GradientEngine.stand_by = counted  # type: ignore[method-assign]


def main() -> None:
    """Stop and resume a training that captures, compute gradients, verify a subset, and train with the callback."""
    captured, plain, trained = (Path(argument) for argument in sys.argv[1:])
    trainer.Recorder.step = stopping  # type: ignore[method-assign]
    try:
        curator.Project.open(captured).train()
    except StoppedError:
        trainer.Recorder.step = follow  # type: ignore[method-assign]
    events: list[Event] = []
    project = curator.Project.open(captured, reporter=Reporter(events.append))
    project.gradients()
    found: dict[str, Any] = {
        "resumed_after": [e.done for e in events if isinstance(e, StageStarted) and e.stage == "train"],
        "stood_by": [len(stood_by)],
    }
    report = project.verify(runs=1, metric="exact_match")
    found["measured"] = [[list(each.subset), each.measured_loss] for each in report.runs]
    weights = dict(project._pipeline.load().model.named_parameters())
    # A pass without gradients leaves the output layer whole until the next backward pass.
    layers: list[Any] = [p for name, p in weights.items() if ".layers." in name and not p.requires_grad]
    found["layers"] = [sum(p.to_local().numel() for p in layers), sum(p.numel() for p in layers)]
    found["adapter"] = [float(p.detach().double().norm()) for p in weights.values() if p.requires_grad]
    curator.Project.open(plain).gradients()
    found["stood_by"].append(len(stood_by))
    train_with_callback(curator.Project.open(trained))
    (captured.parent / f"rank-{distributed.rank()}.json").write_text(json.dumps(found))
    distributed.wait()


def train_with_callback(project: curator.Project) -> None:
    """Train on all tasks of a project by its recipe, as a user does, and capture gradients."""
    recipe = project.config.train
    lora = project.config.lora
    args = SFTConfig(
        str(project.root / "out"),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        max_length=None,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    sft = SFTTrainer(
        str(project.root / "model"),
        args=args,
        train_dataset=project.to_datasets()["train"],
        peft_config=LoraConfig(r=lora.r, lora_alpha=int(lora.alpha), target_modules="all-linear"),
        callbacks=[curator.CuratorCallback(project)],
    )
    # The same initialization as a run of curator.
    TunedModel(sft.model, encoder_decoder=False).reset(recipe.seed)
    sft.train()


if __name__ == "__main__":
    main()

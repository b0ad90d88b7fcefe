"""Read the settings of the model, of LoRA and of training from a manifest, for the config of a trainer."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curator.core.config import LoraSection, TrainSection
from curator.export.sections import data_of, lora_of, model_of, train_of
from curator.select.manifest import rebased

if TYPE_CHECKING:
    from curator.export.format import Plan

OUTPUT = "output"
"""Subfolder of the export in which the trainer saves the adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Hold the settings of a training."""

    model: str
    """Id on the hub, absolute path, or path relative to the folder of the export."""
    revision: str
    dtype: str
    """Type of the base model's weights, as curator loads them on this machine."""
    quantization: str
    lora: LoraSection
    train: TrainSection
    max_length: int
    data_seed: int
    """Seed of sampled rows."""
    steps_per_epoch: int

    @property
    def alpha(self) -> int | float:
        """LoRA's alpha, as an int if it is a whole number."""
        return int(self.lora.alpha) if self.lora.alpha == int(self.lora.alpha) else self.lora.alpha

    @property
    def whole_alpha(self) -> int:
        """LoRA's alpha, rounded, for trainers that take whole numbers only."""
        return max(1, round(self.lora.alpha))

    @property
    def targets(self) -> list[str] | None:
        """Names of the modules with LoRA. None for all linear modules."""
        return None if self.lora.target_modules == "all-linear" else list(self.lora.target_modules)

    @property
    def whole_epochs(self) -> int:
        """Epochs, rounded up."""
        return math.ceil(self.train.epochs)

    @property
    def max_steps(self) -> int | None:
        """Steps of training if the last epoch is partial, else None."""
        if self.train.epochs == int(self.train.epochs):
            return None
        return math.ceil(self.train.epochs * self.steps_per_epoch)


def recipe_of(plan: "Plan") -> Recipe:
    """Read the settings of a plan's manifest. Missing settings have their defaults.

    Raises:
        DataError: A setting in the manifest is invalid.
    """
    from curator.training.model import pick_device, pick_dtype

    manifest, section = plan.manifest, model_of(plan.manifest)
    rows = sum(task.rows for task in plan.tasks)
    train, data = train_of(manifest), data_of(manifest)
    return Recipe(
        model=rebased(manifest, plan.here, plan.folder).model.name_or_path,
        revision=section.revision,
        dtype=str(pick_dtype(section, pick_device())).removeprefix("torch."),
        quantization=section.quantization,
        lora=lora_of(manifest),
        train=train,
        max_length=data.max_length,
        data_seed=data.seed,
        steps_per_epoch=math.ceil(math.ceil(rows / train.batch_size) / train.gradient_accumulation),
    )


def evaluation() -> dict[str, Any]:
    """Return the settings of transformers with which a trainer reports curator's loss of the held-out rows.

    curator averages the loss over examples, transformers over batches. With one example in each batch, both are equal.
    """
    return {"eval_strategy": "epoch", "per_device_eval_batch_size": 1}


def template_notes(plan: "Plan", trainer: str) -> list[str]:
    """Return a note if the project sets a chat template that the trainer's configuration cannot hold."""
    if not plan.template:
        return []
    return [
        f"{plan.template} is not in the configuration: {trainer} has no setting for a template's text; curator has"
        " rendered the rows with the template; use the file to serve the trained model"
    ]


def rounding_notes(plan: "Plan", trainer: str, *, epochs: bool = False) -> list[str]:
    """Return a note on each setting that is rounded, because the trainer takes whole numbers only."""
    recipe = recipe_of(plan)
    notes = []
    if recipe.alpha != recipe.whole_alpha:
        notes.append(f"lora alpha {recipe.alpha} is rounded to {recipe.whole_alpha}: {trainer} takes whole numbers")
    if epochs and recipe.max_steps is not None:
        notes.append(
            f"epochs {recipe.train.epochs} are rounded to {recipe.whole_epochs}: {trainer} takes whole numbers"
        )
    return notes

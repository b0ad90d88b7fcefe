"""Write exports for oumi. Tested with 0.9.

`text_sft` takes messages only, without prompt and completion. The loss mask depends on the marks of the chat
template. oumi uses a folder that `datasets` saved, with `input_ids` and `labels`, unchanged.

`sample_count` repeats a whole data set, and draws the rest without replacement, by a seed.
"""

from typing import TYPE_CHECKING, Any

from curator.export.data_files import DataFile
from curator.export.format import Format
from curator.export.forms import TOKENS
from curator.export.readme import NAME, readme
from curator.export.recipe import OUTPUT, evaluation, recipe_of, rounding_notes, template_notes
from curator.export.yaml import to_yaml

if TYPE_CHECKING:
    from curator.export.format import Plan, PlannedTask

CONFIG = "train.yaml"


def _samples(task: "PlannedTask") -> bool:
    return True


def _files(plan: "Plan") -> dict[str, str]:
    recipe = recipe_of(plan)
    validation = {
        "collator_name": "text_with_padding",
        "datasets": [
            {"dataset_name": f"curator/{part.stem}", "dataset_path": plan.file(part)} for part in plan.held_out
        ],
    }
    config: dict[str, Any] = {
        "model": {
            "model_name": recipe.model,
            **({"model_revision": recipe.revision} if recipe.revision else {}),
            "model_max_length": recipe.max_length,
            "torch_dtype_str": recipe.dtype,
        },
        "data": {
            "train": {
                "collator_name": "text_with_padding",
                "datasets": [
                    {
                        # oumi reads a data set with an unknown name from its path.
                        "dataset_name": f"curator/{task.stem}",
                        "dataset_path": plan.file(task),
                        **(
                            {"sample_count": task.rows, "shuffle": True, "seed": recipe.data_seed}
                            if task.native
                            else {}
                        ),
                    }
                    for task in plan.training
                ],
            },
            **({"validation": validation} if plan.held_out else {}),
        },
        "training": {
            "trainer_type": "TRL_SFT",
            "use_peft": True,
            "num_train_epochs": recipe.whole_epochs,
            **({"max_steps": recipe.max_steps} if recipe.max_steps else {}),
            "learning_rate": recipe.train.learning_rate,
            "per_device_train_batch_size": recipe.train.batch_size,
            "gradient_accumulation_steps": recipe.train.gradient_accumulation,
            "lr_scheduler_type": recipe.train.schedule,
            **({"warmup_ratio": recipe.train.warmup} if recipe.train.warmup else {}),
            "weight_decay": recipe.train.weight_decay,
            "seed": recipe.train.seed,
            **(evaluation() if plan.held_out else {}),
            "enable_tensorboard": recipe.train.report_to == "tensorboard",
            # oumi has no switch for trackio.
            **({f"enable_{recipe.train.report_to}": True} if recipe.train.report_to in ("mlflow", "wandb") else {}),
            "output_dir": OUTPUT,
        },
        "peft": {
            "lora_r": recipe.lora.r,
            "lora_alpha": recipe.whole_alpha,
            "lora_dropout": recipe.lora.dropout,
            "lora_target_modules": recipe.targets or ["all-linear"],
            **({"q_lora": True, "q_lora_bits": int(recipe.quantization[0])} if recipe.quantization != "none" else {}),
        },
    }
    return {CONFIG: to_yaml(config, f"In this folder: {plan.format.command}"), NAME: readme(plan)}


FORMAT = Format(
    name="oumi",
    trainer="oumi",
    tested="oumi 0.9, its own parser and tokens",
    forms=(TOKENS,),
    data_files={TOKENS.name: DataFile("arrow")},
    config_names=(CONFIG, NAME),
    files=_files,
    command=f"oumi train -c {CONFIG}",
    samples=_samples,
    notes=lambda plan: [*rounding_notes(plan, "oumi"), *template_notes(plan, "oumi")],
)

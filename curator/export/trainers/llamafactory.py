"""Write exports for LLaMA-Factory. Tested with 0.9.5.

LLaMA-Factory has named chat templates, which may differ from the tokenizer's template. `empty` adds nothing.
Therefore curator renders the rows. The user's turns hold the text without loss, the assistant's turns the text with
loss. LLaMA-Factory tokenizes turn by turn.

LLaMA-Factory truncates both sides of a row that is longer than `cutoff_len`. LLaMA-Factory uses a data set with
`input_ids` and `labels` under `tokenized_path` unchanged.

`num_samples` draws rows at random, by the training seed. It draws more rows than the file holds with replacement.
"""

import json
from typing import TYPE_CHECKING, Any

from curator.export.data_files import DataFile
from curator.export.format import Format
from curator.export.forms import TOKENS, Encoding, Form, Labelled, parts_of, read_pieces, write_turns
from curator.export.readme import NAME, readme
from curator.export.recipe import OUTPUT, evaluation, recipe_of, rounding_notes, template_notes
from curator.export.yaml import to_yaml

if TYPE_CHECKING:
    from curator.export.format import Plan, PlannedTask

CONFIG, DATASETS, TOKENIZED = "train.yaml", "dataset_info.json", "tokenized"


def _read(row: dict[str, Any], encoding: Encoding) -> Labelled | None:
    ids, labels = read_pieces(parts_of(row), encoding)
    # LLaMA-Factory leaves out the last pair of turns when the limit is reached.
    return (ids, labels) if len(ids) <= encoding.max_length else None


TURNS = Form("turns", "turns whose text the model's chat template has rendered already", write_turns, _read)


def _samples(task: "PlannedTask") -> bool:
    return 0 < task.rows <= task.available


def _files(plan: "Plan") -> dict[str, str]:
    recipe = recipe_of(plan)
    tokenized = plan.form is TOKENS
    datasets = {
        task.stem: {
            "file_name": plan.file(task),
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
            **({"num_samples": task.rows} if task.native else {}),
        }
        for task in (*plan.training, *plan.held_out)
    }
    config: dict[str, Any] = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": recipe.model,
        **({"model_revision": recipe.revision} if recipe.revision else {}),
        **({"quantization_bit": int(recipe.quantization[0])} if recipe.quantization != "none" else {}),
        "finetuning_type": "lora",
        "lora_rank": recipe.lora.r,
        "lora_alpha": recipe.whole_alpha,
        "lora_dropout": recipe.lora.dropout,
        "lora_target": ",".join(recipe.targets) if recipe.targets else "all",
        "dataset_dir": ".",
        "dataset": ",".join(task.stem for task in plan.training),
        **({"eval_dataset": ",".join(part.stem for part in plan.held_out), **evaluation()} if plan.held_out else {}),
        **({"tokenized_path": TOKENIZED} if tokenized else {}),
        "template": "empty",
        "cutoff_len": recipe.max_length,
        "mix_strategy": "concat",
        "overwrite_cache": True,
        "num_train_epochs": recipe.train.epochs,
        "learning_rate": recipe.train.learning_rate,
        "per_device_train_batch_size": recipe.train.batch_size,
        "gradient_accumulation_steps": recipe.train.gradient_accumulation,
        "lr_scheduler_type": recipe.train.schedule,
        **({"warmup_ratio": recipe.train.warmup} if recipe.train.warmup else {}),
        "weight_decay": recipe.train.weight_decay,
        "seed": recipe.train.seed,
        **({"bf16": True} if recipe.dtype == "bfloat16" else {}),
        **({"fp16": True} if recipe.dtype == "float16" else {}),
        "report_to": recipe.train.report_to,
        "output_dir": OUTPUT,
    }
    return {
        CONFIG: to_yaml(config, f"In this folder: {plan.format.command}"),
        DATASETS: json.dumps(datasets, indent=2) + "\n",
        NAME: readme(plan),
    }


FORMAT = Format(
    name="llamafactory",
    trainer="LLaMA-Factory",
    tested="LLaMA-Factory 0.9.5, its own parser and tokens",
    forms=(TURNS, TOKENS),
    data_files={TURNS.name: DataFile("jsonl"), TOKENS.name: DataFile("arrow", TOKENIZED)},
    config_names=(CONFIG, DATASETS, NAME),
    files=_files,
    command=f"llamafactory-cli train {CONFIG}",
    samples=_samples,
    notes=lambda plan: [*rounding_notes(plan, "LLaMA-Factory"), *template_notes(plan, "LLaMA-Factory")],
)

"""Write exports for axolotl. Tested with 0.21.

`input_output` takes segments of text, each with or without loss. axolotl adds nothing, and tokenizes segment by
segment. axolotl uses data with `input_ids`, `attention_mask` and `labels` unchanged.

`weight` keeps a share of the rows and never repeats rows. Versions before 0.21 do not know `weight`. Therefore the
files hold the weights.

axolotl caches prepared data by a hash of the config, without the data. Therefore the cache folder has a name that
depends on the selection.
"""

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from curator.data.rows import Content
from curator.data.tokens import Encoded
from curator.export.data_files import DataFile
from curator.export.format import Format
from curator.export.forms import TOKENS, Encoding, Form, Labelled, pieces, read_pieces
from curator.export.readme import NAME, readme
from curator.export.recipe import OUTPUT, recipe_of, rounding_notes
from curator.export.yaml import to_yaml
from curator.select.manifest import render

if TYPE_CHECKING:
    from curator.export.format import Plan, PlannedTask

CONFIG = "config.yaml"


def _write(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any]:
    if "segments" in content:
        return {"segments": content["segments"]}
    return {"segments": [{"label": carries, "text": text} for carries, text in pieces(content, encoded, encoding)]}


def _read(row: dict[str, Any], encoding: Encoding) -> Labelled:
    ids, labels = read_pieces([(part["label"], part["text"]) for part in row["segments"]], encoding)
    return ids[: encoding.max_length], labels[: encoding.max_length]


SEGMENTS = Form("segments", "segments of rendered text, with loss and without", _write, _read)


def _files(plan: "Plan") -> dict[str, str]:
    recipe, form = recipe_of(plan), plan.form
    store = plan.format.data_file_of(form)

    def entry(task: "PlannedTask") -> dict[str, Any]:
        return {
            "path": plan.file(task),
            "ds_type": "json" if store.kind == "jsonl" else store.kind,
            "type": "input_output" if form is SEGMENTS else None,
        }

    config: dict[str, Any] = {
        "base_model": recipe.model,
        **({"revision_of_model": recipe.revision} if recipe.revision else {}),
        **({f"load_in_{recipe.quantization}": True} if recipe.quantization != "none" else {}),
        "adapter": "qlora" if recipe.quantization == "4bit" else "lora",
        "lora_r": recipe.lora.r,
        "lora_alpha": recipe.whole_alpha,
        "lora_dropout": recipe.lora.dropout,
        **({"lora_target_modules": recipe.targets} if recipe.targets else {"lora_target_linear": True}),
        **(
            {"chat_template": "jinja", "chat_template_jinja": plan.manifest.model.chat_template}
            if plan.template
            else {}
        ),
        "datasets": [entry(task) for task in plan.training],
        "dataset_prepared_path": f"prepared-{sha256(render(plan.manifest).encode()).hexdigest()[:12]}",
        "val_set_size": 0,
        # One example in each batch: curator averages the loss over examples, axolotl over batches.
        **(
            {
                "test_datasets": [entry(part) | {"split": "train"} for part in plan.held_out],
                "eval_strategy": "epoch",
                "eval_batch_size": 1,
                "eval_sample_packing": False,
            }
            if plan.held_out
            else {}
        ),
        "sequence_len": recipe.max_length,
        "excess_length_strategy": "truncate",
        "min_sample_len": 1,
        "sample_packing": False,
        "train_on_inputs": False,
        **({"max_steps": recipe.max_steps} if recipe.max_steps else {}),
        "num_epochs": recipe.whole_epochs,
        "learning_rate": recipe.train.learning_rate,
        "micro_batch_size": recipe.train.batch_size,
        "gradient_accumulation_steps": recipe.train.gradient_accumulation,
        "optimizer": "adamw_torch",
        "lr_scheduler": recipe.train.schedule if recipe.train.schedule != "constant" else "constant_with_warmup",
        # curator, like transformers, ignores the warmup of a constant schedule.
        **(
            {"warmup_ratio": recipe.train.warmup}
            if recipe.train.warmup and recipe.train.schedule != "constant"
            else {"warmup_steps": 0}
        ),
        "weight_decay": recipe.train.weight_decay,
        "seed": recipe.train.seed,
        "bf16": recipe.dtype == "bfloat16",
        "fp16": recipe.dtype == "float16",
        "tf32": False,
        **({f"use_{recipe.train.report_to}": True} if recipe.train.report_to != "none" else {}),
        "output_dir": OUTPUT,
    }
    return {CONFIG: to_yaml(config, f"In this folder: {plan.format.command}"), NAME: readme(plan)}


FORMAT = Format(
    name="axolotl",
    trainer="axolotl",
    tested="axolotl 0.21.0, its own parser and tokens",
    forms=(SEGMENTS, TOKENS),
    data_files={SEGMENTS.name: DataFile("jsonl"), TOKENS.name: DataFile("parquet")},
    config_names=(CONFIG, NAME),
    files=_files,
    command=f"axolotl train {CONFIG}",
    notes=lambda plan: rounding_notes(plan, "axolotl"),
)

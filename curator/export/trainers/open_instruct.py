"""open-instruct's `finetune.py`. Read only, as of August 2026.

It takes messages only, renders them by the tokenizer's chat template, and puts the loss on all from the prompt for an
assistant's turn to the turn's end, with the line break that a template may put there. A count after a file repeats the
whole of it and samples the rest without replacement, by a fixed seed; only with a point in it is it a share.
"""

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.core.errors import DataError
from curator.data.rows import Content
from curator.data.tokens import IGNORED, Encoded
from curator.export.data_files import Store
from curator.export.format import Format
from curator.export.forms import Encoding, Form, Labelled, as_messages
from curator.export.readme import NAME, readme
from curator.export.recipe import OUTPUT, recipe_of

if TYPE_CHECKING:
    from curator.export.format import Plan, PlannedTask

SCRIPT = "train.sh"
_LORA_TARGETS = ["q_proj", "o_proj", "v_proj", "k_proj", "gate_proj", "up_proj", "down_proj"]


def _write(content: Content, encoded: Encoded, encoding: Encoding) -> dict[str, Any] | None:
    turns = as_messages(content)
    return None if turns is None else {"messages": turns}


def _read(row: dict[str, Any], encoding: Encoding) -> Labelled | None:
    turns = row["messages"]
    if not getattr(encoding.tokenizer, "chat_template", None) or not encoding.tokenizer.is_fast:
        return None
    try:
        text = encoding.encoder.render(turns)
        spans = [
            (
                len(encoding.encoder.render(turns[:n], add_generation_prompt=True)) if n else 0,
                len(encoding.encoder.render(turns[: n + 1])),
            )
            for n, turn in enumerate(turns)
            if turn["role"] == "assistant"
        ]
        stable = all(
            text.startswith(encoding.encoder.render(turns[: n + 1]))
            and (not n or text.startswith(encoding.encoder.render(turns[:n], add_generation_prompt=True)))
            for n, turn in enumerate(turns)
            if turn["role"] == "assistant"
        )
    except DataError:
        return None
    if not stable:
        return None
    found = encoding.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = list(found["input_ids"])
    places = np.asarray(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    carries = np.zeros(len(ids), dtype=bool)
    for start, end in spans:
        carries |= (places[:, 0] < end) & (start < places[:, 1]) & (places[:, 0] < places[:, 1])
    labels = [token if inside else IGNORED for token, inside in zip(ids, carries.tolist(), strict=True)]
    return ids[: encoding.max_length], labels[: encoding.max_length]


MESSAGES = Form("messages", "messages, which the model's own chat template renders", _write, _read)


def _samples(task: "PlannedTask") -> bool:
    return True


def _files(plan: "Plan") -> dict[str, str]:
    recipe = recipe_of(plan)
    mixer = [word for task in plan.training for word in (plan.file(task), str(task.rows))]
    options: dict[str, list[str]] = {
        "model_name_or_path": [recipe.model],
        "tokenizer_name_or_path": [recipe.model],
        **({"model_revision": [recipe.revision]} if recipe.revision else {}),
        "dataset_mixer_list": mixer,
        "dataset_mixer_list_splits": ["train"],
        "max_seq_length": [str(recipe.max_length)],
        "use_lora": ["True"],
        **({"use_qlora": ["True"]} if recipe.quantization == "4bit" else {}),
        "lora_rank": [str(recipe.lora.r)],
        "lora_alpha": [str(recipe.alpha)],
        "lora_dropout": [str(recipe.lora.dropout)],
        "num_train_epochs": [str(recipe.whole_epochs)],
        "learning_rate": [str(recipe.train.learning_rate)],
        "per_device_train_batch_size": [str(recipe.train.batch_size)],
        "gradient_accumulation_steps": [str(recipe.train.gradient_accumulation)],
        "lr_scheduler_type": [recipe.train.schedule],
        "warmup_ratio": [str(recipe.train.warmup)],
        "weight_decay": [str(recipe.train.weight_decay)],
        "seed": [str(recipe.train.seed)],
        "output_dir": [OUTPUT],
        "push_to_hub": ["False"],
        "try_launch_beaker_eval_jobs": ["False"],
    }
    lines = [f"  --{name} {shlex.join(words)}" for name, words in options.items()]
    script = (
        "#!/bin/sh\n# In this folder: OPEN_INSTRUCT=<its checkout> sh train.sh\n"
        'cd "$(dirname "$0")" || exit 1\n'
        'PYTHONPATH="$OPEN_INSTRUCT" accelerate launch "$OPEN_INSTRUCT/open_instruct/finetune.py" \\\n'
    )
    return {SCRIPT: script + " \\\n".join(lines) + "\n", NAME: readme(plan)}


def _notes(plan: "Plan") -> list[str]:
    recipe = recipe_of(plan)
    notes = []
    if recipe.targets != _LORA_TARGETS:
        notes.append(f"open-instruct puts LoRA on {', '.join(_LORA_TARGETS)}, whatever the selection was made with")
    if recipe.max_steps is not None:
        notes.append(f"{recipe.train.epochs} epochs are {recipe.whole_epochs} here: open-instruct takes whole numbers")
    return notes


FORMAT = Format(
    name="open-instruct",
    trainer="open-instruct",
    tested="nothing; written from open-instruct's source of 2026-08-20",
    forms=(MESSAGES,),
    stores={MESSAGES.name: Store("jsonl")},
    config_names=(SCRIPT, NAME),
    files=_files,
    command=f"OPEN_INSTRUCT=<its checkout> sh {SCRIPT}",
    samples=_samples,
    notes=_notes,
)

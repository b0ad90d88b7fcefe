"""Reads the export in this folder as LLaMA-Factory does, and prints what it trains on."""

import json
import os

os.environ["DISABLE_VERSION_CHECK"] = "1"

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

with open("train.yaml") as file:
    model, data, training, finetuning, _ = get_train_args(yaml.safe_load(file))
tokenizer = load_tokenizer(model)
template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
tasks = {}
if data.tokenized_path is None:
    for attributes in get_dataset_list(data.dataset, data.dataset_dir):
        tasks[attributes.dataset_name] = len(_load_single_dataset(attributes, model, data, training))
found = get_dataset(template, model, data, training, stage="sft", **tokenizer)["train_dataset"]
result = {
    "tasks": tasks,
    "examples": [[row["input_ids"], row["labels"]] for row in found],
    "settings": {
        "r": finetuning.lora_rank,
        "alpha": finetuning.lora_alpha,
        "learning_rate": training.learning_rate,
        "batch_size": training.per_device_train_batch_size,
        "max_length": data.cutoff_len,
        "seed": training.seed,
    },
}
print("\nRESULT" + json.dumps(result))

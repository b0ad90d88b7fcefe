"""Reads the export in this folder as axolotl does, and prints what it trains on."""

import json
from unittest import SkipTest

import yaml

try:
    from axolotl.utils.config import validate_config
except ModuleNotFoundError as error:
    raise SkipTest(str(error)) from error
from axolotl.utils.data.sft import _load_and_process_single_dataset
from axolotl.utils.data.shared import datasets_with_name_generator
from axolotl.utils.data.utils import handle_long_seq_in_dataset
from axolotl.utils.dict import DictDefault
from transformers import AutoTokenizer

with open("config.yaml") as file:
    raw = yaml.safe_load(file)
config = validate_config(DictDefault(raw))
tokenizer = AutoTokenizer.from_pretrained(config.base_model)
tasks, examples = {}, []
for dataset in datasets_with_name_generator(config.datasets):
    rows, _ = _load_and_process_single_dataset(
        dataset_config=dataset, cfg=config, tokenizer=tokenizer, split="train", seed=config.seed
    )
    rows = handle_long_seq_in_dataset(rows, config.sequence_len, config)
    tasks[dataset.path] = len(rows)
    examples += [[row["input_ids"], row["labels"]] for row in rows]
result = {
    "tasks": tasks,
    "examples": examples,
    "settings": {
        "r": config.lora_r,
        "alpha": config.lora_alpha,
        "learning_rate": float(config.learning_rate),
        "batch_size": config.micro_batch_size,
        "max_length": config.sequence_len,
        "seed": config.seed,
    },
}
print("\nRESULT" + json.dumps(result))

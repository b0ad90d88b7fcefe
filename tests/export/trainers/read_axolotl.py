"""Read exports with the code of axolotl. Print the tokens and labels of each row."""

import json
import os
import sys

import yaml
from axolotl.utils.config import validate_config
from axolotl.utils.data.sft import _load_and_process_single_dataset
from axolotl.utils.data.shared import datasets_with_name_generator
from axolotl.utils.data.utils import handle_long_seq_in_dataset
from axolotl.utils.dict import DictDefault
from transformers import AutoTokenizer

results = []
for folder in sys.argv[1:]:
    os.chdir(folder)
    with open("config.yaml") as file:
        config = validate_config(DictDefault(yaml.safe_load(file)))
    tokenizer = AutoTokenizer.from_pretrained(config.base_model)
    tasks, examples = {}, {"train": [], "test": []}
    for split, described in (("train", config.datasets), ("test", config.test_datasets)):
        for dataset in datasets_with_name_generator(described):
            rows, _ = _load_and_process_single_dataset(
                dataset_config=dataset, cfg=config, tokenizer=tokenizer, split=split, seed=config.seed
            )
            rows = handle_long_seq_in_dataset(rows, config.sequence_len, config)
            if split == "train":
                tasks[dataset.path] = len(rows)
            examples[split] += [[row["input_ids"], row["labels"]] for row in rows]
    results.append(
        {
            "tasks": tasks,
            "examples": examples["train"],
            "validation": examples["test"],
            "evaluation": [config.eval_strategy, config.eval_batch_size],
            "settings": [
                config.lora_r,
                config.lora_alpha,
                float(config.learning_rate),
                config.micro_batch_size,
                config.num_epochs,
                config.sequence_len,
                config.seed,
            ],
        }
    )
print("\nRESULT" + json.dumps(results))

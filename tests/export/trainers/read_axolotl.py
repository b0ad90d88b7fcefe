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
    tasks, examples = {}, []
    for dataset in datasets_with_name_generator(config.datasets):
        rows, _ = _load_and_process_single_dataset(
            dataset_config=dataset, cfg=config, tokenizer=tokenizer, split="train", seed=config.seed
        )
        rows = handle_long_seq_in_dataset(rows, config.sequence_len, config)
        tasks[dataset.path] = len(rows)
        examples += [[row["input_ids"], row["labels"]] for row in rows]
    results.append(
        {
            "tasks": tasks,
            "examples": examples,
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

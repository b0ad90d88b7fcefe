"""Read exports with the code of oumi. Print the tokens and labels of each row."""

import json
import os
import sys

from oumi.builders.data import _load_dataset, _sample_dataset, build_dataset_mixture
from oumi.core.configs import TrainingConfig
from oumi.core.configs.params.data_params import DatasetSplit
from transformers import AutoTokenizer

results = []
for folder in sys.argv[1:]:
    os.chdir(folder)
    config = TrainingConfig.from_yaml("train.yaml")
    config.finalize_and_validate()
    tokenizer = AutoTokenizer.from_pretrained(config.model.model_name)
    tasks = {}
    for dataset in config.data.train.datasets:
        rows = _sample_dataset(_load_dataset(dataset, stream=False, tokenizer=tokenizer), dataset, stream=False)
        tasks[dataset.dataset_path] = len(rows)
    found = build_dataset_mixture(config.data, tokenizer, DatasetSplit.TRAIN)
    held_out = build_dataset_mixture(config.data, tokenizer, DatasetSplit.VALIDATION)
    results.append(
        {
            "tasks": tasks,
            "examples": [[list(row["input_ids"]), list(row["labels"])] for row in found],
            "validation": [[list(row["input_ids"]), list(row["labels"])] for row in held_out],
            "evaluation": [config.training.eval_strategy, config.training.per_device_eval_batch_size],
            "settings": [
                config.peft.lora_r,
                config.peft.lora_alpha,
                config.training.learning_rate,
                config.training.per_device_train_batch_size,
                config.training.num_train_epochs,
                config.model.model_max_length,
                config.training.seed,
            ],
        }
    )
print("\nRESULT" + json.dumps(results))

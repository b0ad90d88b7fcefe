"""Read exports with the code of LLaMA-Factory. Print the tokens and labels of each row."""

import json
import os
import sys

os.environ["DISABLE_VERSION_CHECK"] = "1"

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import get_train_args
from transformers import AutoTokenizer

results = []
for folder in sys.argv[1:]:
    os.chdir(folder)
    with open("train.yaml") as file:
        # The CPU lacks some types of weights that a config may require.
        model, data, training, finetuning, _ = get_train_args(yaml.safe_load(file) | {"use_cpu": True})
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path)
    template = get_template_and_fix_tokenizer(tokenizer, data)
    tasks = {}
    if data.tokenized_path is None:
        for attributes in get_dataset_list(data.dataset, data.dataset_dir):
            tasks[attributes.dataset_name] = len(_load_single_dataset(attributes, model, data, training))
    loaded = get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer)
    found = loaded["train_dataset"]
    results.append(
        {
            "tasks": tasks,
            "examples": [[row["input_ids"], row["labels"]] for row in found],
            "validation": [[row["input_ids"], row["labels"]] for row in loaded["eval_dataset"]],
            "evaluation": [training.eval_strategy.value, training.per_device_eval_batch_size],
            "settings": [
                finetuning.lora_rank,
                finetuning.lora_alpha,
                training.learning_rate,
                training.per_device_train_batch_size,
                training.num_train_epochs,
                data.cutoff_len,
                training.seed,
            ],
        }
    )
print("\nRESULT" + json.dumps(results))

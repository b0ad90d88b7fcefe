"""Read exports with the code of ms-swift. Print the tokens and labels of each row."""

import json
import os
import sys
from collections import Counter

from swift.arguments import SftArguments
from swift.cli.main import parse_yaml_args
from swift.pipelines.train.sft import SwiftSft
from swift.utils import parse_args
from transformers.models.auto import tokenization_auto

results = []
for folder in sys.argv[1:]:
    os.chdir(folder)
    # `swift sft sft.yaml` passes the settings of the file to a second process as arguments.
    words = ["sft.yaml"]
    parse_yaml_args(words)
    arguments, unknown = parse_args(SftArguments, words)
    assert not unknown, unknown
    pipeline = SwiftSft.__new__(SwiftSft)
    pipeline.args, pipeline.model = arguments, None
    _, pipeline.processor = arguments.get_model_processor(load_model=False)
    pipeline._prepare_template()
    # The plugin of the export forbids Python code of the model's repository.
    assert tokenization_auto.resolve_trust_remote_code(True, "model", True, True) is False
    rows, held_out = arguments.load_dataset()
    found, validation = pipeline._post_process_datasets(list(pipeline._encode_dataset(rows, held_out)))
    training = arguments.training_args
    assert training.report_to in ([], ["none"]), training.report_to
    results.append(
        {
            "tasks": Counter(rows["dataset"]),
            "examples": [[row["input_ids"], row["labels"]] for row in found],
            "validation": [[row["input_ids"], row["labels"]] for row in validation],
            "evaluation": [training.eval_strategy.value, training.per_device_eval_batch_size],
            "settings": [
                arguments.lora_rank,
                arguments.lora_alpha,
                training.learning_rate,
                training.per_device_train_batch_size,
                training.num_train_epochs,
                pipeline.template.max_length,
                training.seed,
            ],
        }
    )
print("\nRESULT" + json.dumps(results))

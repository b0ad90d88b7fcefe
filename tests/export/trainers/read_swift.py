"""Read exports with the code of ms-swift. Print the tokens and labels of each row."""

import json
import os
import sys
from collections import Counter

from swift.arguments import SftArguments
from swift.cli.main import parse_yaml_args
from swift.pipelines.train.sft import SwiftSft
from swift.utils import parse_args

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
    rows, _ = arguments.load_dataset()
    found, _ = pipeline._post_process_datasets(list(pipeline._encode_dataset(rows, None)))
    training = arguments.training_args
    results.append(
        {
            "tasks": Counter(rows["dataset"]),
            "examples": [[row["input_ids"], row["labels"]] for row in found],
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

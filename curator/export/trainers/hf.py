"""Write a `DatasetDict` with one split for each task, for `datasets.load_from_disk`."""

import json
from typing import TYPE_CHECKING

from curator.export.data_files import DataFile
from curator.export.format import Format
from curator.export.forms import PLAIN
from curator.export.sections import train_of

if TYPE_CHECKING:
    from curator.export.format import Plan


def _files(plan: "Plan") -> dict[str, str]:
    names = [task.stem for task in (*plan.training, *plan.held_out)]
    held_out = [part.stem for part in plan.held_out]
    snippet = f"""\
from datasets import concatenate_datasets, load_from_disk

tasks = load_from_disk(".")  # start in the folder of this file; one split per task, the target first
validation = {{name: tasks.pop(name) for name in {held_out!r}}}  # held-out rows of the target: never train on them
train = concatenate_datasets(list(tasks.values())).shuffle(seed={train_of(plan.manifest).seed}, keep_in_memory=True)
print(train, validation)
"""
    return {"dataset_dict.json": json.dumps({"splits": names}), "load.py": snippet}


FORMAT = Format(
    name="hf",
    forms=(PLAIN,),
    data_files={PLAIN.name: DataFile("arrow")},
    config_names=("dataset_dict.json", "load.py"),
    files=_files,
    command="python load.py",
    allowed="_",
)

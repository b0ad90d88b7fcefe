"""Compare choosing examples inside tasks with choosing whole tasks, by fine-tuning on both at equal token budgets.

    python benchmarks/per_example.py --work DIR [--settings sample generated-noisy …] [--shares 0.25,0.5] [--seeds 3]

The script selects whole tasks within each budget (a share of all tasks' tokens), then examples within the tokens that
these tasks use. It fine-tunes on both with the same seeds. The settings are those of `trust.py`. The results are in
`benchmarks/results/per_example.json`, by setting. Repeat the same command to resume.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measured import provenance, write_report
from trust import SETTINGS, make_setting

from curator import Project
from curator.core.events import Reporter
from curator.data.dropped import without
from curator.select.manifest import Manifest, read_manifest
from curator.select.selections import dropped_by
from curator.training.fine_tune import fine_tune

DEFAULT = ("sample", "generated-noisy", "generated-conflicting")
RESULTS = Path(__file__).parent / "results" / "per_example.json"


def measure(project: Project, manifest: Manifest, seed: int, cache: Path) -> float:
    """Return the measured loss after fine-tuning on a selection without its dropped examples, in nats."""
    selected = [task.name for task in manifest.tasks if task.selected]
    dropped = dropped_by(manifest)
    key = json.dumps([selected, dropped.named, seed])
    known = dict(json.loads(line) for line in cache.read_text().splitlines()) if cache.exists() else {}
    if key not in known:
        corpus = without(project.corpus(project.config.data.targets), dropped)
        with tempfile.TemporaryDirectory() as folder:
            found = fine_tune(
                project.workspace.reporting_to(Reporter()), corpus, selected, seed=seed,
                tuned=project._pipeline.load(), folder=Path(folder),
            )  # fmt: skip
        known[key] = found.loss
        with cache.open("a") as file:
            file.write(json.dumps([key, found.loss]) + "\n")
    return float(known[key])


def tokens_of(manifest: Manifest) -> int:
    """Return the training tokens of the selected tasks, without dropped examples."""
    return sum(task.tokens for task in manifest.tasks if task.selected)


def compare(project: Project, share: float, seeds: int, work: Path) -> dict[str, Any]:
    """Select whole tasks and examples at one budget, and measure both."""
    total = sum(task.tokens for task in project.select(output=work / "all.json").tasks)
    project.select(max_tokens=round(share * total), name=f"tasks {share}", output=work / "tasks.json")
    whole = read_manifest(work / "tasks.json")
    budget = tokens_of(whole)
    project.select(max_tokens=budget, per_example=True, name=f"examples {share}", output=work / "examples.json")
    parts = read_manifest(work / "examples.json")
    runs = range(1, seeds + 1)
    rows: dict[str, Any] = {"share": share, "budget": budget}
    both = {"tasks": whole, "examples": parts}
    # Both with one seed, before the next seed: an early stop then leaves pairs.
    pairs = [[measure(project, m, seed, work / "measured.jsonl") for m in both.values()] for seed in runs]
    losses = dict(zip(both, np.array(pairs).T, strict=True))
    for name, manifest in both.items():
        rows[name] = {
            "tokens": tokens_of(manifest),
            "tasks": sum(task.selected for task in manifest.tasks),
            "rows": sum(task.examples for task in manifest.tasks if task.selected),
            "estimated": round(manifest.estimated_loss, 4),
            "measured": [round(float(loss), 4) for loss in losses[name]],
            "measured_mean": round(float(losses[name].mean()), 4),
        }
    change = losses["examples"] - losses["tasks"]
    rows["examples_minus_tasks"] = {
        "mean": round(float(change.mean()), 4),
        "standard_error": round(float(change.std(ddof=1) / np.sqrt(len(change))), 4) if len(change) > 1 else None,
    }
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the copy and the runs")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(DEFAULT))
    parser.add_argument("--shares", default="0.25,0.5", help="budgets, as shares of the tokens of all tasks")
    parser.add_argument("--seeds", type=int, default=3, help="fine-tuning runs of each selection")
    parser.add_argument("--json", type=Path, default=RESULTS, help="write the results to this file")
    parser.add_argument("--wheel", type=Path, help="wheel of SmolLM2, for real-tasks")
    parser.add_argument("--bigbench", type=Path, help="archive of BIG-bench, for real-tasks")
    parser.add_argument("--dtype", default="float32", help="number format of SmolLM2")
    arguments = parser.parse_args()

    found = json.loads(arguments.json.read_text())["settings"] if arguments.json.exists() else {}
    command = f"python benchmarks/per_example.py --work DIR --shares {arguments.shares} --seeds {arguments.seeds}"
    for name in arguments.settings:
        project = make_setting(name, arguments.work / name / "project", arguments)
        rows = []
        for share in arguments.shares.split(","):
            rows.append(compare(project, float(share), arguments.seeds, arguments.work / name))
            # An interrupted benchmark keeps the finished budgets.
            found[name] = rows
            write_report(arguments.json, {**provenance(command), "settings": found})


if __name__ == "__main__":
    main()

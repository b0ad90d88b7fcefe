"""Compare measured losses of selections on the sample project with all tasks, the target alone, and random subsets.

    python benchmarks/sample_project.py --work DIR

The script runs `select` with every method on a copy of `sample_data/`. It fine-tunes on each selection and on each
subset of the comparison, with three seeds. The results are in `benchmarks/results/sample_project.json`. The benchmark
takes about ten minutes on two cores. Run the same command again to resume.
"""

import argparse
import random
from pathlib import Path

from measured import Measurer, copy_project, provenance, write_report

from curator import Project

SEEDS = (0, 1, 2)
METHODS = ("forward", "backward", "exchange", "ensemble")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the copy and the runs")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(__file__).parent / "results" / "sample_project.json",
        help="write the results to this file",
    )
    arguments = parser.parse_args()

    folder = arguments.work / "project"
    copy_project(Path(__file__).parents[1] / "sample_data", folder)
    project = Project.open(folder)
    subsets = {method: project.select(method=method, output=arguments.work / "m.json").selected for method in METHODS}
    names = [task.name for task in project.select(output=arguments.work / "m.json").tasks]
    subsets["all tasks"] = names
    subsets["target alone"] = []
    for seed in SEEDS:
        subsets[f"random {seed}"] = sorted(random.Random(seed).sample(names, len(subsets["forward"])))
    estimates = project.estimate_all(list(subsets.values())).estimates
    measurer = Measurer(project, arguments.work / "measured.jsonl")
    rows = []
    for (name, subset), estimate in zip(subsets.items(), estimates, strict=True):
        (losses,) = measurer.measure_all([subset], SEEDS)
        rows.append(
            {
                "subset": name,
                "tasks": subset,
                "estimated": round(estimate.estimated_loss, 4),
                "low": round(estimate.estimated_loss_low, 4),
                "high": round(estimate.estimated_loss_high, 4),
                "measured": [round(float(loss), 4) for loss in losses],
                "measured_mean": round(float(losses.mean()), 4),
            }
        )
    write_report(
        arguments.json,
        {**provenance("python benchmarks/sample_project.py --work DIR"), "seeds": len(SEEDS), "rows": rows},
    )


if __name__ == "__main__":
    main()

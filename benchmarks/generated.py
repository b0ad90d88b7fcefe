"""Estimates against reality on generated tasks: Spearman and error of both estimators beside a constant guess.

    python benchmarks/generated.py --work DIR

makes the project of `generated_tasks`, estimates random subsets of 4, 7 and 10 of its 14 tasks, really fine-tunes
on each with two seeds, and writes `benchmarks/results/generated.json`. About half an hour on two cores; resumable.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from generated_tasks import TASKS, make_project
from measured import Measurer, provenance, spearman, write_report

from curator import Project

SIZES = (4, 7, 10)


def draw_subsets(names: list[str], count: int, seed: int = 1) -> list[list[str]]:
    """Random subsets of different sizes, none twice."""
    rng = random.Random(seed)
    subsets: list[list[str]] = []
    while len(subsets) < count:
        subset = sorted(rng.sample(names, SIZES[len(subsets) % len(SIZES)]))
        if subset not in subsets:
            subsets.append(subset)
    return subsets


def judge(estimated: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """How well estimates stand up to measured losses."""
    return {
        "spearman": round(spearman(estimated, measured), 3),
        "pearson": round(float(np.corrcoef(estimated, measured)[0, 1]), 3),
        "relative_error": round(float((abs(estimated - measured) / measured).mean()), 4),
    }


def noise(measured: np.ndarray) -> dict[str, float]:
    """How far runs of one subset with different seeds are apart: the ceiling of what an estimator can reach."""
    return {
        "noise_between_seeds": round(float(measured.std(axis=1, ddof=1).mean()), 4),
        "spearman_between_seeds": round(spearman(measured[:, 0], measured[:, 1]), 3),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the project and the runs")
    parser.add_argument("--subsets", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "generated.json")
    arguments = parser.parse_args()

    make_project(arguments.work)
    project = Project.open(arguments.work)
    subsets = draw_subsets(sorted(TASKS), arguments.subsets)
    estimated = {}
    for method in ("quadratic", "logistic"):
        section = project.config.estimate.model_copy(update={"method": method})
        variant = Project(project.root, project.config.model_copy(update={"estimate": section}), project.reporter)
        estimated[method] = np.array([e.estimated_loss for e in variant.estimate_all(subsets).estimates])
    measured = Measurer(project, arguments.work / "measured.jsonl").measure_all(subsets, range(arguments.seeds))
    truth = measured.mean(axis=1)
    write_report(
        arguments.json,
        {
            **provenance("python benchmarks/generated.py --work DIR"),
            "subsets": len(subsets),
            "seeds": arguments.seeds,
            "measured_loss": {"least": round(float(truth.min()), 4), "most": round(float(truth.max()), 4)},
            **(noise(measured) if arguments.seeds > 1 else {}),
            "constant_guess_relative_error": round(float((abs(truth.mean() - truth) / truth).mean()), 4),
            "estimators": {method: judge(values, truth) for method, values in estimated.items()},
            "rows": [
                {
                    "subset": subset,
                    "measured": [round(float(loss), 4) for loss in losses],
                    **{method: round(float(values[row]), 4) for method, values in estimated.items()},
                }
                for row, (subset, losses) in enumerate(zip(subsets, measured, strict=True))
            ],
        },
    )


if __name__ == "__main__":
    main()

"""Compare uncalibrated estimates of the trajectory with the committed fine-tuning runs of the trust benchmark.

    python benchmarks/trajectory.py --work DIR --json trajectory.json
    python benchmarks/trajectory.py --work DIR --json trajectory.json --settings sample --seeds 0 1 2
    python benchmarks/trajectory.py --work DIR --json FILE --settings real-tasks --wheel WHEEL --bigbench ARCHIVE
    python benchmarks/trajectory.py --work DIR --json trajectory_sketch.json --sketch 8192

Each setting and projection seed trains once on all tasks. That takes one to three minutes on two idle cores, and
half an hour for SmolLM2 (real-tasks).
The file receives each result when it ends. A result that the file holds is not computed again.
The measured losses are those of `benchmarks/results/trust/SETTING.json`, as means over two seeds.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measured import copy_project, provenance
from scipy.stats import spearmanr
from trust import RESULTS, make_setting

from curator import Project

SETTINGS = ("sample", "generated-noisy", "generated-conflicting", "real-tasks")


def measure(name: str, folder: Path, seed: int, sketch: int | None) -> dict[str, Any]:
    """Estimate the committed subsets of one setting with one projection seed, and entries of captured gradients."""
    truth = json.loads((RESULTS / f"{name}.json").read_text())
    config = (folder / "curator.toml").read_text()
    if "projection_seed" not in config:
        size = "" if sketch is None else f"sketch_dim = {sketch}\n"
        (folder / "curator.toml").write_text(f"{config}\n[gradients]\nprojection_seed = {seed}\n{size}")
    project = Project.open(folder)
    estimates = project.estimates(project.config.data.targets)
    masks = np.stack([estimates.mask(subset) for subset in truth["subsets"]])
    measured = np.mean(truth["measured"], axis=1)
    found = estimates.estimator.estimate(masks)
    values = np.array([interval.value for interval in found])
    inside = [one.low <= loss <= one.high for one, loss in zip(found, measured, strict=True)]
    constant = np.mean(np.abs(measured.mean() - measured) / measured)
    alone = int(np.flatnonzero(~masks.any(axis=1))[0])
    return {
        "setting": name,
        "projection_seed": seed,
        "subsets": len(masks),
        "spearman": round(float(spearmanr(values, measured).statistic), 3),
        "relative_error": round(float(np.mean(np.abs(values - measured) / measured)), 4),
        "share_of_constant_guess": round(float(np.mean(np.abs(values - measured) / measured) / constant), 3),
        "target_alone": {"estimated": round(float(values[alone]), 4), "measured": round(float(measured[alone]), 4)},
        "coverage": round(float(np.mean(inside)), 3),
        "estimates": [[round(x, 5) for x in (one.value, one.low, one.high)] for one in found],
        "all_tasks": {"now": round(estimates.estimator.all_tasks_loss, 4), "committed": round(truth["known"], 4)},
    }


def main() -> None:
    """Measure what is missing, and add it to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS[:3])
    parser.add_argument("--wheel", type=Path, help="wheel of SmolLM2, for real-tasks")
    parser.add_argument("--bigbench", type=Path, help="archive of BIG-bench, for real-tasks")
    parser.add_argument("--dtype", default="float32", help="number format of SmolLM2")
    parser.add_argument("--sketch", type=int, help="entries of captured gradients (default: curator's rule)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="projection seeds")
    given = parser.parse_args()
    sketch = "" if given.sketch is None else f" --sketch {given.sketch}"
    known = json.loads(given.json.read_text()) if given.json.exists() else {"results": []}
    report = {
        **provenance(f"python benchmarks/trajectory.py --work DIR --json FILE{sketch}"),
        "results": known["results"],
    }
    there = {(row["setting"], row["projection_seed"]) for row in report["results"]}
    for seed in given.seeds:
        for name in given.settings:
            if (name, seed) in there:
                continue
            source, folder = given.work / name / "project", given.work / name / f"projection-{seed}"
            make_setting(name, source, given)
            copy_project(source, folder)
            report["results"].append(measure(name, folder, seed, given.sketch))
            given.json.write_text(json.dumps(report, indent=1) + "\n")
            print(report["results"][-1], flush=True)


if __name__ == "__main__":
    main()

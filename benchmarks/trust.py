"""Measure the accuracy of estimates in five settings, each with dozens of fine-tuned subsets.

    python benchmarks/trust.py --work DIR                       # all but the real model: about two hours on two cores
    python benchmarks/trust.py --work DIR --settings real-tasks --wheel WHEEL --bigbench ARCHIVE
    python benchmarks/trust.py --work DIR --compare             # compare calibrated selections with other methods
    python benchmarks/trust.py --work DIR --time                # measure only the times again
    python benchmarks/trust.py --report --json trust.json       # summarise the committed results, without runs

The settings are the sample project, three generated projects (generated_tasks.py), and SmolLM2-135M on tasks of
BIG-bench (real_tasks.py). The script draws random subsets of every size. It estimates each subset, and fine-tunes on
it with two seeds. Every run is kept when it ends. Run the same command again to resume.
`benchmarks/results/trust/SETTING.json` holds the runs, the estimates of each checkpoint at each ridge, and the times of
estimates and runs in one process.

A comparison stores the committed runs in the project, selects by estimates that these runs calibrate, and fine-tunes
on the selection of every method within the same tokens (`curator verify --compare`). The results are in
`benchmarks/results/trust/compare/SETTING.json`.

The report calibrates on some of the subsets, and computes errors on the others, for 200 random splits. No subset
calibrates and judges in the same split. A measured loss is the mean over its seeds.
"""

import argparse
import json
import random
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from generated_tasks import DIFFICULTIES
from generated_tasks import make_project as make_generated
from measured import Measurer, copy_project, provenance
from real_tasks import make_project as make_real
from scipy.stats import spearmanr

from curator import Project
from curator.estimate.calibration import RIDGE_SCALES, Evidence, calibrate
from curator.estimate.estimator import build_estimator
from curator.training.fine_tune import recipe_key, subset_content

RESULTS = Path(__file__).parent / "results" / "trust"
SETTINGS = ("sample", *(f"generated-{difficulty}" for difficulty in DIFFICULTIES), "real-tasks")
SEEDS, SPLITS, MOST_CALIBRATING, LEAST_HELD_OUT = 2, 200, 24, 10
COMPARED_SEEDS = 3
# Number of fine-tuning runs that measure the speed-up.
_TIMED = 4


def draw_subsets(names: list[str], count: int) -> list[list[str]]:
    """Draw the empty subset, all tasks, and different random subsets of every size, in random order of sizes."""
    rng = random.Random(0)
    rest: list[list[str]] = []
    while len(rest) < count - 2:
        subset = sorted(rng.sample(names, 1 + len(rest) % (len(names) - 1)))
        if subset not in rest:
            rest.append(subset)
    random.Random(1).shuffle(rest)
    return [[], names, *rest]


def make_setting(name: str, folder: Path, arguments: argparse.Namespace) -> Project:
    """Make the missing parts of a setting's project, and open the project.

    Raises:
        SystemExit: The setting is real-tasks, and `--wheel` or `--bigbench` is missing.
    """
    if name == "sample":
        copy_project(Path(__file__).parents[1] / "sample_data", folder)
    elif name == "real-tasks":
        if not (folder / "curator.toml").exists() and not (arguments.wheel and arguments.bigbench):
            raise SystemExit("setting real-tasks needs --wheel and --bigbench\nFollow the steps in real_tasks.py.")
        if not (folder / "curator.toml").exists():
            make_real(folder, wheel=arguments.wheel, bigbench=arguments.bigbench, dtype=arguments.dtype)
    elif not (folder / "curator.toml").exists():
        make_generated(folder, name.removeprefix("generated-"))
    return Project.open(folder)


def run_setting(name: str, arguments: argparse.Namespace) -> None:
    """Measure, estimate and time one setting, and write its file."""
    place = arguments.work / name
    project = make_setting(name, place / "project", arguments)
    targets = project.config.data.targets
    names = sorted(task.name for task in project.corpus(targets).auxiliary)
    count = arguments.subsets or (24 if name == "real-tasks" else 40)
    subsets = draw_subsets(names, count)
    measured = Measurer(project, place / "measured.jsonl").measure_all(subsets, range(SEEDS))
    estimates = project.estimates(targets)
    masks = np.stack([estimates.mask(subset) for subset in subsets])
    section = project.config.estimate
    estimators = [build_estimator(estimates.points, estimates.final_losses, section, scale=s) for s in RIDGE_SCALES]
    report = {
        **provenance(f"python benchmarks/trust.py --work DIR --settings {name}"),
        "name": name,
        "tasks": [task.name for task in estimates.tasks],
        "subsets": subsets,
        "measured": np.round(measured, 5).tolist(),
        "known": estimators[0].all_tasks_loss,
        "ridge_scales": list(RIDGE_SCALES),
        "changes": [np.round(estimator.changes(masks), 6).tolist() for estimator in estimators],
        "timing": timing(project, place / "timed", subsets),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report) + "\n")


def time_setting(name: str, arguments: argparse.Namespace) -> None:
    """Measure the times again, and update the setting's file."""
    place, found = arguments.work / name, RESULTS / f"{name}.json"
    data = json.loads(found.read_text())
    taken = timing(make_setting(name, place / "project", arguments), place / "timed", data["subsets"])
    data["timing"] = taken | provenance(f"python benchmarks/trust.py --work DIR --time --settings {name}")
    found.write_text(json.dumps(data) + "\n")


def compare_setting(name: str, arguments: argparse.Namespace) -> None:
    """Select by estimates that the committed runs calibrate, and compare with the selections of other methods."""
    project = make_setting(name, arguments.work / name / "project", arguments)
    data = json.loads((RESULTS / f"{name}.json").read_text())
    corpus = project.corpus(project.config.data.targets)
    recipe, target = recipe_key(project.config, corpus), corpus.target_label
    seconds = float(np.mean(data["timing"]["seconds_fine_tuning"]))
    for subset, losses in zip(data["subsets"], data["measured"], strict=True):
        for seed, loss in enumerate(losses):
            content = subset_content(corpus, subset)
            project.store.put_measurement(recipe, target, content, seed=seed, loss=loss, seconds=seconds)
    project.select(output=arguments.work / name / "manifest.json")
    compared = project.verify(compare=True, seeds=COMPARED_SEEDS).comparison or ()
    chosen = [sorted(method.selected) for method in compared]
    runs = [
        run for run in project.store.measurements(recipe) if sorted(run.subset) in chosen and run.seconds != seconds
    ]
    stages = {stage: project.store.artifacts(stage)[0].outputs for stage in ("train", "gradients", "estimate")}
    report = {
        **provenance(f"python benchmarks/trust.py --work DIR --compare --settings {name}"),
        "name": name,
        "dtype": project.config.model.dtype,
        "calibrating_subsets": len(data["subsets"]),
        # Includes the load of other programs on the machine.
        "seconds": {stage: round(outputs.get("seconds", float("nan")), 1) for stage, outputs in stages.items()},
        "seconds_fine_tuning": [round(run.seconds, 1) for run in runs],
        "methods": [asdict(method) for method in compared],
    }
    (RESULTS / "compare").mkdir(parents=True, exist_ok=True)
    (RESULTS / "compare" / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


def timing(project: Project, folder: Path, subsets: list[list[str]]) -> dict[str, Any]:
    """Measure the time of all estimates and of some fine-tuning runs, in sequence on a new copy.

    Args:
        project: The project.
        folder: Folder for the copy.
        subsets: Subsets of the setting. The second one holds all tasks.
    """
    copy_project(project.root, folder)
    shutil.rmtree(folder / ".curator", ignore_errors=True)
    fresh = Project.open(folder)
    fresh.corpus(fresh.config.data.targets)
    fresh._pipeline.load()
    begin = time.monotonic()
    fresh.select(output=folder / "manifest.json")
    estimating = time.monotonic() - begin
    middle = sorted(subsets, key=lambda subset: abs(2 * len(subset) - len(subsets[1])))[:_TIMED]
    runs = folder / "timed.jsonl"
    runs.unlink(missing_ok=True)
    measurer = Measurer(fresh, runs)
    measurer.measure_all(middle, [0])
    return {
        "seconds_estimating": round(estimating, 2),
        "subsets_estimated": fresh.config.select.subsets,
        "seconds_fine_tuning": [run["seconds"] for run in measurer.runs],
        "tasks_fine_tuned_on": [len(run["subset"]) for run in measurer.runs],
    }


def summarise(data: dict[str, Any]) -> dict[str, Any]:
    """Compute errors, ranks and coverage on subsets that calibration did not use.

    Args:
        data: Content of a setting's file.
    """
    measured = np.array(data["measured"])
    truth, tasks = measured.mean(axis=1), data["tasks"]
    masks = np.array([[task in subset for task in tasks] for subset in data["subsets"]])
    changes, scales = np.array(data["changes"]), data["ridge_scales"]

    def evidence(rows: np.ndarray) -> Evidence:
        return Evidence(
            masks=masks[rows], losses=truth[rows], known=data["known"], changes=changes[:, rows], scales=scales
        )

    count = min(MOST_CALIBRATING, len(truth) - LEAST_HELD_OUT)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(SPLITS):
        order = rng.permutation(len(truth))
        seen, held_out = order[:count], order[count:]
        found, judged = calibrate(evidence(seen)), evidence(held_out)
        estimated = found.losses(judged.known, judged.changes[scales.index(found.scale)], judged.masks)
        rows.append(
            [
                _error(estimated, judged.losses),
                _error(np.full_like(judged.losses, truth[seen].mean()), judged.losses),
                spearmanr(estimated, judged.losses).statistic,
                np.mean(np.abs(estimated - judged.losses) <= (found.half_width or np.inf)),
            ]
        )
    error, constant, rank, coverage = np.mean(rows, axis=0)
    raw = data["known"] + changes[scales.index(1.0)].mean(axis=1)
    between = measured.std(axis=1, ddof=1) / truth
    noise = float(np.sqrt((between**2).mean()))
    times = data["timing"]
    ratio = float(np.mean(times["seconds_fine_tuning"])) / times["seconds_estimating"]
    return {
        "name": data["name"],
        "relative_error": round(float(error), 4),
        "constant_relative_error": round(float(constant), 4),
        "spearman": round(float(rank), 3),
        "seed_noise": round(noise, 4),
        "speedup_100_subsets": round(100 * ratio, 1),
        "speedup_1000_subsets": round(1000 * ratio, 1),
        "coverage": round(float(coverage), 3),
        "calibrating_subsets": count,
        "held_out_subsets": len(truth) - count,
        "seeds": measured.shape[1],
        "spearman_between_seeds": round(float(spearmanr(measured[:, 0], measured[:, 1]).statistic), 3),
        "uncalibrated_relative_error": round(_error(raw, truth), 4),
        "uncalibrated_spearman": round(float(spearmanr(raw, truth).statistic), 3),
        "measured_from": round(float(truth.min()), 3),
        "measured_to": round(float(truth.max()), 3),
    }


def _error(estimated: np.ndarray, truth: np.ndarray) -> float:
    return float((np.abs(estimated - truth) / truth).mean())


def main() -> None:
    """Run the benchmark, or summarise its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for the projects and the runs")
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=SETTINGS,
        default=[s for s in SETTINGS if s != "real-tasks"],
        help="run these settings (default: all but real-tasks)",
    )
    parser.add_argument("--subsets", type=int, help="number of measured subsets (default: 40, for real-tasks 24)")
    parser.add_argument("--wheel", type=Path, help="wheel of SmolLM2, for real-tasks")
    parser.add_argument("--bigbench", type=Path, help="archive of BIG-bench, for real-tasks")
    parser.add_argument(
        "--dtype",
        default="bfloat16",
        help="number format of SmolLM2 (default: bfloat16); float32 is 35 times faster on a CPU without bfloat16",
    )
    parser.add_argument("--compare", action="store_true", help="compare methods, calibrated by the committed runs")
    parser.add_argument("--time", action="store_true", help="measure only the times again")
    parser.add_argument("--report", action="store_true", help="only summarise benchmarks/results/trust")
    parser.add_argument("--json", type=Path, help="write the summary to this file")
    arguments = parser.parse_args()
    if not arguments.report:
        if arguments.work is None:
            parser.error("--work is required without --report")
        make = compare_setting if arguments.compare else time_setting if arguments.time else run_setting
        for name in arguments.settings:
            make(name, arguments)
    found = [RESULTS / f"{name}.json" for name in SETTINGS]
    settings = [summarise(json.loads(path.read_text())) for path in found if path.exists()]
    for setting in settings:
        print("  ".join(f"{key} {value}" for key, value in setting.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"settings": settings}, indent=1) + "\n")


if __name__ == "__main__":
    main()

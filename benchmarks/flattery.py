"""Measure by how much choosing on validation rows flatters the choice, on the settings of `trust.py`.

    python benchmarks/flattery.py --work DIR --json flattery.json
    python benchmarks/flattery.py --work DIR --json FILE --settings real-tasks --wheel WHEEL --bigbench ARCHIVE

Half of the held-out rows of each setting become the test part. The training stays as it is. `curator verify` fine-tunes
on random subsets with one seed each, and measures both parts.

The gap of a subset is its test loss minus its validation loss. The flattery of a choice is the gap of the chosen subset
minus the mean gap of all subsets. So a difference between the two halves of the rows cancels. The script draws some of
the subsets 1,000 times, and chooses the least validation loss among them. The halves then change their roles.
Run the same command again to resume.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measured import provenance, write_report
from trust import SETTINGS, make_setting

from curator import Project
from curator.training.fine_tune import recipe_key

DEFAULT = ("sample", "generated-noisy", "generated-conflicting")
CHOICES, _DRAWS = (4, 8), 1000


def with_test_part(name: str, folder: Path, arguments: argparse.Namespace) -> Project:
    """Make the setting's project, and turn half of its held-out rows into the test part."""
    fresh = not (folder / "curator.toml").exists()
    make_setting(name, folder, arguments)
    if fresh:
        config = (folder / "curator.toml").read_text()
        if name == "sample":
            config = config.replace("validation = 0.64", "validation = 0.32\ntest = 0.32")
        else:
            rows = (folder / "validation.jsonl").read_text().splitlines(keepends=True)
            (folder / "validation.jsonl").write_text("".join(rows[::2]))
            (folder / "test.jsonl").write_text("".join(rows[1::2]))
            line = next(line for line in config.splitlines() if line.startswith("validation_files"))
            test = line.replace("validation_files", "test_files").replace("validation.jsonl", "test.jsonl")
            config = config.replace(line, f"{line}\n{test}")
        (folder / "curator.toml").write_text(config)
    return Project.open(folder)


def losses_of(project: Project) -> tuple[list[list[str]], np.ndarray]:
    """Return the measured subsets (s), and the losses of their runs on both parts (s, 2)."""
    recipe = recipe_key(project.config, project.corpus(project.config.data.targets))
    tests = {
        (frozenset(subset), seed): stored.value
        for subset, seed, stored in project.store.metrics(recipe)
        if (stored.metric, stored.part) == ("loss", "test")
    }
    found = {
        tuple(sorted(run.subset)): (run.loss, tests[frozenset(run.subset), run.seed])
        for run in project.store.measurements(recipe)
        if (frozenset(run.subset), run.seed) in tests
    }
    return [list(subset) for subset in found], np.array(list(found.values()))


def flattery(losses: np.ndarray, choices: int, rng: np.random.Generator) -> float:
    """Return the mean flattery of the best of some random subsets, over both roles of the halves, nats."""
    found = []
    for chosen_by, judged_by in ((0, 1), (1, 0)):
        gaps = losses[:, judged_by] - losses[:, chosen_by]
        for _ in range(_DRAWS):
            drawn = rng.choice(len(losses), size=choices, replace=False)
            best = drawn[np.argmin(losses[drawn, chosen_by])]
            found.append(gaps[best] - gaps.mean())
    return float(np.mean(found))


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune on what is missing, and compute the flattery of one setting."""
    project = with_test_part(name, arguments.work / name / "project", arguments)
    missing = arguments.subsets - len(losses_of(project)[0])
    # One seed for each subset: repeats would only measure the noise.
    report = project.verify(runs=missing, seeds=1) if missing > 0 else project.verify(report=True)
    subsets, losses = losses_of(project)
    rng, counts = np.random.default_rng(0), [n for n in (*CHOICES, len(subsets)) if n <= len(subsets)]
    part = None if report.metric is None else report.metric.test
    return {
        "setting": name,
        "subsets": len(subsets),
        "mean_loss": round(float(losses.mean()), 4),
        "spread_of_losses": round(float(losses.mean(axis=1).std(ddof=1)), 4),
        "flattery_by_choices": {n: round(flattery(losses, n, rng), 4) for n in counts},
        "reported_by_verify": None if part is None else part.flattery,
        "runs": [
            {"subset": subset, "validation": round(float(own), 5), "test": round(float(other), 5)}
            for subset, (own, other) in zip(subsets, losses, strict=True)
        ],
    }


def main() -> None:
    """Measure each setting, and add it to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(DEFAULT))
    parser.add_argument("--subsets", type=int, default=16, help="number of subsets (default: 16)")
    parser.add_argument("--wheel", type=Path, help="wheel of SmolLM2, for real-tasks")
    parser.add_argument("--bigbench", type=Path, help="archive of BIG-bench, for real-tasks")
    parser.add_argument("--dtype", default="float32", help="number format of SmolLM2")
    given = parser.parse_args()
    results = json.loads(given.json.read_text())["results"] if given.json.exists() else []
    for name in given.settings:
        results = [row for row in results if row["setting"] != name] + [measure(name, given)]
        report = {**provenance("python benchmarks/flattery.py --work DIR --json FILE"), "results": results}
        write_report(given.json, report)
        print({key: value for key, value in results[-1].items() if key != "runs"}, flush=True)


if __name__ == "__main__":
    main()

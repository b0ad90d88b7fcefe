"""Check estimates without a calibration on fresh random subsets, which played no part in the choice of any rule.

    python benchmarks/fresh_subsets.py --work DIR --json fresh_subsets.json
    python benchmarks/fresh_subsets.py --work DIR --json fresh_subsets.json --settings sample --subsets 12

The subsets differ from the committed ones of `trust.py`. Each gets one run with the recipe of its setting, and the
product stores the estimate from before the run. The setting generated-flat has no committed runs. There, the target
alone is the first subset. Run the same command again to resume.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from measured import provenance
from scipy.stats import spearmanr
from trust import RESULTS, make_setting

from curator.training.fine_tune import recipe_key
from curator.verify.measure import estimates_before, measure, run_seeds

SETTINGS = ("sample", "generated-noisy", "generated-conflicting", "generated-flat")
# The day of the draw.
_SEED = 20261128


def draw(names: list[str], known: list[list[str]], count: int) -> list[frozenset[str]]:
    """Draw different random subsets of random sizes that are not among the known ones."""
    rng, old = random.Random(_SEED), {frozenset(subset) for subset in known}
    found: list[frozenset[str]] = []
    while len(found) < count:
        subset = frozenset(rng.sample(names, rng.randint(1, len(names) - 1)))
        if subset not in old and subset not in found:
            found.append(subset)
    return found


def run_setting(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measure what is missing, and compare with the estimates from before."""
    project = make_setting(name, given.work / name / "project", given)
    targets = project.config.data.targets
    estimates = project.estimates(targets)
    committed, names = RESULTS / f"{name}.json", sorted(task.name for task in estimates.tasks)
    if committed.exists():
        subsets = draw(names, json.loads(committed.read_text())["subsets"], given.subsets)
    else:
        subsets = [frozenset[str](), *draw(names, [], given.subsets - 1)]
    (seed,) = run_seeds(project.config, 1)
    recipe = recipe_key(project.config, estimates.corpus)
    done = {(frozenset(run.subset), run.seed) for run in project.store.measurements(recipe)}
    left = [(subset, seed) for subset in subsets if (subset, seed) not in done]
    measure(
        project.workspace,
        estimates.corpus,
        left,
        pool=project._pipeline.pool(),
        folder=project.workspace.adapters / "verify",
        predictions=estimates_before(estimates, left),
    )
    runs = {frozenset(run.subset): run for run in project.store.measurements(recipe) if run.seed == seed}
    rows = []
    for subset in subsets:
        before = runs[subset].details.estimated_before
        assert before is not None
        ends = [round(end, 5) for end in (before.value, before.low, before.high)]
        rows.append({"subset": sorted(subset), "estimate": ends, "measured": round(runs[subset].loss, 5)})
    found, truth = np.array([row["estimate"] for row in rows]), np.array([row["measured"] for row in rows])
    error = float((np.abs(found[:, 0] - truth) / truth).mean())
    constant = float((np.abs(truth.mean() - truth) / truth).mean())
    return {
        "setting": name,
        "seed": seed,
        "subsets": len(rows),
        "spearman": round(float(spearmanr(found[:, 0], truth).statistic), 3),
        "relative_error": round(error, 4),
        "share_of_constant_guess": round(error / constant, 3),
        "coverage": round(float(((found[:, 1] <= truth) & (truth <= found[:, 2])).mean()), 3),
        "runs": rows,
    }


def main() -> None:
    """Measure what is missing, and add it to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS[:3]))
    parser.add_argument("--subsets", type=int, default=8, help="number of subsets (default: 8)")
    given = parser.parse_args()
    results = json.loads(given.json.read_text())["results"] if given.json.exists() else []
    for name in given.settings:
        results = [row for row in results if row["setting"] != name] + [run_setting(name, given)]
        report = {**provenance("python benchmarks/fresh_subsets.py --work DIR --json FILE"), "results": results}
        given.json.write_text(json.dumps(report, indent=1) + "\n")
        print({key: value for key, value in results[-1].items() if key != "runs"}, flush=True)


if __name__ == "__main__":
    main()

"""Replay races on the committed fine-tuning runs, and check the intervals of selected subsets.

    python benchmarks/race.py --json race.json
    python benchmarks/race.py --json race.json --settings sample --projections 0

The estimates are those of `benchmarks/results/trajectory.json`, and the runs those of `benchmarks/results/trust/`.
Nothing is trained. A replayed race chooses among the measured subsets only. A run of the race is one of the two
committed runs of a subset. Regret is the mean loss of the winner minus the lowest mean loss of all measured subsets, in
nats. Without a run, the winner is the subset of least estimate. `best_of_random` is the regret of the best of random
subsets with one run each.

The coverage is that of the subset of least estimated loss among the subsets that calibration did not use. It is the
share of the single runs inside the interval. Without a calibration, the least estimate of a random half is taken.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measured import provenance

from curator.core.arrays import Floats, Mask
from curator.core.interval import Interval
from curator.estimate.calibration import TRAJECTORY_PRIORS, Evidence, calibrate
from curator.select.posterior import spread_of
from curator.select.selected_interval import Considered, selected_interval, uncalibrated
from curator.verify.race import Field, next_row, standing_of

RESULTS = Path(__file__).parent / "results"
# The settings of the trust benchmark with committed runs.
SETTINGS = ("sample", "generated-noisy", "generated-conflicting", "real-tasks")
RUNS = (0, 4, 8, 16)
RACES, RANDOM_CHOICES, SPLITS, HALVES = 40, 5000, 60, 400
RANDOM_RUNS = (8, 24)
# Subsets that calibrate before a coverage is taken, and subsets that are left at least.
CALIBRATING, LEAST_LEFT = 24, 8


def race(masks: Mask, changes: Floats, known: float, measured: Floats, seed: int) -> tuple[dict[int, int], float]:
    """Return the winner after each number of runs, and the probability of the best after the last run."""
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(measured.shape[1]) for _ in masks])
    field, unit = Field(masks=masks, named=np.ones(len(masks), dtype=bool)), spread_of(changes, known)
    rows: list[int] = []
    losses: list[float] = []
    winners: dict[int, int] = {}
    while True:
        standing = standing_of(field, changes, known=known, unit=unit, rows=rows, losses=losses, seed=seed)
        if len(rows) in RUNS:
            winners[len(rows)] = standing.winner
        if len(rows) == max(RUNS):
            return winners, standing.probability_best
        done = np.bincount(rows, minlength=len(masks)) if rows else np.zeros(len(masks), dtype=int)
        row = next_row(standing, rows, done < measured.shape[1])
        assert row is not None
        losses.append(float(measured[row, order[row, done[row]]]))
        rows.append(row)


def best_of_random(measured: Floats, runs: int) -> float:
    """Return the mean regret of the best of some random subsets with one run each, nats."""
    rng, means = np.random.default_rng(0), measured.mean(axis=1)
    found = []
    for _ in range(RANDOM_CHOICES):
        some = rng.permutation(len(measured))[:runs]
        losses = measured[some, rng.integers(0, measured.shape[1], len(some))]
        found.append(means[some[losses.argmin()]] - means.min())
    return float(np.mean(found))


def effective_number(chosen: list[int]) -> float:
    """Return the effective number of different subsets among the chosen ones, by Kish: 1 / Σ share²."""
    shares = np.unique(chosen, return_counts=True)[1] / len(chosen)
    return round(float(1 / (shares @ shares)), 1)


def coverage(masks: Mask, changes: Floats, known: float, measured: Floats, *, one_seed: bool) -> dict[str, float]:
    """Return the coverage of the selected subset by its interval and by the plain one, and their mean widths, nats.

    The splits select few different subsets. `effective_subsets` is their number, by Kish: 1 / Σ share². A coverage of
    0.9 has a standard error of about √(0.9 · 0.1 / effective_subsets).
    """
    rng, means = np.random.default_rng(1), measured.mean(axis=1)
    count = min(CALIBRATING, len(means) - LEAST_LEFT)
    rows, chosen = [], []
    for split in range(SPLITS):
        order = rng.permutation(len(means))
        seen, left = order[:count], order[count:]
        losses = measured[seen, rng.integers(0, measured.shape[1], count)] if one_seed else means[seen]
        evidence = Evidence(
            masks=masks[seen], losses=losses, known=known, changes=changes[None, seen, None], scales=(1.0,),
            priors=TRAJECTORY_PRIORS,
        )  # fmt: skip
        fitted = calibrate(evidence)
        estimates = fitted.losses(known, changes[left, None], masks[left])
        best = int(estimates.argmin())
        chosen.append(int(left[best]))
        interval = selected_interval(
            float(estimates[best]),
            Considered(masks=masks[left], changes=changes[left, None], unit=spread_of(changes, known)),
            known=known, evidence=evidence, runs=np.full(count, 1.0 if one_seed else measured.shape[1]),
            calibration=fitted, seed=split,
        )  # fmt: skip
        half, runs = fitted.half_width or np.inf, measured[left[best]]
        inside = ((interval.low <= runs) & (runs <= interval.high), np.abs(runs - estimates[best]) <= half)
        rows.append([*(float(one.mean()) for one in inside), interval.high - interval.low, 2 * half])
    names = ("selected_interval", "plain_interval", "selected_width", "plain_width")
    found = {name: round(float(value), 3) for name, value in zip(names, np.mean(rows, axis=0), strict=True)}
    return found | {"effective_subsets": effective_number(chosen)}


def coverage_before(estimates: Floats, measured: Floats) -> dict[str, float]:
    """Return the coverage of single runs by intervals without a calibration: of the least estimate, and of all.

    Args:
        estimates: Estimate of each subset with both ends of its interval (s, 3), nats.
        measured: Measured losses (s, seeds), nats.
    """
    rng, rows, chosen = np.random.default_rng(2), [], []
    for _ in range(HALVES):
        some = rng.permutation(len(estimates))[: len(estimates) // 2]
        best = int(some[estimates[some, 0].argmin()])
        chosen.append(best)
        plain, runs = Interval(*estimates[best]), measured[best]
        wide = uncalibrated(plain)
        rows.append(
            [np.mean((low <= runs) & (runs <= high)) for low, high in ((wide.low, wide.high), (plain.low, plain.high))]
        )
    every = np.mean((estimates[:, 1:2] <= measured) & (measured <= estimates[:, 2:3]))
    names = ("selected_interval", "plain_interval", "random_subset")
    shares = zip(names, (*np.mean(rows, axis=0), every), strict=True)
    return {name: round(float(v), 3) for name, v in shares} | {"effective_subsets": effective_number(chosen)}


def measure(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Replay the races of one setting with the estimates of one projection, and check its intervals."""
    truth = json.loads((RESULTS / "trust" / f"{name}.json").read_text())
    masks = np.array([[task in subset for task in truth["tasks"]] for subset in truth["subsets"]])
    measured, estimates = np.array(truth["measured"]), np.array(found["estimates"])
    known, means = float(found["all_tasks"]["now"]), measured.mean(axis=1)
    changes = estimates[:, 0] - known
    races = [race(masks, changes, known, measured, seed) for seed in range(RACES)]
    regrets = {runs: [float(means[winners[runs]] - means.min()) for winners, _ in races] for runs in RUNS}
    return {
        "setting": name,
        "projection_seed": found["projection_seed"],
        "subsets": len(masks),
        "regret": {str(runs): round(float(np.mean(found)), 4) for runs, found in regrets.items()},
        "found_the_best": {str(runs): round(float(np.mean(np.array(f) == 0)), 3) for runs, f in regrets.items()},
        "best_of_random": {str(runs): round(best_of_random(measured, runs), 4) for runs in RANDOM_RUNS},
        "mean_subset": round(float(means.mean() - means.min()), 4),
        "probability_best_after_16": round(float(np.mean([sure for _, sure in races])), 3),
        "seed_noise": round(float(np.sqrt(measured.var(axis=1, ddof=1).mean())), 4),
        "coverage": {
            "uncalibrated": coverage_before(estimates, measured),
            "one_seed": coverage(masks, changes, known, measured, one_seed=True),
            "two_seeds": coverage(masks, changes, known, measured, one_seed=False),
        },
    }  # fmt: skip


def main() -> None:
    """Replay what the options name, and replace these results in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--projections", nargs="+", type=int, default=[0, 1, 2], help="projection seeds (default: all)")
    given = parser.parse_args()
    committed = json.loads((RESULTS / "trajectory.json").read_text())["results"]
    results = json.loads(given.json.read_text())["results"] if given.json.exists() else []
    for found in committed:
        place = (found["setting"], found["projection_seed"])
        if place[0] not in given.settings or place[1] not in given.projections:
            continue
        old = (place, (place[0], None))
        results = [row for row in results if (row["setting"], row.get("projection_seed")) not in old]
        results.append(measure(place[0], found))
        results.sort(key=lambda row: (SETTINGS.index(row["setting"]), row.get("projection_seed") or 0))
        report = {**provenance("python benchmarks/race.py --json FILE"), "results": results}
        given.json.write_text(json.dumps(report, indent=1) + "\n")
        print(place, flush=True)


if __name__ == "__main__":
    main()

"""Measure how much the noise of the loss of all tasks, where every estimate starts, adds to the error of estimates.

    python benchmarks/start_noise.py

Nothing is trained. The script reads the estimates of `benchmarks/results/trajectory.json` (2,048 numbers) and
`trajectory_sketch.json` (8,192 numbers), and the runs of `benchmarks/results/trust/`. It prints rank, error divided by
the error of a constant guess, and the error for the target alone. Each is a mean over the projection seeds:

- from the loss of all tasks in one run, as curator computes them;
- from the mean of the committed runs on all tasks, which have other seeds;
- with one run on the target alone as a second start (`SHIFTS`), judged on the other subsets;
- with readings times 0.58 √n, where n is the number of tokens of the target's average answer.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from curator.core.arrays import Floats, Mask

RESULTS = Path(__file__).parent / "results"
FILES = ("trajectory.json", "trajectory_sketch.json")
TOKENS = {"sample": 2.0, "generated-noisy": 3.59, "generated-conflicting": 3.59, "real-tasks": 8.31}
"""Tokens of the target's average training answer."""
SHIFTS = {"offset, slope, misfit": (0.08, 0.25, 0.1), "offset only": (0.04, 0.0, 0.0)}
"""Prior standard deviations: offset and misfit as shares of the loss, slope as a share of the change."""
# Share of different tasks at which the correlation of two misfits has fallen to 1/e, and the noise of a run.
_REACH, _NOISE = 0.25, 0.06


def judged(estimates: Floats, losses: Floats) -> list[float]:
    """Return the rank correlation of estimates (s,), and their error divided by that of a constant guess."""
    constant = np.mean(np.abs(losses.mean() - losses) / losses)
    return [
        float(spearmanr(estimates, losses).statistic),
        float(np.mean(np.abs(estimates - losses) / losses) / constant),
    ]


def shifted(estimates: Floats, known: float, masks: Mask, loss: float, priors: tuple[float, float, float]) -> Floats:
    """Return the estimates (s,) after one run on the target alone, as the mean of a normal posterior.

    Args:
        estimates: Estimated losses (s,), nats.
        known: Loss of all tasks, nats.
        masks: Subsets (s, t). One is empty.
        loss: Loss of the run on the target alone, nats.
        priors: Entry of `SHIFTS`.
    """
    offset, slope, misfit = priors
    changes, alone = estimates - known, int(np.flatnonzero(~masks.any(axis=1))[0])
    alike = np.exp(-masks.sum(axis=1) / (masks.shape[1] * _REACH))
    covariance = (offset * known) ** 2 + slope**2 * changes * changes[alone] + (misfit * known) ** 2 * alike
    gain = covariance / (covariance[alone] + (_NOISE * known) ** 2)
    return np.asarray(estimates + gain * (loss - estimates[alone]))


def measure(found: dict[str, Any]) -> dict[str, list[float]]:
    """Return rank, error and error for the target alone of each start, for one projection."""
    truth = json.loads((RESULTS / "trust" / f"{found['setting']}.json").read_text())
    masks = np.array([[task in subset for task in truth["tasks"]] for subset in truth["subsets"]])
    runs, known = np.array(truth["measured"]), float(found["all_tasks"]["now"])
    losses, estimates = runs.mean(axis=1), np.array(found["estimates"])[:, 0]
    alone = ~masks.any(axis=1)

    def row(values: Floats) -> list[float]:
        return [*judged(values, losses), float(values[alone][0] / losses[alone][0] - 1)]

    readings = known + 0.58 * TOKENS[found["setting"]] ** 0.5 * (estimates - known)
    rows = {
        "one run": row(estimates),
        "mean of two runs": row(estimates - known + losses[masks.all(axis=1)][0]),
        "readings times 0.58 √n": row(readings),
        "one run, without the target alone": judged(estimates[~alone], losses[~alone]),
    }
    for name, priors in SHIFTS.items():
        both = [
            judged(shifted(estimates, known, masks, loss, priors)[~alone], losses[~alone])
            for loss in runs[alone].ravel()
        ]
        rows[f"and the target alone: {name}"] = np.mean(both, axis=0).tolist()
    return rows


def main() -> None:
    """Print the table of each file of estimates."""
    for file in FILES:
        by_setting: dict[str, list[dict[str, list[float]]]] = {}
        for found in json.loads((RESULTS / file).read_text())["results"]:
            by_setting.setdefault(found["setting"], []).append(measure(found))
        print(file)
        for setting, rows in by_setting.items():
            for name in rows[0]:
                mean = np.mean([row[name] for row in rows], axis=0)
                shown = f"{mean[0]:.2f} / {mean[1]:.2f}" + (f", alone {mean[2]:+.0%}" if len(mean) > 2 else "")
                print(f"  {setting:<22}{name:<44}{shown}")


if __name__ == "__main__":
    main()

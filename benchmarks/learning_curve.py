"""Show what gradients are worth: accuracy after a number of verified runs, with and without estimates.

    python benchmarks/learning_curve.py --json FILE --plot docs/pictures/learning-curve.svg

The script trains nothing. It reads the fine-tuned subsets of `benchmarks/results/trust/` and their uncalibrated
estimates in `benchmarks/results/trajectory.json`. One run of each subset calibrates; the others judge, by the mean
over their seeds. "Without gradients" is the same calibration without estimates: a linear model of membership
(a datamodel). Figures are means over splits and projection seeds. No subset calibrates and judges in the same split.

`squared_error` is the error of the paper's code: the mean of the squared relative errors.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measured import provenance, write_report
from scipy.stats import spearmanr

from curator.estimate.calibration import LEAST_RUNS, TRAJECTORY_PRIORS, Evidence, Priors, calibrate

RESULTS = Path(__file__).parent / "results"
RUNS = (0, 6, 8, 12, 16, 20, 24, 28)
SPLITS, LEAST_JUDGES = 30, 10


def evaluate(row: dict[str, Any], runs: int, *, gradients: bool) -> dict[str, float] | None:
    """Judge one setting and projection seed after some verified runs. None if too few subsets are left.

    Args:
        row: Result of trajectory.py.
        runs: Number of verified runs, one on each subset.
        gradients: Whether the calibration has estimates.
    """
    truth = json.loads((RESULTS / "trust" / f"{row['setting']}.json").read_text())
    measured = np.array(truth["measured"])
    mean, known = measured.mean(axis=1), row["all_tasks"]["now"]
    masks = np.array([[task in subset for task in truth["tasks"]] for subset in truth["subsets"]])
    values = np.array(row["estimates"])
    changes = (values[:, 0] - known)[:, None] if gradients else np.zeros((len(mean), 1))
    if len(mean) - runs < LEAST_JUDGES or (not gradients and runs < LEAST_RUNS):
        return None
    rng, found = np.random.default_rng(runs), []
    for _ in range(SPLITS):
        order = rng.permutation(len(mean))
        seen, judged = order[:runs], order[runs:]
        # The intervals are for one run.
        one = measured[np.arange(len(mean)), rng.integers(0, measured.shape[1], len(mean))]
        if runs < LEAST_RUNS:
            estimated, low, high = values[judged].T
        else:
            calibration = calibrate(
                Evidence(
                    masks=masks[seen],
                    losses=one[seen],
                    known=known,
                    changes=changes[None, seen],
                    scales=(1.0,),
                    priors=TRAJECTORY_PRIORS if gradients else Priors(),
                )
            )
            estimated = calibration.losses(known, changes[judged], masks[judged])
            half = np.nan if calibration.half_width is None else calibration.half_width
            low, high = estimated - half, estimated + half
        relative = (estimated - mean[judged]) / mean[judged]
        inside = np.nan if np.isnan(low).any() else np.mean((low <= one[judged]) & (one[judged] <= high))
        rank = spearmanr(estimated, mean[judged]).statistic
        found.append([rank, np.abs(relative).mean(), (relative**2).mean(), inside])
    rank, error, squared, coverage = np.mean(found, axis=0)
    return {"spearman": rank, "relative_error": error, "squared_error": squared, "coverage": coverage}


def curve(rows: list[dict[str, Any]], *, gradients: bool) -> list[dict[str, Any]]:
    """Return the figures after each number of runs, as means over the projection seeds."""
    points = []
    for runs in RUNS:
        found = [figures for row in rows if (figures := evaluate(row, runs, gradients=gradients)) is not None]
        if found:
            means = {key: float(np.mean([figures[key] for figures in found])) for key in found[0]}
            points.append({"runs": runs, **{key: None if np.isnan(x) else round(x, 4) for key, x in means.items()}})
    return points


def worth(with_gradients: list[dict[str, Any]], without: list[dict[str, Any]], runs: int) -> float | None:
    """Return how many runs without gradients rank as well as some runs with them. None if no number does."""
    rank = next(point["spearman"] for point in with_gradients if point["runs"] == runs)
    ranks = np.maximum.accumulate([point["spearman"] for point in without])
    if rank > ranks[-1]:
        return None
    return round(float(np.interp(rank, ranks, [point["runs"] for point in without])), 1)


def plot(settings: dict[str, Any], path: Path) -> None:
    """Draw ranks and errors of all settings."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "curator"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(settings), figsize=(3.1 * len(settings), 5), sharex=True, squeeze=False)
    for column, (name, setting) in enumerate(settings.items()):
        for row, (key, label, factor) in enumerate(
            (("spearman", "rank correlation", 1), ("relative_error", "relative error, %", 100))
        ):
            axis = axes[row][column]
            for kind, colour, words in (
                ("with_gradients", "#0b6e8f", "with gradients"),
                ("without_gradients", "#b3541e", "without"),
            ):
                points = setting[kind]
                axis.plot(
                    [p["runs"] for p in points], [factor * p[key] for p in points], "o-", color=colour, label=words
                )
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label)
        axes[0][column].set_title(name)
        axes[0][column].set_ylim(0, 1)
        axes[1][column].set_ylim(bottom=0)
        axes[1][column].set_xlabel("verified runs")
    axes[0][0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Compute the curves, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimates", type=Path, default=RESULTS / "trajectory.json", help="results of trajectory.py")
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--plot", type=Path, help="picture of the curves")
    given = parser.parse_args()
    rows = json.loads(given.estimates.read_text())["results"]
    settings = {}
    for name in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == name]
        found, without = curve(own, gradients=True), curve(own, gradients=False)
        settings[name] = {
            "projection_seeds": len(own),
            "with_gradients": found,
            "without_gradients": without,
            "runs_without_gradients_that_rank_like": {
                runs: worth(found, without, runs) for runs in (0, 8) if any(p["runs"] == runs for p in found)
            },
        }
    write_report(given.json, {**provenance("python benchmarks/learning_curve.py --json FILE"), "settings": settings})
    if given.plot is not None:
        plot(settings, given.plot)


if __name__ == "__main__":
    main()

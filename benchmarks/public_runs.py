"""Measure calibration without gradients on published runs that played no part in its design.

    python benchmarks/public_runs.py --mixtures train_mixture_1m.csv --results train_pile_loss_1m.csv --json FILE
    python benchmarks/public_runs.py --mixtures runs.csv --weights "weight_" --results runs.csv --scores "eval_"

The first files are in the repository of RegMix (github.com/sail-sg/regmix, folder `data`). ADMIRE publishes its runs as
a dataset on the hub ("ADMIRE IFT Runs"). Download the files yourself: curator ships none of them.

A run is a mixture of domains and a score for each target. Every column of `--results` is a target of its own.
The calibration is the one of curator, with the domains' weights instead of memberships and without estimates.
A column of weights is divided by its root mean square over all runs times √2, so that a domain has the same mean
square as a task that is in half of the subsets. Splits are random. No run calibrates and judges in the same split.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measured import provenance, write_report
from scipy.stats import spearmanr

from curator.estimate.calibration import Evidence, calibrate

RUNS = (8, 16, 24, 48, 96)
SPLITS = 20
# Number of runs that judge a split.
_JUDGES = 100


def read(path: Path, prefix: str) -> pd.DataFrame:
    """Read the numeric columns of a CSV file whose names start with a prefix, by the column `index` if there is one.

    Raises:
        SystemExit: No column fits.
    """
    table = pd.read_csv(path)
    if "index" in table:
        table = table.set_index("index")
    found = table[[name for name in table.columns if name.startswith(prefix)]].select_dtypes("number")
    if found.empty:
        raise SystemExit(f"{path} has no numeric column that starts with {prefix!r}")
    return found


def measure(weights: np.ndarray, scores: np.ndarray, runs: int) -> dict[str, Any]:
    """Calibrate on some runs and judge others, in random splits.

    Args:
        weights: Weights of the domains in each run (n, d).
        scores: Score of each run (n,).
        runs: Number of runs that calibrate.
    """
    rng, rows = np.random.default_rng(0), []
    scaled = weights / np.maximum(np.sqrt(2 * (weights**2).mean(axis=0)), 1e-12)
    for _ in range(SPLITS):
        order = rng.permutation(len(scores))
        seen, judged = order[:runs], order[runs : runs + _JUDGES]
        evidence = Evidence(
            masks=scaled[seen],
            losses=scores[seen],
            known=float(scores[seen].mean()),
            changes=np.zeros((1, runs, 1)),
            scales=(1.0,),
        )
        found = calibrate(evidence)
        estimated = found.losses(evidence.known, np.zeros((len(judged), 1)), scaled[judged])
        wrong = np.abs(estimated - scores[judged])
        rows.append(
            [
                spearmanr(estimated, scores[judged]).statistic,
                (wrong / np.abs(scores[judged])).mean(),
                (np.abs(scores[seen].mean() - scores[judged]) / np.abs(scores[judged])).mean(),
                np.mean(wrong <= found.half_width) if found.half_width is not None else np.nan,
            ]
        )
    rank, error, constant, coverage = np.mean(rows, axis=0)
    return {
        "runs": runs,
        "spearman": round(float(rank), 3),
        "relative_error": round(float(error), 4),
        "constant_relative_error": round(float(constant), 4),
        # Too few runs give no interval.
        "coverage": None if np.isnan(coverage) else round(float(coverage), 3),
    }


def mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over the targets. A figure that one target lacks is missing."""
    values = {key: [row[key] for row in rows] for key in rows[0]}
    return {key: None if None in found else round(float(np.mean(found)), 4) for key, found in values.items()}


def main() -> None:
    """Measure every target, and print means over the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtures", type=Path, required=True, help="CSV file with the weights of each run")
    parser.add_argument("--results", type=Path, required=True, help="CSV file with the scores of each run")
    parser.add_argument("--weights", default="train_", help="start of the names of weight columns")
    parser.add_argument("--scores", default="metric/", help="start of the names of score columns")
    parser.add_argument("--json", type=Path, help="file of results")
    given = parser.parse_args()
    mixtures, results = read(given.mixtures, given.weights), read(given.results, given.scores)
    common = mixtures.index.intersection(results.index)
    weights = mixtures.loc[common].to_numpy(np.float64)
    report: dict[str, Any] = provenance("python benchmarks/public_runs.py --mixtures FILE --results FILE")
    report |= {"mixtures": given.mixtures.name, "results": given.results.name, "runs": len(common)}
    report["targets"] = {}
    for name in results.columns:
        scores = results.loc[common, name].to_numpy(np.float64)
        kept = np.isfinite(scores)
        counts = [runs for runs in RUNS if runs + _JUDGES <= kept.sum()]
        report["targets"][name] = [measure(weights[kept], scores[kept], runs) for runs in counts]
    report["mean"] = [mean(rows) for rows in zip(*report["targets"].values(), strict=True)]
    if given.json is not None:
        write_report(given.json, report)
    else:
        print(json.dumps(report["mean"], indent=1))


if __name__ == "__main__":
    main()

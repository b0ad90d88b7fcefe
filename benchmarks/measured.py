"""Fine-tune on subsets of a project's tasks, and cache every measured loss in a file."""

import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from curator import Project
from curator.core.events import Reporter
from curator.training.fine_tune import fine_tune

Run = dict[str, Any]


class Measurer:
    """Fine-tunes the base model on subsets with the project's recipe, and measures the target's validation loss.

    Args:
        project: The project.
        results: JSON-lines file with one line for each run. The class appends runs, and repeats no run of the file.
    """

    def __init__(self, project: Project, results: Path) -> None:
        self._project, self._results = project, results
        self._corpus = project.corpus(project.config.data.targets)
        results.parent.mkdir(parents=True, exist_ok=True)
        lines = results.read_text().splitlines() if results.exists() else []
        self.runs: list[Run] = [json.loads(line) for line in lines if line.strip()]

    def measure(self, subset: Sequence[str], seed: int) -> float:
        """Return the measured loss after fine-tuning on a subset and the target, in nats per target token."""
        names = sorted(subset)
        for run in self.runs:
            if run["subset"] == names and run["seed"] == seed:
                return float(run["loss"])
        with tempfile.TemporaryDirectory() as folder:
            found = fine_tune(
                self._project.workspace.reporting_to(Reporter()), self._corpus, names, seed=seed,
                tuned=self._project._pipeline.load(), folder=Path(folder),
            )  # fmt: skip
        run = {"subset": names, "seed": seed, "loss": found.loss, "seconds": round(found.seconds, 2)}
        self.runs.append(run)
        with self._results.open("a") as file:
            file.write(json.dumps(run) + "\n")
        return float(run["loss"])

    def measure_all(self, subsets: Sequence[Sequence[str]], seeds: Iterable[int]) -> np.ndarray:
        """Return measured losses, shape (subsets, seeds), and print progress to standard error."""
        seeds = list(seeds)
        losses = np.zeros((len(subsets), len(seeds)))
        begin, total = time.monotonic(), losses.size
        for done, (row, column) in enumerate(np.ndindex(losses.shape)):
            losses[row, column] = self.measure(subsets[row], seeds[column])
            left = (time.monotonic() - begin) / (done + 1) * (total - done - 1)
            print(f"fine-tuned {done + 1}/{total}, loss {losses[row, column]:.4f}, {left:.0f} s left", file=sys.stderr)
        return losses


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Compute Spearman's rank correlation; equal values share their mean rank."""

    def ranks(x: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute the area under the ROC curve: the chance that a positive scores above a negative.

    A tie counts half.

    Args:
        scores: Score of each item.
        positive: Whether each item is positive.
    """
    above = scores[positive][:, None] - scores[~positive][None, :]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def provenance(command: str) -> dict[str, Any]:
    """Return the command, commit, versions and machine of a result."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "command": command,
        "commit": commit,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.processor() or platform.system()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "numpy", "duckdb")},
    }


def copy_project(source: Path, target: Path) -> None:
    """Copy a project without its results, unless the target folder exists."""
    if not target.exists():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".curator", "curator-manifest.json", "*_cache"))


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report to a JSON file and to standard output."""
    text = json.dumps(report, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(text)

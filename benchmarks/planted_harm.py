"""Test whether affinities and selections reject planted harm: copies of the target with shuffled answers.

    python benchmarks/planted_harm.py --work DIR

The script adds three such tasks to a copy of `sample_data/`. It computes their affinities with each estimator, and a
selection with each method, in four settings:

- The planted tasks copy the target's training split, or the target's whole file. Most of the file is held out, so
  held-out questions then get wrong answers.
- The planted tasks are part of meta-training, or are added to a finished project. The meta-initialization of a finished
  project has not seen them.

It also fine-tunes on the tasks that `forward` selects without the planted ones, and on the same with each number of
planted tasks, with three seeds. The results are in `benchmarks/results/planted_harm.json`. The benchmark takes about
half an hour on two cores.
"""

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from measured import copy_project, provenance, write_report

from curator import Project

COPIES = 3
METHODS = ("forward", "backward", "exchange", "ensemble")
ESTIMATORS = ("trajectory", "quadratic", "logistic")
SEEDS = 3


def plant(project: Project, *, whole: bool) -> list[str]:
    """Write copies of the target with shuffled answers, and return their names.

    Args:
        project: The project.
        whole: Copy the target's whole file instead of its training split.
    """
    (target,) = project.corpus(project.config.data.targets).target_tasks
    path = project.root / "tasks" / f"{target.name}.jsonl"
    lines = path.read_text().splitlines()
    rows = [json.loads(lines[number]) for number in (range(len(lines)) if whole else target.split.train)]
    names = []
    for copy in range(COPIES):
        answers = [row["completion"] for row in rows]
        random.Random(copy).shuffle(answers)
        shuffled = [row | {"completion": answer} for row, answer in zip(rows, answers, strict=True)]
        names.append(f"planted-{copy}")
        text = "".join(json.dumps(row) + "\n" for row in shuffled)
        (project.root / "tasks" / f"planted-{copy}.jsonl").write_text(text)
    return names


def with_estimator(folder: Path, estimator: str) -> Project:
    """Open a project with another `estimate.method`."""
    project = Project.open(folder)
    section = project.config.estimate.model_copy(update={"method": estimator})
    return Project(replace(project.workspace, config=project.config.model_copy(update={"estimate": section})))


def measure(folder: Path, planted: list[str]) -> list[dict[str, Any]]:
    """Fine-tune on a selection without planted tasks, and on the same with one, two and three of them."""
    project, output = Project.open(folder), folder.parent / "m.json"
    clean = project.select(exclude=planted, name="clean", output=output).selected
    names = ["clean"]
    for count in range(1, COPIES + 1):
        names.append(f"with-{count}")
        tasks = [*clean, *planted[:count]]
        project.select(include=tasks, k=len(tasks), name=names[-1], output=output)
    report = project.verify(selections=names, seeds=SEEDS)
    return [
        {"selection": one.name, "tasks": list(one.selected), "losses": list(one.measured_losses)}
        for one in report.selections or ()
    ]


def judge(folder: Path, planted: list[str], setting: str) -> list[dict[str, Any]]:
    """Compute the affinities of the planted tasks and the planted tasks of each selection, for each estimator.

    Args:
        folder: The project.
        planted: Names of the planted tasks.
        setting: Name of the setting, for the rows.
    """
    rows = []
    for estimator in ESTIMATORS:
        project = with_estimator(folder, estimator)
        results = {m: project.select(method=m, output=folder.parent / "m.json") for m in METHODS}
        affinities = {task.name: task.affinity for task in results["forward"].tasks}
        rows.append(
            {
                "setting": setting,
                "estimator": estimator,
                "affinity": {name: affinities[name] for name in planted},
                "selected_by": {
                    method: sorted(set(result.selected) & set(planted)) for method, result in results.items()
                },
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the copies")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(__file__).parent / "results" / "planted_harm.json",
        help="write the results to this file",
    )
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    measured: dict[str, list[dict[str, Any]]] = {}
    for whole in (False, True):
        for order in ("meta-trained with them", "added afterwards"):
            part = "whole file" if whole else "training split"
            setting = f"{part}, {order}"
            folder = arguments.work / setting.replace(", ", "-").replace(" ", "-")
            copy_project(Path(__file__).parents[1] / "sample_data", folder)
            if order == "added afterwards":
                for estimator in ESTIMATORS:
                    with_estimator(folder, estimator).gradients()
            planted = plant(Project.open(folder), whole=whole)
            rows += judge(folder, planted, setting)
            if order == "meta-trained with them":
                measured[part] = measure(folder, planted)
                print(part, measured[part], flush=True)
            report = {**provenance("python benchmarks/planted_harm.py --work DIR"), "rows": rows, "measured": measured}
            write_report(arguments.json, report)


if __name__ == "__main__":
    main()

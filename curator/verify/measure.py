"""How far estimates may be trusted: some subsets are really fine-tuned on, and compared with their estimates.

Which subsets, in `probe_subsets`: the current selection, all tasks and the target alone, then others that are spread
over size and estimate alike. Every run is kept as it ends, so that an interrupted verification goes on where it was,
and a later one adds.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from curator.core import distributed
from curator.core.config import Config
from curator.core.errors import NumericalError
from curator.core.events import Event, Reporter, StageProgress
from curator.core.provenance import key_of
from curator.data.corpus import Corpus
from curator.select.selections import Selections
from curator.training.fine_tune import FineTuned, fine_tune, measurement_inputs, recipe_key, subset_content
from curator.training.meta_init import LoadModel
from curator.training.trainer import remove_run
from curator.verify.probes import plan
from curator.workspace.workspace import Workspace

Run = tuple[frozenset[str], int]
"""Subset and seed of one fine-tuning run."""
DEFAULT_SEEDS = 2
"""Runs on each of them."""
DEFAULT_SUBSETS = 12
"""Subsets that are measured where nobody says how many: the fewest by which intervals can be told, and two more."""


def runs_to_make(selections: Selections, *, subsets: int | None, seeds: int | None) -> list[Run]:
    """Subset and seed of each run that a call is to make: what an interrupted one had left to do, or else a new plan.

    Args:
        selections: Of the target.
        subsets: How many to add; None adds `DEFAULT_SUBSETS` where none are measured yet.
        seeds: Runs on each; None stands for `DEFAULT_SEEDS`. With a number, and None for `subsets`, those that are
            measured are brought to that many.
    """
    estimates, workspace, corpus = selections.estimates, selections.estimates.workspace, selections.estimates.corpus
    config = workspace.config
    inputs = measurement_inputs(config, corpus)
    key, tasks = key_of(inputs), {task.name: task.content for task in estimates.tasks}
    done = {(m.subset, run.seed) for m in estimates.measured for run in m.runs}
    # By the same recipe it would diverge again.
    done |= estimates.diverged
    kept = workspace.store.artifact("verify", key)
    planned = [] if kept is None else [(frozenset(subset), seed) for subset, seed in kept.outputs["runs"]]
    # What was planned before a task changed is not left to do: it may well have been done then.
    then = {} if kept is None else kept.inputs.get("tasks", {})
    same = {name for name, content in tasks.items() if then.get(name) == content}
    left = [(subset, seed) for subset, seed in planned if (subset, seed) not in done and subset <= same]
    if left:
        return left
    if kept is not None and not kept.outputs.get("reported", True) and all(run in done for run in planned):
        # All is measured, and whoever asked for it has not been told: that call is gone on with.
        return []
    if subsets is None and estimates.measured:
        wanted = [(m.subset, seed) for seed in run_seeds(config, seeds or 0) for m in estimates.measured]
        short = {m.subset for m in estimates.measured if len(m.runs) < (seeds or 0)}
        return [(subset, seed) for subset, seed in wanted if subset in short and (subset, seed) not in done]
    chosen = plan(selections, count=DEFAULT_SUBSETS if subsets is None else subsets, seed=config.select.seed)
    # Each subset once before any is measured again: an early stop leaves more subsets.
    runs = [(subset, seed) for seed in run_seeds(config, seeds or DEFAULT_SEEDS) for subset in chosen]
    outputs = {"runs": [[sorted(subset), seed] for subset, seed in runs], "reported": False}
    workspace.store.put_artifact("verify", key, inputs | {"tasks": tasks}, outputs)
    return runs


def mark_reported(workspace: Workspace, corpus: Corpus) -> None:
    """Note that what was planned has been reported, so that the next call may plan anew."""
    kept = workspace.store.artifact("verify", recipe_key(workspace.config, corpus))
    if kept is not None and not kept.outputs.get("reported", True):
        workspace.store.put_artifact("verify", kept.key, kept.inputs, kept.outputs | {"reported": True})


def run_seeds(config: Config, count: int) -> list[int]:
    """Seeds of the runs on a subset, none of which is that of meta-training.

    By that one, a run on all tasks can be meta-training step by step: the very loss from which estimates are made.
    """
    return [(config.train.seed + turn) % 2**32 for turn in range(1, count + 1)]


def measure(workspace: Workspace, corpus: Corpus, runs: Sequence[Run], *, load: LoadModel, folder: Path) -> None:
    """Fine-tune on subsets and keep what comes of each as it ends.

    Args:
        workspace: The project.
        corpus: The tasks.
        runs: Subset and seed of each run.
        load: Gives the model.
        folder: For checkpoints.

    A run that diverges is kept as one that came to no loss, and the others go on.

    Raises:
        DataError: As `fine_tune`.
    """
    config, reporter = workspace.config, workspace.reporter
    key, target = recipe_key(config, corpus), corpus.target_label
    tokens = {task.name: task.tokens for task in corpus.tasks}
    costs = [sum(tokens[task] for task in (*subset, *corpus.targets)) for subset, _ in runs]
    tuned = load()
    total = round(sum(costs) * config.train.epochs)
    stage = reporter.stage("verify", total, "tokens")
    before = 0.0
    for number, ((subset, seed), cost) in enumerate(zip(runs, costs, strict=True), start=1):
        begin, part = before, cost * config.train.epochs

        def follow(event: Event, begin: float = begin, part: float = part) -> None:
            if isinstance(event, StageProgress):
                stage.advance_to(round(begin + part * event.done / event.total), loss=event.loss)

        content = subset_content(corpus, subset)
        place = folder / key_of({"recipe": key, "subset": content, "seed": seed})
        run = f"run {number} of {len(runs)}: {len(subset)} tasks, seed {seed}"
        try:
            found = fine_tune(
                workspace.reporting_to(Reporter(follow)), corpus, subset, seed=seed, tuned=tuned, folder=place
            )
        except NumericalError as error:
            found = FineTuned(loss=math.inf, seconds=0.0)
            reporter.warn(f"{run}: {error}; it is left out, and not tried again")
        if distributed.is_main():
            # In this order: a process that is killed in between leaves a run to be made again, but no folder.
            remove_run(place)
            workspace.store.put_measurement(key, target, content, seed=seed, loss=found.loss, seconds=found.seconds)
        distributed.wait()
        before += part
        reporter.note(f"{run}: loss {found.loss:.4f}")
    stage.finish(f"{len(runs)} fine-tuning runs")

"""How far estimates may be trusted: some subsets are really fine-tuned on, and compared with their estimates.

Which subsets, in `probe_subsets`: the current selection, all tasks and the target alone, then others that are spread
over size and estimate alike. Every run is kept as it ends, so that an interrupted verification goes on where it was,
and a later one adds.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc, spearmanr

from curator import parallel, results
from curator.answers import Answers
from curator.calibration import cross_validated
from curator.config import Config
from curator.corpus import Corpus
from curator.errors import NumericalError
from curator.events import Event, Reporter, StageProgress
from curator.fine_tune import (
    FineTuned,
    MeasuredSubset,
    fine_tune,
    measurement_inputs,
    recipe_key,
    subset_content,
)
from curator.meta_train import remove_run
from curator.provenance import key_of
from curator.stages import LoadModel
from curator.store import Store

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

DEFAULT_SEEDS = 2
"""Runs on each of them."""
DEFAULT_SUBSETS = 12
"""Subsets that are measured where nobody says how many: the fewest by which intervals can be told, and two more."""
# Random subsets of which those are taken that lie nearest to where they should.
_CANDIDATES = 512
# Nats, in which a loss that has vanished is told: what is relative to it must not be infinite.
_LEAST_LOSS = 1e-6


def probe_subsets(
    estimate: Callable[[Mask], Floats], task_count: int, *, count: int, seed: int, there: Sequence[Mask] = ()
) -> list[Mask]:
    """Choose subsets to be measured: spread evenly over size and over estimated loss.

    Candidates of all sizes are ranked by both; a low-discrepancy sequence (Halton's) says which ranks are wanted next,
    so that any first part of the answer is spread as evenly as the whole, and later calls go on with the same
    sequence.

    Args:
        estimate: Estimated losses (s,) of subsets (s, t).
        task_count: Number t of auxiliary tasks.
        count: How many to choose.
        seed: Of the candidates and the sequence.
        there: Subsets that are measured already (t,), of which none is chosen again.

    Returns:
        Memberships (t,); fewer than `count` where there are no more subsets.
    """
    rng = np.random.default_rng(seed)
    taken = {mask.tobytes() for mask in there}
    if task_count <= 9:
        candidates = (np.arange(2**task_count)[:, None] >> np.arange(task_count)) & 1 > 0
    else:
        sizes = rng.integers(1, task_count, _CANDIDATES)
        candidates = rng.permuted(np.arange(task_count) < sizes[:, None], axis=1)
    # In an order of no meaning: among those that lie at the same place, the first is taken.
    candidates = rng.permutation(np.unique(candidates, axis=0))
    places = np.c_[_ranks(candidates.sum(axis=1).astype(np.float64)), _ranks(estimate(candidates))]
    free = np.array([mask.tobytes() not in taken for mask in candidates])
    # How much of the sequence is used up shows in what is there.
    wanted = qmc.Halton(2, rng=seed).random(len(there) + count)[len(there) :]
    chosen: list[Mask] = []
    for place in wanted:
        if not free.any():
            break
        distance = np.where(free, ((places - place) ** 2).sum(axis=1), np.inf)
        best = int(distance.argmin())
        free[best] = False
        chosen.append(candidates[best])
    return chosen


def _ranks(values: Floats) -> Floats:
    """Ranks from 0 to 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.asarray(middle[inverse] / len(values))


def plan(answers: Answers, *, count: int, seed: int) -> list[frozenset[str]]:
    """Subsets to measure beside those that are, in the order in which they should be.

    Args:
        answers: Of the target.
        count: How many; the current selection, all tasks and the target alone come first.
        seed: As for `probe_subsets`.
    """
    names = [task.name for task in answers.tasks]
    there = {m.subset for m in answers.measured} | {subset for subset, _ in answers.diverged}
    always = dict.fromkeys((frozenset(answers.current()), frozenset(names), frozenset[str]()))
    found = [subset for subset in always if subset not in there][:count]
    masks = [answers.mask(subset) for subset in (*there, *found)]
    estimator = answers.estimator
    more = probe_subsets(
        lambda asked: estimator.validation_losses(asked) @ estimator.validation_weights,
        len(names),
        count=count - len(found),
        seed=seed,
        there=masks,
    )
    return found + [frozenset(np.array(names)[mask].tolist()) for mask in more]


def runs_to_make(
    config: Config, corpus: Corpus, store: Store, answers: Answers, *, subsets: int | None, seeds: int | None
) -> list[tuple[frozenset[str], int]]:
    """Subset and seed of each run that a call is to make: what an interrupted one had left to do, or else a new plan.

    Args:
        config: The project's configuration.
        corpus: The tasks.
        store: Where plans are.
        answers: Of the target.
        subsets: How many to add; None adds `DEFAULT_SUBSETS` where none are measured yet.
        seeds: Runs on each; None stands for `DEFAULT_SEEDS`. With a number, and None for `subsets`, those that are
            measured are brought to that many.
    """
    inputs = measurement_inputs(config, corpus)
    key, tasks = key_of(inputs), {task.name: task.content for task in answers.tasks}
    done = {(m.subset, run.seed) for m in answers.measured for run in m.runs}
    # By the same recipe it would diverge again.
    done |= answers.diverged
    kept = store.artifact("verify", key)
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
    if subsets is None and answers.measured:
        wanted = [(m.subset, seed) for seed in run_seeds(config, seeds or 0) for m in answers.measured]
        short = {m.subset for m in answers.measured if len(m.runs) < (seeds or 0)}
        return [(subset, seed) for subset, seed in wanted if subset in short and (subset, seed) not in done]
    chosen = plan(answers, count=DEFAULT_SUBSETS if subsets is None else subsets, seed=config.select.seed)
    # Each subset once before any is measured again: an early stop leaves more subsets.
    runs = [(subset, seed) for seed in run_seeds(config, seeds or DEFAULT_SEEDS) for subset in chosen]
    outputs = {"runs": [[sorted(subset), seed] for subset, seed in runs], "reported": False}
    store.put_artifact("verify", key, inputs | {"tasks": tasks}, outputs)
    return runs


def mark_reported(config: Config, corpus: Corpus, store: Store) -> None:
    """Note that what was planned has been reported, so that the next call may plan anew."""
    kept = store.artifact("verify", recipe_key(config, corpus))
    if kept is not None and not kept.outputs.get("reported", True):
        store.put_artifact("verify", kept.key, kept.inputs, kept.outputs | {"reported": True})


def run_seeds(config: Config, count: int) -> list[int]:
    """Seeds of the runs on a subset, none of which is that of meta-training.

    By that one, a run on all tasks can be meta-training step by step: the very loss from which estimates are made.
    """
    return [(config.train.seed + turn) % 2**32 for turn in range(1, count + 1)]


def measure(
    config: Config,
    corpus: Corpus,
    store: Store,
    runs: Sequence[tuple[frozenset[str], int]],
    *,
    load: LoadModel,
    folder: Path,
    reporter: Reporter,
) -> None:
    """Fine-tune on subsets and keep what comes of each as it ends.

    Args:
        config: The project's configuration.
        corpus: The tasks.
        store: Where measured losses go.
        runs: Subset and seed of each run.
        load: Gives the model.
        folder: For checkpoints.
        reporter: Told of progress.

    A run that diverges is kept as one that came to no loss, and the others go on.

    Raises:
        DataError: As `fine_tune`.
    """
    key, target = recipe_key(config, corpus), "+".join(corpus.targets)
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
                config, corpus, store, subset, seed=seed, tuned=tuned, folder=place, reporter=Reporter(follow)
            )
        except NumericalError as error:
            found = FineTuned(loss=math.inf, seconds=0.0)
            reporter.warn(f"{run}: {error}; it is left out, and not tried again")
        if parallel.is_main():
            # In this order: a process that is killed in between leaves a run to be made again, but no folder.
            remove_run(place)
            store.put_measurement(key, target, content, seed=seed, loss=found.loss, seconds=found.seconds)
        parallel.wait()
        before += part
        reporter.note(f"{run}: loss {found.loss:.4f}")
    stage.finish(f"{len(runs)} fine-tuning runs")


def report(answers: Answers) -> results.VerifyReport:
    """Compare what was measured with what is estimated by a calibration that has not seen it.

    Args:
        answers: Of the target.

    Raises:
        NumericalError: No subset is measured: every run diverged.
    """
    measured = answers.measured
    if not measured:
        raise NumericalError("every fine-tuning run diverged", hint="Lower train.learning_rate.")
    seconds_estimating, subsets_estimated = answers.seconds()
    masks = np.stack([answers.mask(m.subset) for m in measured])
    truth = np.array([m.mean for m in measured])
    evidence = answers.evidence
    if evidence is None or len(measured) < 2:
        estimates = answers.estimator.estimate(masks)
        estimated = np.array([e.loss for e in estimates])
        widths = np.array([e.high - e.loss for e in estimates])
    else:
        estimated, widths = cross_validated(evidence)
        spread = answers.estimator.half_widths(answers.estimator.validation_losses(masks))
        widths = np.where(np.isnan(widths), spread, widths)
    inside = np.abs(truth - estimated) <= widths
    seconds = [run.seconds for m in measured for run in m.runs]
    typical = float(np.mean([np.mean([run.seconds for run in m.runs]) for m in measured]))
    ratio = None if not seconds_estimating else typical / seconds_estimating
    return results.VerifyReport(
        target=answers.targets,
        calibrated=evidence is not None,
        runs=tuple(
            results.VerifiedRun(
                subset=tuple(sorted(m.subset)),
                seed=run.seed,
                estimated_loss=round(float(loss), 6),
                estimated_loss_low=round(max(float(loss - width), 0.0), 6),
                estimated_loss_high=round(float(loss + width), 6),
                measured_loss=round(run.loss, 6),
            )
            for m, loss, width in zip(measured, estimated, widths, strict=True)
            for run in m.runs
        ),
        subsets=len(measured),
        relative_error=_relative(estimated, truth),
        constant_relative_error=_relative(np.full_like(truth, truth.mean()), truth),
        seed_noise=None if (noise := seed_noise(measured)) is None else noise[0],
        spearman=rank_correlation(estimated, truth),
        interval_coverage=float(inside.mean()),
        seconds_estimating=seconds_estimating,
        seconds_fine_tuning=float(np.sum(seconds)),
        subsets_estimated=subsets_estimated,
        speedup=None if ratio is None else ratio * subsets_estimated,
        speedup_100=None if ratio is None else ratio * 100,
    )


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's; None where one of them does not vary."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def _relative(estimated: Floats, truth: Floats) -> float:
    return float((np.abs(estimated - truth) / np.maximum(truth, _LEAST_LOSS)).mean())


def seed_noise(measured: Sequence[MeasuredSubset]) -> tuple[float, int] | None:
    """Standard deviation between seeds of a subset, relative to the loss, pooled over all subsets.

    Returns:
        It and its degrees of freedom; None with one seed each.
    """
    several = [np.array(m.losses) / max(m.mean, _LEAST_LOSS) for m in measured if len(m.losses) > 1]
    if not several:
        return None
    freedom = sum(len(losses) - 1 for losses in several)
    return float(np.sqrt(sum(((losses - losses.mean()) ** 2).sum() for losses in several) / freedom)), freedom

"""Plan the work of a verb before it starts: stages, optimizer steps and tokens.

The plan follows from the project's data and configuration and from what the store holds. Nothing is computed or stored.
`rates.py` turns a plan into seconds and bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curator.core.errors import EndedEarly
from curator.core.figures import duration
from curator.core.provenance import key_of
from curator.data.corpus import Corpus, Task
from curator.data.dropped import NOTHING, Dropped
from curator.estimate.reduced import reduced_estimates
from curator.estimate.target import TargetEstimates
from curator.export.adapter import find_applied, weights_of
from curator.gradients.away import PART_BATCHES
from curator.gradients.example_groups import training_groups
from curator.gradients.segment_sets import (
    capture_folder,
    completeness_inputs,
    run_key,
    segment_of,
    segment_sets,
    sets_in_use,
    validation_key,
)
from curator.gradients.stage import gradient_sets, wanted_hashes
from curator.results.stages import CostReport
from curator.select.manifest import Manifest
from curator.select.methods import Request
from curator.select.selections import Selections
from curator.training.fine_tune import example_counts
from curator.training.meta_init import MetaInit, find_meta_init, train_inputs
from curator.training.trainer import checkpoint_steps, steps_done, training_steps
from curator.workspace.workspace import Workspace

# What a stage counts, unless it counts steps.
_UNITS = {"gradients": "gradients", "estimate": "subsets"}

# Operations of a step of a selection for each task that it considers, in estimates of a subset for one task.
_PER_STEP = 8

Run = tuple[frozenset[str], int]
"""Subset and seed of one fine-tuning run."""


class DryRun(EndedEarly):
    """End a verb of a dry run before its first stage. `report` holds what the verb would do."""

    def __init__(self, report: CostReport) -> None:
        super().__init__("dry run")
        self.report = report


def announcement(report: CostReport) -> list[str]:
    """Return the lines that announce costs: one for each stage to run, then the sum and the folder of the results."""
    lines = []
    for stage in report.stages:
        if not stage.cached:
            counts = [f"{stage.steps:,} {_UNITS.get(stage.stage, 'steps')}"] if stage.steps else []
            counts += [f"{stage.tokens:,} tokens"] if stage.tokens else []
            lines.append(
                f"{stage.stage}: {'' if stage.exact else 'about '}{', '.join([*counts, _about(stage.seconds)])}"
            )
    memory = f"{report.peak_bytes / 1e9:.1f} GB of memory"
    return [*lines, f"{_about(report.seconds)} and {memory} in all on this machine. Results: {report.folder}"]


def _about(seconds: float) -> str:
    return f"about {duration(seconds)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Work of one stage.

    Attributes:
        stage: Name of the stage in events.
        kind: Kind of work. Equal kinds take equal time for each unit of `size`.
        steps: Optimizer steps of a stage that trains, else units that the stage counts. 0 if unknown.
        tokens: Tokens that pass through the model.
        size: Measure of the work: tokens, or a number of operations of a stage without a model.
        cached: Whether the result is stored.
        exact: Whether steps and tokens are known. Otherwise they are expected values.
        workers: Largest number of workers that can share the work.
    """

    stage: str
    kind: str
    steps: int = 0
    tokens: int = 0
    size: float = 0.0
    cached: bool = False
    exact: bool = True
    workers: int = 1


class Planner:
    """Plan the stages of one project for one target.

    Args:
        workspace: The project.
        corpus: Examples of the project, split for the target.
        fresh: Plan every stage as if nothing were cached.
        fresh_train: Plan the meta-training as if it were not cached [default: as `fresh`].
    """

    def __init__(
        self, workspace: Workspace, corpus: Corpus, *, fresh: bool = False, fresh_train: bool | None = None
    ) -> None:
        self._workspace, self._corpus, self._fresh = workspace, corpus, fresh
        fresh_train = fresh if fresh_train is None else fresh_train
        self.meta = None if fresh_train else find_meta_init(workspace, corpus)
        self._fresh_train = fresh_train

    def train(self) -> Work:
        """Plan the meta-training."""
        config, corpus = self._workspace.config, self._corpus
        kind = "train and capture" if config.captures else "train"
        if self.meta is not None:
            return Work(stage="train", kind=kind, cached=True)
        steps = training_steps(sum(len(task.split.train) for task in corpus.tasks), config.train)
        folder = self._workspace.adapters / key_of(train_inputs(config, corpus))
        left = steps - (0 if self._fresh_train else steps_done(folder))
        tokens = round(sum(task.tokens for task in corpus.tasks) * config.train.epochs * left / max(steps, 1))
        return Work(stage="train", kind=kind, steps=left, tokens=tokens, size=tokens)

    def gradients(self) -> Work:
        """Plan the passes that compute gradients, besides those of the training."""
        count, tokens = self._gradients() if self.meta is None else self._missing_gradients(self.meta)
        done = self.meta is not None and not self._fresh and self._gradients_done(self.meta)
        return Work(
            stage="gradients",
            kind="gradients",
            steps=0 if done else count,
            tokens=0 if done else tokens,
            size=0 if done else tokens,
            cached=done,
            workers=max(1, tokens // (self._workspace.config.gradients.batch_tokens * PART_BATCHES)),
        )

    def affinities(self, dropped: Dropped = NOTHING) -> Work:
        """Plan the estimates of random subsets, without some examples."""
        found = self.estimates()
        estimates = None if found is None else reduced_estimates(found, dropped)
        tasks, subsets = len(self._corpus.auxiliary), self._workspace.config.select.subsets
        if estimates is not None and self._workspace.store.artifact("estimate", estimates.key) is not None:
            return Work(stage="estimate", kind="estimate", cached=True)
        return Work(stage="estimate", kind="estimate", steps=subsets, size=float(subsets * tasks))

    def select(self, request: Request, name: str) -> Work:
        """Plan a selection. Its number of steps is unknown."""
        estimates = self.estimates()
        if estimates is not None and not self._fresh:
            key = key_of(Selections(estimates).without(request.dropped).select_inputs(request, name))
            if self._workspace.store.selection(key) is not None:
                return Work(stage="select", kind=f"select by {request.method}", cached=True)
        size = float(_PER_STEP * len(self._corpus.auxiliary) ** 2)
        return Work(stage="select", kind=f"select by {request.method}", size=size)

    def current_selection(self) -> list[Work]:
        """Plan the selection that other verbs refer to. Empty if one is stored."""
        label = self._corpus.target_label
        if any(kept.target == label for kept in self._workspace.store.selections()):
            return []
        method = self._workspace.config.select.method
        return [self.affinities(), self.select(Request(method=method), method)]

    def curve(self) -> Work:
        """Plan the curve of losses against budgets."""
        count = len(self._corpus.auxiliary)
        return Work(stage="curve", kind="curve", steps=2 * count, size=float(2 * _PER_STEP * count**2))

    def runs(self, stage: str, runs: Sequence[Run]) -> Work:
        """Plan fine-tuning runs on subsets."""
        sizes = [self._run_size({name: 1.0 for name in subset}) for subset, _ in runs]
        return replace(self._fine_tuning(stage, sizes), workers=max(len(runs), 1))

    def expected_runs(self, stage: str, count: int) -> Work:
        """Plan runs on subsets that are not chosen yet. Their sizes spread evenly between no task and all tasks."""
        ends = [self._run_size({}), self._run_size({task.name: 1.0 for task in self._corpus.auxiliary})]
        steps, tokens = (sum(end[n] for end in ends) / 2 for n in (0, 1))
        return self._fine_tuning(stage, [(round(count * steps), round(count * tokens))], exact=False)

    def apply(self, manifest: Manifest, *, seed: int, folder: Path) -> Work:
        """Plan the fine-tuning run on a selection. Arguments are those of `curator.export.adapter.apply`."""
        found = find_applied(self._workspace, self._corpus, manifest, seed=seed, folder=folder)
        if not self._fresh and None not in found:
            return Work(stage="apply", kind="fine-tune", cached=True)
        weights = weights_of(manifest)
        # A weight that is not whole repeats some examples of a task, whose lengths differ.
        whole = all(weight == int(weight) for weight in weights.values())
        return self._fine_tuning("apply", [self._run_size(weights)], exact=whole)

    def _fine_tuning(self, stage: str, sizes: Sequence[tuple[int, int]], *, exact: bool = True) -> Work:
        steps, tokens = sum(s for s, _ in sizes), sum(t for _, t in sizes)
        return Work(
            stage=stage, kind="fine-tune", steps=steps, tokens=tokens, size=tokens, cached=not steps, exact=exact
        )

    def _run_size(self, weights: Mapping[str, float]) -> tuple[int, int]:
        """Return steps and tokens of a run on weighted tasks and the targets."""
        recipe, targets = self._workspace.config.train, self._corpus.targets
        tasks = [task for task in self._corpus.tasks if task.name in weights or task.name in targets]
        counts = example_counts(tasks, weights)
        tokens = sum(task.tokens * counts[task.name] / max(len(task.split.train), 1) for task in tasks)
        return training_steps(sum(counts.values()), recipe), round(tokens * recipe.epochs)

    def estimates(self) -> TargetEstimates | None:
        """Return the estimates if all gradients are cached, else None."""
        if self.meta is None or self._fresh or not self._gradients_done(self.meta):
            return None
        return TargetEstimates(self._workspace, self._corpus, self.meta)

    def _gradients_done(self, meta: MetaInit) -> bool:
        config = self._workspace.config
        inputs = completeness_inputs(config, sets_in_use(config, meta), self._corpus)
        return self._workspace.store.artifact("gradients", key_of(inputs)) is not None

    def _gradients(self) -> tuple[int, int]:
        """Return number and tokens of the gradients after a new training. It captures those of its examples."""
        config, corpus = self._workspace.config, self._corpus
        steps = training_steps(sum(len(task.split.train) for task in corpus.tasks), config.train)
        shares = config.gradients.parts if config.captures else config.gradients.shares
        points = checkpoint_steps(shares, steps)
        if config.captures:
            sets = len({segment_of(share, config.gradients.segments) for share in points.values()})
            wanted: set[str] = {h for task in corpus.target_tasks for h in task.validation_hashes}
        else:
            sets, wanted = len(points), wanted_hashes(corpus)
        lengths = _lengths(corpus.tasks)
        return sets * len(wanted), sets * sum(lengths[h] for h in wanted)

    def _missing_gradients(self, meta: MetaInit) -> tuple[int, int]:
        """Return number and tokens of the gradients that the store lacks."""
        store, config, corpus = self._workspace.store, self._workspace.config, self._corpus
        lengths = _lengths(corpus.tasks)
        if config.captures:
            return self._missing_segments(meta, lengths)
        wanted = wanted_hashes(corpus)
        sets = gradient_sets(config, meta)
        missing = [h for s in sets for h in (wanted if self._fresh else wanted - store.gradient_hashes(s.key))]
        return len(missing), sum(lengths[h] for h in missing)

    def _missing_segments(self, meta: MetaInit, lengths: Mapping[str, int]) -> tuple[int, int]:
        store, corpus = self._workspace.store, self._corpus
        sets = segment_sets(self._workspace.config, meta)
        groups = training_groups(corpus)
        visits = any(capture_folder(self._workspace, meta.key).glob("visits-*.bin")) and meta.captured
        missing: list[str] = []
        if not visits and store.array(run_key(sets), "basis") is None:
            # The training captured nothing, so a pass visits every example in every segment.
            missing += [h for task in corpus.tasks for h in task.train_hashes] * len(sets)
            visits = True
        validation = {h for task in corpus.target_tasks for h in task.validation_hashes}
        for s in sets:
            there = set[str]() if self._fresh else store.segment_contents(s.key)
            known = set[str]() if self._fresh else store.gradient_hashes(validation_key(s))
            missing += validation - known
            for group, task in zip(groups, [*(t.name for t in corpus.auxiliary), ""], strict=True):
                if group.content not in there and (not visits or task in meta.unseen):
                    missing += group.hashes
        return len(missing), sum(lengths[h] for h in missing)


def _lengths(tasks: Iterable[Task]) -> dict[str, int]:
    """Return the number of tokens of each example by its token hash."""
    found: dict[str, int] = {}
    for task in tasks:
        for version, numbers in ((task.version, task.split.train), (task.held_out_from, task.split.validation)):
            found |= {version.index.token_hashes[n]: version.index.lengths[n] for n in numbers}
    return found

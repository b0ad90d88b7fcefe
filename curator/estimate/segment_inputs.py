"""Read the inputs of the trajectory estimator from the store: sums and validation examples of each segment."""

import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from curator.core.arrays import Floats
from curator.core.errors import DataError
from curator.core.events import Stage
from curator.data.corpus import Corpus
from curator.estimate.estimator import CheckpointSums
from curator.estimate.task_sums import ExampleSet, TaskSums
from curator.estimate.trajectory import Segment, Trajectory
from curator.gradients.example_groups import ExampleGroup, held_out_group, training_groups
from curator.gradients.segment_sets import run_key, sketch, validation_key
from curator.gradients.stage import GradientSet
from curator.training.meta_init import MetaInit, learning_rates
from curator.workspace.workspace import Workspace

# In seconds. A shorter reading reports no progress.
_PATIENCE = 1.0


def read_trajectory(workspace: Workspace, corpus: Corpus, meta: MetaInit, sets: Sequence[GradientSet]) -> Trajectory:
    """Read the segments of a meta-training run.

    Args:
        workspace: The project.
        corpus: The tasks.
        meta: The meta-training run.
        sets: Gradients of each segment.

    Raises:
        DataError: A sum or gradient is not stored.
        StoreBusy: The store cannot be read.
    """
    config, store = workspace.config, workspace.store
    groups = training_groups(corpus)
    contents = [group.content for group in groups]
    dim = sketch(config).dim
    basis, moved = (store.array(run_key(sets), name) for name in ("basis", "moved"))
    if basis is None or moved is None:
        raise _missing("the basis of the gradients is")
    rank = config.gradients.basis_dim
    ends = [s.checkpoint.step for s in sets]
    rates = learning_rates(config, ends[-1])
    # Adam moves the adapter by the learning rate times the mean gradient per token, so an epoch is a sum over tokens.
    trained_on = [*(task.name not in meta.unseen for task in corpus.auxiliary), True]
    tokens = sum(sum(group.weights) for group, seen in zip(groups, trained_on, strict=True) if seen)
    segments: list[Segment] = []
    stage: Stage | None = None
    began = time.monotonic()
    directions = basis.astype(np.float64)
    for start, gradient_set, movement in zip([0, *ends[:-1]], sets, moved, strict=True):
        if stage is None and time.monotonic() - began > _PATIENCE:
            stage = workspace.reporter.stage("statistics", len(sets), "segments")
        if stage is not None:
            stage.advance_to(len(segments))
        sums = store.segment_sums(gradient_set.key, contents, dim, rank)
        if (sums.examples != [len(group.hashes) for group in groups]).any():
            raise _missing("sums over the gradients of tasks are")
        segments.append(
            Segment(
                share=gradient_set.checkpoint.share,
                step=sum(rates[start : gradient_set.checkpoint.step]) / tokens,
                weights=sums.weights,
                examples=sums.examples,
                gradient_sums=sums.gradient_sums,
                curvatures=sums.packed_curvatures,
                rest=sums.rest,
                validation=_validation(workspace, corpus, gradient_set),
                moved=movement.astype(np.float64),
                read=partial(_read_tasks, workspace, gradient_set, sets, groups, directions),
            )
        )
    if stage is not None:
        stage.finish(f"sums of {len(groups)} tasks in {len(sets)} segments")
    return Trajectory(np.ascontiguousarray(directions[:, :rank]), segments, np.array(trained_on[:-1], dtype=bool))


def kept_basis(workspace: Workspace, sets: Sequence[GradientSet]) -> Floats:
    """Return the directions that are kept of each example (k, d).

    Raises:
        DataError: The basis is not stored.
    """
    basis = workspace.store.array(run_key(sets), "basis")
    if basis is None:
        raise _missing("the basis of the gradients is")
    return basis.astype(np.float64)


def points_of(trajectory: Trajectory, kept: Floats) -> list[CheckpointSums]:
    """Return the segments as checkpoints for the baselines, in the directions that are kept of each example.

    Args:
        trajectory: The segments.
        kept: Basis of what is kept of each example (k, d).
    """

    def read(segment: Segment, tasks: Sequence[int]) -> list[ExampleSet]:
        found = segment.read(tasks)
        return [ExampleSet(losses=e.losses, gradients=e.gradients @ kept, weights=e.weights) for e in found]

    points = []
    for segment in trajectory.segments:
        tasks = len(segment.weights)
        points.append(
            CheckpointSums(
                share=segment.share,
                sums=TaskSums(
                    weights=segment.weights,
                    examples=segment.examples,
                    gradient_sums=segment.gradient_sums @ kept,
                    packed_curvatures=np.zeros((tasks, 0), dtype=np.float32),
                ),
                validation=ExampleSet(
                    losses=segment.validation.losses,
                    gradients=segment.validation.gradients @ kept,
                    weights=segment.validation.weights,
                ),
                read=partial(read, segment),
            )
        )
    return points


def _validation(workspace: Workspace, corpus: Corpus, gradient_set: GradientSet) -> ExampleSet:
    group = held_out_group(workspace.config, corpus.target_tasks)
    hashes, losses, gradients = workspace.store.gradients(validation_key(gradient_set), sorted(set(group.hashes)))
    places = {h: place for place, h in enumerate(hashes)}
    if any(h not in places for h in group.hashes):
        raise _missing("gradients of validation examples are")
    rows = np.array([places[h] for h in group.hashes], dtype=np.intp)
    return ExampleSet(
        losses=losses[rows],
        gradients=gradients[rows].astype(np.float64),
        weights=np.asarray(group.weights, dtype=np.float64),
    )


def _read_tasks(
    workspace: Workspace,
    gradient_set: GradientSet,
    sets: Sequence[GradientSet],
    groups: Sequence[ExampleGroup],
    basis: Floats,
    tasks: Sequence[int],
) -> list[ExampleSet]:
    """Read the examples of tasks in one segment, as vectors (n, k).

    The vectors lie in the directions that are kept of each example (k, d).

    A segment of less than an epoch visits some examples only. The gradient of another example is its mean over the
    segments that visited it. In a training of one epoch, the first steps visit some examples whose visits do not count.
    Their gradients are the mean of their task, as in its sums. Losses are NaN, because training does not record them.

    Raises:
        DataError: No gradient of a task is stored.
    """
    wanted = sorted({h for task in tasks for h in groups[task].hashes})
    found = _mean_gradients(workspace, [gradient_set], wanted)
    if left := [h for h in wanted if h not in found]:
        found |= _mean_gradients(workspace, sets, left)
    kept = basis.shape[1]
    return [
        ExampleSet(
            losses=np.full(len(groups[task].hashes), np.nan),
            gradients=_vectors(groups[task], found, kept) @ basis.T,
            weights=np.asarray(groups[task].weights, dtype=np.float64),
        )
        for task in tasks
    ]


def _vectors(group: ExampleGroup, found: Mapping[str, Floats], kept: int) -> Floats:
    """Return the gradients of a group's examples (n, kept). The mean stands in for those that are not stored."""
    known = [(found[h], weight) for h, weight in zip(group.hashes, group.weights, strict=True) if h in found]
    if not known:
        if group.hashes:
            raise _missing(f"gradients of {len(group.hashes)} examples are")
        return np.zeros((0, kept))
    mean = np.average([gradient for gradient, _ in known], axis=0, weights=[weight for _, weight in known])
    return np.array([found.get(h, mean) for h in group.hashes])


def _mean_gradients(workspace: Workspace, sets: Sequence[GradientSet], wanted: Sequence[str]) -> dict[str, Floats]:
    """Return the gradient of each example, as the mean over the sets that hold it."""
    sums: dict[str, Floats] = {}
    counts: dict[str, int] = {}
    for gradient_set in sets:
        hashes, _, gradients = workspace.store.gradients(gradient_set.key, list(wanted))
        for h, gradient in zip(hashes, gradients.astype(np.float64), strict=True):
            sums[h] = sums[h] + gradient if h in sums else gradient
            counts[h] = counts.get(h, 0) + 1
    return {h: total / counts[h] for h, total in sums.items()}


def _missing(what: str) -> DataError:
    return DataError(f"{what} not stored", hint="Run `curator gradients`.")

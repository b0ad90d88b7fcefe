"""Turn the visits of meta-training into sums per task and segment, and add what training did not visit.

Meta-training is cut into segments. In each segment, the mean gradient of an example is the mean over its visits.
The visits of all segments give one basis of a few hundred directions: those of largest curvature Σ ω g gᵀ.
The store keeps for each segment

    per task     Σ ω g (k), the curvature in the leading directions of the basis, and the mean curvature outside
    per example  the mean gradient in the basis, for influences and baselines
    validation   the whole projected gradient (k)

A separate pass computes validation gradients, and gradients of tasks that were added after the training.
If gradients could not be captured during training, the pass covers all examples.
A segment has several parts, each with the mean adapter of its steps. A pass takes every example at one part of each
segment, in rotation. So it costs as much as a pass at one adapter, and describes the whole segment.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curator.core import distributed
from curator.core.arrays import SegmentArrays
from curator.core.config import Config
from curator.core.errors import DataError, NumericalError
from curator.core.events import Stage
from curator.core.files import write_whole
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.corpus import Corpus, training_examples, validation_examples
from curator.data.tokens import TokenizedExample
from curator.gradients.capture import Capture, read_visits, remove_visits
from curator.gradients.engine import GradientEngine
from curator.gradients.example_groups import ExampleGroup, training_groups
from curator.gradients.metric import Metric
from curator.gradients.projection import Projection, ProjectionSpec
from curator.gradients.stage import GradientSet, gradient_sets, gradients_inputs
from curator.training.meta_init import LoadModel, MetaInit
from curator.training.model import TunedModel
from curator.training.trainer import Checkpoint
from curator.workspace.workspace import Workspace

# Increase when the same visits give other sums.
_VERSION = 1
# Visits that are read at once, and visits that decide the basis.
_PORTION, _BASIS_VISITS = 2048, 8192
# Share of the steps at the start whose visits do not count. LoRA's matrix B starts at zero, and so does the gradient of
# its matrix A. Adam's squares of A are therefore tiny at first, and gradients in that metric are too long.
_UNSETTLED = 0.01
# Training examples of added tasks whose gradients are in memory at once.
_EXAMPLES = 8192


def sketch(config: Config) -> ProjectionSpec:
    """Return the projection of captured gradients: finer than what is kept of each example."""
    section = config.gradients
    return ProjectionSpec(dim=section.sketch_dim, seed=section.projection_seed)


def segment_sets(config: Config, meta: MetaInit) -> list[GradientSet]:
    """Return the gradient sets of the segments of a meta-training run, in their order."""
    facts = {
        "train": meta.key,
        "projection": sketch(config).as_dict(),
        "kept": config.gradients.projection_dim,
        "version": _VERSION,
    }
    ends = config.gradients.segments
    parts: dict[int, list[Checkpoint]] = {}
    for checkpoint in meta.checkpoints:
        # A run of few steps has fewer parts, and may have fewer segments.
        number = min(int(np.searchsorted(ends, checkpoint.share - 1e-9)), len(ends) - 1)
        parts.setdefault(number, []).append(checkpoint)
    return [
        GradientSet(
            key=key_of({**facts, "segment": number, "adapters": [p.sha256 for p in members]}),
            checkpoint=members[-1],
            parts=tuple(members),
        )
        for number, members in sorted(parts.items())
    ]


def sets_in_use(config: Config, meta: MetaInit) -> list[GradientSet]:
    """Return the gradient sets that the configured estimator reads: of segments, or of single checkpoints."""
    return segment_sets(config, meta) if config.captures else gradient_sets(config, meta)


def completeness_inputs(config: Config, sets: Sequence[GradientSet], corpus: Corpus) -> Inputs:
    """Return all inputs that decide whether the gradients of the configured estimator are complete."""
    if not config.captures:
        return gradients_inputs(sets, corpus)
    return {
        "sets": [s.key for s in sets],
        "tasks": {task.name: task.content for task in corpus.tasks},
        "validation": {task.name: hash_of(task.validation_hashes) for task in corpus.target_tasks},
    }


def validation_key(gradient_set: GradientSet) -> str:
    """Return the key of the whole gradients of the validation examples in a segment."""
    return key_of({"set": gradient_set.key, "part": "validation"})


def capture_folder(workspace: Workspace, key: str) -> Path:
    """Return the folder of the visits of a meta-training run."""
    return workspace.adapters / key / "capture"


def captured_examples(corpus: Corpus, folder: Path) -> None:
    """Write task and token hash of each training example, in the order of the run, beside its visits."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[task.name, task.train_hashes] for task in corpus.tasks]
    write_whole(folder / "examples.json", json.dumps(rows).encode())


@dataclass(frozen=True, slots=True)
class _Run:
    """The examples of a meta-training run by position, and the group of each."""

    hashes: list[str]
    group: npt.NDArray[np.intp]
    """Number of the group of each position (n,)."""
    weights: npt.NDArray[np.float64]
    """Completion tokens of each position (n,)."""


def make_segments(workspace: Workspace, corpus: Corpus, meta: MetaInit, load: LoadModel) -> int:
    """Compute and store what is missing of every segment.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        meta: Meta-initialization.
        load: Loads the model.

    Returns:
        Number of gradients that separate passes computed.

    Raises:
        NumericalError: A loss or gradient is not finite.
        DataError: An adapter or a file of the run cannot be read.
        ManifestMismatch: An adapter differs from the one that meta-training wrote.
    """
    return _Maker(workspace, corpus, meta, load).make()


class _Maker:
    def __init__(self, workspace: Workspace, corpus: Corpus, meta: MetaInit, load: LoadModel) -> None:
        self._workspace, self._corpus, self._meta, self._load = workspace, corpus, meta, load
        self._config, self._store = workspace.config, workspace.store
        self._spec = sketch(workspace.config)
        self._sets = segment_sets(workspace.config, meta)
        self._groups = training_groups(corpus)
        self._folder = capture_folder(workspace, meta.key)
        self._rank = self._config.gradients.basis_dim
        self._stage: Stage | None = None
        self._done = 0

    def make(self) -> int:
        found = distributed.from_main([self._missing(s) for s in self._sets])
        if not any(groups or validation for groups, validation in found) and self._basis() is not None:
            if distributed.is_main():
                remove_visits(self._folder)
            return 0
        visited = bool(list(self._folder.glob("visits-*.bin")))
        if distributed.from_main(self._basis() is None and not (visited and self._meta.captured)):
            self._visit_all()
        if distributed.is_main() and self._basis() is None:
            self._store.put_array(run_key(self._sets), "basis", self._make_basis())
            self._store.put_array(run_key(self._sets), "moved", self._movements())
        distributed.wait()
        basis = distributed.from_main(self._basis())
        assert basis is not None
        passes = distributed.from_main(
            [self._unvisited(groups, span) for (groups, _), span in zip(found, self._spans(), strict=True)]
        )
        total = sum(
            sum(len(self._groups[n].hashes) for n in rest) + len(validation)
            for rest, (_, validation) in zip(passes, found, strict=True)
        )
        self._stage = self._workspace.reporter.stage("gradients", max(total, 1), "gradients")
        for gradient_set, rest, (groups, validation) in zip(self._sets, passes, found, strict=True):
            captured = [n for n in groups if n not in rest]
            if captured and distributed.is_main():
                self._store_captured(gradient_set, captured, basis)
            if validation:
                self._store_validation(gradient_set, validation)
            if rest:
                self._store_unvisited(gradient_set, rest, basis)
        if distributed.is_main():
            remove_visits(self._folder)
        self._stage.finish(f"{len(self._groups)} tasks in {len(self._sets)} segments")
        return total

    def _basis(self) -> npt.NDArray[np.float32] | None:
        return self._store.array(run_key(self._sets), "basis")

    def _missing(self, gradient_set: GradientSet) -> tuple[list[int], list[str]]:
        """Return the groups without sums, and the token hashes of validation examples without gradients."""
        there = self._store.segment_contents(gradient_set.key)
        groups = [n for n, group in enumerate(self._groups) if group.content not in there]
        known = self._store.gradient_hashes(validation_key(gradient_set))
        wanted = {h for task in self._corpus.target_tasks for h in task.validation_hashes}
        return groups, sorted(wanted - known)

    # -- visits -------------------------------------------------------------------------------------------------------

    @cached_property
    def _run(self) -> _Run:
        try:
            tasks = json.loads((self._folder / "examples.json").read_bytes())
            names = [str(name) for name, hashes in tasks for _ in hashes]
            hashes = [str(h) for _, hashes in tasks for h in hashes]
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"cannot read {self._folder / 'examples.json'}: {error}", hint="Run `curator train --fresh`."
            ) from error
        numbers = {task.name: n for n, task in enumerate(self._corpus.auxiliary)}
        targets = len(numbers)
        weight_of = {h: w for group in self._groups for h, w in zip(group.hashes, group.weights, strict=True)}
        return _Run(
            hashes=hashes,
            group=np.array([numbers.get(name, targets) for name in names], dtype=np.intp),
            weights=np.array([weight_of[h] for h in hashes]),
        )

    def _visits(self, first: int, last: int) -> Iterator[npt.NDArray[Any]]:
        """Yield the visits of steps first < step ≤ last, some at a time."""
        for visits in read_visits(self._folder, self._spec.dim):
            start, end = np.searchsorted(visits["step"], [first, last], side="right")
            for place in range(start, end, _PORTION):
                yield visits[place : min(place + _PORTION, end)]

    def _spans(self) -> list[tuple[int, int]]:
        """Return the steps of each segment whose visits count, as first < step ≤ last."""
        ends = [s.checkpoint.step for s in self._sets]
        if not self._meta.captured:
            return list(zip([0, *ends[:-1]], ends, strict=True))
        unsettled = min(math.ceil(_UNSETTLED * ends[-1]), ends[0] // 2)
        return list(zip([unsettled, *ends[:-1]], ends, strict=True))

    def _unvisited(self, groups: Sequence[int], span: tuple[int, int]) -> list[int]:
        """Return the groups without a visit in a span of steps."""
        if not groups or not list(self._folder.glob("visits-*.bin")):
            return list(groups)
        there = set(self._run.group[self._counts(span) > 0].tolist())
        return [n for n in groups if n not in there]

    def _counts(self, span: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Return the number of visits of each example in a span of steps (n,)."""
        counts = np.zeros(len(self._run.hashes))
        for part in self._visits(*span):
            counts += np.bincount(part["position"], minlength=len(counts))
        return counts

    def _make_basis(self) -> npt.NDArray[np.float32]:
        """Return the directions of largest curvature (k, kept), from an even sample of the visits of all segments."""
        from scipy.linalg import eigh

        weights = self._run.weights
        curvature = np.zeros((self._spec.dim, self._spec.dim))
        for visits in read_visits(self._folder, self._spec.dim):
            step = max(1, len(visits) * distributed.world_size() // _BASIS_VISITS)
            for place in range(0, len(visits), _PORTION * step):
                part = visits[place : place + _PORTION * step : step]
                scaled = gradients_of(part) * np.sqrt(weights[part["position"]])[:, None]
                curvature += scaled.T @ scaled
        kept = min(self._config.gradients.projection_dim, self._spec.dim)
        size = self._spec.dim
        _, vectors = eigh(curvature, subset_by_index=[size - kept, size - 1])
        return np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)

    def _store_captured(self, gradient_set: GradientSet, groups: Sequence[int], basis: npt.NDArray[np.float32]) -> None:
        """Store the sums and the examples of one segment, from its visits."""
        from scipy.sparse import csr_matrix

        run = self._run
        span = self._spans()[self._sets.index(gradient_set)]
        counts = self._counts(span)
        sums = SegmentArrays.empty(len(self._groups), self._spec.dim, self._rank)
        gradient_sums = np.zeros((len(self._groups), self._spec.dim))
        kept = np.zeros((len(run.hashes), basis.shape[1]), dtype=np.float32)
        for part in self._visits(*span):
            positions, gradients = part["position"], gradients_of(part)
            shares = 1 / counts[positions]
            weights = run.weights[positions] * shares
            to_group = csr_matrix(
                (weights, (run.group[positions], np.arange(len(part)))), shape=(len(self._groups), len(part))
            )
            gradient_sums += to_group @ gradients
            inside = gradients @ basis
            np.add.at(kept, positions, inside * shares[:, None].astype(np.float32))
            sums.rest[:] += to_group @ self._outside(gradients, inside)
        sums.gradient_sums[:] = gradient_sums
        seen = counts > 0
        for n in groups:
            members = seen & (run.group == n)
            finish_group(sums, n, self._groups[n], kept[members], run.weights[members], self._rank)
        self._put(gradient_set, groups, sums)
        rows = np.flatnonzero(seen & np.isin(run.group, groups))
        self._store.put_gradients(
            gradient_set.key, [run.hashes[row] for row in rows], np.full(len(rows), np.nan), kept[rows]
        )

    def _outside(self, gradients: npt.NDArray[np.float32], inside: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the squared length of each gradient outside the basis, per direction (n,)."""
        lost = (gradients**2).sum(axis=1) - (inside[:, : self._rank] ** 2).sum(axis=1)
        return np.asarray(np.maximum(lost, 0.0) / max(self._spec.dim - self._rank, 1), dtype=np.float64)

    def _put(self, gradient_set: GradientSet, groups: Sequence[int], sums: SegmentArrays) -> None:
        part = SegmentArrays(
            weights=sums.weights[groups],
            examples=sums.examples[groups],
            rest=sums.rest[groups],
            gradient_sums=sums.gradient_sums[groups],
            packed_curvatures=sums.packed_curvatures[groups],
        )
        self._store.put_segment_sums(gradient_set.key, [self._groups[n].content for n in groups], part)

    # -- separate passes ----------------------------------------------------------------------------------------------

    def _engine(self, part: Checkpoint) -> GradientEngine:
        tuned = self._load()
        folder = self._workspace.adapters / self._meta.key / part.folder
        tuned.load_adapter(folder, sha256=part.sha256)
        return GradientEngine(
            tuned,
            self._spec,
            batch_tokens=self._config.gradients.batch_tokens,
            reporter=self._workspace.reporter,
            metric=Metric.load(folder, tuned.device),
        )

    def _rotating(
        self, gradient_set: GradientSet, examples: Sequence[TokenizedExample], names: Sequence[str]
    ) -> Iterator[tuple[Checkpoint, list[int], npt.NDArray[np.float64], npt.NDArray[np.float32]]]:
        """Compute each example at one part of a segment. The parts change from segment to segment.

        Yields:
            For each part: the part, positions of its examples (m), their losses (m,) and gradients (m, k).
        """
        parts, turn = gradient_set.parts, self._sets.index(gradient_set)
        for number, part in enumerate(parts):
            places = [n for n in range(len(examples)) if (n + turn) % len(parts) == number]
            if places:
                found = self._computed(self._engine(part), [examples[n] for n in places], [names[n] for n in places])
                yield part, places, *found

    def _computed(
        self, engine: GradientEngine, examples: Sequence[TokenizedExample], names: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Compute losses (n,) and gradients (n, k) of examples, shared among the processes."""
        losses = np.zeros(len(examples))
        gradients = np.zeros((len(examples), self._spec.dim), dtype=np.float32)
        mine = []
        for turn, places in enumerate(engine.batches(examples)):
            if turn % distributed.world_size() == distributed.rank():
                mine.append((places, *engine.project([examples[p] for p in places]).arrays()))
            self._done += len(places)
            if self._stage is not None:
                self._stage.advance_to(self._done)
        for places, some_losses, some_gradients in distributed.gather(mine):
            losses[places], gradients[places] = some_losses, some_gradients
        bad = np.flatnonzero(~(np.isfinite(losses) & np.isfinite(gradients).all(axis=1)))
        if bad.size:
            raise NumericalError(
                f"the gradient of {names[bad[0]]} is not finite ({bad.size} in all)",
                hint="Set model.dtype to float32, or lower train.learning_rate.",
            )
        return losses, gradients

    def _store_validation(self, gradient_set: GradientSet, wanted: Sequence[str]) -> None:
        """Compute and store the gradients of validation examples in one segment."""
        found = {
            h: (example, f"a validation example of task {task.name!r}")
            for task in self._corpus.target_tasks
            for h, example in zip(task.validation_hashes, validation_examples(task, self._store), strict=True)
        }
        examples, names = [found[h][0] for h in wanted], [found[h][1] for h in wanted]
        for _, places, losses, gradients in self._rotating(gradient_set, examples, names):
            if distributed.is_main():
                self._store.put_gradients(validation_key(gradient_set), [wanted[n] for n in places], losses, gradients)

    def _store_unvisited(
        self, gradient_set: GradientSet, groups: Sequence[int], basis: npt.NDArray[np.float32]
    ) -> None:
        """Compute and store the gradients of groups that training did not visit, some groups at a time."""
        start = 0
        while start < len(groups):
            end, count = start, 0
            while end < len(groups) and (end == start or count + len(self._groups[groups[end]].hashes) <= _EXAMPLES):
                count += len(self._groups[groups[end]].hashes)
                end += 1
            self._store_groups(gradient_set, groups[start:end], basis)
            start = end

    def _store_groups(self, gradient_set: GradientSet, groups: Sequence[int], basis: npt.NDArray[np.float32]) -> None:
        items = [(n, *item) for n in groups for item in self._examples_of(n)]
        losses = np.zeros(len(items))
        gradients = np.zeros((len(items), self._spec.dim), dtype=np.float32)
        for _, places, some_losses, some_gradients in self._rotating(
            gradient_set, [example for _, example, _ in items], [name for _, _, name in items]
        ):
            losses[places], gradients[places] = some_losses, some_gradients
        if not distributed.is_main():
            return
        sums = SegmentArrays.empty(len(self._groups), self._spec.dim, self._rank)
        inside, of_group = gradients @ basis, np.array([n for n, _, _ in items])
        outside = self._outside(gradients, inside)
        for n in groups:
            members = of_group == n
            weights = np.asarray(self._groups[n].weights, dtype=np.float64)
            sums.gradient_sums[n] = weights @ gradients[members]
            sums.rest[n] = weights @ outside[members]
            finish_group(sums, n, self._groups[n], inside[members], weights, self._rank)
            self._store.put_gradients(gradient_set.key, self._groups[n].hashes, losses[members], inside[members])
        self._put(gradient_set, groups, sums)

    def _examples_of(self, n: int) -> list[tuple[TokenizedExample, str]]:
        """Return the training examples of a group, and what to call each in a message."""
        tasks = [self._corpus.auxiliary[n]] if n < len(self._corpus.auxiliary) else self._corpus.target_tasks
        return [
            (example, f"example {number + 1} of task {task.name!r}")
            for task in tasks
            for example, number in zip(training_examples(task, self._store), task.split.train, strict=True)
        ]

    def _visit_all(self) -> None:
        """Visit every training example once a segment, as if training had captured it."""
        capture = Capture(self._load(), self._spec, self._folder, self._workspace.reporter)
        if distributed.is_main():
            captured_examples(self._corpus, self._folder)
        distributed.wait()
        capture.open()
        items = [
            (example, f"example {number + 1} of task {task.name!r}")
            for task in self._corpus.tasks
            for example, number in zip(training_examples(task, self._store), task.split.train, strict=True)
        ]
        total = len(self._sets) * len(items)
        self._stage, self._done = self._workspace.reporter.stage("gradients", total, "gradients"), 0
        for gradient_set in self._sets:
            found = self._rotating(gradient_set, [example for example, _ in items], [name for _, name in items])
            for part, places, _, gradients in found:
                if distributed.is_main():
                    capture.write(part.step, np.array(places), gradients)
        capture.close()
        self._stage.finish(f"{total} gradients in {len(self._sets)} segments")
        self._stage, self._done = None, 0
        distributed.wait()

    def _movements(self) -> npt.NDArray[np.float32]:
        """Return the adapter's movement between the means of neighbouring segments (L, k), in the metric of the later.

        The first row starts at the initialization.
        """
        tuned, root = self._load(), self._workspace.adapters / self._meta.key
        tuned.reset(self._config.train.seed)
        projection, before, rows, step = Projection(self._spec), _adapter(tuned), [], 0
        for gradient_set in self._sets:
            first, here = step, {name: value.new_zeros(value.shape) for name, value in before.items()}
            for part in gradient_set.parts:
                tuned.load_adapter(root / part.folder, sha256=part.sha256)
                share = (part.step - step) / (gradient_set.checkpoint.step - first)
                for name, value in _adapter(tuned).items():
                    here[name] += share * value
                step = part.step
            metric = Metric.load(root / gradient_set.checkpoint.folder, tuned.device)
            row = np.zeros(self._spec.dim, dtype=np.float32)
            for name, moved in metric.moved({name: here[name] - before[name] for name in here}).items():
                into = moved.new_zeros(1, self._spec.dim)
                projection.add(name, moved[None], into)
                row += into[0].cpu().numpy()
            rows.append(row)
            before = here
        return np.stack(rows)


def _adapter(tuned: TunedModel) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in tuned.model.named_parameters() if p.requires_grad}


def gradients_of(visits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the gradients of visits (n, k)."""
    return np.asarray(visits["direction"].astype(np.float32) * visits["length"][:, None], dtype=np.float32)


def finish_group(
    sums: SegmentArrays,
    n: int,
    group: ExampleGroup,
    kept: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float64],
    rank: int,
) -> None:
    """Complete the sums of one group from its examples' mean gradients.

    A segment of less than an epoch visits some of a task's examples. They stand for all of them, by their weight.

    Args:
        sums: Sums of all groups, with the weighted sum of gradients of the seen examples. Modified in place.
        n: Number of the group.
        group: All examples of the group.
        kept: Mean gradient of each seen example in the basis (m, kept).
        weights: Completion tokens of the seen examples (m,).
        rank: Leading directions of the basis whose curvature is kept.
    """
    whole, seen = float(np.sum(group.weights)), float(weights.sum())
    ratio = whole / seen if seen else 0.0
    inside = kept[:, :rank].astype(np.float64)
    curvature = ratio * (inside * weights[:, None]).T @ inside
    sums.weights[n], sums.examples[n] = whole, len(group.hashes)
    sums.gradient_sums[n] *= ratio
    sums.rest[n] *= ratio
    sums.packed_curvatures[n] = curvature[np.triu(np.ones((rank, rank), dtype=bool))]


def run_key(sets: Sequence[GradientSet]) -> str:
    """Return the key of the arrays of a whole run."""
    return key_of({"sets": [s.key for s in sets]})

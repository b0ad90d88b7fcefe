"""Turn the visits of meta-training into sums per task and segment, and add what training did not visit.

The store keeps for each segment of meta-training

    per task     Σ ω g (k), the curvature in the leading directions of the basis, and the mean curvature outside
    per example  the mean gradient in the basis, for influences and baselines
    validation   the whole projected gradient (k)

A separate pass computes validation gradients, and gradients of tasks that were added after the training.
If gradients could not be captured during training, the pass covers all examples.
visits.py sums the visits, and segment_passes.py makes the passes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curator.core import distributed
from curator.core.arrays import SegmentArrays
from curator.data.corpus import Corpus, training_examples, validation_examples
from curator.data.tokens import TokenizedExample
from curator.gradients.away import AwayGradients
from curator.gradients.capture import Capture, remove_visits
from curator.gradients.example_groups import training_groups
from curator.gradients.segment_passes import Passes
from curator.gradients.segment_sets import (
    capture_folder,
    captured_examples,
    run_key,
    segment_sets,
    sketch,
    validation_key,
)
from curator.gradients.stage import GradientSet
from curator.gradients.visits import Span, Visits, finish_group, outside
from curator.gradients.visits import spans as spans_of
from curator.training.meta_init import LoadModel, MetaInit
from curator.training.sharding import is_sharded
from curator.workspace.workspace import Workspace

# Training examples of added tasks whose gradients are in memory at once.
_EXAMPLES = 8192


def make_segments(
    workspace: Workspace, corpus: Corpus, meta: MetaInit, load: LoadModel, away: AwayGradients | None = None
) -> int:
    """Compute and store what is missing of every segment.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        meta: Meta-initialization.
        load: Loads the model.
        away: Computes the gradients on a cluster. None computes them in this process.

    Returns:
        Number of gradients that separate passes computed.

    Raises:
        NumericalError: A loss or gradient is not finite.
        DataError: An adapter or a file of the run cannot be read.
        ManifestMismatch: An adapter differs from the one that meta-training wrote.
    """
    return _Maker(workspace, corpus, meta, load, away).make()


class _Maker:
    def __init__(
        self, workspace: Workspace, corpus: Corpus, meta: MetaInit, load: LoadModel, away: AwayGradients | None
    ) -> None:
        self._workspace, self._corpus, self._meta, self._load = workspace, corpus, meta, load
        self._config, self._store = workspace.config, workspace.store
        self._dim, self._rank = sketch(workspace.config).dim, workspace.config.gradients.basis_dim
        self._sets = segment_sets(workspace.config, meta)
        self._groups = training_groups(corpus)
        self._folder = capture_folder(workspace, meta.key)
        self._passes = Passes(workspace, meta, load, self._sets, away)
        self._visits = Visits(
            self._folder,
            dim=self._dim,
            rank=self._rank,
            groups=self._groups,
            names=[task.name for task in corpus.auxiliary],
        )

    def make(self) -> int:
        found = distributed.from_main([self._missing(s) for s in self._sets])
        if not any(groups or validation for groups, validation in found) and self._basis() is not None:
            if distributed.is_main():
                remove_visits(self._folder)
            return 0
        if is_sharded(self._config.model):
            # Processes that share the weights load them together, although only the main one measures movements.
            self._load()
        spans = spans_of([s.checkpoint.step for s in self._sets], captured=self._meta.captured)
        if distributed.from_main(self._basis() is None and not (self._visits.exist and self._meta.captured)):
            if self._meta.captured:
                self._workspace.reporter.warn(
                    "the gradients that the training captured are gone, and gradients at its adapters give other"
                    " estimates. Run `curator train --fresh` to capture them again."
                )
            self._visit_all()
        if distributed.is_main() and self._basis() is None:
            kept = min(self._config.gradients.projection_dim, self._dim)
            self._store.put_array(run_key(self._sets), "moved", self._passes.movements())
            self._store.put_array(run_key(self._sets), "basis", self._visits.basis(kept, (spans[0][0], spans[-1][1])))
        distributed.wait()
        basis = distributed.from_main(self._basis())
        assert basis is not None
        rests = distributed.from_main(
            [self._visits.unvisited(groups, span) for (groups, _), span in zip(found, spans, strict=True)]
        )
        total = sum(
            sum(len(self._groups[n].hashes) for n in rest) + len(validation)
            for rest, (_, validation) in zip(rests, found, strict=True)
        )
        stage = self._passes.start(total)
        for gradient_set, span, rest, (groups, validation) in zip(self._sets, spans, rests, found, strict=True):
            visited = [n for n in groups if n not in rest]
            if visited and distributed.is_main():
                self._store_visited(gradient_set, span, visited, basis)
            if validation:
                self._store_validation(gradient_set, validation)
            if rest:
                self._store_unvisited(gradient_set, rest, basis)
        if distributed.is_main():
            remove_visits(self._folder)
        stage.finish(f"{len(self._groups)} tasks in {len(self._sets)} segments")
        return int(total)

    def _basis(self) -> npt.NDArray[np.float32] | None:
        return self._store.array(run_key(self._sets), "basis")

    def _missing(self, gradient_set: GradientSet) -> tuple[list[int], list[str]]:
        """Return the groups without sums, and the token hashes of validation examples without gradients."""
        there = self._store.segment_contents(gradient_set.key)
        groups = [n for n, group in enumerate(self._groups) if group.content not in there]
        known = self._store.gradient_hashes(validation_key(gradient_set))
        wanted = {h for task in self._corpus.target_tasks for h in task.validation_hashes}
        return groups, sorted(wanted - known)

    def _store_visited(
        self, gradient_set: GradientSet, span: Span, groups: Sequence[int], basis: npt.NDArray[np.float32]
    ) -> None:
        """Store the examples and the sums of one segment, from its visits. The sums say that all is stored."""
        found = self._visits.sums(span, basis)
        rows = np.flatnonzero(np.isin(found.groups, groups))
        self._store.put_gradients(
            gradient_set.key, [found.hashes[row] for row in rows], np.full(len(rows), np.nan), found.kept[rows]
        )
        self._put(gradient_set, groups, found.sums)

    def _put(self, gradient_set: GradientSet, groups: Sequence[int], sums: SegmentArrays) -> None:
        part = SegmentArrays(
            weights=sums.weights[groups],
            examples=sums.examples[groups],
            rest=sums.rest[groups],
            gradient_sums=sums.gradient_sums[groups],
            packed_curvatures=sums.packed_curvatures[groups],
        )
        self._store.put_segment_sums(gradient_set.key, [self._groups[n].content for n in groups], part)

    def _store_validation(self, gradient_set: GradientSet, wanted: Sequence[str]) -> None:
        """Compute and store the gradients of validation examples in one segment."""
        found = {
            h: (example, f"a validation example of task {task.name!r}")
            for task in self._corpus.target_tasks
            for h, example in zip(task.validation_hashes, validation_examples(task, self._store), strict=True)
        }
        examples, names = [found[h][0] for h in wanted], [found[h][1] for h in wanted]
        turn_of = {h: turn for turn, h in enumerate(sorted(found))}
        turns = [turn_of[h] for h in wanted]
        for _, places, losses, gradients in self._passes.rotating(gradient_set, examples, names, turns):
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
        items = [(n, *item, turn) for n in groups for turn, item in enumerate(self._examples_of(n))]
        losses = np.zeros(len(items))
        gradients = np.zeros((len(items), self._dim), dtype=np.float32)
        _, examples, names, turns = zip(*items, strict=True)
        for _, places, some_losses, some_gradients in self._passes.rotating(gradient_set, examples, names, turns):
            losses[places], gradients[places] = some_losses, some_gradients
        if not distributed.is_main():
            return
        sums = SegmentArrays.empty(len(self._groups), self._dim, self._rank)
        inside, of_group = gradients @ basis, np.array([n for n, *_ in items])
        lost = outside(gradients, inside, self._rank)
        for n in groups:
            members = of_group == n
            weights = np.asarray(self._groups[n].weights, dtype=np.float64)
            sums.gradient_sums[n] = weights @ gradients[members]
            sums.rest[n] = weights @ lost[members]
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
        capture = Capture(self._load(), sketch(self._config), self._folder, self._workspace.reporter)
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
        stage = self._passes.start(total)
        for gradient_set in self._sets:
            examples, names = [example for example, _ in items], [name for _, name in items]
            found = self._passes.rotating(gradient_set, examples, names, range(len(items)))
            for part, places, _, gradients in found:
                if distributed.is_main():
                    capture.write(part.step, np.array(places), gradients)
        capture.close()
        stage.finish(f"{total} gradients in {len(self._sets)} segments")
        distributed.wait()

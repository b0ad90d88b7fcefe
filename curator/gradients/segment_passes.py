"""Passes over examples at the adapters of meta-training, for what the training itself did not visit.

A segment has several parts, each with the mean adapter of its steps. A pass takes every example at one part of each
segment, in rotation. So it costs as much as a pass at one adapter, and describes the whole segment.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curator.core import distributed
from curator.core.errors import NumericalError
from curator.core.events import Stage
from curator.data.tokens import TokenizedExample
from curator.gradients.away import AdapterPass, AwayGradients, Batches
from curator.gradients.engine import GradientEngine, batches_of
from curator.gradients.metric import Metric
from curator.gradients.projection import Projection, ProjectionSpec
from curator.gradients.segment_sets import sketch
from curator.gradients.stage import GradientSet
from curator.training.meta_init import LoadModel, MetaInit
from curator.training.model import TunedModel
from curator.training.trainer import Checkpoint
from curator.workspace.workspace import Workspace

INITIAL = "initial"
"""Folder of the adapter before the first step, if the run did not initialize it by the project's seed."""


_Batch = tuple[Sequence[int], npt.NDArray[np.float64], npt.NDArray[np.float32]]
"""Positions of the examples of a batch (m), their losses (m,) and gradients (m, k)."""


class Passes:
    """Compute gradients at the parts of segments.

    Args:
        workspace: The project.
        meta: The meta-training run.
        load: Loads the model.
        sets: Segments of the run.
        away: Computes the gradients on a cluster. None computes them in this process.

    Attributes:
        stage: Receives the number of computed gradients, if set.
    """

    def __init__(
        self,
        workspace: Workspace,
        meta: MetaInit,
        load: LoadModel,
        sets: Sequence[GradientSet],
        away: AwayGradients | None = None,
    ) -> None:
        self._workspace, self._load, self._sets, self._away = workspace, load, list(sets), away
        self._root = workspace.adapters / meta.key
        self._spec: ProjectionSpec = sketch(workspace.config)
        self.stage: Stage | None = None
        self._done = 0
        self._kept: tuple[TunedModel, GradientEngine] | None = None

    def start(self, total: int) -> Stage:
        """Begin to report a number of gradients."""
        self.stage, self._done = self._workspace.reporter.stage("gradients", max(total, 1), "gradients"), 0
        return self.stage

    def rotating(
        self,
        gradient_set: GradientSet,
        examples: Sequence[TokenizedExample],
        names: Sequence[str],
        turns: Sequence[int],
    ) -> Iterator[tuple[Checkpoint, list[int], npt.NDArray[np.float64], npt.NDArray[np.float32]]]:
        """Compute each example at one part of a segment. The parts change from segment to segment.

        Args:
            gradient_set: The segment.
            examples: Examples (n).
            names: What to call each example in a message (n).
            turns: Number of each example in the rotation (n). It must not depend on which examples are missing.
                Otherwise a resumed pass would compute an example at another part than an uninterrupted one.

        Yields:
            For each part: the part, positions of its examples (m), their losses (m,) and gradients (m, k).
        """
        parts, shift = gradient_set.parts, self._sets.index(gradient_set)
        turned = [[n for n, turn in enumerate(turns) if (turn + shift) % len(parts) == i] for i in range(len(parts))]
        shares = [(part, places) for part, places in zip(parts, turned, strict=True) if places]
        if self._away is not None:
            passes = [self._pass(part, [examples[n] for n in places]) for part, places in shares]
            self._away.compute(passes, self._follow)
        for part, places in shares:
            found = self._computed(part, [examples[n] for n in places], [names[n] for n in places])
            yield part, places, *found

    def _computed(
        self, part: Checkpoint, examples: Sequence[TokenizedExample], names: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Compute losses (n,) and gradients (n, k) of examples, shared among the processes."""
        losses = np.zeros(len(examples))
        gradients = np.zeros((len(examples), self._spec.dim), dtype=np.float32)
        batches = batches_of(examples, self._workspace.config.gradients.batch_tokens)
        mine = (self._here if self._away is None else self._elsewhere)(part, examples, batches)
        for places, some_losses, some_gradients in distributed.gather(mine):
            losses[places], gradients[places] = some_losses, some_gradients
        bad = np.flatnonzero(~(np.isfinite(losses) & np.isfinite(gradients).all(axis=1)))
        if bad.size:
            raise NumericalError(
                f"the gradient of {names[bad[0]]} is not finite ({bad.size} in all)",
                hint="Set model.dtype to float32, or lower train.learning_rate.",
            )
        return losses, gradients

    def _elsewhere(
        self, part: Checkpoint, examples: Sequence[TokenizedExample], batches: Sequence[Sequence[int]]
    ) -> "list[_Batch]":
        """Return the losses and gradients of batches that a cluster computes."""
        assert self._away is not None
        found = self._away.batches(*self._pass(part, examples), self._follow)
        self._done += len(examples)
        return [(places, *arrays) for places, arrays in zip(batches, found, strict=True)]

    def _pass(self, part: Checkpoint, examples: Sequence[TokenizedExample]) -> tuple[AdapterPass, Batches]:
        """Return what a cluster needs for the gradients of examples at a part: the adapter and the batches."""
        wanted = AdapterPass(folder=self._root / part.folder, sha256=part.sha256, spec=self._spec, in_metric=True)
        batches = batches_of(examples, self._workspace.config.gradients.batch_tokens)
        return wanted, [[examples[p] for p in places] for places in batches]

    def _here(
        self, part: Checkpoint, examples: Sequence[TokenizedExample], batches: Sequence[Sequence[int]]
    ) -> "list[_Batch]":
        """Return the losses and gradients of the batches of this process."""
        engine, mine = self._engine(part), []
        for turn, places in enumerate(batches):
            if turn % distributed.world_size() == distributed.rank():
                mine.append((places, *engine.project([examples[p] for p in places]).arrays()))
            self._done += len(places)
            if self.stage is not None:
                self.stage.advance_to(self._done)
        # A rank without a last batch still takes part in gathering the layers of a base that is cut among ranks.
        if 0 < len(batches) % distributed.world_size() <= distributed.rank():
            engine.stand_by()
        return mine

    def _follow(self, done: int) -> None:
        """Report gradients that a cluster has computed since the last pass."""
        if self.stage is not None:
            self.stage.advance_to(self._done + done)

    def _engine(self, part: Checkpoint) -> GradientEngine:
        tuned = self._load()
        folder = self._root / part.folder
        tuned.load_adapter(folder, sha256=part.sha256)
        metric = Metric.load(folder, tuned.devices)
        # An engine draws the projection and checks the model once, for all parts.
        if self._kept is None or self._kept[0] is not tuned:
            tokens, reporter = self._workspace.config.gradients.batch_tokens, self._workspace.reporter
            engine = GradientEngine(tuned, self._spec, batch_tokens=tokens, reporter=reporter, metric=metric)
            self._kept = tuned, engine
        self._kept[1].measure_in(metric)
        return self._kept[1]

    def movements(self) -> npt.NDArray[np.float32]:
        """Return the adapter's movement between the means of neighbouring segments (L, k), in the metric of the later.

        The first row starts at the initialization.
        """
        tuned, root = self._load(), self._root
        tuned.reset(self._workspace.config.train.seed)
        if (root / INITIAL).is_dir():
            tuned.load_adapter(root / INITIAL)
        projection, before, rows, step = Projection(self._spec), _adapter(tuned), [], 0
        for gradient_set in self._sets:
            first, here = step, {name: value.new_zeros(value.shape) for name, value in before.items()}
            for part in gradient_set.parts:
                tuned.load_adapter(root / part.folder, sha256=part.sha256)
                share = (part.step - step) / (gradient_set.checkpoint.step - first)
                for name, value in _adapter(tuned).items():
                    here[name] += share * value
                step = part.step
            metric = Metric.load(root / gradient_set.checkpoint.folder, tuned.devices)
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

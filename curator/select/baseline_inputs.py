"""Compute the inputs of the baselines in baselines.py from the store: tokens, hidden states and gradients."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.data.corpus import Corpus, training_examples, validation_examples
from curator.data.tokens import IGNORED, TokenizedExample
from curator.estimate.estimator import CheckpointSums
from curator.select.baselines import (
    bm25_scores,
    cosine_scores,
    less_scores,
    match_scores,
    match_weights,
    point_weights,
    random_scores,
)
from curator.select.search import Scores
from curator.workspace.workspace import Workspace

# Maximum examples with gradients in memory.
_EXAMPLES = 16384


@dataclass(frozen=True, kw_only=True)
class BaselineInputs:
    """Inputs of the baselines.

    Attributes:
        workspace: The project.
        corpus: Tasks of the project.
        points: Sums and validation examples at each checkpoint of meta-training.
        embeddings: Returns the mean embedding of each task of the corpus, in its order (n, d).
    """

    workspace: Workspace
    corpus: Corpus
    points: Sequence[CheckpointSums]
    embeddings: Callable[[], Floats]

    @cached_property
    def shares(self) -> Floats:
        """Shares of the targets in the loss (u,)."""
        targets = self.corpus.targets
        return np.array([self.workspace.config.data.share_of(name, targets) for name in targets])

    def target_gradients(self, point: CheckpointSums) -> Floats:
        """Return the mean validation gradient of each target at a checkpoint (u, k)."""
        ends = np.cumsum([len(task.split.validation) for task in self.corpus.target_tasks])
        return np.stack([part.mean(axis=0) for part in np.split(point.validation.gradients, ends[:-1])])

    def task_gradients(self, point: CheckpointSums) -> Floats:
        """Return the mean training gradient of each auxiliary task at a checkpoint, by completion tokens (t, k)."""
        sums = point.sums
        return np.asarray(sums.gradient_sums[:-1] / np.maximum(sums.weights[:-1], 1e-300)[:, None])

    def joined_gradients(self) -> tuple[Floats, Floats]:
        """Return mean gradients, concatenated over checkpoints: of tasks (t, p·k) and of all targets together (p·k,).

        The norm of the targets' gradient normalises each checkpoint, so that all checkpoints count alike.
        """
        tasks, targets = [], []
        for point in self.points:
            target = point.validation.weights @ point.validation.gradients
            length = float(np.linalg.norm(target)) or 1.0
            tasks.append(self.task_gradients(point) / length)
            targets.append(target / length)
        return np.concatenate(tasks, axis=1), np.concatenate(targets)

    def example_cosines(self, point: CheckpointSums) -> Floats:
        """Return the cosine of each auxiliary training example with the targets at a checkpoint (n,), task by task."""
        targets = self.target_gradients(point)
        found = [np.zeros(0)]
        for tasks in _portions(point.sums.examples[:-1].tolist()):
            found += [cosine_scores(examples.gradients, targets, self.shares) for examples in point.read(tasks)]
        return np.concatenate(found)


def baseline_scores(method: str, inputs: BaselineInputs, allowed: Mask) -> Scores:
    """Score every auxiliary task by a baseline.

    Args:
        method: One of `baselines.NAMES`.
        inputs: Inputs of the baseline.
        allowed: Tasks that may be selected (t,).

    Returns:
        The scores, with the cutoff of a selection without a budget. `random` selects the configured share of tasks.
        `kmm` selects tasks with a positive score. The other baselines select tasks above the mean score.
    """
    values = _SCORES[method](inputs, allowed)
    if method == "random":
        return Scores(values, cutoff=1 - inputs.workspace.config.select.subset_size)
    if method == "kmm":
        return Scores(values, cutoff=0.0, least=0.0)
    return Scores(values, cutoff=float(values.mean()) if values.size else 0.0)


def kmm_weights(inputs: BaselineInputs, selected: Mask) -> Floats:
    """Return the weight of each selected task (t,), from a match of the selected tasks alone. Other weights are 0."""
    tasks, target = inputs.joined_gradients()
    found = match_weights(
        match_scores(tasks[selected], target),
        tasks[selected],
        inputs.points[0].sums.weights[:-1][selected],
        np.array([float(task.tokens) for task in inputs.corpus.auxiliary])[selected],
    )
    weights = np.zeros(len(selected))
    weights[selected] = found
    return weights


def _random(inputs: BaselineInputs, _: Mask) -> Floats:
    return random_scores([task.name for task in inputs.corpus.auxiliary], inputs.workspace.config.select.seed)


def _embedding(inputs: BaselineInputs, _: Mask) -> Floats:
    found = dict(zip((task.name for task in inputs.corpus.tasks), inputs.embeddings(), strict=True))
    tasks = np.array([found[task.name] for task in inputs.corpus.auxiliary])
    targets = np.array([found[name] for name in inputs.corpus.targets])
    return cosine_scores(tasks.reshape(-1, targets.shape[1]), targets, inputs.shares)


def _bm25(inputs: BaselineInputs, _: Mask) -> Floats:
    corpus, store = inputs.corpus, inputs.workspace.store
    tasks = [_words(training_examples(task, store)) for task in corpus.auxiliary]
    targets = [_words(training_examples(t, store) + validation_examples(t, store)) for t in corpus.target_tasks]
    return bm25_scores(tasks, targets, inputs.shares)


def _gradient_cosine(inputs: BaselineInputs, _: Mask) -> Floats:
    found = [
        cosine_scores(inputs.task_gradients(point), inputs.target_gradients(point), inputs.shares)
        for point in inputs.points
    ]
    return np.asarray(np.mean(found, axis=0))


def _less(inputs: BaselineInputs, _: Mask) -> Floats:
    train = inputs.workspace.config.train
    weights = point_weights([point.share for point in inputs.points], train.schedule, train.warmup)
    sizes = inputs.points[0].sums.examples[:-1].tolist()
    return less_scores([inputs.example_cosines(point) for point in inputs.points], sizes, weights)


def _kmm(inputs: BaselineInputs, allowed: Mask) -> Floats:
    tasks, target = inputs.joined_gradients()
    scores = np.zeros(len(allowed))
    scores[allowed] = match_scores(tasks[allowed], target)
    return scores


_SCORES: dict[str, Callable[[BaselineInputs, Mask], Floats]] = {
    "random": _random,
    "embedding": _embedding,
    "bm25": _bm25,
    "gradient-cosine": _gradient_cosine,
    "less": _less,
    "kmm": _kmm,
}


def _words(examples: Sequence[TokenizedExample]) -> list[npt.NDArray[np.int64]]:
    """Return the token ids of each example, prompt and completion."""
    return [np.array([*example.input_ids, *_answer(example)], dtype=np.int64) for example in examples]


def _answer(example: TokenizedExample) -> list[int]:
    """Return the decoder's own tokens. Labels of a causal model only repeat the input, and so give no token."""
    if len(example.labels) == len(example.input_ids) and all(
        label in (IGNORED, token) for label, token in zip(example.labels, example.input_ids, strict=True)
    ):
        return []
    return [label for label in example.labels if label != IGNORED]


def _portions(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield consecutive tasks, as many at a time as memory holds examples of."""
    portion: list[int] = []
    for task, size in enumerate(sizes):
        if portion and sum(sizes[t] for t in portion) + size > _EXAMPLES:
            yield portion
            portion = []
        portion.append(task)
    if portion:
        yield portion

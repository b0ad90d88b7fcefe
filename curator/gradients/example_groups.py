"""Groups of examples whose gradients are summed together: one per auxiliary task, and one of all targets."""

from collections.abc import Sequence
from dataclasses import dataclass

from curator.core.config import Config
from curator.core.provenance import hash_of
from curator.data.corpus import Corpus, Task

# Increase when the same gradients give other sums.
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleGroup:
    """Examples that are summed together.

    Attributes:
        hashes: Token hashes (n).
        weights: Weights (n), in completion tokens or as shares of the target's loss.
    """

    hashes: Sequence[str]
    weights: Sequence[float]

    @property
    def content(self) -> str:
        """Hash of the examples. Token hashes include the completion, and so decide the weights too."""
        return hash_of([str(_VERSION), *self.hashes])

    def is_small(self, dim: int) -> bool:
        """Return whether gradients of `dim` numbers take less room than their sums."""
        return 2 * len(self.hashes) <= dim + 1


def training_groups(corpus: Corpus) -> list[ExampleGroup]:
    """Return the training examples of each auxiliary task, then those of all targets together."""
    return [_training(tasks) for tasks in (*([task] for task in corpus.auxiliary), corpus.target_tasks)]


def _training(tasks: Sequence[Task]) -> ExampleGroup:
    return ExampleGroup(
        hashes=[h for task in tasks for h in task.train_hashes],
        weights=[float(task.version.index.completion_tokens[n]) for task in tasks for n in task.split.train],
    )


def held_out_group(config: Config, tasks: Sequence[Task]) -> ExampleGroup:
    """Return the validation examples, weighted by each target's share of the loss."""
    shares = {task.name: config.data.share_of(task.name, [t.name for t in tasks]) for task in tasks}
    return ExampleGroup(
        hashes=[h for task in tasks for h in task.validation_hashes],
        weights=[shares[task.name] / len(task.split.validation) for task in tasks for _ in task.split.validation],
    )

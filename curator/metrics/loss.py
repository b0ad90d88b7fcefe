"""The metric `loss`: mean negative log-likelihood of the answers, in nats per target token."""

import math
from collections.abc import Sequence

from curator.metrics.base import HeldOut, MetricValue, mean_of, weighted
from curator.training.model import TunedModel
from curator.training.trainer import measure_losses


class Loss:
    """Mean loss of the held-out rows. The loss of a row is the mean over its answer's tokens.

    Every row counts the same. Training averages over all tokens of a step, so its loss is another number.

    Args:
        batch_tokens: Maximum number of tokens of a batch, padding included.
    """

    name = "loss"
    version = 1
    reads_rows = True
    in_process = True
    bounds = (0.0, math.inf)
    settings = ""
    higher_is_better = False

    def __init__(self, batch_tokens: int) -> None:
        self._batch_tokens = batch_tokens

    def check(self, rows: Sequence[HeldOut]) -> None:
        """Accept all rows: every stored example has a loss."""

    def measure(self, tuned: TunedModel, rows: Sequence[HeldOut]) -> MetricValue:
        """Measure the mean loss. The standard error comes from the spread between rows."""
        return weighted(
            [
                (held.share, mean_of(measure_losses(tuned, held.examples, batch_tokens=self._batch_tokens).tolist()))
                for held in rows
            ]
        )

"""Compute projected per-example gradients of the LoRA parameters, one batch at a time.

One backward pass gives the gradients of a whole batch, at the cost of a training step (layer_hooks.py).
The engine projects the gradients of each layer at once, so memory holds the gradients of only one layer.

`gradient_of` is the slow reference. It also serves parameters that are not the weight of a linear layer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from curator.core.errors import ConfigError
from curator.core.events import Reporter
from curator.data.tokens import IGNORED, TokenizedExample
from curator.gradients.layer_hooks import MixedError, collecting, trained_layers
from curator.gradients.projection import Projection, ProjectionSpec, Sketches, Together
from curator.training.batches import by_length, collate, example_losses
from curator.training.model import TunedModel

if TYPE_CHECKING:
    import torch

    from curator.gradients.layer_hooks import Sink
    from curator.gradients.metric import Metric

# Largest error, relative to a gradient's norm. The error of half precision is smaller, that of a missed use larger.
_TOLERANCE = 0.1


def gradient_of(tuned: TunedModel, example: TokenizedExample) -> tuple[float, dict[str, "torch.Tensor"]]:
    """Compute loss and gradient of one example with plain autograd.

    Args:
        tuned: Model.
        example: The example.

    Returns:
        Loss in nats per completion token, and gradient by parameter name in the order of the layout.
    """
    import torch

    loss = example_losses(tuned.model, collate([example]), encoder_decoder=tuned.encoder_decoder).sum()
    named = {n: p for n, p in tuned.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return float(loss.detach()), {
        name: torch.zeros_like(named[name]) if gradient is None else gradient
        for name, gradient in zip(named, gradients, strict=True)
    }


@dataclass(frozen=True, slots=True)
class Projected:
    """Hold the losses (n,) and projected gradients (n, k) of a batch. A GPU may still compute them."""

    losses: "torch.Tensor"
    gradients: "torch.Tensor"

    def arrays(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Wait for the device, and return losses (n,) in nats per completion token and gradients (n, k)."""
        return self.losses.cpu().double().numpy(), self.gradients.cpu().numpy()


def batches_of(examples: Sequence[TokenizedExample], batch_tokens: int) -> list[list[int]]:
    """Group the positions of examples into batches of similar length.

    Args:
        examples: The examples.
        batch_tokens: Maximum number of tokens of a batch, including padding.
    """
    return list(by_length([example.length for example in examples], batch_tokens))


class GradientEngine:
    """Compute projected per-example gradients of a model's trainable parameters.

    Args:
        tuned: Model. The engine sets evaluation mode, which disables dropout.
        spec: Projection.
        batch_tokens: Maximum number of tokens of a batch, including padding.
        reporter: Receives a warning if the engine must process one example at a time.
        metric: Factor of each coordinate before the projection. Default: 1.
    """

    def __init__(
        self,
        tuned: TunedModel,
        spec: ProjectionSpec,
        *,
        batch_tokens: int,
        reporter: Reporter,
        metric: "Metric | None" = None,
    ) -> None:
        self._tuned, self._batch_tokens, self._dim = tuned, batch_tokens, spec.dim
        self._projection, self._metric = Projection(spec), metric
        for name, shape in tuned.layout.shapes.items():
            self._projection.draw(name, math.prod(shape), tuned.devices[name])
        # Number of batches that a GPU computes in advance. A CPU gains nothing from it.
        self.ahead = 1 if tuned.device.type == "cuda" else 0
        tuned.model.eval()
        self._layers = trained_layers(tuned)
        self._reporter, self._batched, self._checked = reporter, True, False
        uncovered = [name for name in tuned.layout.shapes if name not in self._layers]
        if uncovered:
            self._fall_back(f"{len(uncovered)} parameters, such as {uncovered[0]}, are not weights of linear layers")

    def batches(self, examples: Sequence[TokenizedExample]) -> list[list[int]]:
        """Group the positions of examples into batches of similar length."""
        return batches_of(examples, self._batch_tokens)

    def project(self, examples: Sequence[TokenizedExample]) -> Projected:
        """Compute losses and projected gradients of one batch. On a GPU, return before the computation ends.

        Args:
            examples: Examples of the batch (n). A batch that exceeds the memory is halved, with the same result.

        Raises:
            torch.OutOfMemoryError: A single example exceeds the memory, or a batch of a model that processes share.
            ConfigError: Processes share the model, and its gradients need one pass per example.
        """
        import torch

        if self._batched and not self._checked:
            self._check(examples[-1])
        if not self._batched:
            return self._one_by_one(examples)
        try:
            return self._at_once(examples)
        except MixedError:
            self._fall_back("a trained layer mixes the tokens of a batch")
            return self._one_by_one(examples)
        except torch.OutOfMemoryError:
            # Halves are more passes than those of other processes, which would wait for ever.
            if len(examples) == 1 or self._tuned.sharded:
                raise
            torch.cuda.empty_cache()
        half = len(examples) // 2
        first, second = self.project(examples[:half]), self.project(examples[half:])
        return Projected(torch.cat([first.losses, second.losses]), torch.cat([first.gradients, second.gradients]))

    def stand_by(self) -> None:
        """Make the passes of one batch over a short example, and drop the result.

        Processes that share the weights gather them in every pass. One without a batch must help the others.
        Do nothing if each process holds the whole model.
        """
        if self._tuned.sharded:
            self.project([TokenizedExample(input_ids=(0, 0), labels=(IGNORED, 0))])

    def _fall_back(self, reason: str) -> None:
        if self._tuned.sharded:
            # The number of passes would depend on the examples, and differ between processes.
            raise ConfigError(
                f"cannot compute gradients with model.shard: {reason}", hint='Set shard = "none" under [model].'
            )
        self._batched = False
        self._reporter.warn(f"curator computes gradients one example at a time, which is slower: {reason}")

    def _check(self, example: TokenizedExample) -> None:
        """Compare one example with plain autograd, because hooks miss a weight that is used outside its layer."""
        found: dict[str, torch.Tensor] = {}

        def keep(name: str, gradients: "torch.Tensor") -> None:
            found[name] = gradients[0] + found[name] if name in found else gradients[0]

        try:
            self._backward([example], keep)
        except MixedError:
            # A layer may route only some tokens of one example. The next batch repeats the check.
            return
        _, expected = gradient_of(self._tuned, example)
        self._checked = True
        for name, gradient in expected.items():
            exact = gradient.float().reshape(-1)
            missing = exact - found[name] if name in found else exact
            if float(missing.norm()) > _TOLERANCE * float(exact.norm()):
                self._fall_back(f"the model uses {name} outside its layer")
                return

    def _at_once(self, examples: Sequence[TokenizedExample]) -> Projected:
        sketches = Sketches(len(examples), self._dim, self._tuned.device)
        if self._metric is None:
            losses = self._backward(
                examples, lambda name, gradients: self._add(name, gradients, sketches.on(gradients.device))
            )
        else:
            metric = self._metric
            together = Together(self._projection, sketches, lambda _: metric.factors)
            losses = self._backward(examples, together.add)
            together.flush()
        return Projected(losses, sketches.total())

    def measure_in(self, metric: "Metric") -> None:
        """Use another metric from now on. The model's weights may have changed, too."""
        self._metric = metric

    def _add(self, name: str, gradients: "torch.Tensor", into: "torch.Tensor") -> None:
        if self._metric is not None:
            gradients = gradients * self._metric.factors[name]
        self._projection.add(name, gradients, into)

    def _backward(self, examples: Sequence[TokenizedExample], sink: "Sink") -> "torch.Tensor":
        """Run a forward and a backward pass, and pass each layer's per-example gradients (n, p) to a sink.

        Returns:
            Losses (n,) in nats per completion token.

        Raises:
            MixedError: The rows of a layer cannot be assigned to examples.
        """
        import torch

        batch = collate(examples)
        with collecting(self._layers, batch, sink) as ends:
            losses = example_losses(self._tuned.model, batch, encoder_decoder=self._tuned.encoder_decoder)
            # The gradient of the first layers' outputs passes all hooks. It skips the unused sums over the batch.
            torch.autograd.grad(losses.sum(), ends, allow_unused=True)
        return losses.detach()

    def _one_by_one(self, examples: Sequence[TokenizedExample]) -> Projected:
        import torch

        losses = torch.zeros(len(examples), device=self._tuned.device)
        sketches = Sketches(len(examples), self._dim, self._tuned.device)
        for row, example in enumerate(examples):
            losses[row], gradients = gradient_of(self._tuned, example)
            for name, gradient in gradients.items():
                self._add(name, gradient.float().reshape(1, -1), sketches.on(gradient.device)[row : row + 1])
        return Projected(losses, sketches.total())

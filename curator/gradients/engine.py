"""Per-example gradients of the LoRA parameters, projected, a batch at a time, at the cost of a training step.

One backward pass gives the gradients of a whole batch: the gradient of a linear layer's weight for example i is
Σ_t δ_it ⊗ x_it over its tokens, of which the forward pass holds the inputs x, and the backward pass brings the output
gradients δ. Where a trainer multiplies the two for the whole batch, `GradientEngine` multiplies them example by
example, which is the same work, and projects the product at once: no more than one layer's per-example gradients are
ever in memory. `gradient_of` is its slow, obvious twin, and what is used for trainable parameters that are not the
weight of a linear layer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curator.core.events import Reporter
from curator.data.tokens import TokenizedExample
from curator.gradients.projection import Projection, ProjectionSpec
from curator.training.batches import by_length, collate, example_losses
from curator.training.model import TunedModel

if TYPE_CHECKING:
    import torch

    # Told of each parameter's per-example gradients (n, p of the parameter); more than once, where a layer is used
    # more than once.
    Sink = Callable[[str, torch.Tensor], None]

# Of a gradient's length: more than half precision loses, and less than any layer that was not seen.
_LIKENESS = 0.1


def gradient_of(tuned: TunedModel, example: TokenizedExample) -> tuple[float, dict[str, "torch.Tensor"]]:
    """Loss and gradient of one example by plain autograd.

    Returns:
        Loss in nats per completion token, and the gradient by parameter name in the order of the layout.
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
    """A batch's losses (n,) and projected gradients (n, k), possibly still being computed by a GPU."""

    losses: "torch.Tensor"
    gradients: "torch.Tensor"

    def arrays(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Both in main memory; losses in nats per completion token."""
        return self.losses.cpu().double().numpy(), self.gradients.cpu().numpy()


class _MixedError(Exception):
    """A layer's rows do not say which example they are of."""


class GradientEngine:
    """Projected per-example gradients of a model's trainable parameters.

    Args:
        tuned: Model; it is put into evaluation mode, so that dropout is off.
        spec: The projection.
        batch_tokens: Tokens, padding included, that go through the model at once.
        reporter: Told when something is slow for a reason.
    """

    def __init__(self, tuned: TunedModel, spec: ProjectionSpec, *, batch_tokens: int, reporter: Reporter) -> None:
        import torch

        self._tuned, self._batch_tokens, self._dim = tuned, batch_tokens, spec.dim
        self._projection = Projection(spec)
        for name, shape in tuned.layout.shapes.items():
            self._projection.draw(name, math.prod(shape), tuned.device)
        # Batches that may be under way at once: nothing waits for a CPU.
        self.ahead = 1 if tuned.device.type == "cuda" else 0
        tuned.model.eval()
        self._layers = {
            f"{name}.weight": module
            for name, module in tuned.model.named_modules()
            if type(module) is torch.nn.Linear and module.weight.requires_grad
        }
        self._reporter, self._batched, self._checked = reporter, True, False
        uncovered = [name for name in tuned.layout.shapes if name not in self._layers]
        if uncovered:
            self._fall_back(f"{len(uncovered)} parameters (such as {uncovered[0]}) are no linear layer's weight")

    def batches(self, examples: Sequence[TokenizedExample]) -> list[list[int]]:
        """Positions of the examples, grouped into batches of similar length."""
        return list(by_length([example.length for example in examples], self._batch_tokens))

    def project(self, examples: Sequence[TokenizedExample]) -> Projected:
        """Losses and projected gradients of one batch; on a GPU they are asked for, and not waited for.

        Args:
            examples: The batch (n). Where it does not fit into memory it is halved, without changing the result.
        """
        import torch

        if self._batched and not self._checked:
            self._check(examples[-1])
        if not self._batched:
            return self._one_by_one(examples)
        try:
            return self._at_once(examples)
        except _MixedError:
            self._fall_back("a trained layer mixes the tokens of a batch")
            return self._one_by_one(examples)
        except torch.OutOfMemoryError:
            if len(examples) == 1:
                raise
            torch.cuda.empty_cache()
        half = len(examples) // 2
        first, second = self.project(examples[:half]), self.project(examples[half:])
        return Projected(torch.cat([first.losses, second.losses]), torch.cat([first.gradients, second.gradients]))

    def _fall_back(self, reason: str) -> None:
        self._batched = False
        self._reporter.warn(f"{reason}: gradients are taken one example at a time, which is slower")

    def _check(self, example: TokenizedExample) -> None:
        """Compare one example with plain autograd: a parameter that is used in a way no hook sees must not be zero."""
        found: dict[str, torch.Tensor] = {}

        def keep(name: str, gradients: "torch.Tensor") -> None:
            found[name] = gradients[0] + found[name] if name in found else gradients[0]

        try:
            self._backward([example], keep)
        except _MixedError:
            # Of one example, a layer may see fewer rows; a batch will tell.
            return
        _, expected = gradient_of(self._tuned, example)
        self._checked = True
        for name, gradient in expected.items():
            exact = gradient.float().reshape(-1)
            missing = exact - found[name] if name in found else exact
            if float(missing.norm()) > _LIKENESS * float(exact.norm()):
                self._fall_back(f"the gradient of {name} does not pass through its layer alone")
                return

    def _at_once(self, examples: Sequence[TokenizedExample]) -> Projected:
        import torch

        projected = torch.zeros(len(examples), self._dim, device=self._tuned.device)
        losses = self._backward(examples, lambda name, gradients: self._projection.add(name, gradients, projected))
        return Projected(losses, projected)

    def _backward(self, examples: Sequence[TokenizedExample], sink: "Sink") -> "torch.Tensor":
        """Go through the model and back, handing each layer's per-example gradients (n, p) to a sink.

        Returns:
            Losses (n,).
        """
        import torch

        batch, rows = collate(examples), len(examples)
        # One row per example, or one per token of each in turn.
        fitting = {rows, batch["input_ids"].numel(), batch["labels"].numel()}
        ends: list[torch.Tensor] = []

        def hook(name: str) -> Any:
            # A layer that is used twice in a forward pass is called twice, and its gradient is the sum.
            def called(_module: "torch.nn.Module", inputs: "tuple[torch.Tensor, ...]", output: "torch.Tensor") -> None:
                (x,) = inputs
                if x.shape[0] not in fitting:
                    # Rows that are some of the tokens (those routed to an expert) do not say whose they are.
                    raise _MixedError
                if not x.requires_grad:
                    ends.append(output)
                output.register_hook(_multiply(name, x.detach().reshape(rows, -1, x.shape[-1]), sink))  # type: ignore[no-untyped-call]

            return called

        handles = [module.register_forward_hook(hook(name)) for name, module in self._layers.items()]
        try:
            losses = example_losses(self._tuned.model, batch, encoder_decoder=self._tuned.encoder_decoder)
        finally:
            for handle in handles:
                handle.remove()
        # Going back to the first layers passes all others, and spares the sums over the batch that are of no use here.
        torch.autograd.grad(losses.sum(), ends, allow_unused=True)
        return losses.detach()

    def _one_by_one(self, examples: Sequence[TokenizedExample]) -> Projected:
        import torch

        losses = torch.zeros(len(examples), device=self._tuned.device)
        projected = torch.zeros(len(examples), self._dim, device=self._tuned.device)
        for row, example in enumerate(examples):
            losses[row], gradients = gradient_of(self._tuned, example)
            for name, gradient in gradients.items():
                self._projection.add(name, gradient.float().reshape(1, -1), projected[row : row + 1])
        return Projected(losses, projected)


def _multiply(name: str, inputs: "torch.Tensor", sink: "Sink") -> "Callable[[torch.Tensor], None]":
    """What is done with a layer's output gradients when they arrive; its inputs are (n, tokens, features)."""
    import torch

    def arrived(delta: "torch.Tensor") -> None:
        rows = len(inputs)
        by_example = delta.reshape(rows, -1, delta.shape[-1]).transpose(1, 2)
        sink(name, torch.bmm(by_example.float(), inputs.float()).reshape(rows, -1))

    return arrived

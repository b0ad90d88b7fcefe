"""Per-example gradients of the LoRA parameters, projected, a batch at a time.

One backward pass gives the gradients of a whole batch: the gradient of a linear layer's weight for example i is
Σ_t δ_it ⊗ x_it over its tokens, of which the forward pass holds the inputs x and the backward pass the output
gradients δ. `GradientEngine` takes both, multiplies them per example and projects at once, so that no more than one
layer's per-example gradients are in memory. `gradient_of` is its slow, obvious twin, and what is used for trainable
parameters that are not the weight of a linear layer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curator.batches import TokenizedExample, by_length, collate, example_losses
from curator.events import Reporter
from curator.model import TunedModel
from curator.projection import ProjectionSpec, SignProjection

if TYPE_CHECKING:
    import torch


def gradient_of(tuned: TunedModel, example: TokenizedExample) -> tuple[float, dict[str, "torch.Tensor"]]:
    """Loss and gradient of one example by plain autograd.

    Returns:
        Loss in nats per completion token, and the gradient by parameter name in the order of the layout.
    """
    import torch

    batch = collate([example])
    batch = {name: tensor.to(tuned.device) for name, tensor in batch.items()}
    loss = example_losses(tuned.model, batch, encoder_decoder=tuned.encoder_decoder).sum()
    named = {n: p for n, p in tuned.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return float(loss.detach()), {
        name: torch.zeros_like(named[name]) if gradient is None else gradient
        for name, gradient in zip(named, gradients, strict=True)
    }


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

        self._tuned, self._batch_tokens = tuned, batch_tokens
        self._projection = SignProjection(spec)
        self._dim = spec.dim
        tuned.model.eval()
        self._layers = {
            f"{name}.weight": module
            for name, module in tuned.model.named_modules()
            if type(module) is torch.nn.Linear and module.weight.requires_grad
        }
        uncovered = [name for name in tuned.layout.shapes if name not in self._layers]
        self._reporter, self._batched = reporter, True
        if uncovered:
            self._fall_back(f"{len(uncovered)} parameters (such as {uncovered[0]}) are no linear layer's weight")

    def batches(self, examples: Sequence[TokenizedExample]) -> list[list[int]]:
        """Positions of the examples, grouped into batches of similar length."""
        return list(by_length([example.length for example in examples], self._batch_tokens))

    def project(self, examples: Sequence[TokenizedExample]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Losses and projected gradients of one batch.

        Args:
            examples: The batch (n). Where it does not fit into memory it is halved, without changing the result.

        Returns:
            Losses (n,), nats per completion token, and projected gradients (n, k).
        """
        import torch

        if not self._batched:
            return self._one_by_one(examples)
        try:
            return self._at_once(examples)
        except torch.OutOfMemoryError:
            if len(examples) == 1:
                raise
            torch.cuda.empty_cache()
        half = len(examples) // 2
        first, second = self.project(examples[:half]), self.project(examples[half:])
        return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])

    def _fall_back(self, reason: str) -> None:
        self._batched = False
        self._reporter.warn(f"{reason}: gradients are taken one example at a time, which is slower")

    def _at_once(self, examples: Sequence[TokenizedExample]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        import torch

        calls: list[tuple[str, torch.Tensor, torch.Tensor]] = []

        def hook(name: str) -> Any:
            # A layer that is used twice in a forward pass is called twice, and its gradient is the sum.
            return lambda _module, inputs, output: calls.append((name, inputs[0].detach(), output))

        handles = [module.register_forward_hook(hook(name)) for name, module in self._layers.items()]
        try:
            batch = collate(examples)
            batch = {name: tensor.to(self._tuned.device) for name, tensor in batch.items()}
            losses = example_losses(self._tuned.model, batch, encoder_decoder=self._tuned.encoder_decoder)
        finally:
            for handle in handles:
                handle.remove()
        if any(inputs.shape[0] != len(examples) for _, inputs, _ in calls):
            # Rows of other layers' inputs (experts that tokens are routed to) do not say which example they are of.
            self._fall_back("a trained layer mixes the tokens of a batch")
            return self._one_by_one(examples)
        # Asking for the gradients of the outputs alone spares the sums over the batch that `.backward()` would make.
        deltas = torch.autograd.grad(losses.sum(), [output for _, _, output in calls], allow_unused=True)
        projected = torch.zeros(len(examples), self._dim, device=self._tuned.device)
        for (name, inputs, _), delta in zip(calls, deltas, strict=True):
            if delta is None:
                continue
            rows = len(examples)
            inputs = inputs.reshape(rows, -1, inputs.shape[-1]).float()
            delta = delta.reshape(rows, -1, delta.shape[-1]).float()
            gradient = torch.bmm(delta.transpose(1, 2), inputs)
            self._projection.add(name, gradient.reshape(rows, -1), projected)
        return losses.detach().double().cpu().numpy(), projected.cpu().numpy()

    def _one_by_one(
        self, examples: Sequence[TokenizedExample]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        import torch

        losses = np.zeros(len(examples))
        projected = torch.zeros(len(examples), self._dim, device=self._tuned.device)
        for row, example in enumerate(examples):
            losses[row], gradients = gradient_of(self._tuned, example)
            for name, gradient in gradients.items():
                self._projection.add(name, gradient.float().reshape(1, -1), projected[row : row + 1])
        return losses, projected.cpu().numpy()

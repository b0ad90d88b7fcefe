"""Collect the per-example gradients of linear layers during one backward pass.

The gradient of a linear layer's weight for example i is Σ_t δ_it ⊗ x_it over the tokens t.
The forward pass provides the inputs x. The backward pass provides the output gradients δ.
A trainer multiplies x and δ for the whole batch. The hooks multiply them per example, which is equal work.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from curator.training.model import TunedModel

    # Receives name and per-example gradients (n, p of the parameter). A layer that is used twice calls the sink twice.
    Sink = Callable[[str, torch.Tensor], None]


class MixedError(Exception):
    """Signal that the rows of a layer cannot be assigned to examples."""


def trained_layers(tuned: "TunedModel") -> dict[str, "torch.nn.Module"]:
    """Return the linear layers whose weights are trained, by the name of the weight."""
    import torch

    return {
        f"{name}.weight": module
        for name, module in tuned.model.named_modules()
        if type(module) is torch.nn.Linear and module.weight.requires_grad
    }


@contextmanager
def collecting(
    layers: Mapping[str, "torch.nn.Module"],
    batch: Mapping[str, "torch.Tensor"],
    sink: "Sink",
    mixed: Callable[[], None] | None = None,
) -> Iterator[list["torch.Tensor"]]:
    """Pass the gradients of each layer to a sink, while one forward pass and its backward pass run.

    Args:
        layers: Linear layers by the name of their weight.
        batch: Result of `collate` (n examples).
        sink: Receives name and gradients (n, p), as soon as the backward pass reaches the layer.
        mixed: Called when the rows of a layer cannot be assigned to examples. Default: raise `MixedError`.

    Yields:
        Outputs of layers whose input needs no gradient. A backward pass to them reaches every layer.

    Raises:
        MixedError: The rows of a layer cannot be assigned to examples. The forward pass raises it.
    """
    rows = len(batch["input_ids"])
    # A layer's input has one row per example, or one row per token of each example.
    fitting = {rows, batch["input_ids"].numel(), batch["labels"].numel()}
    ends: list[torch.Tensor] = []

    def hook(name: str) -> Any:
        # The sink adds the gradients of a layer that is called twice in one forward pass.
        def called(_module: "torch.nn.Module", inputs: "tuple[torch.Tensor, ...]", output: "torch.Tensor") -> None:
            (x,) = inputs
            if x.shape[0] not in fitting:
                # An expert's rows are some of the tokens, and their examples are unknown.
                if mixed is None:
                    raise MixedError
                mixed()
                return
            if not output.requires_grad:
                # Activation checkpointing repeats the forward pass with gradients.
                return
            if not x.requires_grad:
                ends.append(output)
            output.register_hook(_multiply(name, x.detach().reshape(rows, -1, x.shape[-1]), sink))  # type: ignore[no-untyped-call]

        return called

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield ends
    finally:
        for handle in handles:
            handle.remove()


def _multiply(name: str, inputs: "torch.Tensor", sink: "Sink") -> "Callable[[torch.Tensor], None]":
    """Return a hook that multiplies a layer's output gradients with its inputs (n, tokens, features) per example."""
    import torch

    def arrived(delta: "torch.Tensor") -> None:
        rows = len(inputs)
        by_example = delta.reshape(rows, -1, delta.shape[-1]).transpose(1, 2)
        sink(name, torch.bmm(by_example.float(), inputs.float()).reshape(rows, -1))

    return arrived

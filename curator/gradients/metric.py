"""The metric of Adam, which makes a gradient comparable with the movement that it causes.

A step of Adam moves coordinate c of the adapter by learning rate · gradient_c / D_c.
Here D = √v̂ + ε, and v̂ is the bias-corrected mean of squared gradients (Kingma & Ba 2015).
The coordinates D^(1/2) θ make it a step of plain gradient descent. Its gradient is D^(−1/2) ∇ℓ.
So gradients are multiplied by D^(−1/2) before the projection, and movements of the adapter by D^(1/2).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.core.errors import DataError

if TYPE_CHECKING:
    import torch

_FILE = "metric.safetensors"
_EPSILON = 1e-8
# Least D of a coordinate, as a share of the root mean square of D over its parameter. Some squared gradients of the
# first steps are near zero by chance, and D^(−1/2) would make these coordinates dominate all others.
_FLOOR = 0.1


@dataclass(frozen=True, slots=True)
class Metric:
    """Hold the factor D^(−1/2) of each coordinate.

    Attributes:
        factors: Factors by parameter name (p of the parameter,), float32.
    """

    factors: Mapping[str, "torch.Tensor"]

    @classmethod
    def of_squares(cls, squares: Mapping[str, "torch.Tensor"]) -> "Metric":
        """Return the metric of mean squared gradients by parameter name, of any shapes."""
        return cls({name: factor_of(square) for name, square in squares.items()})

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write the metric into a folder.

        Args:
            folder: Folder of an adapter or of a checkpoint.
            half: Write half precision, which is enough for a separate pass. Each part of a segment has a metric.
        """
        import torch
        from safetensors.torch import save_file

        dtype = torch.bfloat16 if half else torch.float32
        tensors = {name: factor.to("cpu", dtype).contiguous() for name, factor in self.factors.items()}
        save_file(tensors, folder / _FILE)

    @classmethod
    def load(cls, folder: Path, device: "torch.device | Mapping[str, torch.device]") -> "Metric":
        """Read a metric that `save` wrote.

        Args:
            folder: Folder of an adapter or of a checkpoint.
            device: Device of the factors, or the device of each by parameter name.

        Raises:
            DataError: The file cannot be read.
        """
        from safetensors.torch import load_file

        try:
            found = load_file(folder / _FILE)
            places = device if isinstance(device, Mapping) else dict.fromkeys(found, device)
            return cls({name: factor.to(places[name]).float() for name, factor in found.items()})
        except Exception as error:
            raise DataError(
                f"cannot read {folder / _FILE}: {error}", hint="Run `curator train --fresh` to train again."
            ) from error

    def moved(self, movement: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
        """Return D^(1/2) times a movement of the adapter, by parameter name (p of the parameter,)."""
        return {name: change.reshape(-1).float() / self.factors[name] for name, change in movement.items()}


def factor_of(square: "torch.Tensor") -> "torch.Tensor":
    """Return D^(−1/2) of one parameter (p,) from its mean squared gradients."""
    root = square.detach().float().reshape(-1).sqrt()
    floor = _FLOOR * float(root.square().mean().sqrt())
    factors: torch.Tensor = (root.clamp(min=floor) + _EPSILON).rsqrt()
    return factors


def adam_squares(optimizer: Any, names: Mapping[int, str]) -> dict[str, "torch.Tensor"]:
    """Return the bias-corrected mean squared gradients of an Adam optimizer.

    Args:
        optimizer: Optimizer, possibly wrapped by Accelerate.
        names: Name of each parameter by its `id`.

    Returns:
        Mean squares by parameter name. Empty before the first step.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    found = {}
    for group in inner.param_groups:
        for parameter in group["params"]:
            state = inner.state.get(parameter, {})
            if "exp_avg_sq" in state and id(parameter) in names:
                steps = float(state["step"])
                found[names[id(parameter)]] = state["exp_avg_sq"] / (1 - math.pow(group["betas"][1], steps))
    return found

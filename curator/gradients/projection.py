"""Project p gradient coordinates to k with a seeded random sketch that preserves inner products.

The coordinates of a parameter are cut into blocks of k.
Each coordinate gets a random sign. Each block is rotated by a random shift.
The projection is the sum of all blocks of all parameters:

    (Pg)_j = Σ_i σ_i g_i [ (i + shift of i's block) mod k = j ]

This is a count sketch (Charikar, Chen and Farach-Colton 2002; Weinberger et al. 2009).
Coordinates of one block never collide. Any two other coordinates collide with probability 1/k.
So the sketch is unbiased, E⟨Pa, Pb⟩ = ⟨a, b⟩, and its variance is

    Var⟨Pa, Pb⟩ = 1/k · Σ (a_i b_j + a_j b_i)²   over pairs i < j of different blocks.

The variance of a dense matrix of signs ±1/√k is the same sum over all pairs.
So the sketch is never less exact.
The sketch needs p operations per example instead of p·k, and one byte per coordinate instead of k.

Signs and shifts come from Philox, a counter-based generator.
They depend only on the seed and the parameter's name.
Batches, devices, processes and other parameters do not change them.

`ProjectionSpec` describes a projection. `Projection` applies it. `project_slowly` is the slow reference.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

# Largest number of values, over all examples, to rotate at once. A value needs at most 16 bytes of temporary memory.
# Numbers of per-example gradients that are projected together.
_AT_ONCE = 2**24
_PIECE = 2**21


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionSpec:
    """Hold everything that a projection depends on.

    Args:
        dim: Number of projected coordinates k.
        seed: Seed of the signs and shifts.
        kind: Name of the scheme. Artifacts of another kind are incompatible.
    """

    dim: int
    seed: int
    kind: str = "block-sketch-philox"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for provenance."""
        return asdict(self)


def signs(spec: ProjectionSpec, name: str, size: int) -> npt.NDArray[np.int8]:
    """Return the sign, −1 or 1, of each coordinate of one parameter.

    Args:
        spec: Projection.
        name: Name of the parameter.
        size: Number of coordinates.

    Returns:
        Signs (size,).
    """
    words = _generator(spec, "signs", name).random_raw(-(-size // 64)).astype("<u8")
    # Compute without copies. A copy between freed temporary arrays fragments the memory.
    found = np.unpackbits(words.view(np.uint8), count=size, bitorder="little").view(np.int8)
    found *= 2
    found -= 1
    return found


def shifts(spec: ProjectionSpec, name: str, size: int) -> npt.NDArray[np.int64]:
    """Return the rotation, 0 to k − 1, of each block of k coordinates of one parameter.

    Args:
        spec: Projection.
        name: Name of the parameter.
        size: Number of coordinates.

    Returns:
        Shifts (⌈size / k⌉,).
    """
    words = _generator(spec, f"shifts of {spec.dim}", name).random_raw(-(-size // spec.dim))
    # The bias of the remainder of 64 random bits is at most k / 2⁶⁴.
    return (words % np.uint64(spec.dim)).astype(np.int64)


def _generator(spec: ProjectionSpec, what: str, name: str) -> np.random.Philox:
    digest = hashlib.sha256(f"{spec.kind}\0{spec.seed}\0{what}\0{name}".encode()).digest()
    return np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64))


class Projection:
    """Apply a `ProjectionSpec` to gradients, one parameter at a time.

    Args:
        spec: Projection.
    """

    def __init__(self, spec: ProjectionSpec) -> None:
        self.spec = spec
        self._drawn: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._places: dict[tuple[str, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, name: str, gradients: "torch.Tensor", into: "torch.Tensor") -> None:
        """Add one parameter's part of the projected gradients.

        Args:
            name: Name of the parameter.
            gradients: Per-example gradients of the parameter (n, p of the parameter), float32.
            into: Sum of the projected gradients (n, k), float32 on the same device. Modified in place.
        """
        import torch

        rows, size = gradients.shape
        dim = self.spec.dim
        signs, shifts = self.draw(name, size, gradients.device)
        places = torch.arange(dim, device=gradients.device)
        whole, step = size // dim, max(_PIECE // (rows * dim), 1)
        for first in range(0, whole, step):
            last = min(first + step, whole)
            part = slice(first * dim, last * dim)
            signed = (gradients[:, part] * signs[part].to(gradients.dtype)).view(rows, last - first, dim)
            # Position j receives the value at j − shift.
            source = (places - shifts[first:last, None]).remainder_(dim)
            into += signed.gather(2, source.expand(rows, -1, -1)).sum(1)
        rest = size - whole * dim
        if rest:
            signed = gradients[:, whole * dim :] * signs[whole * dim :].to(gradients.dtype)
            into[:, (places[:rest] + shifts[whole]).remainder_(dim)] += signed

    def add_together(
        self, pieces: "Sequence[tuple[str, torch.Tensor]]", factors: "Mapping[str, torch.Tensor]", into: "torch.Tensor"
    ) -> None:
        """Add several parameters' parts at once, which takes less time than one by one if the parameters are small.

        Args:
            pieces: Name and per-example gradients (n, p of the parameter) of each parameter, float32.
            factors: Factor of each coordinate by parameter name (p of the parameter,).
            into: Sum of the projected gradients (n, k), float32 on the same device. Modified in place.
        """
        import torch

        names = tuple(name for name, _ in pieces)
        if names not in self._places:
            drawn = [(*self.draw(name, g.shape[1], g.device), g.shape[1]) for name, g in pieces]
            dim = self.spec.dim
            places = [
                (torch.arange(size, device=into.device) + shifts.repeat_interleave(dim)[:size]).remainder_(dim)
                for _, shifts, size in drawn
            ]
            self._places[names] = torch.cat(places), torch.cat([signs.float() for signs, _, _ in drawn])
        places_of, signs_of = self._places[names]
        scale = signs_of * torch.cat([factors[name] for name in names])
        # Rows of examples are contiguous in the transposed arrays, so the additions run over whole rows.
        scaled = torch.cat([g.t() for _, g in pieces]) * scale[:, None]
        into += into.new_zeros(into.shape[::-1]).index_add_(0, places_of, scaled).t()

    def draw(self, name: str, size: int, device: "torch.device") -> "tuple[torch.Tensor, torch.Tensor]":
        """Draw and cache the signs and shifts of one parameter.

        Draw before any computation. Between large temporary arrays, the cached arrays fragment the memory.

        Args:
            name: Name of the parameter.
            size: Number of coordinates.
            device: Device of the arrays.

        Returns:
            Signs (size,) and shifts (⌈size / k⌉,).
        """
        import torch

        if name not in self._drawn:
            self._drawn[name] = (
                torch.from_numpy(signs(self.spec, name, size)).to(device),
                torch.from_numpy(shifts(self.spec, name, size)).to(device),
            )
        return self._drawn[name]


class Sketches:
    """Sums of projected gradients: one on each device that holds layers, and their total on one device.

    Only the sketches of k numbers an example move between devices. Gradients stay where their layer is.

    Args:
        rows: Number of examples (n).
        dim: Entries of a projected gradient (k).
        device: Device of the total.
    """

    def __init__(self, rows: int, dim: int, device: "torch.device") -> None:
        import torch

        self._device, self._parts = device, {device: torch.zeros(rows, dim, device=device)}

    def on(self, device: "torch.device") -> "torch.Tensor":
        """Return the sum on a device (n, k)."""
        if device not in self._parts:
            first = self._parts[self._device]
            self._parts[device] = first.new_zeros(first.shape, device=device)
        return self._parts[device]

    def total(self) -> "torch.Tensor":
        """Return the total (n, k)."""
        first, *others = self._parts.values()
        for part in others:
            first = first + part.to(self._device)
        return first


class Together:
    """Sink of per-example gradients (layer_hooks.py) that projects many parameters at once.

    Args:
        projection: Projection.
        sketches: Sums of the projected gradients. Complete after `flush`.
        factors: Returns the factor of each coordinate by parameter name, for some pieces of `Projection.add_together`.
    """

    def __init__(
        self,
        projection: Projection,
        sketches: Sketches,
        factors: "Callable[[Sequence[tuple[str, torch.Tensor]]], Mapping[str, torch.Tensor]]",
    ) -> None:
        self._projection, self._sketches, self._factors = projection, sketches, factors
        self._pieces: list[tuple[str, torch.Tensor]] = []
        self._numbers = 0

    def add(self, name: str, gradients: "torch.Tensor") -> None:
        """Take the per-example gradients of one parameter (n, p of the parameter), float32."""
        self._pieces.append((name, gradients))
        self._numbers += gradients.numel()
        if self._numbers > _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Project what is collected, on the device of each layer."""
        for device in dict.fromkeys(gradients.device for _, gradients in self._pieces):
            here = [(name, gradients) for name, gradients in self._pieces if gradients.device == device]
            self._projection.add_together(here, self._factors(here), self._sketches.on(device))
        self._pieces.clear()
        self._numbers = 0


def project_slowly(
    spec: ProjectionSpec, gradients: dict[str, npt.NDArray[np.floating[Any]]]
) -> npt.NDArray[np.float64]:
    """Project one example's gradient one coordinate at a time in float64, as a reference for tests.

    Args:
        spec: Projection.
        gradients: Gradient of the example by parameter name, of any shapes.

    Returns:
        Projected gradient (k,).
    """
    projected = np.zeros(spec.dim)
    for name, gradient in gradients.items():
        flat = gradient.reshape(-1)
        sign, shift = signs(spec, name, flat.size), shifts(spec, name, flat.size)
        for i, value in enumerate(flat.tolist()):
            projected[(i + int(shift[i // spec.dim])) % spec.dim] += int(sign[i]) * value
    return projected

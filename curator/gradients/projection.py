"""Seeded random projection: p gradient coordinates into k, keeping inner products, at the cost of reading them.

The coordinates of a parameter are cut into blocks of k. Each coordinate is given a random sign, each block is turned
by a random shift, and all blocks of all parameters are added up:

    (Pg)_j = Σ_i σ_i g_i [ (i + shift of i's block) mod k = j ]

This is a count sketch (Charikar, Chen and Farach-Colton 2002; Weinberger et al. 2009) in which coordinates of one block
never meet, and any two others meet with probability 1/k. So it is unbiased, E⟨Pa, Pb⟩ = ⟨a, b⟩, and

    Var⟨Pa, Pb⟩ = 1/k · Σ (a_i b_j + a_j b_i)²   over pairs i < j of different blocks,

which is what a dense matrix of signs ±1/√k has over all pairs: it is never less exact than that one, at p operations
per example instead of p·k, and at one byte per coordinate instead of k.

Signs and shifts are a function of the seed and the parameter's name, drawn from Philox, a counter-based generator. They
depend on nothing else: not on batches, devices, processes, or on the other parameters. `ProjectionSpec` describes a
projection; `Projection` applies it; `project_slowly` is its slow, obvious twin.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

# Numbers that are turned at once, of all examples; bounds what is copied meanwhile to 16 bytes times this.
_PIECE = 2**21


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionSpec:
    """All that a projection depends on.

    Args:
        dim: Projected coordinates k.
        seed: Seed of the signs and shifts.
        kind: Name of the scheme; artifacts made with another kind are incompatible.
    """

    dim: int
    seed: int
    kind: str = "block-sketch-philox"

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for provenance."""
        return asdict(self)


def signs(spec: ProjectionSpec, name: str, size: int) -> npt.NDArray[np.int8]:
    """The sign, −1 or 1, of each coordinate (size,) of one parameter."""
    words = _generator(spec, "signs", name).random_raw(-(-size // 64)).astype("<u8")
    # In place: what is kept lies among what is thrown away, and would hold all of it.
    found = np.unpackbits(words.view(np.uint8), count=size, bitorder="little").view(np.int8)
    found *= 2
    found -= 1
    return found


def shifts(spec: ProjectionSpec, name: str, size: int) -> npt.NDArray[np.int64]:
    """By how many places, 0 to k − 1, each block of k coordinates of one parameter is turned (⌈size / k⌉,)."""
    words = _generator(spec, f"shifts of {spec.dim}", name).random_raw(-(-size // spec.dim))
    # Of 64 random bits, the remainder favours no place by more than k / 2⁶⁴.
    return (words % np.uint64(spec.dim)).astype(np.int64)


def _generator(spec: ProjectionSpec, what: str, name: str) -> np.random.Philox:
    digest = hashlib.sha256(f"{spec.kind}\0{spec.seed}\0{what}\0{name}".encode()).digest()
    return np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64))


class Projection:
    """Applies a `ProjectionSpec` to gradients, parameter by parameter.

    Args:
        spec: The projection.
    """

    def __init__(self, spec: ProjectionSpec) -> None:
        self.spec = spec
        self._drawn: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, name: str, gradients: "torch.Tensor", into: "torch.Tensor") -> None:
        """Add one parameter's share of the projected gradients.

        Args:
            name: The parameter's name.
            gradients: Per-example gradients of that parameter (n, p of the parameter), float32.
            into: Projected gradients so far (n, k), float32 on the same device; changed in place.
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
            # What comes to place j lay at j − shift.
            source = (places - shifts[first:last, None]).remainder_(dim)
            into += signed.gather(2, source.expand(rows, -1, -1)).sum(1)
        rest = size - whole * dim
        if rest:
            signed = gradients[:, whole * dim :] * signs[whole * dim :].to(gradients.dtype)
            into[:, (places[:rest] + shifts[whole]).remainder_(dim)] += signed

    def draw(self, name: str, size: int, device: "torch.device") -> "tuple[torch.Tensor, torch.Tensor]":
        """Signs and shifts of one parameter, once.

        They are best drawn before anything is computed: laid among large passing arrays they would hold their memory.
        """
        import torch

        if name not in self._drawn:
            self._drawn[name] = (
                torch.from_numpy(signs(self.spec, name, size)).to(device),
                torch.from_numpy(shifts(self.spec, name, size)).to(device),
            )
        return self._drawn[name]


def project_slowly(
    spec: ProjectionSpec, gradients: dict[str, npt.NDArray[np.floating[Any]]]
) -> npt.NDArray[np.float64]:
    """Project one example's gradient the obvious way: coordinate by coordinate, in float64.

    Args:
        spec: The projection.
        gradients: The example's gradient by parameter name, any shapes.

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

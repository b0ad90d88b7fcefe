"""Seeded random projection: p gradient coordinates into k, keeping inner products.

`Pᵀg` with independent entries ±1/√k is an unbiased sketch: E⟨Pᵀa, Pᵀb⟩ = ⟨a, b⟩, with a standard deviation of about
‖a‖‖b‖/√k (Johnson and Lindenstrauss; Achlioptas 2003 for signs).

The signs of a parameter are a function of the seed, the parameter's name and the position in it, drawn from Philox, a
counter-based generator. So they depend on nothing else: not on batches, devices, processes, or on the other parameters.
`ProjectionSpec` describes a projection; `SignProjection` applies it; `project_slowly` is its slow, obvious twin.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

# Rows of P made at once; a row is one gradient coordinate. Bounds the memory of a tile to rows × k × 4 bytes.
TILE_ROWS = 8192
# Signs of all parameters are kept as one byte each up to this many bytes, else made anew for each batch.
CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionSpec:
    """All that a projection depends on.

    Args:
        dim: Projected coordinates k.
        seed: Seed of the signs.
        kind: Name of the scheme; artifacts made with another kind are incompatible.
    """

    dim: int
    seed: int
    kind: str = "rademacher-philox"

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for provenance."""
        return asdict(self)


def signs(spec: ProjectionSpec, name: str, start: int, stop: int) -> npt.NDArray[np.int8]:
    """Make rows `start` to `stop` of the sign matrix that belongs to one parameter.

    Args:
        spec: The projection.
        name: The parameter's name.
        start: First row; a multiple of `TILE_ROWS`.
        stop: One past the last row.

    Returns:
        Signs (stop − start, k), each −1 or 1.
    """
    digest = hashlib.sha256(f"{spec.kind}\0{spec.seed}\0{name}\0{start // TILE_ROWS}".encode()).digest()
    generator = np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64))
    words_per_row = -(-spec.dim // 64)
    words = generator.random_raw((stop - start) * words_per_row).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8).reshape(stop - start, -1), axis=1, bitorder="little")
    return (bits[:, : spec.dim].astype(np.int8) << 1) - 1


class SignProjection:
    """Applies a `ProjectionSpec` to gradients, parameter by parameter, tile by tile.

    Args:
        spec: The projection.
    """

    def __init__(self, spec: ProjectionSpec) -> None:
        self.spec = spec
        self._cache: dict[tuple[str, int], torch.Tensor] = {}
        self._cached_bytes = 0

    def add(self, name: str, gradients: "torch.Tensor", into: "torch.Tensor") -> None:
        """Add one parameter's share of the projected gradients.

        Args:
            name: The parameter's name.
            gradients: Per-example gradients of that parameter (n, p of the parameter), float32.
            into: Projected gradients so far (n, k), float32 on the same device; changed in place.
        """
        size = gradients.shape[1]
        for start in range(0, size, TILE_ROWS):
            stop = min(start + TILE_ROWS, size)
            tile = self._tile(name, start, stop, gradients.device)
            into.addmm_(gradients[:, start:stop], tile.to(gradients.dtype), alpha=self.spec.dim**-0.5)

    def _tile(self, name: str, start: int, stop: int, device: "torch.device") -> "torch.Tensor":
        import torch

        key = (name, start)
        if key in self._cache:
            return self._cache[key]
        tile = torch.from_numpy(signs(self.spec, name, start, stop)).to(device)
        if self._cached_bytes + tile.numel() <= CACHE_BYTES:
            self._cache[key] = tile
            self._cached_bytes += tile.numel()
        return tile


def project_slowly(
    spec: ProjectionSpec, gradients: dict[str, npt.NDArray[np.floating[Any]]]
) -> npt.NDArray[np.float64]:
    """Project one example's gradient the obvious way: the whole matrix, float64.

    Args:
        spec: The projection.
        gradients: The example's gradient by parameter name, any shapes.

    Returns:
        Projected gradient (k,).
    """
    projected = np.zeros(spec.dim)
    for name, gradient in gradients.items():
        flat = gradient.reshape(-1).astype(np.float64)
        matrix = np.concatenate(
            [signs(spec, name, start, min(start + TILE_ROWS, flat.size)) for start in range(0, flat.size, TILE_ROWS)]
        )
        projected += flat @ matrix.astype(np.float64) / np.sqrt(spec.dim)
    return projected

"""Test the projection against its reference, its independence of batches and order, and its inner products."""

import hashlib

import numpy as np
import pytest
import torch

import curator.gradients.projection
from curator.gradients.projection import Projection, ProjectionSpec, project_slowly, shifts, signs

SHAPES = {"layer.0.A": (4, 33), "layer.0.B": (70, 4), "layer.1.A": (3, 401)}


def _gradients(n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, *shape, generator=generator) for name, shape in SHAPES.items()}


def _project(spec: ProjectionSpec, gradients: dict[str, torch.Tensor]) -> np.ndarray:
    n = len(next(iter(gradients.values())))
    into = torch.zeros(n, spec.dim)
    projection = Projection(spec)
    for name, gradient in gradients.items():
        projection.add(name, gradient.reshape(n, -1), into)
    return into.numpy()


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 200, 5000])
@pytest.mark.parametrize("piece", [1, 900, 2**21])
def test_projection_any_dimension_equals_reference(dim: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curator.gradients.projection, "_PIECE", piece)
    spec = ProjectionSpec(dim=dim, seed=3)
    gradients = _gradients(3)
    fast = _project(spec, gradients)
    for row in range(3):
        slow = project_slowly(spec, {name: g[row].numpy() for name, g in gradients.items()})
        np.testing.assert_allclose(fast[row], slow, rtol=1e-4, atol=1e-3)


def test_projection_batch_and_parameter_order_do_not_matter() -> None:
    spec = ProjectionSpec(dim=32, seed=0)
    gradients = _gradients(5)
    whole = _project(spec, gradients)
    one = np.concatenate([_project(spec, {n: g[i : i + 1] for n, g in gradients.items()}) for i in range(5)])
    np.testing.assert_allclose(whole, one, rtol=1e-5, atol=1e-4)
    backwards = _project(spec, dict(reversed(gradients.items())))
    np.testing.assert_allclose(whole, backwards, rtol=1e-5, atol=1e-4)


def test_signs_and_shifts_are_balanced_and_depend_on_seed_and_name() -> None:
    spec = ProjectionSpec(dim=100, seed=0)
    first = signs(spec, "a", 50_000)
    assert set(np.unique(first)) == {-1, 1}
    assert abs(first.mean()) < 5 / np.sqrt(first.size)
    np.testing.assert_array_equal(first, signs(spec, "a", 50_000))
    np.testing.assert_array_equal(first[:7], signs(spec, "a", 7))
    turned = shifts(spec, "a", 50_000)
    assert len(turned) == 500
    assert turned.min() >= 0
    assert turned.max() < 100
    # 500 draws of 100 positions miss about one position in 150.
    assert len(np.unique(turned)) > 90
    for other_spec, name in ((ProjectionSpec(dim=100, seed=1), "a"), (spec, "b")):
        # Independent signs agree in half of the positions, independent shifts in one of a hundred.
        assert abs((first == signs(other_spec, name, 50_000)).mean() - 0.5) < 0.02
        assert (turned == shifts(other_spec, name, 50_000)).mean() < 0.05


def test_signs_and_shifts_keep_stored_values() -> None:
    """Stored gradients depend on these values. Other values need another `kind`."""
    spec = ProjectionSpec(dim=100, seed=3)
    assert signs(spec, "layer.lora_A", 12).tolist() == [-1, 1, -1, -1, -1, 1, 1, 1, -1, 1, -1, 1]
    assert shifts(spec, "layer.lora_A", 500).tolist() == [83, 40, 7, 74, 87]
    long = signs(spec, "layer.lora_A", 10_000), shifts(spec, "layer.lora_A", 10_000)
    digests = [hashlib.sha256(drawn.tobytes()).hexdigest()[:16] for drawn in long]
    assert digests == ["b4cd09f117d205b9", "37e450c5f025b1dc"]


def _errors(a: np.ndarray, b: np.ndarray, dim: int, seeds: int) -> np.ndarray:
    """Return ⟨Pa, Pb⟩ − ⟨a, b⟩ of the sketch and of a dense sign matrix for many seeds (2, seeds)."""
    found = np.zeros((2, seeds))
    pair = np.stack([a, b]).astype(np.float32)
    both = {"w": torch.tensor(pair)}
    rng = np.random.default_rng(7)
    for seed in range(seeds):
        pa, pb = _project(ProjectionSpec(dim=dim, seed=seed), both).astype(np.float64)
        bits = np.unpackbits(np.frombuffer(rng.bytes(len(a) * dim // 8), np.uint8)).reshape(len(a), dim)
        dense = 2 * (pair @ bits.astype(np.float32)) - pair.sum(1, keepdims=True)
        found[:, seed] = pa @ pb, dense[0] @ dense[1] / dim
    return np.asarray(found - a @ b)


@pytest.mark.parametrize("kind", ["flat", "low rank", "few large"])
def test_projection_inner_products_match_dense_sign_matrix(kind: str) -> None:
    """The sketch is unbiased. Its error falls as 1/√k, and exceeds the dense matrix's error by at most 20 %."""
    rng = np.random.default_rng(0)
    if kind == "low rank":
        # Like LoRA's gradients: a few directions, and large values in the same columns of every row.
        columns = rng.standard_normal(384) * np.exp(rng.standard_normal(384))
        a, b = (np.outer(rng.standard_normal(8), columns + rng.standard_normal(384)).ravel() for _ in range(2))
    else:
        a, b = rng.standard_normal((2, 3072))
        if kind == "few large":
            a[::64] *= 10
            b[::64] *= 10
    b = b + 0.5 * a
    size = np.linalg.norm(a) * np.linalg.norm(b)
    deviations = []
    for dim in (64, 256, 1024):
        sketch, dense = _errors(a, b, dim, 250)
        assert abs(sketch.mean()) < 4 * sketch.std() / np.sqrt(250)
        # 250 draws give a standard deviation to 4.5 %. Three such errors of a ratio are about 20 %.
        assert sketch.std() < 1.2 * 1.2 * dense.std()
        deviations.append(sketch.std() / size * np.sqrt(dim))
    # The error falls faster if k is not small compared with p, because coordinates of one block never collide.
    assert max(deviations[1:]) < 1.3 * deviations[0]

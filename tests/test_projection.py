"""The projection: its twin, what it must not depend on, and that it keeps inner products."""

import numpy as np
import pytest
import torch

from curator.projection import TILE_ROWS, ProjectionSpec, SignProjection, project_slowly, signs

SHAPES = {"layer.0.A": (4, 33), "layer.0.B": (70, 4), "layer.1.A": (3, TILE_ROWS - 1)}


def _gradients(n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, *shape, generator=generator) for name, shape in SHAPES.items()}


def _project(spec: ProjectionSpec, gradients: dict[str, torch.Tensor]) -> np.ndarray:
    n = len(next(iter(gradients.values())))
    into = torch.zeros(n, spec.dim)
    projection = SignProjection(spec)
    for name, gradient in gradients.items():
        projection.add(name, gradient.reshape(n, -1), into)
    return into.numpy()


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 200])
def test_equals_the_slow_twin(dim: int) -> None:
    spec = ProjectionSpec(dim=dim, seed=3)
    gradients = _gradients(3)
    fast = _project(spec, gradients)
    for row in range(3):
        slow = project_slowly(spec, {name: g[row].numpy() for name, g in gradients.items()})
        np.testing.assert_allclose(fast[row], slow, rtol=1e-4, atol=1e-3)


def test_does_not_depend_on_batch_or_order_of_parameters() -> None:
    spec = ProjectionSpec(dim=32, seed=0)
    gradients = _gradients(5)
    whole = _project(spec, gradients)
    one = np.concatenate([_project(spec, {n: g[i : i + 1] for n, g in gradients.items()}) for i in range(5)])
    np.testing.assert_allclose(whole, one, rtol=1e-5, atol=1e-4)
    backwards = _project(spec, dict(reversed(gradients.items())))
    np.testing.assert_allclose(whole, backwards, rtol=1e-5, atol=1e-4)


def test_signs_are_balanced_and_belong_to_seed_name_and_place() -> None:
    spec = ProjectionSpec(dim=100, seed=0)
    first = signs(spec, "a", 0, 500)
    assert set(np.unique(first)) == {-1, 1}
    assert abs(first.mean()) < 5 / np.sqrt(first.size)
    np.testing.assert_array_equal(first, signs(spec, "a", 0, 500))
    np.testing.assert_array_equal(first[:7], signs(spec, "a", 0, 7))
    for other in (
        signs(ProjectionSpec(dim=100, seed=1), "a", 0, 500),
        signs(spec, "b", 0, 500),
        signs(spec, "a", TILE_ROWS, TILE_ROWS + 500),
    ):
        # Independent signs agree in half of the places.
        assert abs((first == other).mean() - 0.5) < 0.02


def test_inner_products_are_kept_with_error_falling_as_one_over_root_k() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 400))
    b += 0.5 * a
    exact, size = a @ b, np.linalg.norm(a) * np.linalg.norm(b)
    errors = {}
    for dim in (64, 1024):
        found = []
        for seed in range(40):
            spec = ProjectionSpec(dim=dim, seed=seed)
            found.append(project_slowly(spec, {"w": a}) @ project_slowly(spec, {"w": b}))
        # Unbiased: the mean over seeds is within four standard errors.
        assert abs(np.mean(found) - exact) < 4 * size / np.sqrt(dim * 40)
        errors[dim] = np.std(found) / size
    # For Rademacher signs the variance is (‖a‖²‖b‖² + ⟨a,b⟩² − 2Σa²b²)/k, here about 1.2/k.
    assert errors[64] == pytest.approx(1.1 / 8, rel=0.4)
    assert errors[1024] == pytest.approx(1.1 / 32, rel=0.4)

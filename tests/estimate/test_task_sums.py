"""Sums over examples: against slow references, and invariances of the estimates from them."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_trajectories import RANK, K, all_masks, draw_basis, draw_recorded, make_trajectory_estimator, trajectory_of

from curator.core.arrays import SegmentArrays, SumArrays, mapping_of, release
from curator.estimate.quadratic import Quadratic, conjugate_gradients
from curator.estimate.task_sums import ExampleSet, TaskSums, unpacked
from curator.estimate.trajectory import Segment, TrajectoryEstimator


def _sets(dim: int, tasks: int, seed: int = 0) -> list[ExampleSet]:
    rng = np.random.default_rng(seed)
    return [
        ExampleSet(losses=np.ones(n), gradients=rng.standard_normal((n, dim)), weights=rng.integers(1, 9, n) * 1.0)
        for n in rng.integers(1, 12, tasks)
    ]


def _matrix(examples: ExampleSet) -> np.ndarray:
    return sum(w * np.outer(g, g) for w, g in zip(examples.weights, examples.gradients, strict=True))  # type: ignore


@pytest.mark.parametrize("dim", [1, 2, 5, 6])
def test_task_sums_equal_sums_over_examples(dim: int) -> None:
    sets = _sets(dim, 7)
    sums = TaskSums.of(sets)
    rng = np.random.default_rng(1)
    left, right = rng.standard_normal((2, dim))
    for task, examples in enumerate(sets):
        matrix = _matrix(examples)
        np.testing.assert_allclose(unpacked(sums.packed_curvatures[task], dim), matrix, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(sums.gradient_sums[task], examples.weights @ examples.gradients)
        assert (sums.weights[task], sums.examples[task]) == (examples.weights.sum(), len(examples.losses))
        assert sums.traces()[task] == pytest.approx(np.trace(matrix), rel=1e-6)
        assert sums.products(left, right)[task] == pytest.approx(left @ matrix @ right, rel=1e-5, abs=1e-4)
        np.testing.assert_allclose(sums.images(left)[task], matrix @ left, rtol=1e-5, atol=1e-4)


def test_task_sums_in_parts_give_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, factors = TaskSums.of(_sets(6, 9)), np.random.default_rng(0).integers(-1, 2, (5, 9)).astype(np.int8)
    slow = np.stack(
        [sum(f * t.astype(float) for f, t in zip(row, sums.packed_curvatures, strict=True)) for row in factors]
    )
    vector = np.arange(6.0)
    whole = sums.products(vector, vector), sums.images(vector)
    for held in (2**23, 20, 1):
        monkeypatch.setattr("curator.estimate.task_sums._AT_ONCE", held)
        np.testing.assert_allclose(sums.sums(factors), slow, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(sums.products(vector, vector), whole[0], rtol=1e-12)
        np.testing.assert_allclose(sums.images(vector), whole[1], rtol=1e-12)
    assert not sums.sums(np.zeros((2, 9), dtype=np.int8)).any()


@pytest.mark.parametrize("ridge", [1e-6, 1.0, 100.0])
def test_displacements_of_a_subset_do_not_depend_on_others(ridge: float) -> None:
    """Solve a subset alone, after any other, and together with near and far subsets."""
    sets = _sets(8, 31)
    sums, rng = TaskSums.of(sets), np.random.default_rng(3)
    middle = rng.random(30) < 0.5
    singles = middle ^ np.eye(30, dtype=bool)
    companies = [singles, np.r_[singles, singles ^ np.roll(np.eye(30, dtype=bool), 1, axis=1)], middle[None]]
    companies += [rng.random((20, 30)) < 0.5, np.zeros((1, 30), dtype=bool), np.ones((3, 30), dtype=bool)]
    companies += [singles[:2], np.zeros((0, 30), dtype=bool)]
    quadratic = Quadratic(sums, ridge)
    matrices = unpacked(sums.packed_curvatures, 8)
    for masks in companies:
        found = quadratic.displacements(masks)
        assert found.shape == (len(masks), 8)
        for mask, w in zip(masks, found, strict=True):
            members = np.append(mask, True)
            slow = -np.linalg.solve(
                matrices[members].sum(axis=0) + ridge * np.eye(8), sums.gradient_sums[members].sum(axis=0)
            )
            np.testing.assert_allclose(w, slow, rtol=1e-7, atol=1e-8 * np.abs(slow).max())


def test_conjugate_gradients_poor_inverse_still_solves() -> None:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((5, 40, 60))
    matrices = factors @ factors.transpose(0, 2, 1) + 1e-3 * np.eye(40)
    right = rng.standard_normal((5, 40))
    exact = np.linalg.solve(matrices, right[:, :, None])[:, :, 0]
    for inverse in (np.linalg.inv(matrices[0]), np.linalg.inv(matrices[0] + np.eye(40)), 1e-6 * np.eye(40)):
        found = conjugate_gradients(matrices, right, inverse)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-7 * np.abs(exact).max())


def test_displacements_after_many_toggles_do_not_drift() -> None:
    sums, rng = TaskSums.of(_sets(6, 13)), np.random.default_rng(0)
    worn, mask = Quadratic(sums, 1.0), np.ones(12, dtype=bool)
    for task in rng.integers(0, 12, 5000):
        mask[task] ^= True
        worn.displacements(mask[None])
    np.testing.assert_allclose(
        worn.displacements(mask[None]), Quadratic(sums, 1.0).displacements(mask[None]), rtol=1e-9
    )


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_task_sums_in_file_give_same_numbers_and_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large curvatures lie in a temporary file without a name. Their pages do not stay in memory."""
    monkeypatch.setattr("curator.core.arrays._IN_MEMORY", 0)
    made, rng = TaskSums.of(_sets(64, 400)), np.random.default_rng(0)
    kept = TaskSums.from_stored(SumArrays.empty(400, 64, tmp_path))
    assert mapping_of(kept.packed_curvatures) is not None
    assert list(tmp_path.iterdir()) == []
    for task in range(400):
        kept.put(task, made.row(task))
    release(kept.packed_curvatures)
    np.testing.assert_array_equal(kept.packed_curvatures, made.packed_curvatures)
    factors, vectors = rng.integers(-1, 2, (5, 400)).astype(np.int8), rng.standard_normal((2, 64))
    np.testing.assert_array_equal(kept.sums(factors), made.sums(factors))
    np.testing.assert_array_equal(kept.products(*vectors), made.products(*vectors))
    np.testing.assert_array_equal(kept.images(vectors[0]), made.images(vectors[0]))
    np.testing.assert_array_equal(kept.traces(), made.traces())
    assert _resident(tmp_path) == 0
    kept.packed_curvatures.sum()
    assert _resident(tmp_path) >= kept.packed_curvatures.nbytes


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_trajectory_with_sums_in_files_gives_same_numbers_and_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large sums of segments lie in temporary files. Estimates, gains and transfers leave none of them in memory."""
    monkeypatch.setattr("curator.core.arrays._IN_MEMORY_SEGMENT", 0)
    in_memory, trajectory = make_trajectory_estimator(), trajectory_of(draw_recorded(), draw_basis())

    def kept(segment: Segment) -> Segment:
        sums = SegmentArrays.empty(len(segment.weights), K, RANK, tmp_path)
        sums.gradient_sums[:], sums.packed_curvatures[:] = segment.gradient_sums, segment.curvatures
        assert mapping_of(sums.gradient_sums[:-1]) is not None
        return replace(segment, gradient_sums=sums.gradient_sums, curvatures=sums.packed_curvatures)

    mapped = replace(trajectory, segments=[kept(segment) for segment in trajectory.segments])
    assert _resident(tmp_path) > 0
    estimator, masks = TrajectoryEstimator(mapped, in_memory._known), all_masks()
    assert _resident(tmp_path) == 0
    for mask in masks:
        one = mask[None]
        np.testing.assert_array_equal(estimator.validation_losses(one), in_memory.validation_losses(one))
        np.testing.assert_array_equal(estimator.task_gains(mask), in_memory.task_gains(mask))
    np.testing.assert_array_equal(estimator.validation_losses(masks), in_memory.validation_losses(masks))
    np.testing.assert_array_equal(estimator.transfer(), in_memory.transfer())
    assert _resident(tmp_path) == 0


def _resident(folder: Path) -> int:
    """Return the bytes of this process's memory that hold mapped files of a folder."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            inside = str(folder) in rest
        elif name == "Rss:" and inside:
            found += 1024 * int(rest.split()[0])
    return found


def test_sum_arrays_disk_full_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("curator.core.arrays._IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    sums = SumArrays.empty(2, 4, tmp_path)
    assert (mapping_of(sums.packed_curvatures), sums.packed_curvatures.shape) == (None, (2, 10))

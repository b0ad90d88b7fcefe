"""Sum the visits of meta-training over tasks, in each of its segments.

The mean gradient of an example in a segment is the mean over its visits there.
The visits of all segments give one basis of a few hundred directions: those of largest curvature Σ ω g gᵀ.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curator.core.arrays import SegmentArrays
from curator.core.errors import DataError
from curator.core.files import read_whole_text
from curator.gradients.capture import read_visits
from curator.gradients.example_groups import ExampleGroup

# Visits that are read at once, and visits that decide the basis.
_PORTION, _BASIS_VISITS = 2048, 8192
# Most bytes of the list of examples: names of tasks, and the hash of each example. An example may be there repeatedly.
_NAMES, _HASH = 2**26, 1000
# Steps at the start whose visits do not count: this share, and at least this number. LoRA's matrix B starts at zero,
# and so does the gradient of its matrix A. Adam's squares of A are zero after the first step. So gradients of the
# second step are a hundred times too long in that metric.
_UNSETTLED, _UNSETTLED_STEPS = 0.01, 3

Span = tuple[int, int]
"""Steps first < step ≤ last."""


@dataclass(frozen=True, slots=True)
class SegmentExamples:
    """Sums of the groups in one segment, and the mean gradients of the examples that it visited.

    Attributes:
        sums: Sums of all groups. Those of groups without a visit are zero.
        hashes: Token hashes of the visited examples (n).
        groups: Number of the group of each visited example (n,).
        kept: Mean gradient of each visited example in the basis (n, d).
    """

    sums: SegmentArrays
    hashes: list[str]
    groups: npt.NDArray[np.intp]
    kept: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Run:
    """The examples of a meta-training run by position, and the group of each."""

    hashes: list[str]
    group: npt.NDArray[np.intp]
    """Number of the group of each position (n,)."""
    weights: npt.NDArray[np.float64]
    """Completion tokens of each position (n,)."""


class Visits:
    """The visits of one meta-training run.

    Args:
        folder: Folder of the capture.
        dim: Number of entries of a gradient.
        rank: Leading directions of the basis whose curvature is summed.
        groups: Groups of examples to sum.
        names: Name of the auxiliary task of each group. The last group is that of all targets.
    """

    def __init__(
        self, folder: Path, *, dim: int, rank: int, groups: Sequence[ExampleGroup], names: Sequence[str]
    ) -> None:
        self._folder, self._dim, self._rank, self._groups, self._names = folder, dim, rank, groups, names

    @property
    def exist(self) -> bool:
        """Whether there are files of visits."""
        return any(self._folder.glob("visits-*.bin"))

    def unvisited(self, groups: Sequence[int], span: Span) -> list[int]:
        """Return those of several groups that have no visit in a span of steps."""
        if not groups or not self.exist:
            return list(groups)
        there = set(self._run.group[self._counts(span) > 0].tolist())
        return [n for n in groups if n not in there]

    @cached_property
    def _run(self) -> _Run:
        try:
            most = _NAMES + _HASH * sum(len(group.hashes) for group in self._groups)
            tasks = json.loads(read_whole_text(self._folder / "examples.json", most=most))
            names = [str(name) for name, hashes in tasks for _ in hashes]
            hashes = [str(h) for _, hashes in tasks for h in hashes]
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"cannot read {self._folder / 'examples.json'}: {error}", hint="Run `curator train --fresh`."
            ) from error
        numbers = {name: n for n, name in enumerate(self._names)}
        targets = len(numbers)
        weight_of = {h: w for group in self._groups for h, w in zip(group.hashes, group.weights, strict=True)}
        if not weight_of.keys() >= set(hashes):
            raise self._damaged()
        return _Run(
            hashes=hashes,
            group=np.array([numbers.get(name, targets) for name in names], dtype=np.intp),
            weights=np.array([weight_of[h] for h in hashes]),
        )

    def _visits(self, first: int, last: int) -> Iterator[npt.NDArray[Any]]:
        """Yield the visits of steps first < step ≤ last, some at a time."""
        for visits in read_visits(self._folder, self._dim):
            start, end = np.searchsorted(visits["step"], [first, last], side="right")
            for place in range(start, end, _PORTION):
                part = visits[place : min(place + _PORTION, end)]
                # A damaged position would reserve memory up to itself.
                if part["position"].min() < 0 or part["position"].max() >= len(self._run.hashes):
                    raise self._damaged()
                yield part

    def _damaged(self) -> DataError:
        return DataError(f"gradients of meta-training are damaged: {self._folder}", hint="Run `curator train --fresh`.")

    def _counts(self, span: Span) -> npt.NDArray[np.float64]:
        """Return the number of visits of each example in a span of steps (n,)."""
        counts = np.zeros(len(self._run.hashes))
        for part in self._visits(*span):
            counts += np.bincount(part["position"], minlength=len(counts))
        return counts

    def basis(self, kept: int, span: Span) -> npt.NDArray[np.float32]:
        """Return the directions of largest curvature (k, kept), from a sample of the visits in a span of steps."""
        from scipy.linalg import eigh

        weights, dim = self._run.weights, self._dim
        step = max(1, int(self._counts(span).sum()) // _BASIS_VISITS)
        curvature = np.zeros((dim, dim))
        for part in self._visits(*span):
            sample = part[::step]
            scaled = gradients_of(sample) * np.sqrt(weights[sample["position"]])[:, None]
            curvature += scaled.T @ scaled
        if not np.isfinite(curvature).all():
            raise self._damaged()
        _, vectors = eigh(curvature, subset_by_index=[dim - kept, dim - 1])
        return np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)

    def sums(self, span: Span, basis: npt.NDArray[np.float32]) -> SegmentExamples:
        """Sum the visits in a span of steps over the groups.

        Args:
            span: Steps of a segment.
            basis: Directions that are kept of each example (k, d).
        """
        from scipy.sparse import csr_matrix

        run, count = self._run, len(self._groups)
        visits = self._counts(span)
        sums = SegmentArrays.empty(count, self._dim, self._rank)
        gradient_sums = np.zeros((count, self._dim))
        kept = np.zeros((len(run.hashes), basis.shape[1]), dtype=np.float32)
        for part in self._visits(*span):
            positions, gradients = part["position"], gradients_of(part)
            shares = 1 / visits[positions]
            columns = (run.group[positions], np.arange(len(part)))
            to_group = csr_matrix((run.weights[positions] * shares, columns), shape=(count, len(part)))
            inside = gradients @ basis
            gradient_sums += to_group @ gradients
            np.add.at(kept, positions, inside * shares[:, None].astype(np.float32))
            sums.rest[:] += to_group @ outside(gradients, inside, self._rank)
        if not np.isfinite(gradient_sums).all():
            raise self._damaged()
        sums.gradient_sums[:] = gradient_sums
        seen = visits > 0
        for n, group in enumerate(self._groups):
            members = seen & (run.group == n)
            if members.any():
                finish_group(sums, n, group, kept[members], run.weights[members], self._rank)
        rows = np.flatnonzero(seen)
        return SegmentExamples(sums, [run.hashes[row] for row in rows], run.group[rows], kept[rows])


def spans(ends: Sequence[int], *, captured: bool) -> list[Span]:
    """Return the steps of each segment whose visits count.

    Args:
        ends: Last step of each segment.
        captured: Whether training captured the visits. Its first steps do not count.
    """
    unsettled = min(max(math.ceil(_UNSETTLED * ends[-1]), _UNSETTLED_STEPS), ends[0] // 2) if captured else 0
    return list(zip([unsettled, *ends[:-1]], ends, strict=True))


def outside(gradients: npt.NDArray[np.float32], inside: npt.NDArray[np.float32], rank: int) -> npt.NDArray[np.float64]:
    """Return the squared length of each gradient outside of the leading directions, per direction (n,)."""
    lost = (gradients**2).sum(axis=1) - (inside[:, :rank] ** 2).sum(axis=1)
    return np.asarray(np.maximum(lost, 0.0) / max(gradients.shape[1] - rank, 1), dtype=np.float64)


def gradients_of(visits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the gradients of visits (n, k)."""
    return np.asarray(visits["direction"].astype(np.float32) * visits["length"][:, None], dtype=np.float32)


def finish_group(
    sums: SegmentArrays,
    n: int,
    group: ExampleGroup,
    kept: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float64],
    rank: int,
) -> None:
    """Complete the sums of one group from its examples' mean gradients.

    A segment of less than an epoch visits some of a task's examples. They stand for all of them, by their weight.

    Args:
        sums: Sums of all groups, with the weighted sum of gradients of the seen examples. Modified in place.
        n: Number of the group.
        group: All examples of the group.
        kept: Mean gradient of each seen example in the basis (m, kept).
        weights: Completion tokens of the seen examples (m,).
        rank: Leading directions of the basis whose curvature is kept.
    """
    whole, seen = float(np.sum(group.weights)), float(weights.sum())
    ratio = whole / seen if seen else 0.0
    inside = kept[:, :rank].astype(np.float64)
    curvature = ratio * (inside * weights[:, None]).T @ inside
    sums.weights[n], sums.examples[n] = whole, len(group.hashes)
    sums.gradient_sums[n] *= ratio
    sums.rest[n] *= ratio
    sums.packed_curvatures[n] = curvature[np.triu(np.ones((rank, rank), dtype=bool))]

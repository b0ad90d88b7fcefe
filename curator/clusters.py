"""Clusters of examples by the direction of their gradients: what pulls the model the same way."""

import numpy as np
import numpy.typing as npt

_ROUNDS, _STARTS = 100, 4


def cluster(gradients: npt.NDArray[np.floating], count: int, *, seed: int) -> npt.NDArray[np.intp]:
    """Group examples by spherical k-means (Dhillon & Modha 2001), begun by k-means++.

    Args:
        gradients: One row for each example (n, k); only its direction counts.
        count: Number of groups.
        seed: Of the starts, of which the best is kept.

    Returns:
        Group of each example (n,), the largest group being 0; some may be empty where examples are few or alike.
    """
    rows = gradients.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    rng = np.random.default_rng(seed)
    best, least = np.zeros(len(rows), dtype=np.intp), np.inf
    for _ in range(_STARTS):
        centres = _spread(rows, min(count, len(rows)), rng)
        groups = np.full(len(rows), -1, dtype=np.intp)
        for _ in range(_ROUNDS):
            nearest = (rows @ centres.T).argmax(axis=1)
            if (nearest == groups).all():
                break
            groups = nearest
            for group in np.unique(groups):
                mean = rows[groups == group].sum(axis=0)
                centres[group] = mean / max(float(np.linalg.norm(mean)), np.finfo(np.float64).tiny)
        apart = float((1 - (rows * centres[groups]).sum(axis=1)).sum())
        if apart < least - 1e-12:
            best, least = groups, apart
    sizes = np.bincount(best, minlength=count)
    rank = np.empty(count, dtype=np.intp)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(count)
    return np.asarray(rank[best])


def _spread(rows: npt.NDArray[np.float64], count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Rows far from one another, to begin with."""
    chosen = [int(rng.integers(len(rows)))]
    while len(chosen) < count:
        apart = np.maximum(1 - (rows @ rows[chosen].T).max(axis=1), 0.0)
        total = apart.sum()
        chosen.append(int(rng.choice(len(rows), p=apart / total) if total > 0 else rng.integers(len(rows))))
    return rows[chosen].copy()

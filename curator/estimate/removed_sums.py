"""Sums over the tasks that a subset leaves out, fast for subsets that differ little from the last one.

A row of numbers belongs to each task. A subset needs the sum of the rows of all tasks that it leaves out. A toggle adds
or subtracts one row. Float64 sums of float32 rows lose almost nothing, so the order of the additions does not matter.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, release

# Maximum mean number of tasks by which near subsets differ from their majority subset.
_NEAR = 4
# Maximum numbers in float64 at once, in addition to the rows.
_AT_ONCE = 2**22


class RemovedSums:
    """Sums of rows over removed tasks.

    Args:
        rows: Arrays of rows (t, m), each with the factors of its rows (t,).
    """

    def __init__(self, rows: Sequence[tuple[npt.NDArray[np.floating], Floats]]) -> None:
        self._rows = list(rows)
        # Last factors and their sums, in one tuple: concurrent threads read one whole pair or another.
        self._base = np.zeros(len(rows[0][0])), [np.zeros(part.shape[1]) for part, _ in rows]

    def of(self, factors: Floats) -> list[Floats]:
        """Return Σ_t factor_t row_t for factors (s, t): one array (s, m) for each array of rows.

        Args:
            factors: 1 for a removed task, 0 for a task that stays, −1 for one that joins. Weighted tasks have a part.
        """
        if len(factors) == 1:
            return [part[None] for part in self._one(factors[0])]
        middle = np.round(np.median(factors, axis=0))
        moves = factors - middle
        if np.count_nonzero(moves) > _NEAR * len(factors):
            return [_product(factors * scale, part) for part, scale in self._rows]
        base = self._one(middle)
        found = [np.repeat(part[None], len(factors), axis=0) for part in base]
        for number, move in enumerate(moves):
            tasks = np.flatnonzero(move)
            for into, (part, scale) in zip(found, self._rows, strict=True):
                into[number] += (move[tasks] * scale[tasks]) @ part[tasks].astype(np.float64)
        release(*(part for part, _ in self._rows))
        return found

    def _one(self, factors: Floats) -> list[Floats]:
        """Return the sums of one row of factors. Start from the last sums if that is less work."""
        there, sums = self._base
        moves = factors - there
        if np.count_nonzero(moves) < np.count_nonzero(factors):
            pairs = zip(sums, self._rows, strict=True)
            found = [old + _product((moves * scale)[None], part)[0] for old, (part, scale) in pairs]
        else:
            found = [_product((factors * scale)[None], part)[0] for part, scale in self._rows]
        self._base = factors.copy(), found
        return found


def _product(factors: Floats, rows: npt.NDArray[np.floating]) -> Floats:
    """Return factors (s, t) times rows (t, m) in float64, with little memory."""
    used = np.flatnonzero(factors.any(axis=0))
    part = factors[:, used]
    found = np.zeros((len(factors), rows.shape[1]))
    width = max(_AT_ONCE // max(used.size, 1), 1)
    for start in range(0, rows.shape[1] if used.size else 0, width):
        columns = slice(start, start + width)
        found[:, columns] = part @ rows[used, columns].astype(np.float64)
    release(rows)
    return found

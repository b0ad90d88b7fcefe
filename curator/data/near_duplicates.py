"""Find near-duplicate examples with bounded memory.

The similarity of two examples is the share of common shingles, which are runs of four tokens (Jaccard index).
MinHash signatures (Broder 1997) are cut into bands. Examples that agree in a whole band are compared exactly.
The search finds examples that differ in one or two words with near certainty.
It rarely compares examples that share less than half of their shingles.

Memory holds about 300 bytes for each example, and 12 bytes for each pair. Shingles beyond a limit are in a file.
"""

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from curator.core.errors import DataError
from curator.core.files import CHECK_DISK

_SHINGLE, _BANDS, _ROWS = 4, 16, 4
# Smallest Jaccard index of two near duplicates.
NEARLY = 0.8
# Comparisons of each example within a band. More examples in one band form one large group of copies.
_COMPARED = 20
# Bytes of shingles in memory. The rest is in a temporary file.
_IN_MEMORY = 2**27
# Shingles of one step of the signatures: the arrays of a step fit into the processor's cache.
_STEP = 2**13
# Examples whose candidates are compared in one step.
_EXAMPLES = 2**12

_Hashes = npt.NDArray[np.uint64]
_Numbers = npt.NDArray[np.int64]


class NearDuplicates:
    """Collect examples, then find the near duplicates among them.

    Source:
        Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._factors = rng.integers(1, 1 << 31, (_BANDS * _ROWS, 2), dtype=np.uint64)
        self._shingles = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by `close`
        self._sizes: list[int] = []
        self._bands: list[_Hashes] = []

    def close(self) -> None:
        """Delete the temporary file."""
        self._shingles.close()

    def add(self, examples: Sequence[npt.NDArray[np.int32]]) -> None:
        """Add examples. They are numbered from 0 in the order of the calls.

        Args:
            examples: Token ids of each example, arrays of any length.

        Raises:
            DataError: The temporary file cannot be written.
        """
        waiting: list[_Hashes] = []
        held = 0
        for tokens in examples:
            waiting.append(shingles(tokens))
            held += len(waiting[-1])
            if held >= _STEP:
                self._add(waiting)
                waiting, held = [], 0
        if waiting:
            self._add(waiting)

    def _add(self, found: list[_Hashes]) -> None:
        self._sizes += map(len, found)
        joined = np.concatenate(found)
        try:
            self._shingles.write(joined.tobytes())
        except OSError as error:
            raise DataError(f"cannot write a temporary file: {error}", hint=CHECK_DISK) from error
        starts = np.cumsum([0, *map(len, found[:-1])])
        signatures = np.empty((_BANDS * _ROWS, len(found)), dtype=np.uint64)
        scratch = np.empty_like(joined)
        for row, (factor, addend) in enumerate(self._factors):
            np.multiply(joined, factor, out=scratch)
            np.add(scratch, addend, out=scratch)
            np.minimum.reduceat(scratch, starts, out=signatures[row])
        self._bands.append(np.stack([_mixed(list(band)) for band in np.split(signatures, _BANDS)]))

    def pairs(self) -> npt.NDArray[np.int32]:
        """Return the near duplicates among all examples.

        Returns:
            Sorted pairs of different examples (pairs, 2). The first example of a pair precedes the second.
            Large groups of copies yield only some of their pairs.
        """
        if not self._sizes:
            return np.zeros((0, 2), np.int32)
        ends = np.concatenate([[0], np.cumsum(self._sizes, dtype=np.int64)])
        found = [np.zeros((0, 2), np.int32)]
        for first, second in self._candidates():
            near = [self._are_near(a, b, ends) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
            found.append(np.stack([first[near], second[near]], axis=1).astype(np.int32))
        every = np.concatenate(found)
        return every[np.lexsort((every[:, 1], every[:, 0]))]

    def _candidates(self) -> Iterator[tuple[_Numbers, _Numbers]]:
        """Yield pairs that agree in a band, each pair once: the first and the second example of each (pairs,)."""
        count = len(self._sizes)
        bands = np.concatenate(self._bands, axis=1)
        # For each band: the examples by hash, the place of each example, and the equal examples before a place.
        orders, ranks, depths = [], [], []
        for hashes in bands:
            order = np.argsort(hashes, kind="stable").astype(np.int32)
            starts = np.flatnonzero(np.diff(hashes[order], prepend=hashes[order[0]] + np.uint64(1)))
            sizes = np.diff(starts, append=count)
            depths.append(np.minimum(np.arange(count) - np.repeat(starts, sizes), _COMPARED).astype(np.uint8))
            rank = np.empty(count, np.int32)
            rank[order] = np.arange(count, dtype=np.int32)
            orders.append(order)
            ranks.append(rank)
        for start in range(0, count, _EXAMPLES):
            seconds = np.arange(start, min(start + _EXAMPLES, count))
            codes = [np.zeros(0, np.int64)]
            for order, rank, depth in zip(orders, ranks, depths, strict=True):
                places = rank[seconds]
                for back in range(1, _COMPARED + 1):
                    deep = depth[places] >= back
                    if not deep.any():
                        break
                    codes.append(seconds[deep] * count + order[places[deep] - back])
            second, first = np.divmod(np.unique(np.concatenate(codes)), count)
            yield first, second

    def _are_near(self, first: int, second: int, ends: _Numbers) -> bool:
        small, large = sorted((self._sizes[first], self._sizes[second]))
        if small < NEARLY * large:
            return False
        a, b = self._read(first, ends), self._read(second, ends)
        joined = np.concatenate([a, b])
        joined.sort()
        both = int(np.count_nonzero(joined[1:] == joined[:-1]))
        return both >= NEARLY * (len(joined) - both)

    def _read(self, example: int, ends: _Numbers) -> _Hashes:
        self._shingles.seek(int(ends[example]) * 8)
        return np.frombuffer(self._shingles.read(self._sizes[example] * 8), dtype=np.uint64)


def shingles(tokens: npt.NDArray[np.int32]) -> _Hashes:
    """Return the sorted hashes of all different runs of four tokens. Zeros fill a shorter example.

    Args:
        tokens: Token ids (length,).
    """
    ids = tokens.astype(np.uint64)
    if len(ids) < _SHINGLE:
        ids = np.pad(ids, (0, _SHINGLE - len(ids)))
    runs = len(ids) - _SHINGLE + 1
    return np.unique(_mixed([ids[column : column + runs] for column in range(_SHINGLE)]) >> np.uint64(1))


def _mixed(columns: Sequence[_Hashes]) -> _Hashes:
    """Hash the rows of a table with the given columns."""
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed

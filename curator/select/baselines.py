"""Other ways to choose tasks, to compare with: each gives every auxiliary task a score, from arrays alone.

    random           drawn
    bm25             words that the task shares with the target (Okapi BM25; Robertson & Zaragoza 2009)
    embedding        cosine between mean hidden states of the base model
    gradient-cosine  cosine between a task's mean gradient and the target's validation gradient
    less             the same cosine of each example, then averaged (LESS; Xia et al. 2024, arXiv:2402.04333)
    kmm              how much of a task is needed to match the target's gradient by a weighted sum of all
                     (kernel mean matching; Huang et al. 2006), with weights to train with

None of them estimates a loss. Several targets count by their shares. What a score of such a kind is selected by is in
`curator.select.select_scored`; where the arrays come from, in curator/scores.py.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats
from curator.select.mixture import MOST

Tokens = npt.NDArray[np.integer]

NAMES = ("random", "embedding", "bm25", "gradient-cosine", "less", "kmm")
"""The baselines, as they are named everywhere."""

# Okapi BM25's usual constants.
_K1, _B = 1.2, 0.75
# Added to a kernel of ones on its diagonal: of tasks that are alike each gets its part, in whatever order they come.
_MATCH_RIDGE = 1e-3
# Moments of meta-training between two points at which the learning rate is looked up.
_MOMENTS = 100


def random_scores(names: Sequence[str], seed: int) -> Floats:
    """One draw for each task (t,), uniform over [0, 1); by its name, so that no other task changes it."""
    digests = [hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest() for name in names]
    # As many bits as a float holds, so that none is rounded up to 1.
    return np.array([(int.from_bytes(digest[:8]) >> 11) / 2**53 for digest in digests])


def bm25_scores(
    tasks: Sequence[Sequence[Tokens]],
    targets: Sequence[Sequence[Tokens]],
    shares: Floats,
    *,
    k1: float = _K1,
    b: float = _B,
) -> Floats:
    """How much examples of a task say what the target's say, in rare tokens more than in frequent ones.

    Each of the target's examples is a query, and each auxiliary example a document. The score of a document d is

        Σ_{w ∈ query} idf(w) · n_wd (k1 + 1) / (n_wd + k1 (1 − b + b |d| / mean |d|))

    with n_wd the count of w in d and idf(w) = log(1 + (N − n_w + ½) / (n_w + ½)), which is never negative. A word that
    stands twice in a query counts twice. The mean over queries is that of one query with their mean counts, so that the
    work is that of reading every token once.

    Args:
        tasks: Token ids of each example of each task (t).
        targets: Those of each target (u).
        shares: The targets' shares (u,).
        k1: How slowly a word that is repeated counts less.
        b: How much long documents are held back.

    Returns:
        Mean score over a task's examples and the target's (t,); 0 of a task without any.
    """
    documents = [example for examples in tasks for example in examples]
    sizes = np.array([len(example) for example in documents], dtype=np.int64)
    if not sizes.sum():
        return np.zeros(len(tasks))
    tokens = np.concatenate(documents).astype(np.int64)
    queries = [np.concatenate([np.zeros(0, np.int64), *examples]) for examples in targets]
    words = int(max(array.max(initial=0) for array in (tokens, *queries))) + 1
    query = sum(
        share * np.bincount(found, minlength=words) / max(len(examples), 1)
        for share, found, examples in zip(shares, queries, targets, strict=True)
    )
    pairs, counts = np.unique(np.repeat(np.arange(len(documents)), sizes) * words + tokens, return_counts=True)
    document, word = np.divmod(pairs, words)
    holding = np.bincount(word, minlength=words)
    rarity = np.log1p((len(documents) - holding + 0.5) / (holding + 0.5))
    held_back = k1 * (1 - b + b * sizes / sizes.mean())
    each = (np.asarray(query) * rarity)[word] * counts * (k1 + 1) / (counts + held_back[document])
    totals = np.bincount(document, weights=each, minlength=len(documents))
    return _means(np.asarray(totals, np.float64), [len(examples) for examples in tasks])


def cosine_scores(tasks: Floats, targets: Floats, shares: Floats) -> Floats:
    """Cosine of each row with each target, averaged over the targets.

    Args:
        tasks: A vector of each task, or of each example (n, k).
        targets: A vector of each target (u, k).
        shares: The targets' shares (u,).

    Returns:
        From −1 to 1 (n,); 0 of a row of zeros.
    """
    return np.asarray(_directions(tasks) @ _directions(targets).T @ shares)


def less_scores(examples: Sequence[Floats], sizes: Sequence[int], weights: Floats) -> Floats:
    """LESS: a cosine of each example at each point of training, summed over the points, averaged over the task.

    LESS ranks single examples and takes the best. A task is taken whole, and all of its examples are trained on, so
    what counts is their mean: a mean over the best of them would favour large tasks, and not see what the others do.
    Training gradients are as they are, where LESS has the step that Adam would make of them.

    Args:
        examples: At each point (p), the cosine of each example with the target's validation gradient (n,), the examples
            of one task after those of another.
        sizes: How many examples each task has (t).
        weights: Of the points (p,), from `point_weights`.

    Returns:
        Mean influence of each task's examples (t,).
    """
    influences = np.asarray(sum(weight * cosines for weight, cosines in zip(weights, examples, strict=True)))
    return _means(influences, sizes)


def point_weights(shares: Sequence[float], schedule: str, warmup: float) -> Floats:
    """What each point of training stands for in LESS: the mean learning rate since the point before.

    Args:
        shares: The points, as increasing shares of the steps (p).
        schedule: `linear`, `cosine` or `constant`, as the Trainer has them; the latter knows no warmup.
        warmup: Share of the steps over which the learning rate rises.

    Returns:
        Weights (p,) that sum to 1.
    """
    rates = np.zeros(len(shares))
    for number, (begin, end) in enumerate(zip([0.0, *shares], shares, strict=False)):
        moments = begin + (end - begin) * (np.arange(_MOMENTS) + 0.5) / _MOMENTS
        falling = np.clip((moments - warmup) / (1 - warmup), 0, 1)
        curves = {"linear": 1 - falling, "cosine": (1 + np.cos(np.pi * falling)) / 2}
        rising = np.minimum(moments / warmup, 1) if warmup else np.ones(_MOMENTS)
        rates[number] = 1.0 if schedule == "constant" else float((rising * curves[schedule]).mean())
    return np.asarray(rates / rates.sum())


def match_scores(tasks: Floats, target: Floats) -> Floats:
    """Kernel mean matching: how much of each task is needed, so that all together look like the target.

        minimise ‖Σ_t s_t φ_t − φ‖² + ε ‖s‖²  over s ≥ 0

    φ_t being the direction of task t's mean gradient and φ the target's: the kernel is their cosine. Their scale is
    nothing: they are normalised, and bounded as Huang et al. bound them, where they are used (`match_weights`).

    Args:
        tasks: Mean gradient of each task (t, k).
        target: Mean validation gradient (k,).

    Returns:
        s (t,), ≥ 0: what a task adds to the match; many are 0.
    """
    # Takes as long to import as all else that an estimate needs.
    from scipy.optimize import nnls

    count = len(tasks)
    if not count:
        return np.zeros(0)
    features = np.concatenate([_directions(tasks).T, np.sqrt(_MATCH_RIDGE) * np.eye(count)])
    wanted = np.concatenate([_directions(target[None])[0], np.zeros(count)])
    return np.asarray(nnls(features, wanted, maxiter=30 * count + 100)[0])


def match_weights(scores: Floats, tasks: Floats, sizes: Floats, tokens: Floats) -> Floats:
    """How much each example of a task is to count, for training to match what `match_scores` found.

    A task's part of training grows with its size and with its mean gradient: both are taken out of its weight.

    Args:
        scores: From `match_scores` for the selected tasks (t,).
        tasks: Their mean gradients (t, k).
        sizes: Completion tokens of each (t,), which is what a gradient counts by.
        tokens: All tokens of each (t,), which is what a budget counts.

    Returns:
        Weights (t,) by which the tasks have as many tokens together as they have without, each at most
        `mixture.MOST`. A task that the match does not need, but was selected, keeps weight 1; so do all where none is
        needed.
    """
    weights = np.ones(len(scores))
    free = (scores > 0) & (tokens > 0)
    left = tokens[free].sum()
    while free.any():
        found = scores[free] / (np.linalg.norm(tasks[free], axis=1) * sizes[free])
        weights[free] = found * left / (found @ tokens[free])
        # What is cut off a task goes to the others; they can take it, as all of them at the bound are more than all.
        over = free & (weights > MOST)
        if not over.any():
            break
        weights[over] = MOST
        left -= MOST * tokens[over].sum()
        free &= ~over
    return weights


def _directions(vectors: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def _means(values: Floats, sizes: Sequence[int]) -> Floats:
    """Mean of each of several consecutive groups of values (t,); 0 of an empty one."""
    owners = np.repeat(np.arange(len(sizes)), sizes)
    return np.asarray(np.bincount(owners, weights=values, minlength=len(sizes)) / np.maximum(sizes, 1))

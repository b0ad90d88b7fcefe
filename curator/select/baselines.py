"""Score tasks by baselines, for comparison with estimates. Each baseline needs arrays only.

    random           drawn
    bm25             words that the task shares with the target (Okapi BM25; Robertson & Zaragoza 2009)
    embedding        cosine between mean hidden states of the base model
    gradient-cosine  cosine between a task's mean gradient and the target's validation gradient
    less             the same cosine of each example, then averaged (LESS; Xia et al. 2024, arXiv:2402.04333)
    kmm              weight of a task in the weighted sum that matches the target's gradient best
                     (kernel mean matching; Huang et al. 2006), also for training

A baseline does not estimate a loss. Several targets count by their shares. `select_scored` in search.py selects tasks
by a score. baseline_inputs.py computes the arrays.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats
from curator.select.mixture import MOST

Tokens = npt.NDArray[np.integer]

NAMES = ("random", "embedding", "bm25", "gradient-cosine", "less", "kmm")
"""Names of the baselines."""

# Usual constants of Okapi BM25.
_K1, _B = 1.2, 0.75
# Added to the diagonal of a kernel of ones. It makes equal tasks share their weight, whatever their order.
_MATCH_RIDGE = 1e-3
# Number of learning rates that are averaged between two checkpoints.
_MOMENTS = 100


def random_scores(names: Sequence[str], seed: int) -> Floats:
    """Draw a number for each task (t,), uniform over [0, 1). The name of a task alone decides its number."""
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
    """Score tasks by the words that their examples share with the target's. Rare tokens count more.

    Each of the target's examples is a query, and each auxiliary example is a document. The score of a document d is

        Σ_{w ∈ query} idf(w) · n_wd (k1 + 1) / (n_wd + k1 (1 − b + b |d| / mean |d|))

    with n_wd the count of w in d. The rarity idf(w) is never negative:

        idf(w) = log(1 + (N − n_w + ½) / (n_w + ½))

    A word that is twice in a query counts twice. The score is linear in the query.
    One query with mean counts therefore gives the mean over queries, and every token is read once.

    Args:
        tasks: Token ids of each example of each task (t).
        targets: Token ids of each example of each target (u).
        shares: Shares of the targets in the loss (u,).
        k1: Saturation of repeated words.
        b: Penalty of long documents, from 0 to 1.

    Returns:
        Mean score over a task's and the target's examples (t,). 0 for a task without examples.

    Source:
        Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.
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
    """Return the cosine of each row with each target, averaged over the targets.

    Args:
        tasks: A vector of each task, or of each example (n, k).
        targets: A vector of each target (u, k).
        shares: Shares of the targets in the loss (u,).

    Returns:
        Mean cosine from −1 to 1 (n,). 0 for a row of zeros.
    """
    return np.asarray(_directions(tasks) @ _directions(targets).T @ shares)


def less_scores(examples: Sequence[Floats], sizes: Sequence[int], weights: Floats) -> Floats:
    """Score tasks by LESS: cosines of examples, summed over checkpoints and averaged over the task.

    LESS ranks single examples and takes the best. Here a task is selected as a whole, so all of its examples count.
    A mean over the best examples would favour large tasks and ignore the other examples.
    LESS uses Adam's update of a training example. The scores here use its gradient.

    Args:
        examples: Cosine of each example with the target's validation gradient (n,), for each checkpoint (p). Examples
            are sorted by task.
        sizes: Number of examples of each task (t).
        weights: Weight of each checkpoint (p,), from `point_weights`.

    Returns:
        Mean influence of each task's examples (t,).

    Source:
        Xia et al., "LESS: Selecting Influential Data for Targeted Instruction Tuning", 2024, arXiv:2402.04333.
    """
    influences = np.asarray(sum(weight * cosines for weight, cosines in zip(weights, examples, strict=True)))
    return _means(influences, sizes)


def point_weights(shares: Sequence[float], schedule: str, warmup: float) -> Floats:
    """Return the weight of each checkpoint in LESS: the mean learning rate since the checkpoint before.

    Args:
        shares: Checkpoints, as increasing shares of the steps (p).
        schedule: `linear`, `cosine` or `constant`, as in the Trainer. `constant` ignores the warmup.
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
    """Return the weights of the tasks' gradients whose sum matches the target's gradient best.

        minimise ‖Σ_t s_t φ_t − φ‖² + ε ‖s‖²  over s ≥ 0

    with φ_t the direction of task t's mean gradient, and φ the direction of the target's. The kernel is their cosine.
    The scale of s has no meaning. `match_weights` normalises and bounds the weights.

    Args:
        tasks: Mean gradient of each task (t, k).
        target: Mean validation gradient (k,).

    Returns:
        s (t,), ≥ 0. Many entries are 0.

    Source:
        Huang et al., "Correcting Sample Selection Bias by Unlabeled Data" (kernel mean matching), 2006.
    """
    # A late import, because it takes as long as all other imports of an estimate together.
    from scipy.optimize import nnls

    count = len(tasks)
    if not count:
        return np.zeros(0)
    features = np.concatenate([_directions(tasks).T, np.sqrt(_MATCH_RIDGE) * np.eye(count)])
    wanted = np.concatenate([_directions(target[None])[0], np.zeros(count)])
    return np.asarray(nnls(features, wanted, maxiter=30 * count + 100)[0])


def match_weights(scores: Floats, tasks: Floats, sizes: Floats, tokens: Floats) -> Floats:
    """Convert the scores of `match_scores` to a training weight for each example of a task.

    A task's part of training grows with its size and its mean gradient. The weight divides by both.

    Args:
        scores: Scores of the selected tasks (t,), from `match_scores`.
        tasks: Mean gradients of the selected tasks (t, k).
        sizes: Completion tokens of each task (t,), which weigh its gradient.
        tokens: All tokens of each task (t,), which a budget counts.

    Returns:
        Weights (t,), at most `mixture.MOST`. They keep the total number of tokens. A task with score 0 keeps
        weight 1.
    """
    weights = np.ones(len(scores))
    free = (scores > 0) & (tokens > 0)
    left = tokens[free].sum()
    while free.any():
        found = scores[free] / (np.linalg.norm(tasks[free], axis=1) * sizes[free])
        weights[free] = found * left / (found @ tokens[free])
        # The other tasks take the excess of a bounded task. They have room: all tasks at the bound exceed the sum.
        over = free & (weights > MOST)
        if not over.any():
            break
        weights[over] = MOST
        left -= MOST * tokens[over].sum()
        free &= ~over
    return weights


def _directions(vectors: Floats) -> Floats:
    """Scale rows to length 1. A row of zeros stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def _means(values: Floats, sizes: Sequence[int]) -> Floats:
    """Return the mean of each of several consecutive groups of values (t,). 0 for an empty group."""
    owners = np.repeat(np.arange(len(sizes)), sizes)
    return np.asarray(np.bincount(owners, weights=values, minlength=len(sizes)) / np.maximum(sizes, 1))

"""Read a change of a validation example's loss off the movement of the parameters.

A movement δ changes the loss ℓ of a validation example with gradient g by ⟨g, δ⟩ to first order. This is the linear
reading. The bounded reading is linear in the log-odds of the example's probability q = exp(−ℓ) instead:

    softplus(−(log(q / (1 − q)) − ⟨g, δ⟩ / (1 − q))) − ℓ

Its slope at δ = 0 is 1, too. It never lowers a loss below 0.
"""

import numpy as np

from curator.core.arrays import Floats

# Smallest loss, nats. A smaller one makes 1 − q vanish.
_LEAST_LOSS = 1e-6


def bounded(change: Floats, losses: Floats) -> Floats:
    """Return the bounded reading of linear changes (…, v) of losses (v,), nats."""
    margin, certain = _odds(losses)
    # The reading of no change is subtracted, so that it is exactly 0.
    return np.asarray(np.logaddexp(0.0, change / certain - margin) - np.logaddexp(0.0, -margin))


def bounded_slope(change: Floats, losses: Floats) -> Floats:
    """Return the derivative of the bounded reading (…, v) by the linear change."""
    margin, certain = _odds(losses)
    # The logistic function, without overflow.
    return np.asarray(np.exp(-np.logaddexp(0.0, margin - change / certain)) / certain)


def _odds(losses: Floats) -> tuple[Floats, Floats]:
    """Return the log-odds of each example's probability q, and 1 − q."""
    floored = np.maximum(losses, _LEAST_LOSS)
    certain = -np.expm1(-floored)
    return np.asarray(-floored - np.log(certain)), np.asarray(certain)

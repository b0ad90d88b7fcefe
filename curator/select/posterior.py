"""Joint posterior of the losses of several subsets, given fine-tuning runs on some of them.

The loss of subset S is

    known + change(S) + offset + slope · change(S) + Σ_{t∈S} effect_t + misfit(S)

where `known` is the loss of all tasks and change(S) is the estimated difference to it. The other terms are unknown.
They have normal priors of mean 0. The misfits of two subsets are the more alike, the fewer tasks differ.
A run adds noise.
All standard deviations are multiples of one unit, the spread of the estimated changes. A common factor of all variances
is unknown too, with an inverse gamma prior. So the posterior is Student's, and its width follows the runs.

Calibration (calibration.py) has the same terms, and gives the estimates that users see. This module adds the covariance
between subsets, which a choice among subsets needs.
Source: Rasmussen & Williams 2006, chapter 2; O'Hagan & Forster 2004, section 11.19. docs/decisions/ has the priors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.estimate.correction import alike

# Added to the diagonal of a covariance, relative to the squared unit, so that equal subsets keep it positive definite.
_JITTER = 1e-9
# Smallest unit, as a share of the known loss and in nats.
_LEAST_SHARE, _LEAST_UNIT = 1e-3, 1e-6
# Equally likely results of a run, for expectations over it.
_SURPRISES = 201


@dataclass(frozen=True, slots=True, kw_only=True)
class JointPriors:
    """Prior standard deviations, in units of the spread of the estimated changes.

    Attributes:
        offset: Offset of all subsets.
        slope: Contribution of the slope for an average subset.
        effects: Joint effects of an average subset.
        misfit: What the linear terms do not explain.
        reach: Share of different tasks at which the correlation of two misfits has fallen to 1/e.
        noise: Noise of one run.
        freedom: Degrees of freedom of the prior of the common factor.
    """

    offset: float = 1.0
    slope: float = 0.3
    effects: float = 0.6
    misfit: float = 0.8
    reach: float = 0.25
    noise: float = 0.45
    freedom: float = 6.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointPosterior:
    """Losses of several subsets, jointly distributed by Student's t.

    Attributes:
        mean: Mean loss (s,), nats.
        covariance: Covariance (s, s) for a common factor of 1, nats².
        noise: Standard deviation of one run for a common factor of 1, nats.
        factor: Mean of the common factor's distribution, from the runs.
        freedom: Degrees of freedom.
    """

    mean: Floats
    covariance: Floats
    noise: float
    factor: float
    freedom: float

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
        """Draw losses of all subsets together.

        Args:
            rng: Generator of random numbers.
            count: Number n of draws.

        Returns:
            Losses (n, s), and the standard deviation of one run in each draw (n,), nats.
        """
        size = len(self.mean)
        jitter = _JITTER * max(float(np.trace(self.covariance)) / max(size, 1), self.noise**2, _LEAST_UNIT**2)
        root = np.linalg.cholesky(self.covariance + jitter * np.eye(size))
        scales = np.sqrt(self.factor * self.freedom / rng.chisquare(self.freedom, count))
        draws = self.mean + (rng.standard_normal((count, size)) @ root.T) * scales[:, None]
        return np.asarray(draws), np.asarray(self.noise * scales)


def spread_of(changes: Floats, known: float) -> float:
    """Return the unit of the priors: the standard deviation of estimated changes (n,) of various subsets, nats."""
    return max(float(changes.std()) if changes.size else 0.0, _LEAST_SHARE * known, _LEAST_UNIT)


def joint_posterior(
    masks: Mask,
    changes: Floats,
    *,
    known: float,
    unit: float,
    rows: Sequence[int],
    losses: Sequence[float],
    priors: JointPriors | None = None,
) -> JointPosterior:
    """Return the posterior of the losses of subsets after some runs.

    Args:
        masks: Subsets (s, t).
        changes: Estimated change of each subset (s,), uncalibrated, nats.
        known: Loss of all tasks together, nats.
        unit: Result of `spread_of`.
        rows: Row of the subset of each run (n). A subset may have several runs.
        losses: Measured loss of each run (n), nats.
        priors: Priors. None for the default.
    """
    priors = priors or JointPriors()
    mean = known + changes
    covariance = _prior_covariance(masks, changes, unit, priors)
    noise = priors.noise * unit
    taken = np.array(rows, dtype=np.intp)
    if not taken.size:
        return JointPosterior(mean=mean, covariance=covariance, noise=noise, factor=1.0, freedom=priors.freedom)
    seen = covariance[np.ix_(taken, taken)] + noise**2 * np.eye(len(taken))
    left = np.asarray(losses, dtype=np.float64) - mean[taken]
    gain = np.linalg.solve(seen, np.c_[covariance[taken], left])
    dual = gain[:, -1]
    freedom = priors.freedom + len(taken)
    return JointPosterior(
        mean=mean + covariance[:, taken] @ dual,
        covariance=_symmetric(covariance - covariance[:, taken] @ gain[:, :-1]),
        noise=noise,
        factor=(priors.freedom + float(left @ dual)) / freedom,
        freedom=freedom,
    )


def probabilities_best(draws: Floats) -> Floats:
    """Return the share of draws (n, s) in which each subset has the lowest loss (s,)."""
    return np.bincount(draws.argmin(axis=1), minlength=draws.shape[1]) / len(draws)


def gains_of_next_run(found: JointPosterior, measured: Mask) -> Floats:
    """Return the expected gain of one more run on each subset (s,), nats.

    The gain is the fall of the lowest mean of the measured subsets. The run adds its subset to them, and moves the
    means of all subsets by their covariance with it. A subset that is well known moves little, so its run gains little.
    This is the knowledge gradient for Student's t. Source: Frazier, Powell & Dayanik 2009, "The knowledge-gradient
    policy for correlated normal beliefs".

    Args:
        found: Posterior of the subsets.
        measured: Which subsets (s,) have a run. There is at least one.
    """
    from scipy.special import stdtrit

    variances = np.diag(found.covariance) + found.noise**2
    # Movement of each mean (row) if the run on a subset (column) is one scale above its mean.
    moves = found.covariance * np.sqrt(found.factor / variances)
    surprises = stdtrit(found.freedom, (np.arange(_SURPRISES) + 0.5) / _SURPRISES)
    known, lowest = np.flatnonzero(measured), float(found.mean[measured].min())
    gains = np.zeros(len(found.mean))
    for row in range(len(gains)):
        among = np.union1d(known, [row])
        after = found.mean[among, None] + np.outer(moves[among, row], surprises)
        gains[row] = lowest - float(after.min(axis=0).mean())
    return gains


def _prior_covariance(masks: Mask, changes: Floats, unit: float, priors: JointPriors) -> Floats:
    inside = masks.astype(np.float64)
    centred = changes / unit
    # A subset with half of the tasks has the variance `effects` squared if tasks are few: the divisor is that of
    # calibration.py.
    linear = (
        priors.offset**2
        + priors.slope**2 * np.outer(centred, centred)
        + priors.effects**2 * (inside @ inside.T) / max(masks.shape[1] / 4, 1)
    )
    return np.asarray(unit**2 * (linear + priors.misfit**2 * alike(masks, masks, priors.reach)))


def _symmetric(matrix: Floats) -> npt.NDArray[np.float64]:
    return np.asarray((matrix + matrix.T) / 2)

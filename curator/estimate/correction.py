"""What measured subsets add to the estimate of any subset: an offset, slopes, effects of tasks, and misfits.

The misfit of a subset is what the other terms do not explain. Subsets with few different tasks have similar misfits,
so a measured subset corrects its neighbours. calibration.py fits the terms, and posterior.py has the same ones.
"""

from dataclasses import dataclass

import numpy as np

from curator.core.arrays import Floats, Mask


def alike(first: Floats | Mask, second: Floats | Mask, reach: float) -> Floats:
    """Return the correlation of the misfits of subsets (s, n): exp(−share of different tasks / reach).

    Args:
        first: Membership of the tasks (s, t). A part of a task counts as its share.
        second: Membership of the tasks (n, t), zeros and ones.
        reach: Share of different tasks at which the correlation has fallen to 1/e.
    """
    inside, others = first.astype(np.float64), second.astype(np.float64)
    apart = inside.sum(axis=1)[:, None] + others.sum(axis=1) - 2 * inside @ others.T
    return np.asarray(np.exp(-apart / (max(first.shape[1], 1) * reach)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correction:
    """Terms that correct the estimates.

    Attributes:
        offset: Added to every estimate, nats.
        slopes: Factor of the estimated change from each reading (p,).
        effects: Added if the task is in the subset (t,), nats.
        misfits: Weight of the correlation with each measured subset (n,), nats.
        masks: Measured subsets (n, t).
        reach: Reach of the correlation.
    """

    offset: float
    slopes: Floats
    effects: Floats
    misfits: Floats
    masks: Mask
    reach: float

    def losses(self, known: float, changes: Floats, masks: Mask) -> Floats:
        """Return corrected losses (s,) from the changes of each reading (s, p) and membership (s, t), nats."""
        return np.asarray(known + changes @ self.slopes + self.shifts(masks))

    def shifts(self, members: Floats | Mask) -> Floats:
        """Return what is added to the estimates of subsets (s,), apart from the slopes, nats.

        Args:
            members: Weight of each task in each subset (s, t), ≥ 0. For misfits, a weight above 1 counts as 1.
        """
        found = self.offset + members @ self.effects
        if self.misfits.any():
            found = found + alike(np.minimum(members, 1), self.masks, self.reach) @ self.misfits
        return np.asarray(found)

    def derivatives(self, members: Floats) -> Floats:
        """Return the derivative of the shift by the weight of each task (t,), nats.

        Args:
            members: Weight of each task (t,). At a weight of 1, the derivative is the one from below.
        """
        if not self.misfits.any():
            return self.effects.copy()
        near = alike(np.minimum(members, 1)[None], self.masks, self.reach)[0] * self.misfits
        signs = np.where(members <= 1, 2.0 * self.masks - 1.0, 0.0)
        return np.asarray(self.effects + near @ signs / (len(members) * self.reach))

    def gains(self, mask: Mask, kept: Floats) -> Floats:
        """Return how much each task lowers the shift of a subset, when it joins or leaves (t,), nats.

        Args:
            mask: Membership of the tasks (t,).
            kept: Share of each task that counts as a member (t,).
        """
        gains = -self.effects * kept
        if self.misfits.any():
            near = alike((mask * kept)[None], self.masks, self.reach)[0] * self.misfits
            # Distance of each task to each measured subset, if it is in the subset, if it is not, and now.
            inside, outside = np.where(self.masks, 1 - kept, kept), self.masks.astype(np.float64)
            now, unit = np.where(mask, inside, outside), len(mask) * self.reach
            gains = gains + near @ (np.exp((now - outside) / unit) - np.exp((now - inside) / unit))
        return np.asarray(gains)


def no_correction(tasks: int) -> Correction:
    """Return the correction of uncalibrated estimates: none.

    Args:
        tasks: Number t of auxiliary tasks.
    """
    none = np.zeros((0, tasks), dtype=bool)
    return Correction(
        offset=0.0, slopes=np.ones(1), effects=np.zeros(tasks), misfits=np.zeros(0), masks=none, reach=1.0
    )

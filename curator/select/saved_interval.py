"""The interval of a saved selection by the present estimates, if a method chose it for its estimate."""

from typing import Any

from curator.core.errors import CuratorError
from curator.core.interval import Interval
from curator.estimate.target import TargetEstimates
from curator.select.manifest import Manifest
from curator.select.manifest_builder import chooses_by_estimates, interval_for_selected
from curator.select.methods import Request, constraints_of

_LIMITS = ("k", "max_tokens", "max_examples", "threshold")


def saved_interval(estimates: TargetEstimates, manifest: Manifest) -> Interval | None:
    """Return the interval of a selection that a method chose. It is the one that `select` computes.

    Args:
        estimates: Present estimates for the target.
        manifest: The saved selection.

    Returns:
        Estimate and 90 % interval. None if a person or a baseline chose the tasks: the plain interval holds for them.
        None too if the selection has weights or dropped examples, or names tasks that are gone.
    """
    chosen = [task for task in manifest.tasks if task.selected]
    if not chooses_by_estimates(manifest.method) or manifest.dropped_examples:
        return None
    if any(task.weight != 1.0 for task in chosen):
        return None
    options = manifest.options
    limits: dict[str, Any] = {name: options.get(name) for name in _LIMITS}
    try:
        request = Request(
            method=manifest.method,
            include=tuple(options.get("include", ())),
            exclude=tuple(options.get("exclude", ())),
            **limits,
        )
        constraints = constraints_of(request, estimates.tasks, estimates.number_of)
        mask = estimates.mask([task.name for task in chosen])
    except CuratorError:
        return None
    (plain,) = estimates.estimator.estimate(mask[None])
    return interval_for_selected(estimates, mask, plain, constraints)

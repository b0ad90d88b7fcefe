"""Which saved selections of a target the present estimates have made."""

from curator.core.errors import DataError
from curator.data.dropped import Dropped
from curator.estimate.reduced import reduced_estimates
from curator.estimate.target import TargetEstimates
from curator.select.manifest import stored_manifest
from curator.select.selections import dropped_by
from curator.workspace.store.records import StoredSelection
from curator.workspace.store.tables import Store


def fitting_selections(store: Store, estimates: TargetEstimates) -> list[StoredSelection]:
    """Return the saved selections of the target whose losses are those of the present estimates."""
    used = {artifact.key: artifact.inputs.get("estimate") for artifact in store.artifacts("select")}
    return [
        kept
        for kept in selections_by_name(store, estimates).values()
        if used.get(kept.key) in _keys_for(kept, estimates)
    ]


def selections_by_name(store: Store, estimates: TargetEstimates) -> dict[str, StoredSelection]:
    """Return the selections of the target by name. The newest of a name hides the others."""
    saved: dict[str, StoredSelection] = {}
    for kept in store.selections():
        if kept.target == estimates.corpus.target_label:
            saved.setdefault(kept.name, kept)
    return saved


def _keys_for(kept: StoredSelection, estimates: TargetEstimates) -> tuple[str, ...]:
    """Return the keys of the present estimates, and of those without the examples that a selection drops."""
    try:
        dropped = dropped_by(stored_manifest(kept.manifest)).within(estimates.corpus)
    except DataError:
        # Another version of curator wrote this manifest.
        dropped = Dropped()
    return estimates.key, reduced_estimates(estimates, dropped).key

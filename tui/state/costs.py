"""Time of fine-tuning runs and stages before they start, by the cost model. The store is read, and no model runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.core.figures import duration

if TYPE_CHECKING:
    from curator.project.costs import Work
    from tui.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Cost of work.

    Attributes:
        runs: Number of fine-tuning runs. 0 for other work.
        seconds: Expected time.
        known: Whether the time comes from earlier work on this machine. Otherwise it is the most that it may take.
    """

    runs: int
    seconds: float
    known: bool

    @property
    def words(self) -> str:
        """Return the time for the user."""
        return f"{'about' if self.known else 'at most about'} {duration(self.seconds)}"


def cost_of_selections(snapshot: "Snapshot", names: Sequence[str], seeds: int) -> Expected:
    """Return the cost of the missing runs of `curator verify --selections`.

    Args:
        snapshot: A project with estimates.
        names: Names of selections. `all` and `none` are all tasks and the target alone.
        seeds: Runs on each selection.

    Raises:
        CuratorError: A selection cannot be measured.
    """
    # These imports are slow, and this function runs in a thread.
    from curator.project.costs import Planner
    from curator.select.selections import Selections
    from curator.verify.paired import named_subsets, runs_to_pair

    assert snapshot.corpus is not None
    assert snapshot.answers is not None
    named = named_subsets(Selections(snapshot.answers), names)
    runs = runs_to_pair(snapshot.answers, named, seeds=seeds)
    planner = Planner(snapshot.project.workspace, snapshot.corpus)
    return _cost(snapshot, [planner.runs("verify", [(one.subset, seed) for one, seed in runs])], runs=len(runs))


def cost_of_runs(snapshot: "Snapshot", count: int) -> Expected:
    """Return the cost of runs on subsets that are not chosen yet.

    Raises:
        CuratorError: The store or the model cannot be read.
    """
    from curator.project.costs import Planner

    assert snapshot.corpus is not None
    planner = Planner(snapshot.project.workspace, snapshot.corpus)
    return _cost(snapshot, [planner.expected_runs("verify", count)], runs=count)


def cost_of_select(snapshot: "Snapshot") -> Expected:
    """Return the cost of a first selection with all stages before it.

    Raises:
        CuratorError: The store or the model cannot be read.
    """
    from curator.project.costs import Planner
    from curator.select.methods import Request

    assert snapshot.corpus is not None
    planner, method = Planner(snapshot.project.workspace, snapshot.corpus), snapshot.project.config.select.method
    works = [planner.train(), planner.gradients(), planner.affinities(), planner.select(Request(method=method), method)]
    return _cost(snapshot, works)


def _cost(snapshot: "Snapshot", works: "Sequence[Work]", *, runs: int = 0) -> Expected:
    from curator.project.rates import Rates

    assert snapshot.corpus is not None
    rates = Rates(snapshot.project.workspace, snapshot.corpus)
    if runs and works[0].tokens and rates.find(works[0].kind) is None:
        # Runs of another machine, or of before rates were kept, are better than the bound of the cost model.
        seconds = [run.seconds for found in snapshot.measured.values() for run in found.runs]
        if seconds:
            return Expected(runs=runs, seconds=runs * sum(seconds) / len(seconds), known=True)
    known = all(work.cached or not work.tokens or rates.find(work.kind) is not None for work in works)
    return Expected(runs=runs, seconds=rates.report(works).seconds, known=known)

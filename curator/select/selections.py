"""`Selections`: select tasks for one target, save selections, and find them again."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from curator import results
from curator.core.arrays import Floats, Mask
from curator.core.errors import ConfigError, DataError
from curator.core.figures import first_of
from curator.core.interval import Interval
from curator.core.provenance import Inputs, key_of
from curator.core.text import is_text
from curator.core.version import __version__
from curator.data.dropped import Dropped
from curator.estimate.reduced import reduced_estimates
from curator.estimate.target import TargetEstimates
from curator.estimate.trajectory import TrajectoryEstimator
from curator.estimate.whatif import doubtful_tasks
from curator.results.base import rounded, rounded_if_known
from curator.select.baseline_inputs import BaselineInputs
from curator.select.considered import random_subsets
from curator.select.embeddings import task_embeddings
from curator.select.manifest import Edit, Manifest, read_manifest, stored_manifest
from curator.select.manifest_builder import manifest_of, seen_from
from curator.select.methods import Methods, Request, check_request, constraints_of
from curator.select.pareto import competing_subsets, pareto_front
from curator.select.per_example import ExampleSearch, Units, with_examples_in_memory
from curator.select.search import Constraints, Selection, Step
from curator.training.meta_init import LoadModel
from curator.training.model import load_project_model
from curator.workspace.workspace import Workspace

# Most tasks that a warning names.
_NAMED = 8
# Random subsets that join the front's search.
_DRAWN = 256

# Increase when a search judges the noise of the same estimates in another way.
_NOISE_VERSION = 3
_STOPS_AT_NOISE = ("forward", "backward", "exchange")


class Selections:
    """Selections for one target.

    Args:
        estimates: Estimates of the target's loss.
        load: Returns the model, which the method `embedding` needs.
    """

    def __init__(self, estimates: TargetEstimates, load: LoadModel | None = None) -> None:
        self.estimates = estimates
        self._workspace = estimates.workspace
        self._load = load or partial(load_project_model, estimates.workspace, estimates.corpus.model)

    def renewed(self) -> "Selections":
        """Return the selections by the estimates that all runs in the store calibrate."""
        return Selections(self.estimates.renewed(), self._load)

    def last(self) -> Manifest | None:
        """Return the selection that was made or saved last, or None. Runs no selection."""
        label = self.estimates.corpus.target_label
        found = next((kept for kept in self._workspace.store.selections() if kept.target == label), None)
        return None if found is None else stored_manifest(found.manifest)

    def last_or_select(self) -> Manifest:
        """Return the last selection. If the store has no selection, select by the configured method."""
        last = self.last()
        if last is not None:
            return last
        request = Request(method=self._workspace.config.select.method)
        return self.select(request, name=request.method, folder=self._workspace.root, fresh=False)[0]

    def last_names_or_select(self) -> list[str]:
        """Return the names of the tasks of `last_or_select` that are still auxiliary tasks."""
        there = {task.name for task in self.estimates.tasks}
        return [task.name for task in self.last_or_select().tasks if task.selected and task.name in there]

    def last_dropped(self) -> Dropped:
        """Return the examples that the last selection drops, and that its tasks still hold."""
        last = self.last()
        return Dropped() if last is None else dropped_by(last).within(self.estimates.corpus)

    def without(self, dropped: Dropped) -> "Selections":
        """Return the selections among tasks without some examples."""
        return Selections(reduced_estimates(self.estimates, dropped), self._load) if dropped else self

    def select_inputs(self, request: Request, name: str) -> Inputs:
        """Return the inputs that decide a selection."""
        inputs: Inputs = {
            "estimate": self.estimates.key,
            "request": request.inputs(),
            "name": name,
            "curator": __version__,
        }
        if self._workspace.config.captures and request.method in _STOPS_AT_NOISE:
            inputs["noise"] = _NOISE_VERSION
        return inputs

    def select(self, request: Request, *, name: str, folder: Path, fresh: bool) -> tuple[Manifest, bool]:
        """Select tasks, or return the same selection from the store.

        Args:
            request: Method and constraints.
            name: Name of the selection.
            folder: Folder that the manifest's paths are relative to.
            fresh: Select again even if cached.

        Returns:
            The manifest, and whether it was cached.

        Raises:
            ConfigError: A name is not an auxiliary task, or the request contradicts itself or the method.
        """
        check_request(request, self._workspace.config.estimate.method)
        if request.dropped:
            return self.without(request.dropped).select(
                replace(request, dropped=Dropped()), name=name, folder=folder, fresh=fresh
            )
        if request.per_example:
            # docs/benchmarks.md has the figures of three settings.
            self._workspace.reporter.warn(
                "estimates of chosen examples tend to be too low: the search picks examples by errors in its favour."
                " Run `curator verify` before you use this selection."
            )
        constraints = constraints_of(request, self.estimates.tasks, self.estimates.number_of)
        inputs = self.select_inputs(request, name)
        key = key_of(inputs)
        kept = None if fresh else self._workspace.store.selection(key)
        if kept is not None:
            # The tracker decides no result, and exports carry its present name.
            train = {"train": self._workspace.config.train.model_dump(mode="json")}
            manifest = stored_manifest(kept).model_copy(update=train)
            # The last requested selection is the current one, whenever it was made.
            self._workspace.store.renew_selection(key)
            self._workspace.reporter.cached("select", f"{name!r}, made {manifest.created}")
            return self._seen_from(folder, manifest), True
        affinities = self.estimates.affinities()
        stage = self._workspace.reporter.stage("select", 0, "steps")
        steps: list[Step] = []

        def follow(step: Step) -> None:
            steps.append(step)
            stage.advance_to(len(steps), loss=step.loss)

        selection = self._methods.select(request.method, constraints, follow)
        estimates = self.estimates
        if request.per_example:
            estimates, selection = choose_examples(
                self.estimates, constraints, selection, lambda loss: follow(Step("examples", (), loss))
            )
        stage.finish(f"{int(selection.mask.sum())} of {len(self.estimates.tasks)} tasks by {request.method}")
        self._name_doubtful(selection, request)
        if estimates is not self.estimates:
            # The limits hold for the tasks without the examples that were not chosen.
            constraints = constraints_of(request, estimates.tasks, estimates.number_of)
        manifest = manifest_of(estimates, request, name, selection, affinities, constraints=constraints)
        self._keep(key, manifest, inputs)
        return self._seen_from(folder, manifest), False

    def _name_doubtful(self, selection: Selection, request: Request) -> None:
        """Warn about selected tasks that the estimate cannot tell from useless ones. Pinned tasks are the user's."""
        if request.per_example or selection.weights is not None:
            return
        names = [self.estimates.tasks[task].name for task in doubtful_tasks(self.estimates.estimator, selection.mask)]
        if doubtful := [name for name in names if name not in request.include]:
            self._workspace.reporter.warn(
                f"the estimate cannot tell whether {len(doubtful)} of {int(selection.mask.sum())} selected tasks help:"
                f" {first_of(doubtful, _NAMED)}. Each changes the estimate by less than its noise."
            )

    def preview(self, request: Request, *, name: str) -> Manifest:
        """Return the manifest that `select` would make. Store nothing.

        Raises:
            ConfigError: A name is not an auxiliary task, or pins contradict each other or the budget.
        """
        constraints = constraints_of(request, self.estimates.tasks, self.estimates.number_of)
        selection = self._methods.select(request.method, constraints, lambda _: None)
        affinities = self.estimates.affinities()
        return manifest_of(self.estimates, request, name, selection, affinities, constraints=constraints)

    def choose(self, request: Request) -> list[str]:
        """Return the names of the tasks that a method would select. Store nothing.

        Raises:
            ConfigError: A name is not an auxiliary task, or pins contradict each other or the budget.
        """
        constraints = constraints_of(request, self.estimates.tasks, self.estimates.number_of)
        mask = self._methods.select(request.method, constraints, lambda _: None).mask
        return [task.name for task, chosen in zip(self.estimates.tasks, mask, strict=True) if chosen]

    def pareto(self) -> results.ParetoReport:
        """Estimate the loss of each target, and find the subsets that no other subset beats for every target."""
        estimates, seed = self.estimates, self._workspace.config.select.seed
        corpus, names = estimates.corpus, estimates.targets
        sizes = [len(task.split.validation) for task in corpus.target_tasks]
        owner = np.repeat(np.arange(len(sizes)), sizes)
        memberships = (owner == np.arange(len(sizes))[:, None]) / np.array(sizes, dtype=np.float64)[:, None]
        # The noise of a weighted loss would stop the search early. The front shows every difference.
        limits = constraints_of(Request(method="forward", threshold=0.0), estimates.tasks, estimates.number_of)
        stage = self._workspace.reporter.stage("pareto", 0, "subsets")
        measured = {m.subset: m.mean for m in estimates.measured}
        others = [estimates.mask(subset) for subset in (*measured, self.last_names_or_select())]
        others += [limits.start(full=full) for full in (True, False)]
        drawn = random_subsets(len(estimates.tasks), count=_DRAWN, seed=seed)
        masks = competing_subsets(estimates.estimator, memberships, limits, np.concatenate([np.stack(others), drawn]))
        each = estimates.estimator.validation_losses(masks)
        losses = each @ memberships.T
        together = each @ estimates.estimator.validation_weights
        front = pareto_front(losses)
        stage.finish(f"{len(masks)} subsets, {int(front.sum())} on the front")
        tasks = np.array([task.name for task in estimates.tasks], dtype=object)
        tokens = np.array([task.tokens for task in estimates.tasks], dtype=np.int64)
        order = np.lexsort((together, losses[:, 0])).tolist()
        return results.ParetoReport(
            target=names,
            calibrated_on=estimates.calibrated_on,
            points=tuple(
                results.ParetoPoint(
                    subset=(subset := tuple(tasks[masks[row]].tolist())),
                    tokens=int(tokens[masks[row]].sum()),
                    losses={
                        task.name: rounded(loss) for task, loss in zip(corpus.target_tasks, losses[row], strict=True)
                    },
                    estimated_loss=rounded(together[row]),
                    measured_loss=rounded_if_known(measured.get(frozenset(subset))),
                    on_front=bool(front[row]),
                )
                for row in order
            ),
        )

    def save(
        self,
        subset: Sequence[str],
        *,
        name: str,
        request: Request,
        edits: Sequence[Edit] = (),
        started_from: str = "",
    ) -> Manifest:
        """Store a selection that a person made.

        Args:
            subset: Names of the selected tasks.
            name: Name of the selection. It hides an earlier selection of that name.
            request: Method and options of the selection that was edited. `include` and `exclude` are the pins.
            edits: Changes by hand, in order.
            started_from: Name of the selection that the changes began with.

        Returns:
            The manifest. Its paths are relative to the project.

        Raises:
            ConfigError: A name is not an auxiliary task.
        """
        if request.dropped:
            return self.without(request.dropped).save(
                subset,
                name=name,
                request=replace(request, dropped=Dropped()),
                edits=edits,
                started_from=started_from,
            )
        mask = self.estimates.mask(subset)
        (estimate,) = self.estimates.estimator.estimate(mask[None])
        manifest = manifest_of(
            self.estimates, request, name, Selection(mask, estimate.value), self.estimates.affinities()
        )
        manifest = manifest.model_copy(update={"edits": tuple(edits), "started_from": started_from})
        inputs = self.select_inputs(request, name) | {
            "selected": sorted(subset),
            "edits": [edit.model_dump() for edit in edits],
            "started_from": started_from,
        }
        self._keep(key_of(inputs), manifest, inputs)
        return self._seen_from(self._workspace.root, manifest)

    def save_race(self, mask: Mask, *, name: str, request: Request, race: results.RaceResult) -> Manifest:
        """Store the winner of a race as a selection.

        Args:
            mask: The winner (t,).
            name: Name of the selection.
            request: Limits of the race.
            race: Result of the race. The manifest's options record it.

        Returns:
            The manifest. Its paths are relative to the project.
        """
        constraints = constraints_of(request, self.estimates.tasks, self.estimates.number_of)
        (estimate,) = self.estimates.estimator.estimate(mask[None])
        chosen = replace(request, method="race")
        manifest = manifest_of(
            self.estimates,
            chosen,
            name,
            Selection(mask, estimate.value),
            self.estimates.affinities(),
            constraints=constraints,
        )
        outcome = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(race).items()}
        manifest = manifest.model_copy(update={"options": manifest.options | {"race": outcome}})
        inputs = self.select_inputs(chosen, name) | {"race": outcome}
        self._keep(key_of(inputs), manifest, inputs)
        return manifest

    def _keep(self, key: str, manifest: Manifest, inputs: Inputs) -> None:
        self._workspace.store.put_selection(
            key,
            manifest.name,
            target=self.estimates.corpus.target_label,
            method=manifest.method,
            loss=manifest.estimated_loss,
            manifest=self._seen_from(self._workspace.root, manifest).model_dump_json(),
            inputs=inputs,
            outputs={"selected": [task.name for task in manifest.tasks if task.selected]},
        )

    def _seen_from(self, folder: Path, manifest: Manifest) -> Manifest:
        return seen_from(folder, manifest, self.estimates.corpus, self._workspace.root)

    @cached_property
    def _methods(self) -> Methods:
        inputs = BaselineInputs(
            workspace=self._workspace,
            corpus=self.estimates.corpus,
            points=self.estimates.points,
            embeddings=self._embeddings,
        )
        return Methods(estimator=self.estimates.estimator, affinities=self.estimates.affinities(), inputs=inputs)

    def _embeddings(self) -> Floats:
        return task_embeddings(self._workspace, self.estimates.corpus, self._load)


def choose_examples(
    estimates: TargetEstimates, constraints: Constraints, whole: Selection, follow: Callable[[float], None]
) -> tuple[TargetEstimates, Selection]:
    """Choose examples inside tasks under a budget of tokens.

    Args:
        estimates: Estimates of the tasks with all examples.
        constraints: The budget and the pins. All examples of a pinned task are in, or none.
        whole: The selection of whole tasks within the budget.
        follow: Called with the estimated loss of each round.

    Returns:
        Estimates without the other examples, and the selection of the tasks with chosen examples.

    Raises:
        ConfigError: The estimator is not that of the trajectory.
        CuratorError: The examples cannot be read.
    """
    if not isinstance(estimates.estimator, TrajectoryEstimator):
        raise ConfigError(
            "--per-example needs the trajectory estimator", hint='Set method = "trajectory" under [estimate].'
        )
    units = Units.of(estimates.tasks)
    pins = [np.isin(np.arange(len(estimates.tasks)), sorted(p)) for p in (constraints.include, constraints.exclude)]
    assert constraints.max_tokens is not None
    trajectory = with_examples_in_memory(estimates.trajectory)
    search = ExampleSearch(
        TrajectoryEstimator(trajectory, estimates.final_losses, estimates.calibration),
        trajectory,
        units,
        max_tokens=constraints.max_tokens,
        include=pins[0],
        exclude=pins[1],
        follow=follow,
    )
    found = search.best(whole.mask)
    mask = np.zeros(len(estimates.tasks), dtype=bool)
    mask[units.tasks[found.kept]] = True
    left = np.flatnonzero(~found.kept & mask[units.tasks])
    dropped = Dropped.of((estimates.tasks[int(units.tasks[u])].name, units.hashes[int(u)]) for u in left)
    return reduced_estimates(estimates, dropped), Selection(mask, found.loss, whole.steps)


def dropped_by(manifest: Manifest) -> Dropped:
    """Return the examples that a selection drops."""
    return Dropped.of((row.task, row.sha256) for row in manifest.dropped_examples)


def find_manifest(workspace: Workspace, wanted: Path | str) -> tuple[Manifest, Path]:
    """Find a manifest by its file or by the name of its selection.

    Args:
        workspace: The project.
        wanted: A file in the working directory or in the project, or the name of a stored selection.

    Returns:
        The manifest, and the folder that its paths are relative to.

    Raises:
        DataError: Neither the file nor the selection exists.
    """
    path = find_manifest_file(workspace, wanted)
    if path is not None:
        return read_manifest(path), path.parent
    kept = workspace.store.selection_named(str(wanted)) if is_text(str(wanted)) else None
    if kept is None:
        names = sorted({selection.name for selection in workspace.store.selections()})
        raise DataError(
            f"neither a manifest nor the name of a selection: {wanted}",
            hint=f"Use one of: {', '.join(names)}." if names else "Run `curator select` first.",
        )
    return stored_manifest(kept), workspace.root


def find_manifest_file(workspace: Workspace, wanted: Path | str) -> Path | None:
    """Return the file of a manifest, or None if `wanted` is the name of a selection."""
    # os.path.isfile accepts names that are too long for a file. pathlib would raise an error.
    return next((path for path in (Path(wanted).absolute(), workspace.root / wanted) if os.path.isfile(path)), None)


def selection_report(
    manifest: Manifest, path: Path, cached: bool, race: results.RaceResult | None = None
) -> results.SelectionResult:
    """Return the report of `Project.select` on a manifest, and on the race that chose it."""
    targets = manifest.target_names
    try:
        shown = path.relative_to(Path.cwd())
    except (ValueError, OSError):
        shown = path
    return results.SelectionResult(
        project=manifest.project,
        name=manifest.name,
        target=targets,
        method=manifest.method,
        tasks=tuple(
            results.SelectedTask(
                name=task.name,
                examples=task.examples,
                tokens=task.tokens,
                affinity=task.affinity,
                affinity_standard_error=task.affinity_standard_error,
                selected=task.selected,
                weight=task.weight,
            )
            for task in manifest.tasks
        ),
        estimate=Interval(manifest.estimated_loss, manifest.estimated_loss_low, manifest.estimated_loss_high),
        calibrated=bool(manifest.estimate["calibrated"]),
        interval_accounts_for_selection=bool(manifest.estimate.get("interval_accounts_for_selection", False)),
        measured_loss=manifest.measured_loss,
        reference=manifest.reference,
        indistinguishable=manifest.indistinguishable,
        steps=manifest.steps,
        dropped_examples=tuple(row.model_dump() for row in manifest.dropped_examples),
        manifest=shown,
        cached=cached,
        race=race,
    )

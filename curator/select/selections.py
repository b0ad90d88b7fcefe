"""Estimates, affinities and selections for one target, computed once and kept in the store."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curator import __version__, results
from curator.core.arrays import Floats
from curator.core.errors import ConfigError
from curator.core.events import Stopwatch
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.corpus import Corpus
from curator.estimate.affinity import Affinities, sample_affinities, sample_subsets
from curator.estimate.calibration import LEAST_RUNS, RIDGE_SCALES, Calibration, Evidence, calibrate
from curator.estimate.estimator import Point, TargetEstimator, build_estimator
from curator.estimate.points import read_points
from curator.estimate.whatif import budget_curve, difference, judge_each
from curator.gradients.stage import gradient_sets, gradients_inputs
from curator.results.base import rounded, rounded_if_known
from curator.select.baseline_inputs import Sources
from curator.select.embeddings import task_embeddings
from curator.select.manifest import Edit, Manifest
from curator.select.manifest_builder import manifest_of, seen_from
from curator.select.methods import Methods, Request, problem_of
from curator.select.search import Selection, Step
from curator.training.fine_tune import diverged_runs, measured_subsets, recipe_key
from curator.training.meta_init import LoadModel, MetaInit
from curator.workspace.workspace import Workspace

# Raised when the same gradients would give other numbers or selections.
_ESTIMATOR_VERSION = 5


class Answers:
    """What the gradients say about one target.

    Args:
        workspace: The project.
        corpus: Its examples, split for the target.
        meta: The meta-initialization that the gradients belong to.
        load: Gives the model, which one of the baselines needs.
    """

    def __init__(self, workspace: Workspace, corpus: Corpus, meta: MetaInit, load: LoadModel | None = None) -> None:
        self.workspace, self.corpus, self._meta, self._load = workspace, corpus, meta, load
        self.sets = gradient_sets(workspace.config, meta)
        self._store, self._config = workspace.store, workspace.config
        self.tasks = corpus.auxiliary
        measurements = self._store.measurements(recipe_key(workspace.config, corpus))
        self.measured = measured_subsets(corpus, measurements)
        self.diverged = diverged_runs(corpus, measurements)
        self._numbers = {task.name: number for number, task in enumerate(self.tasks)}
        self.inputs: Inputs = {
            "sets": [s.key for s in self.sets],
            "tasks": {task.name: task.content for task in self.tasks},
            "targets": {
                task.name: {
                    "train": task.content,
                    "validation": hash_of(task.validation_hashes),
                    "share": self._config.data.share_of(task.name, corpus.targets),
                }
                for task in corpus.target_tasks
            },
            "estimate": self._config.estimate.model_dump(mode="json"),
            "ensemble": {
                "subsets": self._config.select.subsets,
                "subset_size": self._config.select.subset_size,
                "seed": self._config.select.seed,
            },
            "measured": key_of({"subsets": [[sorted(m.subset), m.losses] for m in self.measured]}),
            "version": _ESTIMATOR_VERSION,
        }
        self.key = key_of(self.inputs)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self.corpus.targets

    @cached_property
    def points(self) -> list[Point]:
        """What estimates are made from."""
        return read_points(self.workspace, self.corpus, self.sets)

    @cached_property
    def estimator(self) -> TargetEstimator:
        """The estimator that the configuration names, calibrated where enough subsets were really fine-tuned on."""
        return self._estimator(self.calibration)

    @cached_property
    def evidence(self) -> Evidence | None:
        """What is measured and what is estimated of the same subsets; None with too few to calibrate by."""
        if len(self.measured) < LEAST_RUNS:
            return None
        scales = RIDGE_SCALES if self._config.estimate.ridge == "auto" else (1.0,)
        masks = np.stack([self.mask(m.subset) for m in self.measured])
        estimators = [self._estimator(None, scale=scale) for scale in scales]
        return Evidence(
            masks=masks,
            losses=np.array([m.mean for m in self.measured]),
            known=estimators[0].all_tasks_loss,
            changes=np.stack([estimator.changes(masks) for estimator in estimators]),
            scales=scales,
        )

    @cached_property
    def calibration(self) -> Calibration | None:
        """What really fine-tuned subsets made of the estimator; fitted once and kept."""
        if len(self.measured) < LEAST_RUNS:
            return None
        kept = self._store.artifact("calibration", self.key)
        if kept is not None:
            return Calibration.from_dict(kept.outputs)
        evidence = self.evidence
        assert evidence is not None
        found = calibrate(evidence)
        self._store.put_artifact("calibration", self.key, self.inputs, found.as_dict())
        return found

    @property
    def calibrated_on(self) -> int:
        """How many really fine-tuned subsets correct the estimates; 0: they are not calibrated."""
        return 0 if self.calibration is None else len(self.measured)

    @cached_property
    def final_losses(self) -> npt.NDArray[np.float64]:
        """Loss of each validation example at the end of meta-training (v,)."""
        known = self._meta.final_losses
        return np.array([known[h] for task in self.corpus.target_tasks for h in task.validation_hashes])

    def _estimator(self, calibration: Calibration | None, *, scale: float = 1.0) -> TargetEstimator:
        return build_estimator(
            self.points,
            self.final_losses,
            self._config.estimate,
            calibration,
            scale=scale,
            names=[task.name for task in self.corpus.auxiliary],
        )

    def mask(self, subset: Collection[str]) -> npt.NDArray[np.bool_]:
        """Membership (t,) of tasks by name.

        Raises:
            ConfigError: A name is no auxiliary task.
        """
        mask = np.zeros(len(self.tasks), dtype=bool)
        mask[[self._number(name) for name in subset]] = True
        return mask

    def estimate(self, subsets: Sequence[Sequence[str]]) -> results.EstimatesReport:
        """Estimate subsets by name.

        Raises:
            ConfigError: A name is no auxiliary task.
        """
        judged = judge_each(self.estimator, np.stack([self.mask(subset) for subset in subsets])) if subsets else []
        best = min(judged, key=lambda j: j.loss, default=None)
        measured = {m.subset: m.mean for m in self.measured}
        found = [
            results.EstimateResult(
                subset=tuple(subset),
                estimated_loss=rounded(j.loss),
                estimated_loss_low=rounded(j.low),
                estimated_loss_high=rounded(j.high),
                measured_loss=rounded_if_known(measured.get(frozenset(subset))),
                as_good_as_best=best is not None and (j is best or difference(self.estimator, j, best).is_noise),
            )
            for subset, j in zip(subsets, judged, strict=True)
        ]
        if found:
            self._store.put_estimates(
                self.key,
                self.corpus.target_label,
                [(e.subset, e.estimated_loss, e.estimated_loss_low, e.estimated_loss_high) for e in found],
            )
        return results.EstimatesReport(
            target=self.corpus.targets,
            calibrated_on=self.calibrated_on,
            estimates=tuple(found),
            ridge=tuple(self.estimator.ridges),
        )

    def affinities(self) -> Affinities:
        """Affinity of every task, from the store or from random subsets."""
        kept = self._store.affinities(self.key)
        if kept or not self.tasks:
            values = np.array([kept[task.name] for task in self.tasks]).reshape(-1, 2)
            return Affinities(values[:, 0], values[:, 1])
        select = self._config.select
        masks = sample_subsets(len(self.tasks), subsets=select.subsets, share=select.subset_size, seed=select.seed)
        took = Stopwatch()
        stage = self.workspace.reporter.with_sink(took).stage("estimate", len(masks), "subsets")
        affinities = sample_affinities(self.estimator, masks, on_chunk=stage.advance_to)
        stage.finish(f"{len(masks)} random subsets of {len(self.tasks)} tasks")
        rows = [
            (task.name, rounded(value), rounded(error))
            for task, value, error in zip(self.tasks, affinities.values, affinities.standard_errors, strict=True)
        ]
        self._store.put_affinities(
            self.key,
            self.corpus.target_label,
            rows,
            inputs=self.inputs,
            outputs={"ridges": list(self.estimator.ridges), "subsets": len(masks), "seconds": took.whole},
        )
        return Affinities(np.array([row[1] for row in rows]), np.array([row[2] for row in rows]))

    def examples(self, name: str) -> results.ExamplesReport:
        """What each training example of an auxiliary task does to the target's loss, around the current selection.

        Raises:
            ConfigError: The name is no auxiliary task.
        """
        number, selected = self._number(name), self.current()
        task = self.tasks[number]
        gains = self.estimator.gains_of(number, self.mask(selected))
        texts = self._store.example_texts(task.version.key).to_pydict()
        order = np.argsort(-gains, kind="stable").tolist()
        return results.ExamplesReport(
            task=name,
            target=self.targets,
            selection=tuple(selected),
            calibrated_on=self.calibrated_on,
            examples=tuple(
                results.ExampleInfluence(
                    row=(row := task.split.train[position]) + 1,
                    file=texts["file"][row],
                    line=texts["line"][row],
                    gain=float(gains[position]),
                    text=texts["text"][row],
                )
                for position in order
            ),
        )

    def curve(self) -> results.CurveReport:
        """Estimated loss against training tokens: greedy ways from nothing to everything, and the current selection."""
        stage = self.workspace.reporter.stage("curve", 2 * len(self.tasks), "steps")
        tokens = np.array([task.tokens for task in self.tasks], dtype=np.int64)
        found = budget_curve(self.estimator, tokens, extra=self.mask(self.current())[None], on_step=stage.advance_to)
        stage.finish(f"{len(found)} subsets")
        measured = {m.subset: m.mean for m in self.measured}
        names = np.array([task.name for task in self.tasks], dtype=object)
        return results.CurveReport(
            target=self.targets,
            calibrated_on=self.calibrated_on,
            points=tuple(
                results.BudgetPoint(
                    subset=(subset := tuple(names[point.judged.mask].tolist())),
                    tokens=point.tokens,
                    estimated_loss=rounded(point.judged.loss),
                    estimated_loss_low=rounded(point.judged.low),
                    estimated_loss_high=rounded(point.judged.high),
                    measured_loss=rounded_if_known(measured.get(frozenset(subset))),
                    on_front=point.on_front,
                )
                for point in found
            ),
        )

    def current(self) -> list[str]:
        """Tasks of the selection that was made or saved last; by the configured method where there is none."""
        return [task.name for task in self.last_manifest().tasks if task.selected and task.name in self._numbers]

    def last_manifest(self) -> Manifest:
        """The selection that was made or saved last; by the configured method where there is none."""
        target = self.corpus.target_label
        for _, _, of, _, _, text, _ in self._store.selections():
            if of == target:
                return Manifest.model_validate_json(text)
        request = Request(method=self._config.select.method)
        return self.select(request, name=request.method, folder=self.workspace.root, fresh=False)[0]

    def seconds(self) -> tuple[float | None, int]:
        """Time of meta-training, gradients and the estimates behind the affinities, and how many subsets these were of.

        None where something of it was made by an older curator, or not at all.
        """
        self.affinities()
        gradients = self._store.artifact("gradients", key_of(gradients_inputs(self.sets, self.corpus)))
        estimates = self._store.artifact("estimate", self.key)
        if gradients is None or estimates is None or "seconds" not in gradients.outputs:
            return None, 0
        spent = self._meta.seconds + gradients.outputs["seconds"] + estimates.outputs["seconds"]
        return spent, int(estimates.outputs["subsets"])

    def select_inputs(self, request: Request, name: str) -> Inputs:
        """What decides a selection."""
        return {"estimate": self.key, "request": asdict(request), "name": name, "curator": __version__}

    def select(self, request: Request, *, name: str, folder: Path, fresh: bool) -> tuple[Manifest, bool]:
        """Select, or find the same selection in the store.

        Args:
            request: What is wanted.
            name: The selection's name.
            folder: What the manifest's paths are relative to.
            fresh: Do not look in the store.

        Returns:
            The manifest, and whether it was there already.

        Raises:
            ConfigError: A name is no auxiliary task, or the pins contradict each other or the budget.
        """
        problem = problem_of(request, self.tasks, self._number)
        inputs = self.select_inputs(request, name)
        key = key_of(inputs)
        kept = None if fresh else self._store.selection(key)
        if kept is not None:
            manifest = Manifest.model_validate_json(kept)
            # What was asked for last is the current selection, whenever it was made.
            self._store.renew_selection(key)
            self.workspace.reporter.cached("select", f"{name!r}, made {manifest.created}")
            return self._seen_from(folder, manifest), True
        affinities = self.affinities()
        stage = self.workspace.reporter.stage("select", 0, "steps")
        steps: list[Step] = []

        def follow(step: Step) -> None:
            steps.append(step)
            stage.advance_to(len(steps), loss=step.loss)

        selection = self._methods.select(request.method, problem, follow)
        stage.finish(f"{int(selection.mask.sum())} of {len(self.tasks)} tasks by {request.method}")
        manifest = manifest_of(self, request, name, selection, affinities)
        self._keep(key, manifest, inputs)
        return self._seen_from(folder, manifest), False

    def choose(self, request: Request) -> list[str]:
        """Names of the tasks that a method would select; nothing is kept.

        Raises:
            ConfigError: As `select`.
        """
        problem = problem_of(request, self.tasks, self._number)
        mask = self._methods.select(request.method, problem, lambda _: None).mask
        return [task.name for task, chosen in zip(self.tasks, mask, strict=True) if chosen]

    def save(self, subset: Sequence[str], *, name: str, request: Request, edits: Sequence[Edit] = ()) -> Manifest:
        """Keep a selection that a person made.

        Args:
            subset: Names of the selected tasks.
            name: The selection's name; an earlier one of that name is no longer found by it.
            request: What the selection began with: a method and its options, `include` and `exclude` the pins.
            edits: What was changed by hand since, in order.

        Returns:
            Its manifest; the paths in it are relative to the project.

        Raises:
            ConfigError: A name is no auxiliary task.
        """
        mask = self.mask(subset)
        (estimate,) = self.estimator.estimate(mask[None])
        manifest = manifest_of(self, request, name, Selection(mask, estimate.loss), self.affinities())
        manifest = manifest.model_copy(update={"edits": tuple(edits)})
        inputs = self.select_inputs(request, name) | {
            "selected": sorted(subset),
            "edits": [edit.model_dump() for edit in edits],
        }
        self._keep(key_of(inputs), manifest, inputs)
        return self._seen_from(self.workspace.root, manifest)

    def _keep(self, key: str, manifest: Manifest, inputs: Inputs) -> None:
        self._store.put_selection(
            key,
            manifest.name,
            target=self.corpus.target_label,
            method=manifest.method,
            loss=manifest.estimated_loss,
            manifest=self._seen_from(self.workspace.root, manifest).model_dump_json(),
            inputs=inputs,
            outputs={"selected": [task.name for task in manifest.tasks if task.selected]},
        )

    def _seen_from(self, folder: Path, manifest: Manifest) -> Manifest:
        return seen_from(folder, manifest, self.corpus, self.workspace.root)

    @cached_property
    def _methods(self) -> Methods:
        sources = Sources(
            workspace=self.workspace,
            corpus=self.corpus,
            points=self.points,
            embeddings=self._embeddings,
        )
        return Methods(estimator=self.estimator, affinities=self.affinities(), sources=sources)

    def _embeddings(self) -> Floats:
        assert self._load is not None
        return task_embeddings(self.workspace, self.corpus, self._load)

    def _number(self, name: str) -> int:
        import difflib

        if name in self._numbers:
            return self._numbers[name]
        if name in self.corpus.targets:
            raise ConfigError(
                f"{name!r} is the target, which is part of every subset", hint="Name auxiliary tasks only."
            )
        near = difflib.get_close_matches(name, self._numbers, n=1)
        raise ConfigError(
            f"no task {name!r} in this project",
            hint=f"Did you mean {near[0]!r}?" if near else "`curator check` lists the tasks.",
        )


def _selection_result(manifest: Manifest, path: Path, cached: bool) -> results.SelectionResult:
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
        estimated_loss=manifest.estimated_loss,
        estimated_loss_low=manifest.estimated_loss_low,
        estimated_loss_high=manifest.estimated_loss_high,
        calibrated=bool(manifest.estimate["calibrated"]),
        measured_loss=manifest.measured_loss,
        reference=manifest.reference,
        indistinguishable=manifest.indistinguishable,
        steps=manifest.steps,
        manifest=shown,
        cached=cached,
    )

"""Estimates, affinities and selections for one target, computed once and kept in the store."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curator import __version__, baselines, results
from curator.calibration import LEAST_RUNS, RIDGE_SCALES, Calibration, Evidence, calibrate
from curator.corpus import Corpus, Task, TaskVersion
from curator.curve import budget_curve
from curator.errors import ConfigError
from curator.estimate import Point, SubsetEstimate, TargetEstimator, build_estimator, interval
from curator.events import Stopwatch
from curator.files import relative_to
from curator.fine_tune import diverged_runs, measured_subsets, recipe_key
from curator.manifest import (
    Edit,
    Manifest,
    ModelIdentity,
    TargetEntry,
    TaskEntry,
    TaskFile,
    now,
)
from curator.mixture import best_mixture
from curator.points import read_points
from curator.provenance import Inputs, hash_of, key_of
from curator.scores import Sources, baseline_scores, kmm_weights
from curator.select import (
    Affinities,
    Problem,
    Selection,
    Step,
    sample_affinities,
    sample_subsets,
    select_backward,
    select_ensemble,
    select_exchange,
    select_forward,
    select_scored,
)
from curator.stages import MetaInit, gradient_sets, gradients_inputs, projection
from curator.whatif import difference, judge_each

if TYPE_CHECKING:
    from curator.project import Project

# Raised when the same gradients would give other numbers or selections.
_ESTIMATOR_VERSION = 5
# Digits after the point of every loss and affinity that leaves the program: far below the noise, and far above what
# the order of a sum changes, so that the same inputs print the same.
_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a selection is asked to be."""

    method: str
    k: int | None = None
    max_tokens: int | None = None
    max_examples: int | None = None
    threshold: float | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """What was asked beside the method, without what was not."""
        return {k: v for k, v in asdict(self).items() if k != "method" and v not in (None, ())}


class Answers:
    """What the gradients say about one target.

    Args:
        project: The project.
        corpus: Its examples, split for the target.
        meta: The meta-initialization that the gradients belong to.
    """

    def __init__(self, project: "Project", corpus: Corpus, meta: MetaInit) -> None:
        self._project, self._corpus, self._meta = project, corpus, meta
        self._sets = gradient_sets(project.config, meta)
        self._store, self._config = project.store, project.config
        self.tasks = corpus.auxiliary
        measurements = self._store.measurements(recipe_key(project.config, corpus))
        self.measured = measured_subsets(corpus, measurements)
        self.diverged = diverged_runs(corpus, measurements)
        self._numbers = {task.name: number for number, task in enumerate(self.tasks)}
        self.inputs: Inputs = {
            "sets": [s.key for s in self._sets],
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
        return self._corpus.targets

    @cached_property
    def points(self) -> list[Point]:
        """What estimates are made from."""
        return read_points(self._config, self._corpus, self._store, self._sets, self._project.reporter)

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
        return np.array([known[h] for task in self._corpus.target_tasks for h in task.validation_hashes])

    def _estimator(self, calibration: Calibration | None, *, scale: float = 1.0) -> TargetEstimator:
        return build_estimator(
            self.points,
            self.final_losses,
            self._config.estimate,
            calibration,
            scale=scale,
            names=[task.name for task in self._corpus.auxiliary],
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
                estimated_loss=_round(j.loss),
                estimated_loss_low=_round(j.low),
                estimated_loss_high=_round(j.high),
                measured_loss=_rounded(measured.get(frozenset(subset))),
                as_good_as_best=best is not None and (j is best or difference(self.estimator, j, best).is_noise),
            )
            for subset, j in zip(subsets, judged, strict=True)
        ]
        if found:
            self._store.put_estimates(
                self.key,
                "+".join(self._corpus.targets),
                [(e.subset, e.estimated_loss, e.estimated_loss_low, e.estimated_loss_high) for e in found],
            )
        return results.EstimatesReport(
            target=self._corpus.targets,
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
        stage = self._project.reporter.with_sink(took).stage("estimate", len(masks), "subsets")
        affinities = sample_affinities(self.estimator, masks, on_chunk=stage.advance_to)
        stage.finish(f"{len(masks)} random subsets of {len(self.tasks)} tasks")
        rows = [
            (task.name, _round(value), _round(error))
            for task, value, error in zip(self.tasks, affinities.values, affinities.standard_errors, strict=True)
        ]
        self._store.put_affinities(
            self.key,
            "+".join(self._corpus.targets),
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
        stage = self._project.reporter.stage("curve", 2 * len(self.tasks), "steps")
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
                    estimated_loss=_round(point.judged.loss),
                    estimated_loss_low=_round(point.judged.low),
                    estimated_loss_high=_round(point.judged.high),
                    measured_loss=_rounded(measured.get(frozenset(subset))),
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
        target = "+".join(self._corpus.targets)
        for _, _, of, _, _, text, _ in self._store.selections():
            if of == target:
                return Manifest.model_validate_json(text)
        request = Request(method=self._config.select.method)
        return self.select(request, name=request.method, folder=self._project.root, fresh=False)[0]

    def seconds(self) -> tuple[float | None, int]:
        """Time of meta-training, gradients and the estimates behind the affinities, and how many subsets these were of.

        None where something of it was made by an older curator, or not at all.
        """
        self.affinities()
        gradients = self._store.artifact("gradients", key_of(gradients_inputs(self._sets, self._corpus)))
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
        problem = self._problem(request)
        inputs = self.select_inputs(request, name)
        key = key_of(inputs)
        kept = None if fresh else self._store.selection(key)
        if kept is not None:
            manifest = Manifest.model_validate_json(kept)
            # What was asked for last is the current selection, whenever it was made.
            self._store.renew_selection(key)
            self._project.reporter.cached("select", f"{name!r}, made {manifest.created}")
            return self._moved(manifest, folder), True
        affinities = self.affinities()
        stage = self._project.reporter.stage("select", 0, "steps")
        steps: list[Step] = []

        def follow(step: Step) -> None:
            steps.append(step)
            stage.advance_to(len(steps), loss=step.loss)

        selection = self._run(request.method, problem, affinities, follow)
        stage.finish(f"{int(selection.mask.sum())} of {len(self.tasks)} tasks by {request.method}")
        manifest = self._manifest(request, name, selection, affinities)
        self._keep(key, manifest, inputs)
        return self._moved(manifest, folder), False

    def choose(self, request: Request) -> list[str]:
        """Names of the tasks that a method would select; nothing is kept.

        Raises:
            ConfigError: As `select`.
        """
        mask = self._run(request.method, self._problem(request), self.affinities(), lambda _: None).mask
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
        manifest = self._manifest(request, name, Selection(mask, estimate.loss), self.affinities())
        manifest = manifest.model_copy(update={"edits": tuple(edits)})
        inputs = self.select_inputs(request, name) | {
            "selected": sorted(subset),
            "edits": [edit.model_dump() for edit in edits],
        }
        self._keep(key_of(inputs), manifest, inputs)
        return self._moved(manifest, self._project.root)

    def _keep(self, key: str, manifest: Manifest, inputs: Inputs) -> None:
        self._store.put_selection(
            key,
            manifest.name,
            target="+".join(self._corpus.targets),
            method=manifest.method,
            loss=manifest.estimated_loss,
            manifest=self._moved(manifest, self._project.root).model_dump_json(),
            inputs=inputs,
            outputs={"selected": [task.name for task in manifest.tasks if task.selected]},
        )

    def _run(self, method: str, problem: Problem, affinities: Affinities, follow: Any) -> Selection:
        if method == "mixture":
            return self._mix(problem)
        if method == "ensemble":
            return select_ensemble(self.estimator, problem, affinities, follow)
        if method in baselines.NAMES:
            return self._baseline(method, problem, follow)
        methods = {"forward": select_forward, "backward": select_backward, "exchange": select_exchange}
        return methods[method](self.estimator, problem, follow)

    def _baseline(self, method: str, problem: Problem, follow: Any) -> Selection:
        sources = Sources(
            config=self._config,
            corpus=self._corpus,
            store=self._store,
            points=self.points,
            embeddings=lambda: self._project.embeddings(self._corpus),
        )
        scores = baseline_scores(method, sources, problem.start(full=True))
        found = select_scored(self.estimator, problem, scores, follow)
        if method != "kmm":
            return found
        weights = kmm_weights(sources, found.mask)
        # The logistic estimator knows no weights: its estimate is that of the tasks without.
        quadratic = self._config.estimate.method == "quadratic"
        return replace(found, weights=weights, loss=self.estimator.weighted(weights)[0] if quadratic else found.loss)

    def _mix(self, problem: Problem) -> Selection:
        if problem.k is not None or problem.max_examples is not None or problem.threshold is not None:
            raise ConfigError(
                "a mixture has a budget of tokens only", hint="Use --max-tokens in place of --k and the like."
            )
        found = best_mixture(
            self.estimator,
            tokens=problem.tokens.astype(np.float64),
            allowed=problem.start(full=True),
            needed=problem.start(full=False),
            max_tokens=problem.max_tokens,
            start=select_forward(self.estimator, problem).mask,
        )
        return Selection(found.weights > 0, found.loss, weights=found.weights)

    def _problem(self, request: Request) -> Problem:
        both = sorted(set(request.include) & set(request.exclude))
        if both:
            raise ConfigError(f"both included and excluded: {', '.join(both)}", hint="Name a task in one of them.")
        problem = Problem(
            tokens=np.array([task.tokens for task in self.tasks], dtype=np.int64),
            examples=np.array([len(task.split.train) for task in self.tasks], dtype=np.int64),
            include=frozenset(self._number(name) for name in request.include),
            exclude=frozenset(self._number(name) for name in request.exclude),
            k=request.k,
            max_tokens=request.max_tokens,
            max_examples=request.max_examples,
            threshold=request.threshold,
        )
        if not problem.allows(problem.start(full=False)):
            raise ConfigError(
                "the tasks that are included exceed the budget by themselves",
                hint="Raise --k, --max-tokens or --max-examples, or include fewer.",
            )
        return problem

    def _number(self, name: str) -> int:
        import difflib

        if name in self._numbers:
            return self._numbers[name]
        if name in self._corpus.targets:
            raise ConfigError(
                f"{name!r} is the target, which is part of every subset", hint="Name auxiliary tasks only."
            )
        near = difflib.get_close_matches(name, self._numbers, n=1)
        raise ConfigError(
            f"no task {name!r} in this project",
            hint=f"Did you mean {near[0]!r}?" if near else "`curator check` lists the tasks.",
        )

    def _manifest(self, request: Request, name: str, selection: Selection, affinities: Affinities) -> Manifest:
        config = self._config
        masks = np.stack([selection.mask, np.ones_like(selection.mask), np.zeros_like(selection.mask)])
        chosen, every, none = judge_each(self.estimator, masks)
        others = {"all_tasks": every, "target_only": none}
        selected = {task.name for task, inside in zip(self.tasks, selection.mask, strict=True) if inside}
        measured = next((m.mean for m in self.measured if m.subset == selected), None)
        if selection.weights is not None:
            shift = selection.loss - chosen.loss
            low, high = interval(selection.loss, chosen.high - chosen.loss)
            chosen = replace(chosen, loss=selection.loss, low=low, high=high, each=chosen.each + shift)
            measured = None
        return Manifest(
            created=now(),
            curator_version=__version__,
            project=self._project.name,
            name=name,
            target=self._corpus.targets[0] if len(self._corpus.targets) == 1 else self._corpus.targets,
            method=request.method,
            options=_plain(request.options()),
            model=ModelIdentity(
                name_or_path=config.model.name_or_path,
                revision=config.model.revision,
                sha256=self._corpus.model.sha256,
                dtype=config.model.dtype,
                quantization=config.model.quantization,
            ),
            lora=config.lora.model_dump(mode="json"),
            train=config.train.model_dump(mode="json"),
            data=config.data.model_dump(
                mode="json", include={"validation", "max_length", "max_examples_per_task", "seed", "target_weights"}
            ),
            gradients={
                "projection_dim": config.gradients.projection_dim,
                "projection_seed": config.gradients.projection_seed,
                "projection": projection(config).kind,
                "points": [s.snapshot.share for s in self._sets],
            },
            estimate={
                "method": config.estimate.method,
                "ridge": [_round(ridge) for ridge in self.estimator.ridges],
                "calibrated": self.calibration is not None,
                "measured_subsets": len(self.measured),
                "interval": "90 % over the validation examples"
                if self.calibration is None or self.calibration.half_width is None
                else "90 % conformal over the measured subsets",
            },
            targets=tuple(
                TargetEntry(
                    name=task.name,
                    examples=len(task.split.train),
                    tokens=task.tokens,
                    validation_examples=len(task.split.validation),
                    files=_files(task.version),
                    validation_files=() if task.validation_version is None else _files(task.validation_version),
                    left_out=task.split.left_out,
                    source=task.version.source,
                )
                for task in self._corpus.target_tasks
            ),
            tasks=tuple(
                TaskEntry(
                    name=task.name,
                    selected=bool(selection.mask[number]),
                    weight=1.0 if selection.weights is None else _round(selection.weights[number]),
                    examples=len(task.split.train),
                    tokens=task.tokens,
                    files=_files(task.version),
                    affinity=_round(affinities.values[number]),
                    affinity_standard_error=_finite(affinities.standard_errors[number]),
                    left_out=task.split.left_out,
                    source=task.version.source,
                )
                for number, task in enumerate(self.tasks)
            ),
            estimated_loss=_round(chosen.loss),
            estimated_loss_low=_round(chosen.low),
            estimated_loss_high=_round(chosen.high),
            measured_loss=_rounded(measured),
            reference={name: _round(judged.loss) for name, judged in others.items()},
            indistinguishable=tuple(
                name for name, judged in others.items() if difference(self.estimator, chosen, judged).is_noise
            ),
            steps=tuple(
                {"change": s.change, "tasks": [self.tasks[t].name for t in s.tasks], "loss": _round(s.loss)}
                for s in selection.steps
            ),
        )

    def _moved(self, manifest: Manifest, folder: Path) -> Manifest:
        """The manifest with paths as they are now, as seen from its folder."""
        here: dict[str, Task] = {task.name: task for task in self._corpus.tasks}

        def files(version: TaskVersion) -> tuple[TaskFile, ...]:
            return tuple(
                file if version.source.get("hub") else file.model_copy(update={"path": relative_to(file.path, folder)})
                for file in _files(version)
            )

        model = manifest.model
        base = self._project.root / model.name_or_path
        if base.is_dir() and not Path(model.name_or_path).is_absolute():
            model = model.model_copy(update={"name_or_path": relative_to(str(base), folder)})
        return manifest.model_copy(
            update={
                "model": model,
                "targets": tuple(
                    entry.model_copy(
                        update={
                            "files": files(here[entry.name].version),
                            "validation_files": files(version)
                            if (version := here[entry.name].validation_version)
                            else (),
                        }
                    )
                    for entry in manifest.targets
                ),
                "tasks": tuple(
                    entry.model_copy(update={"files": files(here[entry.name].version)}) for entry in manifest.tasks
                ),
            }
        )


def _files(version: TaskVersion) -> tuple[TaskFile, ...]:
    return tuple(TaskFile(path=path, sha256=digest, rows=rows) for path, digest, rows in version.files)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _finite(error: float) -> float | None:
    return _round(error) if np.isfinite(error) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else _round(value)


def _round(value: float) -> float:
    return round(float(value), _DIGITS)


__all__ = ["Answers", "Request", "SubsetEstimate"]

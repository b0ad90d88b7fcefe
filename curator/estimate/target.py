"""`TargetEstimates`: losses, affinities and influences for one target, computed once and cached in the store."""

from collections.abc import Collection, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from curator import results
from curator.core.arrays import Mask
from curator.core.events import Stopwatch
from curator.core.interval import Interval
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.corpus import Corpus
from curator.data.discovery import check_auxiliary
from curator.estimate.affinity import Affinities, sample_affinities, sample_subsets
from curator.estimate.calibration import (
    LEAST_RUNS,
    RIDGE_SCALES,
    TRAJECTORY_PRIORS,
    Calibration,
    Evidence,
    Priors,
    calibrate,
)
from curator.estimate.estimator import CheckpointSums, build_estimator
from curator.estimate.loss_estimator import LossEstimator
from curator.estimate.points import read_points
from curator.estimate.segment_inputs import kept_basis, points_of, read_trajectory
from curator.estimate.trajectory import Trajectory, TrajectoryEstimator
from curator.estimate.whatif import budget_curve, difference, estimate_selections
from curator.gradients.segment_sets import completeness_inputs, sets_in_use
from curator.results.base import rounded, rounded_if_known, rounded_interval
from curator.training.fine_tune import diverged_runs, measured_subsets, recipe_key
from curator.training.meta_init import MetaInit
from curator.workspace.workspace import Workspace

# Increase when the same gradients give other numbers or selections.
_ESTIMATOR_VERSION = 5
# Increase when the same runs give another calibration.
_CALIBRATION_VERSION = 2
# Increase when the same gradients give other numbers for projects with tasks that meta-training has not seen.
_ADDED_VERSION = 2


class TargetEstimates:
    """Estimates of one target's loss from the stored gradients.

    Args:
        workspace: The project.
        corpus: Examples of the project, split for the target.
        meta: Meta-initialization of the gradients.
    """

    def __init__(self, workspace: Workspace, corpus: Corpus, meta: MetaInit) -> None:
        self.workspace, self.corpus, self._meta = workspace, corpus, meta
        self.sets = sets_in_use(workspace.config, meta)
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
        if len(self.measured) >= LEAST_RUNS:
            self.inputs["calibration"] = _CALIBRATION_VERSION
        if meta.unseen and workspace.config.captures:
            self.inputs["added"] = _ADDED_VERSION
        self.key = key_of(self.inputs)

    def renewed(self) -> "TargetEstimates":
        """Return the estimates that all runs in the store calibrate, from the same gradients."""
        found = TargetEstimates(self.workspace, self.corpus, self._meta)
        for name in ("trajectory", "points"):
            if name in self.__dict__:
                # Gradients do not depend on runs. Reading them again takes time.
                found.__dict__[name] = self.__dict__[name]
        return found

    @property
    def whole(self) -> "TargetEstimates":
        """Estimates of the tasks with all examples. These are the estimates themselves if no example is dropped."""
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self.corpus.targets

    @cached_property
    def points(self) -> list[CheckpointSums]:
        """Sums and validation examples at each checkpoint or in each segment, for baselines and single points."""
        if not self._config.captures:
            return read_points(self.workspace, self.corpus, self.sets)
        return points_of(self.trajectory, kept_basis(self.workspace, self.sets))

    @cached_property
    def trajectory(self) -> Trajectory:
        """Sums and validation examples of each segment of meta-training."""
        return read_trajectory(self.workspace, self.corpus, self._meta, self.sets)

    @cached_property
    def estimator(self) -> LossEstimator:
        """Estimator that the configuration names. Enough measured subsets calibrate it."""
        return self._estimator(self.calibration)

    @cached_property
    def uncalibrated(self) -> LossEstimator:
        """Estimator that the configuration names, without a calibration."""
        return self._estimator(None)

    @cached_property
    def evidence(self) -> Evidence | None:
        """Measured subsets and their estimates. None with too few subsets to calibrate."""
        if len(self.measured) < LEAST_RUNS:
            return None
        has_ridge = not self._config.captures and self._config.estimate.ridge == "auto"
        scales = RIDGE_SCALES if has_ridge else (1.0,)
        masks = np.stack([self.mask(m.subset) for m in self.measured])
        estimators = [self._estimator(None, scale=scale) for scale in scales]
        return Evidence(
            masks=masks,
            losses=np.array([m.mean for m in self.measured]),
            known=estimators[0].all_tasks_loss,
            changes=np.stack([estimator.changes(masks) for estimator in estimators]),
            scales=scales,
            priors=TRAJECTORY_PRIORS if self._config.captures else Priors(),
        )

    @cached_property
    def calibration(self) -> Calibration | None:
        """Calibration by measured subsets, fitted once and cached. None with too few subsets."""
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
        """Number of measured subsets that calibrate the estimates. 0 without calibration."""
        return 0 if self.calibration is None else len(self.measured)

    @cached_property
    def final_losses(self) -> npt.NDArray[np.float64]:
        """Loss of each validation example at the end of meta-training (v,), nats."""
        known = self._meta.final_losses
        return np.array([known[h] for task in self.corpus.target_tasks for h in task.validation_hashes])

    def _estimator(self, calibration: Calibration | None, *, scale: float = 1.0) -> LossEstimator:
        names = [task.name for task in self.corpus.auxiliary]
        if self._config.captures:
            return TrajectoryEstimator(self.trajectory, self.final_losses, calibration, names=names)
        return build_estimator(
            self.points,
            self.final_losses,
            self._config.estimate,
            calibration,
            scale=scale,
            names=names,
        )

    def mask(self, subset: Collection[str]) -> npt.NDArray[np.bool_]:
        """Return the membership (t,) of tasks by name.

        Raises:
            ConfigError: A name is not an auxiliary task.
        """
        mask = np.zeros(len(self.tasks), dtype=bool)
        mask[[self.number_of(name) for name in subset]] = True
        return mask

    def interval_of(self, subset: Collection[str]) -> Interval:
        """Return the estimate of one subset by name, and store nothing.

        Raises:
            ConfigError: A name is not an auxiliary task.
        """
        (found,) = self.estimator.estimate(self.mask(subset)[None])
        return found

    def estimate(self, subsets: Sequence[Sequence[str]]) -> results.EstimatesReport:
        """Estimate subsets by name.

        Raises:
            ConfigError: A name is not an auxiliary task.
        """
        estimated = (
            estimate_selections(self.estimator, np.stack([self.mask(subset) for subset in subsets])) if subsets else []
        )
        best = min(estimated, key=lambda j: j.loss, default=None)
        measured = {m.subset: m.mean for m in self.measured}
        found = [
            results.EstimateResult(
                subset=tuple(subset),
                estimate=rounded_interval(j.estimate),
                measured_loss=rounded_if_known(measured.get(frozenset(subset))),
                as_good_as_best=best is not None and (j is best or difference(self.estimator, j, best).is_noise),
            )
            for subset, j in zip(subsets, estimated, strict=True)
        ]
        if found:
            self._store.put_estimates(self.key, self.corpus.target_label, [(e.subset, e.estimate) for e in found])
        return results.EstimatesReport(
            target=self.corpus.targets,
            calibrated_on=self.calibrated_on,
            estimates=tuple(found),
            ridge=tuple(self.estimator.ridges),
        )

    def affinities(self) -> Affinities:
        """Return the affinity of every task. Estimate random subsets if the affinities are not cached."""
        kept = self._store.affinities(self.key)
        if kept or not self.tasks:
            values = np.array([kept[task.name] for task in self.tasks]).reshape(-1, 2)
            return Affinities(values[:, 0], values[:, 1])
        masks = self._sample()
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

    def _sample(self) -> Mask:
        """Return the random subsets of the affinities (s, t)."""
        select = self._config.select
        return sample_subsets(len(self.tasks), subsets=select.subsets, share=select.subset_size, seed=select.seed)

    def examples(
        self,
        name: str,
        selected: Sequence[str],
        estimator: LossEstimator | None = None,
        dropped: Collection[str] = (),
    ) -> results.ExamplesReport:
        """Estimate what each training example of an auxiliary task does to the target's loss, around a selection.

        Args:
            name: Name of the task.
            selected: Names of the selected tasks.
            estimator: Estimator of the selection, if it drops examples.
            dropped: Content hashes of the examples of the task that the selection drops.

        Raises:
            ConfigError: A name is not an auxiliary task.
        """
        number = self.number_of(name)
        task = self.tasks[number]
        gains = (estimator or self.estimator).gains_of(number, self.mask(selected))
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
                    sha256=task.version.index.hashes[row],
                    gain=float(gains[position]),
                    text=texts["text"][row],
                    dropped=task.version.index.hashes[row] in dropped,
                )
                for position in order
            ),
        )

    def curve(self, selected: Sequence[str]) -> results.CurveReport:
        """Estimate the loss against training tokens, on greedy paths between no task and all tasks.

        Args:
            selected: Names of the selected tasks. The curve includes this subset.
        """
        stage = self.workspace.reporter.stage("curve", 2 * len(self.tasks), "steps")
        tokens = np.array([task.tokens for task in self.tasks], dtype=np.int64)
        found = budget_curve(self.estimator, tokens, extra=self.mask(selected)[None], on_step=stage.advance_to)
        stage.finish(f"{len(found)} subsets")
        measured = {m.subset: m.mean for m in self.measured}
        names = np.array([task.name for task in self.tasks], dtype=object)
        return results.CurveReport(
            target=self.targets,
            calibrated_on=self.calibrated_on,
            points=tuple(
                results.BudgetPoint(
                    subset=(subset := tuple(names[point.estimated.mask].tolist())),
                    tokens=point.tokens,
                    estimate=rounded_interval(point.estimated.estimate),
                    measured_loss=rounded_if_known(measured.get(frozenset(subset))),
                    on_front=point.on_front,
                )
                for point in found
            ),
        )

    def seconds(self) -> tuple[float | None, int]:
        """Return the time of meta-training, gradients and affinities, and how many subsets the affinities compare.

        Returns:
            Seconds, and number of different subsets. Seconds are unknown (None) if a part is missing or from an older
            version.
        """
        self.affinities()
        gradients = self._store.artifact("gradients", key_of(completeness_inputs(self._config, self.sets, self.corpus)))
        estimates = self._store.artifact("estimate", self.key)
        if gradients is None or estimates is None or "seconds" not in gradients.outputs:
            return None, 0
        spent = self._meta.seconds + gradients.outputs["seconds"] + estimates.outputs["seconds"]
        # Few tasks have few subsets, and the draw repeats them. A repeated subset saves no fine-tuning run.
        return spent, len(np.unique(self._sample(), axis=0))

    def number_of(self, name: str) -> int:
        """Return the position of an auxiliary task.

        Raises:
            ConfigError: The name is not an auxiliary task.
        """
        check_auxiliary([name], self.corpus.targets, self._numbers)
        return self._numbers[name]

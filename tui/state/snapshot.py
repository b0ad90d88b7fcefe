"""A snapshot of one project, read from store and files. No connection stays open, and nothing is computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.core.config import Config, target_label
from curator.core.events import Reporter
from curator.core.provenance import key_of
from curator.data.corpus import Corpus, read_corpus
from curator.data.discovery import find_tasks
from curator.data.dropped import Dropped, without
from curator.estimate.calibration import LEAST_RUNS
from curator.estimate.target import TargetEstimates
from curator.gradients.segment_sets import completeness_inputs, sets_in_use
from curator.project.project import Project
from curator.project.status import status
from curator.results.stages import StatusReport
from curator.select.manifest import Edit, Manifest
from curator.select.methods import Request
from curator.select.selections import Selections, dropped_by
from curator.training.fine_tune import MeasuredSubset, measured_subsets, recipe_key
from curator.training.meta_init import find_meta_init
from curator.workspace.store.notes import Kind
from curator.workspace.store.records import StoredSession
from tui.state.session import NO_DROPS, Drops, Named, Session, State, named

About = tuple[Kind, str, str]
"""What a note is about: kind, name, and hash of the example."""


def calibrated_on(measured: Sequence["MeasuredSubset"]) -> int:
    """Return the number of measured subsets that calibrate the estimates; 0 if too few subsets are measured.

    `TargetEstimates.calibrated_on` fits the calibration first. The fit may take longer than a key press may wait.
    """
    return len(measured) if len(measured) >= LEAST_RUNS else 0


def trust_word(subsets: int) -> str:
    """Return a word for calibration by a number of subsets. 0 means uncalibrated."""
    return f"calibrated·{subsets}" if subsets else "uncalibrated"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedSelection:
    """A saved selection."""

    name: str
    method: str
    manifest: Manifest

    def mask(self, names: list[str]) -> Mask:
        """Return the membership (t,) of named tasks. Unknown tasks are out."""
        selected = {task.name for task in self.manifest.tasks if task.selected}
        return np.fromiter((name in selected for name in names), dtype=bool, count=len(names))

    @property
    def dropped(self) -> Drops:
        """Return the content hashes of the dropped examples, by task."""
        return dropped_by(self.manifest).hashes()

    @property
    def is_calibrated(self) -> bool:
        """Return whether the saved estimate is calibrated."""
        return bool(self.manifest.estimate.get("calibrated", False))

    @property
    def is_weighted(self) -> bool:
        """Return whether a task counts more or less than once. Estimates of tasks in and out do not fit."""
        return any(task.weight != 1.0 for task in self.manifest.tasks if task.selected)

    @property
    def unweighted_name(self) -> str:
        """Return the name for an estimate or a loss that counts each task once."""
        return f"{self.name}, unweighted" if self.is_weighted else self.name

    def measured_loss(self, config: Config) -> float | None:
        """Return the loss that `apply` measured; None if it trained with other settings, or not at all."""
        found = self.manifest
        same = (
            found.train == config.train.model_dump(mode="json")
            and found.lora == config.lora.model_dump(mode="json")
            and found.model.name_or_path == config.model.name_or_path
        )
        return found.measured_loss if same else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Everything that the screens show of a project, for one target.

    Attributes:
        project: The project.
        target: The target, or targets joined by `+`. Empty without a target.
        status: State of every stage.
        corpus: The tasks; None while files are not read.
        answers: Estimates; None without gradients.
        names: Auxiliary tasks (t), in the order of all arrays.
        tags: Tags of each task, joined by spaces.
        sources: File or hub id of each task.
        examples: Training examples of each task (t,).
        tokens: Training tokens of each task (t,).
        affinity: Affinity of each task (t,), in nats; NaN if not known.
        affinity_error: Standard error of each affinity (t,), in nats.
        selections: Saved selections for this target, newest first, one of each name.
        problems: Problems in the data, for the user.
        sessions: Sessions of edits, the one that was changed last first. Only the first reading has them.
        found: Number of tasks whose files were found, targets included. 0 if `corpus` holds them.
        stamps: Texts that change with the selections and with the results in the store, as `Store.stamps`.
        calibrated_on: Number of measured subsets that calibrate the estimates; 0 if uncalibrated.
        measured: Measured subsets by the bytes of their membership (t,).
        measured_without: Measured subsets of the saved selections that drop examples, by the bytes of their membership
            (t,) and the dropped examples of their tasks.
        notes: Notes by what they are about.
    """

    project: Project
    target: str
    status: StatusReport
    corpus: Corpus | None
    answers: TargetEstimates | None
    names: list[str]
    tags: list[str]
    sources: list[str]
    examples: Floats
    tokens: Floats
    affinity: Floats
    affinity_error: Floats
    selections: tuple[SavedSelection, ...]
    problems: tuple[str, ...]
    sessions: tuple[StoredSession, ...] = ()
    stamps: tuple[str, str] = ("", "")
    found: int = 0
    calibrated_on: int = 0
    measured: Mapping[bytes, MeasuredSubset] = field(default_factory=dict)
    measured_without: Mapping[tuple[bytes, Named], MeasuredSubset] = field(default_factory=dict)
    notes: Mapping[About, str] = field(default_factory=dict)

    @property
    def trust(self) -> str:
        """Return a word for the calibration of the estimates."""
        return trust_word(self.calibrated_on)

    def measured_loss(self, mask: Mask, dropped: Drops = NO_DROPS) -> float | None:
        """Return the measured loss of a subset (t,), as `runs_on`; None if the loss is not measured."""
        found = self.runs_on(mask, dropped)
        return found.mean if found is not None else None

    def runs_on(self, mask: Mask, dropped: Drops = NO_DROPS) -> MeasuredSubset | None:
        """Return the runs on a subset (t,); None without runs.

        Args:
            mask: Membership (t,).
            dropped: Hashes of the dropped examples, by task. Runs of whole tasks do not count with dropped examples.
        """
        within = _within(dropped, [self.names[row] for row in np.flatnonzero(mask)]) if dropped else ()
        return self.measured_without.get((mask.tobytes(), within)) if within else self.measured.get(mask.tobytes())

    @property
    def missing(self) -> str:
        """Return what is missing for estimates and how to add it; "" if nothing is missing."""
        if not self.target:
            return "no target: set `target` in [data] of curator.toml"
        if self.corpus is None:
            return "files are new or changed: press R and run `check` or `select`"
        if self.answers is None:
            return "no estimates yet: press R and run `select`"
        return ""

    def selection(self, name: str) -> SavedSelection | None:
        """Return the saved selection of a name; None if the name is unknown."""
        return next((s for s in self.selections if s.name == name), None)

    @property
    def files(self) -> Sequence[str]:
        """Return the paths of the task files."""
        tasks = self.corpus.tasks if self.corpus is not None else ()
        return [path for task in tasks for path, _, _ in task.version.files]

    def sizes(self, dropped: Drops) -> tuple[Floats, Floats]:
        """Return training examples and tokens of each task (t,) without some examples."""
        if not dropped or self.corpus is None:
            return self.examples, self.tokens
        examples, tokens = self.examples.copy(), self.tokens.copy()
        for row, task in enumerate(self.corpus.auxiliary):
            if hashes := dropped.get(task.name):
                kept = task.without(hashes)
                examples[row], tokens[row] = len(kept.split.train), kept.tokens
        return examples, tokens

    def saved_masks(self) -> dict[str, Mask]:
        """Return the membership (t,) of each saved selection, by name."""
        return {saved.name: saved.mask(self.names) for saved in self.selections}

    def saved_drops(self) -> dict[str, Drops]:
        """Return the dropped examples of each saved selection, by name."""
        return {saved.name: saved.dropped for saved in self.selections}

    def measured_of(self, saved: SavedSelection) -> float | None:
        """Return the measured loss of a saved selection; None if the loss is not measured."""
        found = None if saved.is_weighted else self.measured_loss(saved.mask(self.names), saved.dropped)
        return saved.measured_loss(self.project.config) if found is None else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A selection at the moment of the request to save it."""

    name: str
    subset: tuple[str, ...]
    request: Request
    edits: tuple[Edit, ...]
    started_from: str = ""

    @classmethod
    def of(cls, name: str, session: Session, snapshot: Snapshot) -> "Draft":
        """Create a draft of the current selection. Its edits follow the edits of the base selection.

        A selection that differs from its base has the method `manual`. A copy keeps the method of its base.
        """
        base = snapshot.selection(session.base)
        options = base.manifest.options if base is not None else {}
        by_hand = tuple(Edit(task=task, selected=inside, by="curator tui") for task, inside in session.by_hand())
        method, started_from = "manual", "all tasks"
        if base is not None:
            started_from = base.manifest.started_from or base.name
            if not session.changed_count and not base.is_weighted:
                method, started_from = base.method, base.manifest.started_from
        limits: dict[str, Any] = {key: options.get(key) for key in ("k", "max_tokens", "max_examples", "threshold")}
        return cls(
            name=name,
            subset=tuple(session.names[row] for row in np.flatnonzero(session.mask)),
            request=Request(
                method=method,
                include=tuple(session.pinned(State.PINNED_IN)),
                exclude=tuple(session.pinned(State.PINNED_OUT)),
                dropped=Dropped.of((task, digest) for task, hashes in session.dropped.items() for digest in hashes),
                **limits,
            ),
            edits=(*(base.manifest.edits if base is not None else ()), *by_hand),
            started_from=started_from,
        )

    def save(self, snapshot: Snapshot) -> None:
        """Estimate the selection, and save it in the store.

        Raises:
            CuratorError: The selection cannot be estimated or written.
        """
        assert snapshot.answers is not None
        Selections(snapshot.answers).save(
            self.subset, name=self.name, request=self.request, edits=self.edits, started_from=self.started_from
        )


def load_snapshot(root: Path, before: Snapshot | None = None, reporter: Reporter | None = None) -> Snapshot:
    """Read a project.

    Args:
        root: Folder of the project.
        before: The last snapshot. Its estimator is kept if gradients and measurements are unchanged.
        reporter: Receives the progress of the estimator, which reads gradients later.

    Raises:
        CuratorError: Configuration, files or store cannot be read.
    """
    project = Project.open(root, reporter=reporter)
    config, store = project.config, project.store
    targets = config.data.targets
    corpus = read_corpus(project.workspace, targets, read=False)
    answers = _answers(project, corpus, before) if corpus is not None and targets else None
    tasks = corpus.auxiliary if corpus is not None else []
    known = store.affinities(answers.key) if answers is not None else {}
    affinity = np.array([known.get(task.name, (np.nan, np.nan)) for task in tasks], dtype=np.float64).reshape(-1, 2)
    target = target_label(targets)
    # Read the stamps first. A selection that another process saves in between is read again.
    stamps = store.stamps()
    selections = _selections(project, target)
    return Snapshot(
        project=project,
        target=target,
        status=status(project.workspace, corpus),
        corpus=corpus,
        answers=answers,
        names=[task.name for task in tasks],
        tags=[" ".join(task.tags) for task in tasks],
        sources=[str(task.version.source.get("hub") or _file_name(task.version.files)) for task in tasks],
        examples=np.array([len(task.split.train) for task in tasks], dtype=np.float64),
        tokens=np.array([task.tokens for task in tasks], dtype=np.float64),
        affinity=affinity[:, 0],
        affinity_error=affinity[:, 1],
        selections=selections,
        problems=tuple(corpus.problems()) if corpus is not None else (),
        sessions=tuple(store.sessions(target)) if before is None else (),
        stamps=stamps,
        found=_found(project) if corpus is None else 0,
        calibrated_on=calibrated_on(answers.measured) if answers is not None else 0,
        measured={answers.mask(m.subset).tobytes(): m for m in answers.measured} if answers is not None else {},
        measured_without=_measured_without(answers, selections) if answers is not None else {},
        notes={(note.kind, note.name, note.sha256): note.text for note in store.notes()},
    )


def _answers(project: Project, corpus: Corpus, before: Snapshot | None) -> TargetEstimates | None:
    meta = find_meta_init(project.workspace, corpus)
    if meta is None:
        return None
    sets = sets_in_use(project.config, meta)
    if project.store.artifact("gradients", key_of(completeness_inputs(project.config, sets, corpus))) is None:
        return None
    answers = TargetEstimates(project.workspace, corpus, meta)
    if before is not None and before.answers is not None and before.answers.key == answers.key:
        return before.answers
    return answers


def _selections(project: Project, target: str) -> tuple[SavedSelection, ...]:
    found: dict[str, SavedSelection] = {}
    for kept in project.store.selections():
        if kept.target == target and kept.name not in found:
            try:
                loaded = Manifest.model_validate_json(kept.manifest)
            except ValueError:
                # Another version of curator wrote this manifest. That version can still read it.
                continue
            found[kept.name] = SavedSelection(name=kept.name, method=kept.method, manifest=loaded)
    return tuple(found.values())


def _within(dropped: Drops, names: Iterable[str]) -> Named:
    """Return the dropped examples of some tasks."""
    return named({name: dropped[name] for name in names if dropped.get(name)})


def _measured_without(
    answers: TargetEstimates, selections: Iterable[SavedSelection]
) -> dict[tuple[bytes, Named], MeasuredSubset]:
    """Return the runs on the saved selections that drop examples, as `Snapshot.measured_without`."""
    names = [task.name for task in answers.tasks]
    found: dict[tuple[bytes, Named], MeasuredSubset] = {}
    for saved in selections:
        mask = saved.mask(names)
        within = _within(saved.dropped, [names[row] for row in np.flatnonzero(mask)])
        if not within or saved.is_weighted:
            continue
        kept = without(answers.corpus, Dropped.of(within))
        runs = answers.workspace.store.measurements(recipe_key(answers.workspace.config, kept))
        for measured in measured_subsets(kept, runs):
            if (key := answers.mask(measured.subset).tobytes()) == mask.tobytes():
                found[key, within] = measured
    return found


def _found(project: Project) -> int:
    """Return the number of tasks that the configuration and the folders name. Reads no task file."""
    return len(find_tasks(project.config.data, project.root, values=lambda source, _: [source.name]))


def _file_name(files: tuple[tuple[str, str, int], ...]) -> str:
    return Path(files[0][0]).name if files else ""

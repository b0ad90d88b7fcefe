"""What the store and the files know about one project, read at once; nothing stays open, nothing is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.core.config import target_label
from curator.core.provenance import key_of
from curator.data.corpus import Corpus, read_corpus
from curator.estimate.calibration import LEAST_RUNS
from curator.estimate.target import TargetEstimates
from curator.gradients.stage import gradient_sets, gradients_inputs
from curator.project.project import Project
from curator.project.status import status
from curator.results.stages import StatusReport
from curator.select.manifest import Edit, Manifest
from curator.select.methods import Request
from curator.select.selections import Selections
from curator.training.fine_tune import MeasuredSubset
from curator.training.meta_init import find_meta_init
from curator.workspace.store.records import StoredEdit
from tui.state.session import Session, State


def calibrated_on(measured: Sequence["MeasuredSubset"]) -> int:
    """How many really fine-tuned subsets correct the estimates; 0: too few to correct anything.

    As `TargetEstimates.calibrated_on`, which fits the correction first. A fit may take longer than a key may wait.
    """
    return len(measured) if len(measured) >= LEAST_RUNS else 0


def trust_word(subsets: int) -> str:
    """Whether estimates are calibrated, and by how many subsets; 0 for those that are not."""
    return f"calibrated·{subsets}" if subsets else "uncalibrated"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedSelection:
    """A selection in the store."""

    name: str
    method: str
    manifest: Manifest

    def mask(self, names: list[str]) -> Mask:
        """Membership (t,) of the tasks named; one that the selection does not know is out."""
        selected = {task.name for task in self.manifest.tasks if task.selected}
        return np.fromiter((name in selected for name in names), dtype=bool, count=len(names))

    @property
    def is_calibrated(self) -> bool:
        """Whether its estimate was calibrated when it was made."""
        return bool(self.manifest.estimate.get("calibrated", False))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """All that is shown of a project, for one target.

    Attributes:
        project: The project.
        target: Its target, or targets joined by `+`; "" where none is named.
        status: Where every stage stands.
        corpus: Its tasks; None while files have not been read.
        answers: Estimates; None until there are gradients.
        names: Auxiliary tasks (t), in the order of all arrays.
        tags: Of each task, joined.
        sources: File or hub id of each task.
        examples: Training examples of each task (t,).
        tokens: Training tokens of each task (t,).
        affinity: Affinity of each task (t,); NaN where it is not known.
        affinity_error: Its standard error (t,).
        selections: Saved selections for this target, newest first, one of each name.
        problems: What people should know about the data.
        last_session: The session that was changed last, and its history.
        calibrated_on: How many really fine-tuned subsets correct the estimates; 0: they are not calibrated.
        measured: What was really fine-tuned on, by the bytes of its membership (t,).
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
    last_session: tuple[str, list[StoredEdit]] | None
    calibrated_on: int = 0
    measured: Mapping[bytes, MeasuredSubset] = field(default_factory=dict)

    @property
    def trust(self) -> str:
        """Whether the estimates are calibrated, in a word."""
        return trust_word(self.calibrated_on)

    def measured_loss(self, mask: Mask) -> float | None:
        """Loss after really fine-tuning on a subset (t,); None where nobody did."""
        found = self.measured.get(mask.tobytes())
        return found.mean if found is not None else None

    @property
    def missing(self) -> str:
        """What is missing before estimates can be made, and what to do about it; "" where nothing is."""
        if not self.target:
            return "no target is named: set `target` under [data] in curator.toml"
        if self.corpus is None:
            return "files are new or have changed: press R and run `check` or `select`"
        if self.answers is None:
            return "no estimates yet: press R and run `select`"
        return ""

    def selection(self, name: str) -> SavedSelection | None:
        """The saved selection of a name."""
        return next((s for s in self.selections if s.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A selection as it was when somebody asked to save it."""

    name: str
    subset: tuple[str, ...]
    request: Request
    edits: tuple[Edit, ...]

    @classmethod
    def of(cls, name: str, session: Session, snapshot: Snapshot) -> "Draft":
        """What there is to save; edits follow those of the selection that the session rests on."""
        base = snapshot.selection(session.base)
        options = base.manifest.options if base is not None else {}
        asked = {key: options.get(key) for key in ("k", "max_tokens", "max_examples", "threshold")}
        by_hand = (Edit(task=task, selected=selected, by="curator tui") for task, selected in session.by_hand())
        return cls(
            name=name,
            subset=tuple(session.names[row] for row in np.flatnonzero(session.mask)),
            request=Request(
                method=base.method if base is not None else "manual",
                include=tuple(session.pinned(State.PINNED_IN)),
                exclude=tuple(session.pinned(State.PINNED_OUT)),
                **asked,
            ),
            edits=(*(base.manifest.edits if base is not None else ()), *by_hand),
        )

    def save(self, snapshot: Snapshot) -> None:
        """Put it into the store.

        Raises:
            CuratorError: It cannot be estimated or written.
        """
        assert snapshot.answers is not None
        Selections(snapshot.answers).save(self.subset, name=self.name, request=self.request, edits=self.edits)


def load_snapshot(root: Path, before: Snapshot | None = None) -> Snapshot:
    """Read a project.

    Args:
        root: Its folder.
        before: What was read last; its estimator is kept where nothing has changed that it rests on.

    Raises:
        CuratorError: Configuration, files or store cannot be read.
    """
    project = Project.open(root)
    config, store = project.config, project.store
    targets = config.data.targets
    corpus = read_corpus(project.workspace, targets, read=False)
    answers = _answers(project, corpus, before) if corpus is not None and targets else None
    tasks = corpus.auxiliary if corpus is not None else []
    known = store.affinities(answers.key) if answers is not None else {}
    affinity = np.array([known.get(task.name, (np.nan, np.nan)) for task in tasks], dtype=np.float64).reshape(-1, 2)
    target = target_label(targets)
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
        selections=_selections(project, target),
        problems=tuple(corpus.problems()) if corpus is not None else (),
        last_session=store.last_session(target),
        calibrated_on=calibrated_on(answers.measured) if answers is not None else 0,
        measured={answers.mask(m.subset).tobytes(): m for m in answers.measured} if answers is not None else {},
    )


def _answers(project: Project, corpus: Corpus, before: Snapshot | None) -> TargetEstimates | None:
    meta = find_meta_init(project.workspace, corpus)
    if meta is None:
        return None
    sets = gradient_sets(project.config, meta)
    if project.store.artifact("gradients", key_of(gradients_inputs(sets, corpus))) is None:
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
                # Made by another version; it is still there for that one.
                continue
            found[kept.name] = SavedSelection(name=kept.name, method=kept.method, manifest=loaded)
    return tuple(found.values())


def _file_name(files: tuple[tuple[str, str, int], ...]) -> str:
    return Path(files[0][0]).name if files else ""

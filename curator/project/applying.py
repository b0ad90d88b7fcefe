"""Apply selections: check them, make their runs in one pool, and record the measured losses."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curator import results
from curator.core import distributed
from curator.core.errors import ConfigError
from curator.core.files import file_names
from curator.data.dropped import without
from curator.export.adapter import Applied, check_folder, check_unchanged, report
from curator.export.adapter_metric import applied_metric
from curator.export.adapter_runs import Wanted, apply_all, keep_measured
from curator.metrics.measuring import Measurer, metric_name
from curator.project.costs import Work
from curator.project.pipeline import Pipeline
from curator.results.base import rounded
from curator.select.manifest import Manifest, record_measured
from curator.select.selections import dropped_by
from curator.verify.measure import run_seeds
from curator.workers.fine_tuning import values_before


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A selection that the user names.

    Attributes:
        words: Words of the user.
        manifest: The selection.
        file: The user's file, which receives the measured loss. None for the name of a selection.
    """

    words: str
    manifest: Manifest
    file: Path | None

    @property
    def folder_name(self) -> str:
        """Name of the adapter's folder, from the targets and the name of the selection."""
        (name,) = file_names([f"{'+'.join(self.manifest.target_names)}-{self.manifest.name}"], allowed="-_.+ ")
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplySettings:
    """Options of `Project.apply`, except the folder."""

    seed: int | None
    metric: str | None
    allow_changed: bool
    fresh: bool


def apply_selections(
    pipeline: Pipeline, named: Sequence[Named], folders: Sequence[Path | None], settings: ApplySettings
) -> list[results.ApplyReport]:
    """Apply selections, and return a report of each.

    Args:
        pipeline: Stages of the project.
        named: The selections.
        folders: Folder of each adapter. None for the folder in `.curator`.
        settings: Options of the call.

    Raises:
        ConfigError: No selection is named, two have one name, or a folder holds other files.
        DataError: A file cannot be read or written, or a worker died too often.
        ManifestMismatch: The model, the recipe or a file has changed since a selection.
        NumericalError: A training diverges.
        StoreBusy: Another process works on the project.
    """
    workspace = pipeline.workspace
    _check_names(named)
    metric = metric_name(workspace, settings.metric)
    seed = run_seeds(workspace.config, 1)[0] if settings.seed is None else settings.seed
    wanted, unchanged = list[Wanted](), list[bool]()
    for one, folder in zip(named, folders, strict=True):
        corpus = without(pipeline.corpus(one.manifest.target_names), dropped_by(one.manifest))
        unchanged.append(check_unchanged(workspace, one.manifest, corpus, allow=settings.allow_changed))
        place = workspace.adapters / "applied" / one.folder_name if folder is None else folder
        check_folder(place)
        measurer = Measurer(workspace, corpus, metric)
        measurer.check()
        wanted.append(
            Wanted(
                workspace=workspace, corpus=corpus, manifest=one.manifest, seed=seed, folder=place, measurer=measurer
            )
        )
    pipeline.begin(wanted[0].corpus, [_planned(pipeline, wanted, fresh=settings.fresh)])
    pool = pipeline.pool()
    done: dict[int, Applied] = {}
    files = [one.file for one in named]

    def keep(number: int, applied: Applied) -> None:
        done[number] = applied
        if not distributed.is_main():
            return
        keep_measured(wanted[number], applied, unchanged=unchanged[number])
        file, manifest = files[number], wanted[number].manifest
        if not unchanged[number] or (file and not record_measured(file, manifest, rounded(applied.loss))):
            workspace.reporter.warn(
                f"measured loss is not written to {named[number].words}: it describes another selection"
            )
            files[number] = None

    with pipeline.measuring("apply", *(one.manifest.target_names for one in wanted)):
        before = [values_before(pool, workspace, one.corpus, one.measurer) for one in wanted]
        apply_all(
            workspace,
            wanted,
            work=workspace.adapters / "apply",
            load=pipeline.load,
            pool=pool,
            fresh=settings.fresh,
            keep=keep,
        )
    found = []
    for number, own in enumerate(wanted):
        applied, corpus = done[number], own.corpus
        read = applied_metric(workspace, corpus, applied.loss, applied.values, own.measurer, before[number])
        found.append(
            report(workspace, corpus, own.manifest, applied, seed=seed, manifest_file=files[number], metric=read)
        )
    return found


def _check_names(named: Sequence[Named]) -> None:
    if not named:
        raise ConfigError("no selection is named", hint="Name a manifest or a selection.")
    twice = [name for name, count in Counter(one.folder_name for one in named).items() if count > 1]
    if twice:
        names = [one.manifest.name for one in named if one.folder_name == twice[0]]
        raise ConfigError(
            f"two selections have the name {names[0]!r}",
            hint="Apply them in two calls, each with another directory after -o.",
        )


def _planned(pipeline: Pipeline, wanted: Sequence[Wanted], *, fresh: bool) -> Work:
    """Return the sum of the runs. Selections of equal tasks share one run."""
    works = {
        one.key: pipeline.planner(one.corpus, fresh=fresh).apply(one.manifest, seed=one.seed, folder=one.folder)
        for one in wanted
    }
    to_do = [work for work in works.values() if not work.cached]
    if not to_do:
        return next(iter(works.values()))
    return replace(
        to_do[0],
        steps=sum(work.steps for work in to_do),
        tokens=sum(work.tokens for work in to_do),
        size=sum(work.size for work in to_do),
        exact=all(work.exact for work in to_do),
        workers=len(to_do),
    )

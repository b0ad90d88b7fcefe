"""`Project`: curator's verbs on one project folder. The command line and the terminal interface call its methods.

Each verb runs the missing stages before it, each once:

    check → train → gradients → estimate → select → export, apply
                                    ↘ verify
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from curator import results
from curator.core import distributed
from curator.core.config import Config, SelectSection
from curator.core.errors import ConfigError, DataError
from curator.core.events import Reporter
from curator.core.files import file_names
from curator.core.text import is_text
from curator.project.pipeline import Pipeline
from curator.results.base import rounded
from curator.select.manifest import MANIFEST_NAME, Manifest, record_measured, write_manifest
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    from curator.data.corpus import Corpus
    from curator.data.dropped import Dropped
    from curator.estimate.target import TargetEstimates
    from curator.select.selections import Selections
    from curator.workspace.store.tables import Store


class Project:
    """A folder with a `curator.toml`, and everything that curator makes for it.

    Open a project with `Project.open`. Verbs return frozen values. Each has `to_pandas()`, and is a notebook table.

        >>> project = curator.Project.open("sample_data", progress=True)
        >>> project.check().problems
        >>> result = project.select(max_tokens=20000)
        >>> result.selected
        >>> result.to_pandas().sort_values("affinity")
        >>> project.estimate(["carry", "subtraction"]).estimated_loss
        >>> project.apply(output="adapter").measured_loss
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._pipeline = Pipeline(workspace)

    @classmethod
    def open(cls, path: Path | str | None = None, *, reporter: Reporter | None = None, progress: bool = False) -> Self:
        """Open a project.

            >>> project = curator.Project.open("sample_data", progress=True)

        Args:
            path: Folder of the project. None searches the working directory and its parents for `curator.toml`.
            reporter: Receives progress and warnings.
            progress: Print progress with the time left to standard error, as plain lines for notebooks and scripts.

        Raises:
            ConfigError: The project does not exist, or its configuration is invalid.
            DataError: `.curator/` contains a symbolic link.
        """
        reporter = reporter or Reporter()
        if progress:
            from curator.core.progress import PlainProgress

            reporter = reporter.with_sink(PlainProgress())
        return cls(Workspace.open(path, reporter=reporter))

    @property
    def root(self) -> Path:
        """Folder that holds `curator.toml`."""
        return self.workspace.root

    @property
    def config(self) -> Config:
        """The project's configuration."""
        return self.workspace.config

    @property
    def reporter(self) -> Reporter:
        """Receiver of progress and warnings."""
        return self.workspace.reporter

    @property
    def name(self) -> str:
        """The project's name."""
        return self.workspace.name

    @property
    def folder(self) -> Path:
        """Folder of everything that curator makes: `.curator/`."""
        return self.workspace.folder

    @property
    def store(self) -> "Store":
        """The project's DuckDB store."""
        return self.workspace.store

    # -- verbs ----------------------------------------------------------------------------------------------------

    def check(self) -> results.CheckReport:
        """Read configuration and data, and report tasks, sizes and problems. Train nothing.

        Raises:
            ConfigError: The configuration does not suit the data.
            DataError: A file or the tokenizer cannot be read.
            CheckFailed: A task or the model cannot be used. The attribute `report` of the error holds the report.
        """
        from curator.data.check import check_data

        return check_data(self.workspace, self._pipeline.whole_corpus(self.workspace.targets(needed=False)))

    def train(self, *, target: str | Sequence[str] | None = None, fresh: bool = False) -> results.TrainReport:
        """Meta-train: train LoRA on all tasks and the target together.

        Args:
            target: Target to use instead of the configured one.
            fresh: Train again even if cached. Tasks that were added since are then included.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: Data or the model cannot be read, or a checkpoint cannot be written.
            NumericalError: Training diverges.
            StoreBusy: Another process works on the project.
        """
        from dataclasses import asdict

        meta, cached = self._pipeline.meta_init(self.corpus(self.workspace.targets(target)), fresh=fresh)
        return results.TrainReport(
            key=meta.key,
            points=tuple(
                {**asdict(s), "folder": str(self.workspace.adapters / meta.key / s.folder)} for s in meta.checkpoints
            ),
            examples=meta.examples,
            trainable_parameters=meta.trainable_parameters,
            unseen=meta.unseen,
            cached=cached,
        )

    def gradients(self, *, target: str | Sequence[str] | None = None, fresh: bool = False) -> results.GradientsReport:
        """Compute projected per-example gradients at the checkpoints of meta-training.

        Args:
            target: Target to use instead of the configured one.
            fresh: Compute all gradients again.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        corpus = self.corpus(self.workspace.targets(target))
        meta, computed, count = self._pipeline.gradients(corpus, fresh=fresh, fresh_train=False)
        return results.GradientsReport(
            examples=count,
            points=len(meta.checkpoints),
            projection_dim=self.config.gradients.projection_dim,
            computed=computed,
            cached=computed == 0,
            captured=meta.captured,
        )

    def estimate(
        self,
        subset: Sequence[str],
        *,
        target: str | Sequence[str] | None = None,
        drop_examples: Path | str | Sequence[tuple[str, str]] = (),
    ) -> results.EstimateResult:
        """Estimate the target's loss after fine-tuning on the target and one subset of auxiliary tasks.

            >>> project.estimate(["carry"]).estimated_loss

        Args:
            subset: Names of auxiliary tasks.
            target: Target to use instead of the configured one.
            drop_examples: Examples that the fine-tuning leaves out, as for `select`.

        Raises:
            ConfigError: A name is not an auxiliary task, a dropped example is unknown, or a target is not a task of the
                project.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        return self.estimate_all([subset], target=target, drop_examples=drop_examples).estimates[0]

    def estimate_all(
        self,
        subsets: Sequence[Sequence[str]],
        *,
        target: str | Sequence[str] | None = None,
        drop_examples: Path | str | Sequence[tuple[str, str]] = (),
    ) -> results.EstimatesReport:
        """Estimate several subsets, in the order given. Arguments and errors are those of `estimate`."""
        from curator.estimate.reduced import reduced_estimates

        targets = self.workspace.targets(target)
        dropped = self._dropped(drop_examples, targets)
        return reduced_estimates(self.estimates(targets), dropped).estimate(subsets)

    def select(
        self,
        *,
        target: str | Sequence[str] | None = None,
        method: str | None = None,
        k: int | None = None,
        max_tokens: int | None = None,
        max_examples: int | None = None,
        threshold: float | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        drop_examples: Path | str | Sequence[tuple[str, str]] = (),
        per_example: bool = False,
        name: str = "",
        output: Path | str | None = None,
        fresh: bool = False,
    ) -> results.SelectionResult:
        """Select the subset of tasks with the lowest estimated target loss, and write a manifest.

            >>> project.select(method="exchange", k=5, exclude=["noise"]).selected

        Args:
            target: Target to use instead of the configured one.
            method: `forward`, `backward`, `exchange`, `ensemble`, `mixture`, or a baseline [default: the configured
                method]. Baselines: `random`, `embedding`, `bm25`, `gradient-cosine`, `less` and `kmm`.
            k: Maximum number of tasks.
            max_tokens: Maximum number of training tokens of the selected tasks.
            max_examples: Maximum number of training examples of the selected tasks.
            threshold: Minimum gain of a task in nats. For the ensemble, the minimum affinity. For a baseline, the
                minimum score.
            include: Tasks that must be in.
            exclude: Tasks that must not be in.
            drop_examples: Examples that the selection does not train on: a JSON Lines file of `{"task", "sha256"}`, or
                pairs of task and hash.
            per_example: Choose examples inside tasks, within `max_tokens`.
            name: Name of the selection [default: the method].
            output: Manifest file [default: `curator-manifest.json` in the project].
            fresh: Run every stage again.

        Raises:
            ConfigError: A name or a dropped example is unknown, pins contradict each other or the budget, or the method
                lacks an option.
            DataError: Data, the model, a checkpoint or the manifest cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        from dataclasses import replace

        from curator.select.methods import Request
        from curator.select.selections import selection_report

        request = Request(
            method=self._method(method),
            k=k,
            max_tokens=max_tokens,
            max_examples=max_examples,
            threshold=threshold,
            include=tuple(sorted(set(include))),
            exclude=tuple(sorted(set(exclude))),
            per_example=per_example,
        )
        path = self.root / MANIFEST_NAME if output is None else Path(output).absolute()
        if name and not is_text(name):
            raise ConfigError(f"selection name is not valid UTF-8: {name!r}", hint="Use a name in UTF-8.")
        targets = self.workspace.targets(target)
        request = replace(request, dropped=self._dropped(drop_examples, targets))
        selections = self.selections(targets, fresh=fresh)
        manifest, cached = selections.select(request, name=name or request.method, folder=path.parent, fresh=fresh)
        if distributed.is_main():
            write_manifest(manifest, path)
        return selection_report(manifest, path, cached)

    def examples(self, task: str, *, target: str | Sequence[str] | None = None) -> results.ExamplesReport:
        """Estimate the effect of each training example of a task on the target's loss.

        Args:
            task: Name of an auxiliary task.
            target: Target to use instead of the configured one.

        Raises:
            ConfigError: The name is not an auxiliary task, or a target is not a task of the project.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        selections = self.selections(self.workspace.targets(target))
        selections.estimates.number_of(task)
        selected = selections.last_names_or_select()
        estimator = selections.without(selections.last_dropped()).estimates.estimator
        return selections.estimates.examples(task, selected, estimator)

    def group(self, count: int) -> list[tuple[str, Path, int]]:
        """Split each auxiliary task into groups of examples with similar gradients.

        Args:
            count: Number of groups of each task.

        Returns:
            Name, file and rows of each group. The files are in `groups/`.

        Raises:
            ConfigError: `count` or a target is invalid.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        from curator.data.discovery import find_tasks
        from curator.gradients.grouping import write_groups

        corpus = self.corpus(self.workspace.targets(None))
        meta, _, _ = self._pipeline.gradients(corpus, fresh=False, fresh_train=False)
        sources = {source.name: source for source in find_tasks(self.config.data, self.root)}
        return write_groups(self.workspace, corpus, meta, sources, count=count, folder=self.root / "groups")

    def curve(self, *, target: str | Sequence[str] | None = None) -> results.CurveReport:
        """Estimate the loss against a budget of training tokens.

        Args:
            target: Target to use instead of the configured one.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        selections = self.selections(self.workspace.targets(target))
        return selections.estimates.curve(selections.last_names_or_select())

    def verify(
        self,
        *,
        target: str | Sequence[str] | None = None,
        runs: int | None = None,
        seeds: int | None = None,
        compare: bool = False,
        fresh: bool = False,
    ) -> results.VerifyReport:
        """Fine-tune on some subsets, compare the losses with the estimates, and calibrate later estimates.

            >>> project.verify(runs=12).relative_error

        Args:
            target: Target to use instead of the configured one.
            runs: Number of subsets to add. None adds 12 if none are measured. The rest of an interrupted call is done
                first, and alone.
            seeds: Fine-tuning runs on each subset, with different seeds [default: 2]. Without `runs`, adds runs to
                measured subsets until each has that many.
            compare: Fine-tune on the selection of each other method within the tokens of the current selection, and
                compare the losses. Only `runs` then adds other subsets.
            fresh: Run every earlier stage again.

        Raises:
            ConfigError: `runs` or `seeds` is below 1, or a target is not a task of the project.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, a gradient is not finite, or every run diverges.
            StoreBusy: Another process works on the project.
        """
        from dataclasses import replace

        from curator.verify.dropping import measure_dropping, plan_dropping, report_dropping
        from curator.verify.measure import measure
        from curator.verify.verification import plan_runs, report_runs

        targets = self.workspace.targets(target)
        selections = self.selections(targets, fresh=fresh)
        todo, choices = plan_runs(selections, runs=runs, seeds=seeds, compare=compare, fresh=fresh)
        dropping = plan_dropping(selections, seeds=seeds, planned=todo)
        todo += [] if dropping is None else dropping.whole
        if todo or (dropping is not None and dropping.reduced):
            folder = self.workspace.adapters / "verify"
            with self._pipeline.measuring(targets, "verify"):
                if todo:
                    measure(self.workspace, self.corpus(targets), todo, load=self._pipeline.load, folder=folder)
                if dropping is not None and dropping.reduced:
                    measure_dropping(selections.estimates, dropping, load=self._pipeline.load, folder=folder)
        else:
            count = len(selections.estimates.measured)
            self.reporter.cached("verify", f"{count} subsets are measured; --runs N adds more")
        found = report_runs(self.estimates(targets), choices)
        return (
            found if dropping is None else replace(found, dropping=report_dropping(self.estimates(targets), dropping))
        )

    def export(
        self,
        manifest: Path | str,
        *,
        format: str = "jsonl",
        output: Path | str,
        allow_changed: bool = False,
        allow_outside: bool = False,
    ) -> results.ExportReport:
        """Write the files that a trainer reads.

        Args:
            manifest: A manifest that `select` wrote, or the name of a selection.
            format: One of `curator.export.FORMATS`.
            output: Folder to write to. It is created if missing.
            allow_changed: Export even if files have changed since the selection.
            allow_outside: Read also files outside the manifest's folder and the project.

        Raises:
            ConfigError: The format is unknown or does not suit the model, or the folder holds other files.
            DataError: A file cannot be read or written.
            ManifestMismatch: A file has changed.
        """
        from curator.export import export

        found, here = self.manifest(manifest)
        return export(
            found,
            here,
            format=format,
            folder=Path(output),
            allow_changed=allow_changed,
            allow_outside=allow_outside,
            reporter=self.reporter,
        )

    def apply(
        self,
        manifest: Path | str = MANIFEST_NAME,
        *,
        output: Path | str | None = None,
        seed: int | None = None,
        allow_changed: bool = False,
        fresh: bool = False,
    ) -> results.ApplyReport:
        """Fine-tune the base model on a selection by the project's recipe, and save the adapter.

        The weight of a task is the number of times that each of its examples is trained on. The manifest receives the
        measured loss.

            >>> report = project.apply(output="adapter")
            >>> model = peft.PeftModel.from_pretrained(base_model, report.adapter)

        Args:
            manifest: A manifest that `select` wrote, or the name of a selection.
            output: Folder of the adapter [default: in `.curator/adapters/applied/`]. It is created if missing.
            seed: Seed of initialization and order [default: that of the first run of `verify` on a subset].
            allow_changed: Train on the current files and settings even if they differ from the manifest.
            fresh: Train again even if the adapter is cached.

        Raises:
            ConfigError: The folder holds other files.
            DataError: The manifest does not exist, or a file cannot be read or written.
            ManifestMismatch: The model, the recipe or a file has changed since the selection.
            NumericalError: Training diverges.
            StoreBusy: Another process works on the project.
        """
        from curator.data.dropped import without
        from curator.export import adapter as applying
        from curator.select.selections import dropped_by, find_manifest_file
        from curator.verify.measure import run_seeds

        found, _ = self.manifest(manifest)
        file = find_manifest_file(self.workspace, manifest)
        targets = found.target_names
        corpus = without(self.corpus(targets), dropped_by(found))
        unchanged = applying.check_unchanged(self.workspace, found, corpus, allow=allow_changed)
        seed = run_seeds(self.config, 1)[0] if seed is None else seed
        folder = self.workspace.adapters / "applied"
        (name,) = file_names([f"{'+'.join(targets)}-{found.name}"], allowed="-_.+ ")
        place = folder / name if output is None else Path(output).absolute()
        applying.check_folder(place)
        with self._pipeline.measuring(targets, "apply"):
            done = applying.apply(
                self.workspace,
                corpus,
                found,
                seed=seed,
                folder=place,
                work=self.workspace.adapters / "apply",
                load=self._pipeline.load,
                fresh=fresh,
            )
            if distributed.is_main():
                applying.keep_measured(self.workspace, corpus, found, done, seed=seed, unchanged=unchanged)
                if not unchanged or (file and not record_measured(file, found, rounded(done.loss))):
                    self.reporter.warn(f"measured loss is not written to {manifest}: it describes another selection")
                    file = None
        return applying.report(self.workspace, corpus, found, done, seed=seed, manifest_file=file)

    def manifest(self, wanted: Path | str) -> tuple[Manifest, Path]:
        """Return a manifest, and the folder that its paths are relative to.

        Args:
            wanted: A file in the working directory or in the project, or the name of a stored selection.

        Raises:
            DataError: Neither the file nor the selection exists.
        """
        from curator.select.selections import find_manifest

        return find_manifest(self.workspace, wanted)

    def note(
        self, text: str | None = None, *, task: str = "", example: str = "", selection: str = ""
    ) -> results.NotesReport:
        """Write or read the note on a task, an example or a selection. Without names, return all notes.

            >>> project.note("two labels are wrong", task="carry")

        Args:
            text: The note. It replaces an earlier note. An empty text removes the note. None reads.
            task: Name of a task.
            example: Hash of an example of the task, as in `examples`.
            selection: Name of a stored selection.

        Raises:
            ConfigError: The names do not name one task, example or selection, or it does not exist.
            DataError: Files are not read yet.
            StoreBusy: A writer held the store for ten seconds.
        """
        from curator.project.notes import note

        return note(self.workspace, text, task=task, example=example, selection=selection)

    def report(self, manifest: Path | str | None = None, *, output: Path | str | None = None) -> Path:
        """Write one file about a selection, to send to a colleague. The file needs no network. Compute no stage.

            >>> project.report(output="report.html")

        Args:
            manifest: A manifest that `select` wrote, or the name of a selection [default: the last selection].
            output: HTML file, or Markdown file with the ending `.md` [default: `curator-report.html` in the project].

        Returns:
            The file.

        Raises:
            DataError: There is no selection, or the file cannot be written.
        """
        from curator.project.report import REPORT_NAME, last_manifest, write_report

        found = last_manifest(self.workspace) if manifest is None else self.manifest(manifest)[0]
        path = self.root / REPORT_NAME if output is None else Path(output).absolute()
        write_report(self.workspace, found, path)
        return path

    def status(self) -> results.StatusReport:
        """Report the state of every stage, and why a stage is stale. Compute nothing."""
        from curator.data.corpus import read_corpus
        from curator.project.status import status

        targets = self.config.data.targets
        return status(self.workspace, read_corpus(self.workspace, targets, read=False))

    def sql(
        self, query: str = "", *, target: str | Sequence[str] | None = None, limit: int | None = None
    ) -> results.QueryResult:
        """Query the store by SQL: the views `tasks`, `examples`, `affinities`, `subsets`, `runs` and `selections`.

        The query computes no stage. It cannot write, and cannot read other files.

            >>> project.sql("SELECT task, affinity FROM affinities ORDER BY affinity DESC").to_pandas()

        Args:
            query: One query. An empty query lists the views with their columns.
            target: Target to use instead of the configured one. It decides which examples are held out.
            limit: Maximum number of rows to keep.

        Raises:
            ConfigError: The query is invalid, or reads anything but the views.
            DataError: The store does not exist, or files are not read yet.
            StoreBusy: A writer held the store for ten seconds.
        """
        from curator.data.corpus import read_corpus
        from curator.project.sql_tables import project_tables
        from curator.workspace.store.sql import LISTING

        targets = self.workspace.targets(target, needed=False)
        corpus = read_corpus(self.workspace, targets, read=False)
        if corpus is None:
            there = self.store.path.exists()
            raise DataError(
                "new or changed files are not read yet" if there else f"store does not exist: {self.store.path}",
                hint="Run `curator check` or `curator select`.",
            )
        table, total = self.store.query(query.strip() or LISTING, project_tables(self.workspace, corpus), limit=limit)
        return results.QueryResult(table=table, total=total)

    # -- what the verbs share -------------------------------------------------------------------------------------

    def corpus(self, targets: tuple[str, ...]) -> "Corpus":
        """Return the project's examples, split for the targets. Read files that are new or changed.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: A file or the tokenizer cannot be read.
        """
        return self._pipeline.corpus(targets)

    def _dropped(self, named: Path | str | Sequence[tuple[str, str]], targets: tuple[str, ...]) -> "Dropped":
        """Return dropped examples, checked against the tasks.

        Args:
            named: A JSON Lines file of `{"task", "sha256"}`, or pairs of task and hash.
            targets: Names of the targets.

        Raises:
            ConfigError: An example is not a training example of an auxiliary task, or is named twice.
            DataError: The file or the tasks cannot be read.
        """
        from curator.data.dropped import Dropped, check_dropped, read_dropped

        if not named:
            return Dropped()
        if isinstance(named, Path | str):
            return check_dropped(self.corpus(targets), read_dropped(Path(named)), where=str(named))
        return check_dropped(self.corpus(targets), named)

    def estimates(self, targets: tuple[str, ...]) -> "TargetEstimates":
        """Return the estimates for the targets. Run the missing stages before.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        return self._pipeline.estimates(targets)

    def selections(self, targets: tuple[str, ...], *, fresh: bool = False) -> "Selections":
        """Return the selections for the targets. Run the missing stages before.

        Args:
            targets: Names of the targets.
            fresh: Run every stage again.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        return self._pipeline.selections(targets, fresh=fresh)

    def _method(self, method: str | None) -> str:
        if method is None:
            return self.config.select.method
        known = SelectSection.model_fields["method"].annotation
        names: tuple[Any, ...] = getattr(known, "__args__", ())
        if method not in names:
            raise ConfigError(f"unknown selection method: {method!r}", hint=f"Use one of: {', '.join(names)}.")
        return method

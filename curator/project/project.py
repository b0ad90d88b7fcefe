"""`Project`: curator's verbs on one project folder. The command line and the terminal interface are thin on top of it.

Each verb runs what is missing of the stages before it, and nothing twice:

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
    from curator.estimate.target import TargetEstimates
    from curator.select.selections import Selections
    from curator.workspace.store.tables import Store


class Project:
    """A folder with a `curator.toml`, and all that curator has made for it.

    Use `Project.open`. What the verbs return are frozen values; each has `to_pandas()`, and is a table in a notebook.

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
            path: Its folder; None looks for `curator.toml` here and in the folders above.
            reporter: Told of progress.
            progress: Say on standard error what goes on, with the time left, in plain lines; for notebooks and scripts.

        Raises:
            ConfigError: There is no project, or its configuration is wrong.
            DataError: `.curator/` holds a symbolic link.
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
        """Receives progress and warnings."""
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
        """Read configuration and data, and say what is there and what is wrong. Trains nothing.

        Raises:
            ConfigError, DataError: Something cannot be used at all.
        """
        from curator.data.check import check_data

        return check_data(self.workspace, self.corpus(self.workspace.targets(needed=False)))

    def train(self, *, target: str | Sequence[str] | None = None, fresh: bool = False) -> results.TrainReport:
        """Meta-train: LoRA on all tasks and the target together.

        Args:
            target: In place of the configured one.
            fresh: Train again although a meta-initialization is there; tasks that were added since become part of it.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
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
        """Compute projected per-example gradients at the points of meta-training.

        Args:
            target: In place of the configured one.
            fresh: Compute them all again.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        corpus = self.corpus(self.workspace.targets(target))
        meta, computed, count = self._pipeline.gradients(corpus, fresh=fresh, fresh_train=False)
        return results.GradientsReport(
            examples=count,
            points=len(meta.checkpoints),
            projection_dim=self.config.gradients.projection_dim,
            computed=computed,
            cached=computed == 0,
        )

    def estimate(self, subset: Sequence[str], *, target: str | Sequence[str] | None = None) -> results.EstimateResult:
        """Estimate the target's loss after fine-tuning on one subset of tasks (and the target itself).

            >>> project.estimate(["carry"]).estimated_loss

        Args:
            subset: Names of auxiliary tasks.
            target: In place of the configured one.

        Raises:
            ConfigError: A name is no auxiliary task.
        """
        return self.estimate_all([subset], target=target).estimates[0]

    def estimate_all(
        self, subsets: Sequence[Sequence[str]], *, target: str | Sequence[str] | None = None
    ) -> results.EstimatesReport:
        """Estimate several subsets; as `estimate`, in the order given."""
        targets = self.workspace.targets(target)
        return self.estimates(targets).estimate(subsets)

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
        name: str = "",
        output: Path | str | None = None,
        fresh: bool = False,
    ) -> results.SelectionResult:
        """Select the subset of tasks with the least estimated target loss, and write a manifest.

            >>> project.select(method="exchange", k=5, exclude=["noise"]).selected

        Args:
            target: In place of the configured one.
            method: `forward`, `backward`, `exchange`, `ensemble` or `mixture`, in place of the configured one; or, to
                compare with, `random`, `embedding`, `bm25`, `gradient-cosine`, `less` or `kmm`.
            k: Most tasks.
            max_tokens: Most training tokens of the selected tasks.
            max_examples: Most training examples of the selected tasks.
            threshold: Least gain in nats that is worth a task; for the ensemble, least affinity; for the methods to
                compare with, least score.
            include: Tasks that must be in.
            exclude: Tasks that must not be in.
            name: Name of the selection; the method's by default.
            output: Manifest file, `curator-manifest.json` in the project by default.
            fresh: Run every stage again.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
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
        )
        path = self.root / MANIFEST_NAME if output is None else Path(output).absolute()
        if name and not is_text(name):
            raise ConfigError(f"the selection's name {name!r} is no text", hint="Name it in UTF-8.")
        selections = self.selections(self.workspace.targets(target), fresh=fresh)
        manifest, cached = selections.select(request, name=name or request.method, folder=path.parent, fresh=fresh)
        if distributed.is_main():
            write_manifest(manifest, path)
        return selection_report(manifest, path, cached)

    def examples(self, task: str, *, target: str | Sequence[str] | None = None) -> results.ExamplesReport:
        """Say what each training example of a task does to the target's estimated loss.

        Args:
            task: Name of an auxiliary task.
            target: In place of the configured one.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        selections = self.selections(self.workspace.targets(target))
        selections.estimates.number_of(task)
        return selections.estimates.examples(task, selections.last_names_or_select())

    def group(self, count: int) -> list[tuple[str, Path, int]]:
        """Cut each auxiliary task into groups of examples that pull the model the same way.

        Args:
            count: Groups of each task.

        Returns:
            Name, file and rows of each group; the files are in `groups/`.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        from curator.data.discovery import find_tasks
        from curator.gradients.grouping import write_groups

        corpus = self.corpus(self.workspace.targets(None))
        meta, _, _ = self._pipeline.gradients(corpus, fresh=False, fresh_train=False)
        sources = {source.name: source for source in find_tasks(self.config.data, self.root)}
        return write_groups(self.workspace, corpus, meta, sources, count=count, folder=self.root / "groups")

    def curve(self, *, target: str | Sequence[str] | None = None) -> results.CurveReport:
        """Estimate what a budget of training tokens buys.

        Args:
            target: In place of the configured one.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
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
        """Really fine-tune on some subsets, compare with the estimates, and calibrate what is estimated from now on.

            >>> project.verify(runs=12).relative_error

        Args:
            target: In place of the configured one.
            runs: How many subsets to add to those that are measured; None measures some where there are none yet. What
                an interrupted call had left to do is done first, and alone.
            seeds: Fine-tuning runs on each subset, with different seeds; 2 by default. Without `runs`, subsets that are
                measured already are brought to that many.
            compare: Fine-tune on what each other method selects within the tokens of the current selection, and set
                them side by side. Other subsets are then added only where `runs` says how many.
            fresh: Run every stage before again.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        from curator.verify.measure import measure
        from curator.verify.verification import plan_runs, report_runs

        targets = self.workspace.targets(target)
        selections = self.selections(targets, fresh=fresh)
        todo, choices = plan_runs(selections, runs=runs, seeds=seeds, compare=compare, fresh=fresh)
        if todo:
            folder = self.workspace.adapters / "verify"
            with self._pipeline.measuring(targets, "verify"):
                measure(self.workspace, self.corpus(targets), todo, load=self._pipeline.load, folder=folder)
        else:
            count = len(selections.estimates.measured)
            self.reporter.cached("verify", f"{count} subsets are measured; --runs N adds more")
        return report_runs(self.estimates(targets), choices)

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
            output: Folder, made if need be.
            allow_changed: Export although files have changed since.
            allow_outside: Read also files that lie neither beside the manifest nor in a project.

        Raises:
            ConfigError: The format is unknown or does not suit the model, or the folder holds something else.
            DataError: Something cannot be read or written.
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
        """Fine-tune the base model on a selection by the project's recipe, and leave the adapter.

        Examples of a task with a weight are trained on as often as it says. The measured loss is written into the
        manifest.

            >>> report = project.apply(output="adapter")
            >>> model = peft.PeftModel.from_pretrained(base_model, report.adapter)

        Args:
            manifest: A manifest that `select` wrote, or the name of a selection.
            output: Folder of the adapter, made if need be; in `.curator/adapters/applied/` by default.
            seed: Of initialization and order; by default that of the first run that `verify` makes on a subset.
            allow_changed: Train on what is there now, although it is no longer what the manifest says.
            fresh: Train again, although the adapter is there.

        Raises:
            ConfigError: The folder holds something else.
            DataError: There is no such manifest, or something cannot be read or written.
            ManifestMismatch: The model, the recipe or the files are no longer those of the manifest.
            NumericalError, StoreBusy: As the message says.
        """
        from curator.export import adapter as applying
        from curator.select.selections import find_manifest_file
        from curator.verify.measure import run_seeds

        found, _ = self.manifest(manifest)
        file = find_manifest_file(self.workspace, manifest)
        targets = found.target_names
        corpus = self.corpus(targets)
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
                    self.reporter.warn(f"{manifest} is not what was trained on: its measured loss is not written there")
                    file = None
        return applying.report(self.workspace, corpus, found, done, seed=seed, manifest_file=file)

    def manifest(self, wanted: Path | str) -> tuple[Manifest, Path]:
        """A manifest, and the folder that its paths are relative to.

        Args:
            wanted: A file, looked for here and in the project; or the name of a selection in the store.

        Raises:
            DataError: There is none.
        """
        from curator.select.selections import find_manifest

        return find_manifest(self.workspace, wanted)

    def status(self) -> results.StatusReport:
        """Say where every stage stands, and why one is stale. Computes nothing."""
        from curator.data.corpus import read_corpus
        from curator.project.status import status

        targets = self.config.data.targets
        return status(self.workspace, read_corpus(self.workspace, targets, read=False))

    def sql(
        self, query: str = "", *, target: str | Sequence[str] | None = None, limit: int | None = None
    ) -> results.QueryResult:
        """Ask the store by SQL: the views `tasks`, `examples`, `affinities`, `subsets`, `runs` and `selections`.

        Nothing is computed, and nothing can be written or read elsewhere.

            >>> project.sql("SELECT task, affinity FROM affinities ORDER BY affinity DESC").to_pandas()

        Args:
            query: One query; without, the views are listed with their columns.
            target: In place of the configured one; decides what is held out in `tasks` and `examples`.
            limit: Keep at most so many rows.

        Raises:
            ConfigError: It is no query, or wrong, or reaches for something else.
            DataError: There is no store, or files are not read yet.
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
                "new or changed files are not read yet" if there else f"{self.store.path}: nothing is kept yet",
                hint="Run `curator check`, which reads them, or `curator select`.",
            )
        table, total = self.store.query(query.strip() or LISTING, project_tables(self.workspace, corpus), limit=limit)
        return results.QueryResult(table=table, total=total)

    # -- what the verbs share -------------------------------------------------------------------------------------

    def corpus(self, targets: tuple[str, ...]) -> "Corpus":
        """Return the project's examples, split for the targets. Read files that are new or changed.

        Raises:
            ConfigError, DataError: As the message says.
        """
        return self._pipeline.corpus(targets)

    def estimates(self, targets: tuple[str, ...]) -> "TargetEstimates":
        """Return the estimates for the targets. Run the stages before that are missing.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        return self._pipeline.estimates(targets)

    def selections(self, targets: tuple[str, ...], *, fresh: bool = False) -> "Selections":
        """Return the selections for the targets. Run the stages before that are missing.

        Args:
            targets: Names of the targets.
            fresh: Run every stage again.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        return self._pipeline.selections(targets, fresh=fresh)

    def _method(self, method: str | None) -> str:
        if method is None:
            return self.config.select.method
        known = SelectSection.model_fields["method"].annotation
        names: tuple[Any, ...] = getattr(known, "__args__", ())
        if method not in names:
            raise ConfigError(f"no selection method {method!r}", hint=f"Methods: {', '.join(names)}.")
        return method

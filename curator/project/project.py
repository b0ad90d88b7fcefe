"""`Project`: curator's verbs on one project folder. The command line and the terminal interface are thin on top of it.

Each verb runs what is missing of the stages before it, and nothing twice:

    check → train → gradients → estimate → select → export, apply
                                    ↘ verify
"""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from curator import results
from curator.core import distributed
from curator.core.config import Config, SelectSection
from curator.core.errors import ConfigError, DataError
from curator.core.events import Reporter, Stopwatch
from curator.core.files import file_names
from curator.core.performance import OtherPrograms, reasons
from curator.core.text import is_text
from curator.select.manifest import MANIFEST_NAME, Manifest, read_manifest, record_measured, write_manifest
from curator.select.selections import _selection_result
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    from curator.data.corpus import Corpus
    from curator.select.selections import Answers
    from curator.training.meta_init import MetaInit
    from curator.training.model import TunedModel
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
        self._corpora: dict[tuple[str, ...], Corpus] = {}
        self._answers: dict[tuple[str, ...], Answers] = {}

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
        from curator.data.duplicates import find_repeated

        corpus = self.corpus(self.workspace.targets(None, needed=False))
        duplicates = find_repeated(self.workspace, corpus)
        return results.CheckReport(
            project=self.name,
            target=corpus.targets,
            model=self.config.model.name_or_path,
            tasks=tuple(
                results.CheckedTask(
                    name=task.name,
                    target=task.name in corpus.targets,
                    rows=len(task.version.index.hashes),
                    examples=len(task.split.train),
                    validation=len(task.split.validation),
                    tokens=task.tokens,
                    longest=max(task.version.index.lengths[n] for n in task.split.train),
                    truncated=task.truncated,
                    left_out={reason: len(numbers) for reason, numbers in task.split.left_out.items()},
                    formats=task.version.formats,
                )
                for task in corpus.tasks
            ),
            problems=(*corpus.problems(), *duplicates.problems),
            overlaps=duplicates.overlaps,
            near_duplicates=duplicates.pairs,
        )

    def train(self, *, target: str | Sequence[str] | None = None, fresh: bool = False) -> results.TrainReport:
        """Meta-train: LoRA on all tasks and the target together.

        Args:
            target: In place of the configured one.
            fresh: Train again although a meta-initialization is there; tasks that were added since become part of it.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        from dataclasses import asdict

        meta, cached = self._meta_init(self.corpus(self.workspace.targets(target)), fresh=fresh)
        return results.TrainReport(
            key=meta.key,
            points=tuple(
                {**asdict(s), "folder": str(self.workspace.adapters / meta.key / s.folder)} for s in meta.snapshots
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
        meta, computed, count = self._gradients(corpus, fresh=fresh, fresh_train=False)
        return results.GradientsReport(
            examples=count,
            points=len(meta.snapshots),
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
        return self.answers(targets).estimate(subsets)

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
        answers = self.answers(self.workspace.targets(target), fresh=fresh)
        manifest, cached = answers.select(request, name=name or request.method, folder=path.parent, fresh=fresh)
        if distributed.is_main():
            write_manifest(manifest, path)
        return _selection_result(manifest, path, cached)

    def examples(self, task: str, *, target: str | Sequence[str] | None = None) -> results.ExamplesReport:
        """Say what each training example of a task does to the target's estimated loss.

        Args:
            task: Name of an auxiliary task.
            target: In place of the configured one.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        return self.answers(self.workspace.targets(target)).examples(task)

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
        meta, _, _ = self._gradients(corpus, fresh=False, fresh_train=False)
        sources = {source.name: source for source in find_tasks(self.config.data, self.root)}
        return write_groups(self.workspace, corpus, meta, sources, count=count, folder=self.root / "groups")

    def curve(self, *, target: str | Sequence[str] | None = None) -> results.CurveReport:
        """Estimate what a budget of training tokens buys.

        Args:
            target: In place of the configured one.

        Raises:
            ConfigError, DataError, NumericalError, StoreBusy: As the message says.
        """
        return self.answers(self.workspace.targets(target)).curve()

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
        from dataclasses import replace

        from curator.verify.comparison import compare_methods, plan_comparison, runs_to_compare
        from curator.verify.measure import DEFAULT_SEEDS, mark_reported, measure, runs_to_make
        from curator.verify.report import report

        if (seeds is not None and seeds < 1) or (runs is not None and runs < 1):
            raise ConfigError(f"runs={runs}, seeds={seeds}: each must be at least 1", hint="Leave out what to default.")
        targets = self.workspace.targets(target)
        answers = self.answers(targets, fresh=fresh)
        corpus = self.corpus(targets)
        todo, choices = [], []
        if distributed.is_main():
            if compare:
                choices = plan_comparison(self.workspace, answers, fresh=fresh)
                todo = runs_to_compare(self.workspace, answers, choices, seeds=seeds or DEFAULT_SEEDS)
            if runs is not None or not compare:
                more = runs_to_make(self.workspace, corpus, answers, subsets=runs, seeds=seeds)
                todo += [run for run in more if run not in todo]
        todo, choices = distributed.from_main((todo, choices))
        if todo:
            with self.workspace.job("verify"):
                folder = self.workspace.adapters / "verify"
                measure(self.workspace, corpus, todo, load=self._load, folder=folder)
            del self._answers[targets]
            answers = self.answers(targets)
        else:
            self.reporter.cached("verify", f"{len(answers.measured)} subsets are measured; --runs N adds more")
        found = report(answers)
        if distributed.is_main():
            mark_reported(self.workspace, corpus)
        return replace(found, comparison=compare_methods(answers, found, choices)) if compare else found

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
        from curator.verify.measure import run_seeds

        found, _ = self.manifest(manifest)
        file = self._manifest_file(manifest)
        targets = found.target_names
        corpus = self.corpus(targets)
        unchanged = applying.check_unchanged(self.workspace, found, corpus, allow=allow_changed)
        seed = run_seeds(self.config, 1)[0] if seed is None else seed
        folder = self.workspace.adapters / "applied"
        (name,) = file_names([f"{'+'.join(targets)}-{found.name}"], allowed="-_.+ ")
        place = folder / name if output is None else Path(output).absolute()
        applying.check_folder(place)
        with self.workspace.job("apply"):
            done = applying.apply(
                self.workspace,
                corpus,
                found,
                seed=seed,
                folder=place,
                work=self.workspace.adapters / "apply",
                load=self._load,
                fresh=fresh,
            )
            if distributed.is_main():
                applying.keep_measured(self.workspace, corpus, found, done, seed=seed, unchanged=unchanged)
                if not unchanged or (file and not record_measured(file, found, round(done.loss, 6))):
                    self.reporter.warn(f"{manifest} is not what was trained on: its measured loss is not written there")
                    file = None
        # What was measured calibrates estimates from now on.
        self._answers.pop(targets, None)
        return applying.report(self.workspace, corpus, found, done, seed=seed, manifest_file=file)

    def _manifest_file(self, wanted: Path | str) -> Path | None:
        # A selection's name may be longer than a file's; pathlib would raise an error of it.
        return next((path for path in (Path(wanted).absolute(), self.root / wanted) if os.path.isfile(path)), None)

    def manifest(self, wanted: Path | str) -> tuple[Manifest, Path]:
        """A manifest, and the folder that its paths are relative to.

        Args:
            wanted: A file, looked for here and in the project; or the name of a selection in the store.

        Raises:
            DataError: There is none.
        """
        path = self._manifest_file(wanted)
        if path is not None:
            return read_manifest(path), path.parent
        kept = self.store.selection_named(str(wanted)) if is_text(str(wanted)) else None
        if kept is None:
            names = sorted({name for _, name, *_ in self.store.selections()})
            raise DataError(
                f"{wanted}: neither a manifest nor the name of a selection",
                hint=f"Selections: {', '.join(names)}." if names else "Run `curator select` first.",
            )
        return Manifest.model_validate_json(kept), self.root

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
        from curator.project.sql_tables import present
        from curator.workspace.store.sql import LISTING

        targets = self.workspace.targets(target, needed=False)
        corpus = read_corpus(self.workspace, targets, read=False)
        if corpus is None:
            there = self.store.path.exists()
            raise DataError(
                "new or changed files are not read yet" if there else f"{self.store.path}: nothing is kept yet",
                hint="Run `curator check`, which reads them, or `curator select`.",
            )
        table, total = self.store.query(query.strip() or LISTING, present(self.workspace, corpus), limit=limit)
        return results.QueryResult(table=table, total=total)

    # -- what the verbs share -------------------------------------------------------------------------------------

    def corpus(self, targets: tuple[str, ...]) -> "Corpus":
        """The project's examples, split for given targets; reads what is new."""
        from curator.data.corpus import read_corpus

        if targets not in self._corpora:
            if not distributed.is_main():
                distributed.wait()
            corpus = read_corpus(self.workspace, targets)
            if distributed.is_main():
                distributed.wait()
            assert corpus is not None
            for problem in corpus.problems():
                self.reporter.warn(problem)
            self._corpora[targets] = corpus
        return self._corpora[targets]

    def answers(self, targets: tuple[str, ...], *, fresh: bool = False) -> "Answers":
        """Estimates for given targets; runs what is missing of the stages before."""
        from curator.select.selections import Answers

        if fresh or targets not in self._answers:
            corpus = self.corpus(targets)
            meta, _, _ = self._gradients(corpus, fresh=fresh, fresh_train=fresh)
            self._answers[targets] = Answers(self.workspace, corpus, meta, self._load)
        return self._answers[targets]

    def _meta_init(self, corpus: "Corpus", *, fresh: bool) -> tuple["MetaInit", bool]:
        from curator.training.meta_init import find_meta_init, make_meta_init

        found = None if fresh else find_meta_init(self.workspace, corpus)
        found = distributed.from_main(found)
        if found is not None:
            unseen = f"; it has not seen {', '.join(found.unseen)} (--fresh trains on all)" if found.unseen else ""
            self.reporter.cached("train", f"meta-initialization of {found.examples} examples{unseen}")
            return found, True
        with self.workspace.job("train"):
            return make_meta_init(self.workspace, corpus, self._load, fresh=fresh), False

    def _gradients(self, corpus: "Corpus", *, fresh: bool, fresh_train: bool) -> tuple["MetaInit", int, int]:
        """The meta-initialization, how many gradients were computed there now, and of how many examples."""
        from curator.core.provenance import key_of
        from curator.estimate.points import fill_statistics
        from curator.gradients.stage import gradient_sets, gradients_inputs, make_gradients, wanted_hashes

        meta, _ = self._meta_init(corpus, fresh=fresh_train)
        sets = gradient_sets(self.config, meta)
        inputs = gradients_inputs(sets, corpus)
        count = len(wanted_hashes(corpus))
        done = distributed.from_main(self.store.artifact("gradients", key_of(inputs)) is not None)
        if done and not fresh:
            self.reporter.cached("gradients", f"{count} examples at {len(sets)} points")
            return meta, 0, count
        with self.workspace.job("gradients"):
            if fresh and distributed.is_main():
                self.store.drop_gradients([s.key for s in sets])
            distributed.wait()
            took = Stopwatch()
            reporting = self.workspace.reporting_to(self.reporter.with_sink(took))
            computed = make_gradients(reporting, corpus, meta, self._load)
            if distributed.is_main():
                fill_statistics(self.workspace, corpus, sets)
                # Last, for it says that all is there. Of gradients that an earlier call made, no time is known.
                outputs = {"examples": count} | ({"seconds": took.whole} if computed else {})
                self.store.put_artifact("gradients", key_of(inputs), inputs, outputs)
        return meta, computed, count

    @cached_property
    def _tuned(self) -> "TunedModel":
        from curator.data.model_files import find_model
        from curator.training.model import load_model, pick_dtype

        others = OtherPrograms()
        tuned = load_model(find_model(self.config.model, self.root), self.config.model, self.config.lora)
        for words in reasons(tuned.device, pick_dtype(self.config.model, tuned.device), others):
            self.reporter.warn(words)
        return tuned

    def _load(self) -> "TunedModel":
        return self._tuned

    def _method(self, method: str | None) -> str:
        if method is None:
            return self.config.select.method
        known = SelectSection.model_fields["method"].annotation
        names: tuple[Any, ...] = getattr(known, "__args__", ())
        if method not in names:
            raise ConfigError(f"no selection method {method!r}", hint=f"Methods: {', '.join(names)}.")
        return method

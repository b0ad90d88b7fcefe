"""`Project`: curator's verbs on one project folder. The command line and the terminal interface call its methods.

Each verb runs the missing stages before it, each once:

    check → train → gradients → estimate → select → export, apply
                                    ↘ verify
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace as replaced
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from curator import results
from curator.core import distributed
from curator.core.config import Config, SelectSection
from curator.core.errors import ConfigError, DataError
from curator.core.events import Reporter
from curator.core.text import is_text
from curator.data.discovery import check_auxiliary
from curator.project.pipeline import Pipeline
from curator.select.manifest import (
    MANIFEST_NAME,
    Manifest,
    check_manifest_file,
    write_manifest,
)
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    from datasets import DatasetDict

    from curator.data.corpus import Corpus
    from curator.data.dropped import Dropped
    from curator.estimate.target import TargetEstimates
    from curator.project.applying import Named
    from curator.project.costs import Planner
    from curator.project.create import Settings, Tasks
    from curator.project.saved_objects import Model, Rows, Tokenizer
    from curator.select.methods import Request
    from curator.select.selections import Selections
    from curator.workspace.store.check import StoreReport
    from curator.workspace.store.tables import Store

_WITH_COSTS = (
    *("train", "gradients", "estimate", "estimate_all", "select", "examples", "curve", "verify", "apply", "apply_all"),
)


class Project:
    """A folder with a `curator.toml`, and everything that curator makes for it.

    Open a project with `Project.open`, or write one with `Project.create`. Every command of the command line is a
    method. Methods return frozen values with a short `repr`. Each has `to_frame()`, and is a notebook table.

        >>> project = curator.Project.open("sample_data", progress=True)
        >>> project.check().problems
        >>> result = project.select(max_tokens=20000)
        >>> result.selected
        >>> result.to_frame().sort_values("affinity")
        >>> SFTTrainer(model, train_dataset=result.to_datasets()["train"])
        >>> project.estimate(["carry", "subtraction"]).estimated_loss
        >>> project.apply(output="adapter").measured_loss
    """

    def __init__(self, workspace: Workspace, *, dry_run: bool = False, ray: str = "") -> None:
        self._pipeline = Pipeline(workspace, dry_run=dry_run, ray=ray)
        self.workspace = self._pipeline.workspace

    @classmethod
    def open(
        cls,
        path: Path | str | None = None,
        *,
        skip_bad_rows: bool = False,
        rehash: bool = False,
        ray: str = "",
        reporter: Reporter | None = None,
        progress: bool = False,
    ) -> Self:
        """Open a project.

            >>> project = curator.Project.open("sample_data", progress=True)

        Args:
            path: Folder of the project. None searches the working directory and its parents for `curator.toml`.
            skip_bad_rows: Leave out rows that cannot be used, and count them.
            rehash: Compute the hashes of all files again, and trust no stored hash.
            ray: Run fine-tuning runs, gradients and encoding on a Ray cluster: `local` starts one, `auto` joins that of
                `RAY_ADDRESS`, and any other text is an address [default: this machine].
            reporter: Receives progress and warnings.
            progress: Print progress with the time left to standard error, as plain lines for notebooks and scripts.

        Raises:
            ConfigError: The project does not exist, or its configuration is invalid.
            DataError: `.curator/` contains a symbolic link, a pipe, a socket or a device.
        """
        reporter = reporter or Reporter()
        if progress:
            from curator.core.progress import PlainProgress

            reporter = reporter.with_sink(PlainProgress())
        workspace = Workspace.open(path, reporter=reporter)
        if rehash and distributed.is_main():
            workspace.store.forget_file_hashes()
        return cls(workspace.skipping_bad_rows() if skip_bad_rows else workspace, ray=ray)

    @classmethod
    def create(
        cls,
        path: Path | str,
        tasks: "Tasks" = (),
        *,
        target: str | Sequence[str] | None = None,
        model: "Model" = "model",
        tokenizer: "Tokenizer | None" = None,
        validation: "Mapping[str, Rows | Path | str] | None" = None,
        task_column: str = "",
        settings: "Settings | None" = None,
        group: int | None = None,
        replace: bool = False,
        reporter: Reporter | None = None,
        progress: bool = False,
    ) -> Self:
        """Write a project with its `curator.toml`, and open the project.

        Rows and models in memory are saved into the folder once: rows as Parquet or JSON Lines, and weights as
        safetensors. Paths are relative to the working directory. The files that they name stay where they are.

            >>> project = curator.Project.create(
            ...     "work", {"qa": dataset, "summaries": rows}, target="qa", model=model, tokenizer=tokenizer,
            ...     settings={"train": {"epochs": 1}},
            ... )

        Args:
            path: Folder of the project. It is created if missing.
            tasks: Tasks by name. Each is a `datasets.Dataset`, a list of rows, a path or a hub id. Without names: a
                list of files, folders, globs, hub ids or trainer configurations, or rows with a `task_column`.
            target: The task to improve, or several.
            model: A model of transformers, a folder, or a hub id.
            tokenizer: Tokenizer of a model in memory, or another tokenizer for a folder or hub id.
            validation: Held-out rows of a target, by its name. Other targets hold out a share of their own rows.
            task_column: Column whose values become tasks.
            settings: Values of `curator.toml` that differ from the defaults, by section and key.
            group: Split each auxiliary task into so many groups of similar examples. Runs the missing stages.
            replace: Replace an earlier configuration. Results of unchanged tasks stay cached.
            reporter: Receives progress and warnings.
            progress: Print progress as in `open`.

        Raises:
            ConfigError: The project exists, a target is not a task, or a setting is unknown or invalid.
            DataError: A source does not exist, a row cannot be saved, or a file cannot be written.
        """
        from curator.project.create import create_project
        from curator.project.new_project import write_groups

        folder = Path(path)
        written = create_project(
            folder,
            tasks,
            target=target,
            model=model,
            tokenizer=tokenizer,
            validation=validation,
            task_column=task_column,
            settings=settings,
            replace=replace,
        )
        made = cls.open(folder, reporter=reporter, progress=progress)
        for line in written.left_out:
            made.reporter.warn(f"not imported: {line}")
        if group is not None:
            write_groups(made.config, made.root, made.group(group), written)
            made = cls.open(folder, reporter=reporter, progress=progress)
        return made

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

        corpus, plan = self._plan(self.workspace.targets(target), fresh=fresh)
        self._pipeline.begin(corpus, [plan.train()])
        meta, cached = self._pipeline.meta_init(corpus, fresh=fresh)
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
        """Compute the projected gradients, and their sums, that estimates need.

        Args:
            target: Target to use instead of the configured one.
            fresh: Compute all gradients again.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        from curator.gradients.segment_sets import sets_in_use

        corpus, plan = self._plan(self.workspace.targets(target), fresh=fresh, fresh_train=False)
        self._pipeline.begin(corpus, [plan.train(), plan.gradients()])
        meta, computed, count = self._pipeline.gradients(corpus, fresh=fresh, fresh_train=False)
        return results.GradientsReport(
            examples=count,
            points=len(sets_in_use(self.config, meta)),
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
        corpus, plan = self._plan(targets, names=[name for subset in subsets for name in subset])
        dropped = self._dropped(drop_examples, targets)
        self._pipeline.begin(corpus, [plan.train(), plan.gradients()])
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
        runs: int | None = None,
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
            name: Name of the selection [default: the method, and `race` with `runs`].
            output: Manifest file [default: `curator-manifest.json` in the project].
            runs: Race: fine-tune up to this many times on the most promising subsets, and select the best. The race
                ends early if one subset is the best with a probability of 90 %. A killed race resumes.
            fresh: Run every stage again.

        Raises:
            ConfigError: A name or a dropped example is unknown, pins contradict each other or the budget, the method
                lacks an option, or a race has a method or drops examples.
            DataError: Data, the model, a checkpoint or the manifest cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        from curator.data.dropped import without
        from curator.select.methods import Request, check_budget, check_request
        from curator.select.selections import selection_report
        from curator.training.tracking import estimate_numbers, tracked_run

        if runs is not None and (runs < 1 or method is not None):
            raise ConfigError(
                f"a race takes at least 1 run and no method: runs={runs}, method={method}",
                hint="Remove --method. A race compares the selections of all methods.",
            )
        if runs is not None and (drop_examples or per_example):
            raise ConfigError(
                "a race measures whole tasks and drops no examples",
                hint="Remove --runs, or --drop-examples and --per-example.",
            )
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
        check_request(request, self.config.estimate.method)
        check_manifest_file(path)
        corpus, plan = self._plan(targets, names=[*include, *exclude], fresh=fresh)
        request = replaced(request, dropped=self._dropped(drop_examples, targets))
        check_request(request, self.config.estimate.method)
        check_budget(request, without(corpus, request.dropped))
        works = [plan.train(), plan.gradients(), plan.affinities(request.dropped)]
        if runs is not None:
            from curator.metrics.measuring import metric_name
            from curator.verify.race import runs_left

            metric = str(metric_name(self.workspace, None))
            left = runs if fresh else runs_left(self.workspace, corpus, request, metric=metric, most=runs)
            self._pipeline.begin(corpus, [*works, plan.expected_runs("select", left)])
            return self._race(targets, request, runs=runs, name=name or "race", path=path, fresh=fresh)
        name = name or request.method
        self._pipeline.begin(corpus, [*works, plan.select(request, name)])
        selections = self.selections(targets, fresh=fresh)
        manifest, cached = selections.select(request, name=name, folder=path.parent, fresh=fresh)
        if distributed.is_main():
            write_manifest(manifest, path)
        report = selection_report(manifest, path, cached)
        with tracked_run(self.workspace, f"select {name}", {"selected": report.selected}, again=cached) as log:
            log({**estimate_numbers(report.estimate), "tasks": len(report.selected)})
        return self._with_sets(report, manifest)

    def _with_sets(self, report: results.SelectionResult, manifest: Manifest) -> results.SelectionResult:
        """Return the result of a selection with what `to_datasets` reads."""
        weights = {task.name: task.weight for task in manifest.tasks if task.selected}
        dropped = [(row.task, row.sha256) for row in manifest.dropped_examples]
        sets = partial(_sets, self.root, self.config, manifest.target_names, weights, dropped)
        return replaced(report, _sets=sets)

    def _race(
        self, targets: tuple[str, ...], request: "Request", *, runs: int, name: str, path: Path, fresh: bool
    ) -> results.SelectionResult:
        """Select by fine-tuning on promising subsets. Arguments and errors are those of `select`."""
        from curator.metrics.measuring import Measurer, metric_name
        from curator.select.manifest import rebased
        from curator.select.selections import selection_report
        from curator.verify.measure import estimates_before, measure
        from curator.verify.race import Race

        corpus, folder = self.corpus(targets), self.workspace.adapters / "verify"
        measurer = Measurer(self.workspace, corpus, metric_name(self.workspace, None))
        measurer.check()
        current = self.selections(targets, fresh=fresh)
        race = Race(current, request, fresh=fresh, measurer=measurer) if distributed.is_main() else None
        made = 0
        while True:
            run = distributed.from_main(None if race is None else race.next_run(runs))
            if run is None:
                break
            if race is not None:
                self.reporter.note(f"race: run {race.number_of(run)} of at most {runs}")
            with self._pipeline.measuring("verify", targets):
                measure(
                    self.workspace,
                    corpus,
                    [run],
                    pool=self._pipeline.pool(),
                    folder=folder,
                    measurer=measurer,
                    predictions=estimates_before(current.estimates, [run]),
                )
            current = current.renewed()
            if race is not None:
                race.renew(current)
            made += 1
        report = None
        if race is not None:
            found, mask = race.result()
            manifest = current.save_race(mask, name=name, request=request, race=found)
            manifest = rebased(manifest, self.root, path.parent)
            write_manifest(manifest, path)
            report = self._with_sets(selection_report(manifest, path, made == 0, found), manifest)
        done = distributed.from_main(report)
        assert done is not None
        return done

    def preview(
        self, *, target: str | Sequence[str] | None = None, method: str | None = None, **limits: Any
    ) -> results.SelectionResult:
        """Select as `select` does, but store no selection and write no manifest.

        Args:
            target: Target to use instead of the configured one.
            method: Method of selection [default: the configured method].
            limits: `k`, `max_tokens`, `max_examples`, `threshold`, `include` and `exclude` of `select`.

        Raises:
            ConfigError: A name is unknown, pins contradict each other or the budget, or the method lacks an option.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        from curator.select.methods import Request
        from curator.select.selections import selection_report

        names: dict[str, Any] = {key: tuple(sorted(set(limits.pop(key, ())))) for key in ("include", "exclude")}
        request = Request(method=self._method(method), **limits, **names)
        manifest = self.selections(self.workspace.targets(target)).preview(request, name=request.method)
        return replaced(selection_report(manifest, self.root, False), manifest=None)

    def is_ready(self, *, target: str | Sequence[str] | None = None) -> bool:
        """Return whether estimates need no further training and no further gradients. Compute nothing.

        Args:
            target: Target to use instead of the configured one.

        Raises:
            ConfigError: A target is not a task of the project.
            DataError: The store cannot be read.
        """
        return self._pipeline.is_ready(self.workspace.targets(target))

    def to_datasets(
        self, manifest: Path | str | None = None, *, target: str | Sequence[str] | None = None
    ) -> "DatasetDict":
        """Return examples to train on: the splits `train` and `validation`, with a column `task`.

        Rows hold `input_ids` and `labels`, so that a trainer sees curator's tokens and loss.

            >>> SFTTrainer(model, train_dataset=project.to_datasets()["train"], callbacks=[CuratorCallback(project)])

        Args:
            manifest: A manifest or the name of a selection, for the selected tasks and the target. None for all tasks.
            target: Target to use instead of the configured one. Used without a manifest only.

        Raises:
            ConfigError: A target is not a task of the project.
            DataError: The manifest does not exist, or a file or the tokenizer cannot be read.
            ManifestMismatch: The manifest selects a task that the project does not have.
        """
        if manifest is None:
            return _sets(self.root, self.config, self.workspace.targets(target), None)
        from curator.data.dropped import without
        from curator.export.adapter import check_unchanged, weights_of
        from curator.select.selections import dropped_by

        found, _ = self.manifest(manifest)
        dropped = dropped_by(found)
        check_unchanged(self.workspace, found, without(self.corpus(found.target_names), dropped), allow=False)
        return _sets(self.root, self.config, found.target_names, weights_of(found), dropped.named)

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
        targets = self.workspace.targets(target)
        corpus, plan = self._plan(targets, names=[task])
        self._pipeline.begin(corpus, [plan.train(), plan.gradients(), *plan.current_selection()])
        selections = self.selections(targets)
        selected = selections.last_names_or_select()
        dropped = selections.last_dropped()
        estimator = selections.without(dropped).estimates.estimator
        return selections.estimates.examples(task, selected, estimator, dropped.hashes().get(task, ()))

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
        from curator.gradients.grouping import check_group_count, write_groups

        corpus, plan = self._plan(self.workspace.targets(None))
        check_group_count(corpus, count)
        self._pipeline.begin(corpus, [plan.train(), plan.gradients()])
        meta, _, _ = self._pipeline.gradients(corpus, fresh=False, fresh_train=False)
        sources = {source.name: source for source in find_tasks(self.config.data, self.root)}
        return write_groups(self.workspace, corpus, meta, sources, count=count, folder=self.root / "groups")

    def curve(self, *, target: str | Sequence[str] | None = None) -> results.CurveReport:
        """Estimate the loss against a budget of training tokens, without examples that the last selection drops.

        Args:
            target: Target to use instead of the configured one.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        targets = self.workspace.targets(target)
        corpus, plan = self._plan(targets)
        self._pipeline.begin(corpus, [plan.train(), plan.gradients(), *plan.current_selection(), plan.curve()])
        selections = self._without_dropped(self.selections(targets))
        return selections.estimates.curve(selections.last_names_or_select())

    def pareto(self, *, target: str | Sequence[str] | None = None) -> results.ParetoReport:
        """Estimate the loss of each of several targets, and find the subsets that no other subset beats.

            >>> project.pareto(target=["a", "b"]).front

        Args:
            target: Targets to use instead of the configured ones.

        Raises:
            ConfigError: There is only one target, a target is not a task of the project, or a setting does not suit
                the data.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, or a gradient is not finite.
            StoreBusy: Another process works on the project.
        """
        targets = self.workspace.targets(target)
        if len(targets) < 2:
            raise ConfigError(f"only one target: {', '.join(targets)}", hint="Pass --target once for each target.")
        return self._without_dropped(self.selections(targets)).pareto()

    def _without_dropped(self, selections: "Selections") -> "Selections":
        """Return the selections among tasks without the examples that the last selection drops, and say so."""
        dropped = selections.last_dropped()
        if dropped:
            rows = "1 example" if len(dropped.named) == 1 else f"{len(dropped.named)} examples"
            self.reporter.note(f"estimates leave out {rows} that the last selection drops")
        return selections.without(dropped)

    def verify(
        self,
        *,
        target: str | Sequence[str] | None = None,
        runs: int | None = None,
        seeds: int | None = None,
        metric: str | None = None,
        compare: bool = False,
        selections: Sequence[str] = (),
        same_tokens: bool = False,
        forgetting: bool = False,
        report: bool = False,
        fresh: bool = False,
    ) -> results.VerifyReport:
        """Fine-tune on some subsets, compare the losses with the estimates, and calibrate later estimates.

            >>> project.verify(runs=24).relative_error

        Args:
            target: Target to use instead of the configured one.
            runs: Number of subsets to add. None adds `verify.runs` if none are measured. The rest of an interrupted
                call is done first, and alone.
            seeds: Fine-tuning runs on each subset, with different seeds [default: `verify.seeds`]. Without `runs`,
                adds runs to measured subsets until each has that many.
            metric: Metric of every run: `loss`, `exact_match`, `choice`, `lm-eval:TASK` or `command:WORDS` [default:
                the configured one]. Without `runs` and `compare`, stored runs without its value are repeated.
            compare: Fine-tune on the selection of each other method within the tokens of the current selection, and
                compare the losses. Only `runs` then adds other subsets.
            selections: Names or manifest files of selections to measure, and to compare by runs with the same seeds.
                A run on a selection that drops examples lacks these examples.
                `all` is all tasks, and `target` the target alone. A method, such as `random`, selects within the
                tokens of the first. Only `runs` then adds other subsets.
            same_tokens: Train each of these selections on as many tokens as the first, by other epochs.
            forgetting: Measure the loss on rows of every task too, before and after each new run.
            report: Report on the stored runs, and run nothing.
            fresh: Run every earlier stage again.

        Raises:
            ConfigError: `runs` or `seeds` is below 1, a target is not a task of the project, no run is stored to
                report, or `same_tokens` lacks `selections`.
            DataError: Data, the model or a checkpoint cannot be read or written.
            NumericalError: Training diverges, a gradient is not finite, or every run diverges.
            StoreBusy: Another process works on the project.
        """
        from curator.data.dropped import without
        from curator.metrics.measuring import Measurer, metric_name
        from curator.verify.dropping import measure_dropping, plan_dropping, report_dropping
        from curator.verify.measure import estimates_before, measure
        from curator.verify.verification import check_counts, expected_count, plan_runs, report_runs, stored_report
        from curator.workers.fine_tuning import values_before

        check_counts(runs, seeds, same_tokens=same_tokens, named=len(selections))
        name = metric_name(self.workspace, metric)
        targets = self.workspace.targets(target)
        corpus, costs = self._plan(targets, fresh=fresh)
        measurer = Measurer(self.workspace, corpus, name)
        measurer.check()
        works = [costs.train(), costs.gradients(), *costs.current_selection()]
        if not report and (compare or not all(work.cached for work in works)):
            # The subsets follow from estimates, which do not exist yet.
            count = expected_count(self.config, runs, seeds, compare=compare, named=len(selections))
            self._pipeline.begin(
                corpus, [*works, replaced(costs.expected_runs("verify", count), workers=max(count, 1))]
            )
        chosen = self.selections(targets, fresh=fresh)
        if report:
            return stored_report(chosen.estimates)
        plan = plan_runs(
            chosen,
            runs=runs,
            seeds=seeds,
            compare=compare,
            names=selections,
            same_tokens=same_tokens,
            fresh=fresh,
            measurer=measurer,
            keep=not self._pipeline.dry_run,
        )
        # Named selections are measured as they are, with or without dropped examples.
        dropping = None if selections else plan_dropping(chosen, seeds=seeds, planned=plan.runs)
        less = () if dropping is None else dropping.reduced
        plan.runs.extend(() if dropping is None else dropping.whole)
        # A run without some examples takes at most as long as the run with all examples.
        # A run with equal tokens takes about as long as a run of the first selection.
        alike = [((one if one.epochs is None else plan.named[0]).subset, seed) for one, seed in plan.other]
        announced = replaced(costs.runs("verify", [*plan.runs, *less, *alike]), exact=not (less or alike))
        self._pipeline.begin(corpus, [*(work for work in works if work.cached), announced])
        before = measurer.known_before()
        if plan.runs or less or plan.other or before is None:
            with self._pipeline.measuring("verify", targets):
                pool = self._pipeline.pool()
                before = values_before(pool, self.workspace, corpus, measurer)
                folder = self.workspace.adapters / "verify"
                measure(
                    self.workspace,
                    corpus,
                    plan.runs,
                    pool=pool,
                    folder=folder,
                    measurer=measurer,
                    predictions=estimates_before(chosen.estimates, plan.runs),
                    forgetting=forgetting,
                )
                for dropped, other in plan.by_dropped():
                    measure(
                        self.workspace,
                        without(corpus, dropped),
                        [(one.subset, seed) for one, seed in other],
                        pool=pool,
                        folder=folder,
                        measurer=measurer,
                        forgetting=forgetting,
                        epochs={one.subset: one.epochs for one, _ in other if one.epochs is not None},
                    )
                if dropping is not None and less:
                    measure_dropping(chosen.estimates, dropping, pool=pool, folder=folder, measurer=measurer)
        if not plan.runs and not less and not plan.other:
            count = len(chosen.estimates.measured)
            self.reporter.cached("verify", f"{count} subsets are measured; --runs N adds more")
        estimates = self.estimates(targets)
        found = report_runs(estimates, plan, measurer, before)
        if dropping is None:
            return found
        return replaced(found, dropping=report_dropping(estimates, dropping, measurer))

    def export(
        self,
        manifest: Path | str,
        *,
        format: str = "jsonl",
        output: Path | str,
        dry_run: bool = False,
        push_to_hub: str = "",
        allow_changed: bool = False,
        allow_outside: bool = False,
    ) -> results.ExportReport:
        """Write the files that a trainer reads.

        Args:
            manifest: A manifest that `select` wrote, or the name of a selection.
            format: One of `curator.export.FORMATS`.
            output: Folder to write to. It is created if missing.
            dry_run: Count rows and tokens, and write nothing.
            push_to_hub: Upload an export in the format `hf` to this private data set of the hub: `owner/name`.
            allow_changed: Export even if files have changed since the selection.
            allow_outside: Read also files outside the manifest's folder and the project. Download what the manifest
                names.

        Raises:
            ConfigError: The format is unknown or does not suit the model, or the folder holds other files.
            DataError: A file cannot be read or written.
            ManifestMismatch: A file has changed.
        """
        from curator.export import prepare_export, write_export
        from curator.export.hub import check_upload, upload

        if push_to_hub:
            check_upload(push_to_hub, format)
        found, here = self.manifest(manifest)
        plan = prepare_export(
            found,
            here,
            format=format,
            folder=Path(output),
            allow_changed=allow_changed,
            allow_outside=allow_outside,
            project=self.root,
            reporter=self.reporter,
        )
        if dry_run:
            return plan.report
        report = write_export(plan)
        if push_to_hub:
            upload(Path(output), push_to_hub)
        return report

    def apply(
        self,
        manifest: Path | str = MANIFEST_NAME,
        *,
        output: Path | str | None = None,
        seed: int | None = None,
        metric: str | None = None,
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
            metric: Metric of the adapter, as for `verify` [default: the configured one].
            allow_changed: Train on the current files and settings even if they differ from the manifest.
            fresh: Train again even if the adapter is cached.

        Raises:
            ConfigError: The folder holds other files.
            DataError: The manifest does not exist, or a file cannot be read or written.
            ManifestMismatch: The model, the recipe or a file has changed since the selection.
            NumericalError: Training diverges.
            StoreBusy: Another process works on the project.
        """
        from curator.project.applying import ApplySettings, apply_selections

        settings = ApplySettings(seed=seed, metric=metric, allow_changed=allow_changed, fresh=fresh)
        place = None if output is None else Path(output).absolute()
        return apply_selections(self._pipeline, [self._to_apply(manifest)], [place], settings)[0]

    def apply_all(
        self,
        manifests: Sequence[Path | str],
        *,
        output: Path | str | None = None,
        seed: int | None = None,
        metric: str | None = None,
        allow_changed: bool = False,
        fresh: bool = False,
    ) -> results.AdaptersReport:
        """Fine-tune the base model on each of several selections, as `apply` does.

        Several GPUs or a Ray cluster make the runs side by side. Selections of equal tasks share one run. A run that
        diverges does not stop the others.

            >>> report = project.apply_all(["forward", "all"])
            >>> [adapter.measured_loss for adapter in report.adapters]

        Args:
            manifests: Manifests that `select` wrote, or names of selections.
            output: Folder for a folder of each adapter [default: `.curator/adapters/applied/`].
            seed: As for `apply`.
            metric: As for `apply`.
            allow_changed: As for `apply`.
            fresh: As for `apply`.

        Raises:
            ConfigError: No selection is named, two have one name, or a folder holds other files.
            DataError, ManifestMismatch, StoreBusy: As for `apply`.
            NumericalError: A training diverges. The other adapters are stored.
        """
        from curator.project.applying import ApplySettings, apply_selections

        named = [manifests] if isinstance(manifests, str | Path) else list(manifests)
        settings = ApplySettings(seed=seed, metric=metric, allow_changed=allow_changed, fresh=fresh)
        found = [self._to_apply(manifest) for manifest in named]
        folders = [None if output is None else Path(output).absolute() / one.folder_name for one in found]
        return results.AdaptersReport(adapters=tuple(apply_selections(self._pipeline, found, folders, settings)))

    def _to_apply(self, named: Path | str) -> "Named":
        from curator.project.applying import Named
        from curator.select.selections import find_manifest_file

        manifest, _ = self.manifest(named)
        return Named(words=str(named), manifest=manifest, file=find_manifest_file(self.workspace, named))

    def costs(self, verb: str, *arguments: Any, **options: Any) -> results.CostReport:
        """Return what a call of a verb would cost, and check its arguments. Train nothing, and store no result.

            >>> project.costs("select", k=3).seconds

        Files that are new or changed are read, as `check` does. If no time is known yet, a few passes of the model
        measure it.

        Args:
            verb: `train`, `gradients`, `estimate`, `estimate_all`, `select`, `examples`, `curve`, `verify`, `apply` or
                `apply_all`.
            arguments: Arguments of the verb.
            options: Options of the verb.

        Raises:
            ConfigError, DataError, ManifestMismatch: As the verb itself.
        """
        from curator.project.costs import DryRun

        if verb not in _WITH_COSTS:
            raise ConfigError(f"no costs of {verb!r}", hint=f"Name one of: {', '.join(_WITH_COSTS)}.")
        try:
            getattr(type(self)(self.workspace, dry_run=True), verb)(*arguments, **options)
        except DryRun as done:
            return done.report
        raise AssertionError(verb)

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

    def saved_selections(self) -> results.SavedSelectionsReport:
        """Return the saved selections of all targets, newest first, then the deleted ones.

            >>> [entry.name for entry in project.saved_selections().selections]

        Raises:
            StoreBusy: A writer held the store for ten seconds.
        """
        from curator.project.saved_selections import saved_selections

        return saved_selections(self.workspace)

    def rename_selection(self, before: str, after: str, *, target: str | Sequence[str] | None = None) -> None:
        """Rename a saved selection. Its note, measured losses and hashes stay.

            >>> project.rename_selection("forward", "first")

        Args:
            before: Name of the selection.
            after: New name.
            target: Target of the selection [default: the configured one].

        Raises:
            ConfigError: The selection does not exist, or the new name is empty or in use.
            StoreBusy: A writer held the store for ten seconds.
        """
        from curator.project.saved_selections import rename_selection

        rename_selection(self.workspace, before, after, self.workspace.targets(target))

    def delete_selection(self, name: str, *, target: str | Sequence[str] | None = None) -> None:
        """Delete a saved selection. Its verified runs stay, and `restore_selection` brings it back.

            >>> project.delete_selection("first")

        Args:
            name: Name of the selection.
            target: Target of the selection [default: the configured one].

        Raises:
            ConfigError: The selection does not exist.
            StoreBusy: A writer held the store for ten seconds.
        """
        from curator.project.saved_selections import delete_selection

        delete_selection(self.workspace, name, self.workspace.targets(target))

    def restore_selection(self, name: str, *, target: str | Sequence[str] | None = None) -> None:
        """Restore the selection of a name that was deleted last.

            >>> project.restore_selection("first")

        Args:
            name: Name of the deleted selection.
            target: Target of the selection [default: the configured one].

        Raises:
            ConfigError: No deleted selection has the name, or a saved one has it.
            StoreBusy: A writer held the store for ten seconds.
        """
        from curator.project.saved_selections import restore_selection

        restore_selection(self.workspace, name, self.workspace.targets(target))

    def report(self, manifest: Path | str | None = None, *, output: Path | str | None = None) -> Path:
        """Write one file about a selection, to send to a colleague. The file needs no network. Compute no stage.

            >>> project.report(output="report.html")

        Args:
            manifest: A manifest that `select` wrote, or the name of a selection [default: the last selection].
            output: HTML file, or Markdown file with the ending `.md` [default: `curator-report.html` in the project].

        Returns:
            The file.

        Raises:
            DataError: The selection does not exist, or the file cannot be written.
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

    def check_store(self) -> results.StoreReport:
        """Read every row of the store, and report damaged tables.

        Raises:
            ConfigError: The store does not exist.
            DataError: The store cannot be opened at all.
            StoreBusy: Another process holds the store.
        """
        from curator.workspace.store.check import check_store

        return _store_report(check_store(self.store))

    def export_store(self, folder: Path | str) -> results.StoreReport:
        """Save the readable rows of the store, even of a damaged one, as one Parquet file per table.

        Args:
            folder: Empty folder. It is created if missing.

        Raises:
            ConfigError: The store does not exist, or the folder holds files.
            DataError: A file cannot be written.
            StoreBusy: Another process holds the store.
        """
        from curator.workspace.store.check import export_store

        return _store_report(export_store(self.store, Path(folder)))

    def sql(
        self,
        query: str = "",
        *,
        target: str | Sequence[str] | None = None,
        limit: int | None = None,
        timeout: float = 60.0,
    ) -> results.QueryResult:
        """Query the views of the store by SQL.

        The views are `tasks`, `examples`, `affinities`, `subsets`, `runs`, `metrics` and `selections`.
        The query computes no stage. It cannot write, and cannot read other files.

            >>> project.sql("SELECT task, affinity FROM affinities ORDER BY affinity DESC").to_pandas()

        Args:
            query: One query. An empty query lists the views with their columns.
            target: Target to use instead of the configured one. It decides which examples are held out.
            limit: Maximum number of rows to keep.
            timeout: Time limit in seconds.

        Raises:
            ConfigError: The query is invalid, reads anything but the views, or needs too much time or memory.
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
        present = project_tables(self.workspace, corpus)
        table, total = self.store.query(query.strip() or LISTING, present, limit=limit, timeout=timeout)
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

    def _plan(
        self,
        targets: tuple[str, ...],
        *,
        names: Sequence[str] = (),
        fresh: bool = False,
        fresh_train: bool | None = None,
    ) -> "tuple[Corpus, Planner]":
        """Check names, read the data, and return the examples with a planner of the stages."""
        self._pipeline.check_names(targets, names)
        corpus = self.corpus(targets)
        # A task that `[data]` names may have no usable example.
        check_auxiliary(names, targets, [task.name for task in corpus.auxiliary])
        return corpus, self._pipeline.planner(corpus, fresh=fresh, fresh_train=fresh_train)

    def _method(self, method: str | None) -> str:
        if method is None:
            return self.config.select.method
        known = SelectSection.model_fields["method"].annotation
        names: tuple[Any, ...] = getattr(known, "__args__", ())
        if method not in names:
            raise ConfigError(f"unknown selection method: {method!r}", hint=f"Use one of: {', '.join(names)}.")
        return method


def _sets(
    root: Path,
    config: Config,
    targets: tuple[str, ...],
    weights: "Mapping[str, float] | None",
    dropped: Sequence[tuple[str, str]] = (),
) -> "DatasetDict":
    """Return the examples to train on. `SelectionResult` keeps this function with its arguments, and can be pickled."""
    from curator.data.dropped import Dropped, without
    from curator.training.training_sets import training_sets
    from curator.workspace.store.tables import Store

    store = Store(root / ".curator" / "store.duckdb")
    workspace = Workspace(root=root, config=config, store=store, reporter=Reporter())
    corpus = without(Pipeline(workspace).corpus(targets), Dropped.of(dropped))
    return training_sets(corpus, workspace.store, weights)


def _store_report(found: "StoreReport") -> results.StoreReport:
    return results.StoreReport(
        store=found.store,
        sound=found.sound,
        tables=tuple(results.StoreTable(name=t.name, rows=t.rows, lost=t.lost, words=t.words) for t in found.tables),
        problems=found.problems,
        backups=found.backups,
    )

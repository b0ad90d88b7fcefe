"""`Pipeline`: run the missing stages for one target, each once, and cache their results."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from curator.core import distributed
from curator.core.errors import NumericalError
from curator.core.events import Event, StageFinished, StageStarted, Stopwatch
from curator.core.figures import duration
from curator.core.performance import peak_bytes
from curator.core.provenance import key_of
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    from curator.data.corpus import Corpus
    from curator.estimate.target import TargetEstimates
    from curator.gradients.away import AwayGradients
    from curator.gradients.capture import Capture
    from curator.project.costs import Planner, Work
    from curator.project.rates import Rate, Rates
    from curator.select.selections import Selections
    from curator.training.meta_init import MetaInit
    from curator.training.model import TunedModel
    from curator.workers.pool import Pool
    from curator.workers.ray_encoding import AwayEncoding

Targets = tuple[str, ...]
# Seconds of work from which on curator announces costs.
_LONG = 10.0
# Number of weights below which a dry run loads the model to probe it.
_QUICK_TO_LOAD = 1_000_000_000


class Pipeline:
    """Stages of one project, from its files to its selections.

    Args:
        workspace: The project.
        dry_run: Whether `begin` ends every verb before its first stage.
        ray: `local`, `auto` or the address of the Ray cluster that runs the parts of stages. Empty for this machine.

    Attributes:
        workspace: The project. Its reporter also keeps the rates of finished stages.
        dry_run: As the argument.
        ray: As the argument.
    """

    def __init__(self, workspace: Workspace, *, dry_run: bool = False, ray: str = "") -> None:
        self.workspace = self._workspace = workspace.reporting_to(workspace.reporter.with_sink(self._note_rate))
        self.dry_run, self.ray = dry_run, ray
        if ray:
            from curator.workers.ray_cluster import prepare

            prepare(ray)
        self._pool: Pool | None = None
        self._rates: Rates | None = None
        self._begun: dict[str, Work] = {}
        self._started: StageStarted | None = None
        self._probed: Rate | None = None
        self._read_last: Corpus | None = None
        self._corpora: dict[Targets, Corpus] = {}
        self._selections: dict[Targets, Selections] = {}

    def corpus(self, targets: Targets) -> "Corpus":
        """Return the project's examples, split for the targets. Read files that are new or changed.

        Raises:
            ConfigError: A target is not a task of the project, or a setting does not suit the data.
            DataError: A file or the tokenizer cannot be read.
        """
        if targets not in self._corpora:
            corpus = self._read(targets, refuse=True)
            for problem in corpus.warnings():
                self._workspace.reporter.warn(problem)
            self._corpora[targets] = corpus
        self._read_last = self._corpora[targets]
        return self._corpora[targets]

    def check_names(self, targets: Targets, tasks: Sequence[str] = ()) -> None:
        """Check the names of targets and auxiliary tasks, before any stage runs.

        Raises:
            ConfigError: A target is not a task, or another name is not an auxiliary task.
            DataError: A path does not exist, or a glob matches no file.
        """
        from curator.data.corpus import check_names

        if distributed.is_main():
            check_names(self._workspace, targets, tasks)

    def whole_corpus(self, targets: Targets) -> "Corpus":
        """Return the project's examples as `corpus` does, for a report that names what cannot be used.

        Rows and tasks that cannot be used raise no error. `Corpus.refusal` holds it.

        Raises:
            ConfigError: A target is not a task of the project.
            DataError: The tokenizer cannot be read.
        """
        return self._read(targets, refuse=False)

    def _read(self, targets: Targets, *, refuse: bool) -> "Corpus":
        from curator.data.corpus import read_corpus

        if not distributed.is_main():
            distributed.wait()
        away = self._away_encoding() if self.ray else None
        corpus = read_corpus(self._workspace, targets, refuse=refuse, encode=away)
        if away is not None:
            away.remove()
        if distributed.is_main():
            distributed.wait()
        assert corpus is not None
        return corpus

    def planner(self, corpus: "Corpus", *, fresh: bool = False, fresh_train: bool | None = None) -> "Planner":
        """Return a planner of the project's stages. Arguments are those of `Planner`."""
        from curator.project.costs import Planner

        return Planner(self._workspace, corpus, fresh=fresh, fresh_train=fresh_train)

    def begin(self, corpus: "Corpus", works: "Sequence[Work]") -> None:
        """Announce work that takes more than ten seconds, before the work starts.

        Time and memory come from earlier work on this machine. If none is known, a probe of the model measures them.
        A dry run probes only a model that loads quickly.

        Args:
            corpus: Examples of the project.
            works: Planned work, in the order of the stages.

        Raises:
            DryRun: This is a dry run. The exception holds the costs.
            ConfigError: The configuration does not suit the model, or the experiment tracker is not installed.
            DataError: The model cannot be read.
        """
        from curator.data.model_check import check_model
        from curator.project.costs import DryRun, announcement
        from curator.project.rates import Rates
        from curator.training.tracking import check_tracker

        check_tracker(self._workspace.config.train.report_to)

        if not distributed.is_main():
            if self.dry_run:
                sys.exit()
            return
        rates = self._rates = Rates(self._workspace, corpus)
        self._begun = {work.stage: work for work in works}
        if (
            distributed.world_size() == 1
            and rates.needs_probe(works, _LONG)
            and (not self.dry_run or rates.parameters < _QUICK_TO_LOAD)
        ):
            check_model(self._workspace, corpus)
            tuned = self.load()
            if self._probed is None:
                self._probe(tuned, corpus)
            if self._probed is not None:
                rates.keep_probe(self._probed)
        report = rates.report(works)
        if self.dry_run:
            if not all(work.cached for work in works):
                check_model(self._workspace, corpus)
            raise DryRun(report)
        if report.seconds > _LONG:
            for line in announcement(report):
                self._workspace.reporter.note(line)

    def _probe(self, tuned: "TunedModel", corpus: "Corpus") -> None:
        from curator.project.probe import probe

        try:
            found = probe(self._workspace, corpus, tuned)
        except NumericalError:
            # The training fails at its first step, and says why.
            return
        if found is not None:
            self._probed = found.rate
            if found.threads:
                self._workspace.reporter.note(found.threads)

    def _note_rate(self, event: Event) -> None:
        """Keep the rate of a finished stage that `begin` announced."""
        if isinstance(event, StageStarted):
            self._started = event
        elif isinstance(event, StageFinished) and not event.cached and self._rates is not None:
            work, started = self._begun.pop(event.stage, None), self._started
            # A resumed stage, or one whose work was only expected, says nothing about the rate.
            usual = started is not None and not started.done
            if usual and work is not None and work.exact and not self._shares(work):
                self._rates.keep(work, seconds=event.seconds, peak_bytes=peak_bytes())

    def _shares(self, work: "Work") -> bool:
        """Return whether several workers did the work, whose time says nothing about one process of this machine."""
        if work.kind == "gradients":
            return bool(self.ray)
        from curator.workers.pool import ThisProcess

        return work.kind == "fine-tune" and self._pool is not None and not isinstance(self._pool, ThisProcess)

    def meta_init(self, corpus: "Corpus", *, fresh: bool) -> tuple["MetaInit", bool]:
        """Return the meta-initialization, and whether it was cached. Train it if it is missing.

        Args:
            corpus: Examples of the project.
            fresh: Train again even if cached.

        Raises:
            NumericalError: Training diverges.
            DataError: The model cannot be read, or a checkpoint cannot be written.
            StoreBusy: Another process works on the project.
        """
        from curator.data.model_check import check_model
        from curator.training.meta_init import find_meta_init, make_meta_init, seconds_without_capture
        from curator.training.tracking import tracked_run

        found = None if fresh else find_meta_init(self._workspace, corpus)
        found = distributed.from_main(found)
        if found is not None:
            unseen = f"; it has not seen {', '.join(found.unseen)} (--fresh trains on all)" if found.unseen else ""
            self._workspace.reporter.cached("train", f"meta-initialization of {found.examples} examples{unseen}")
            return found, True
        check_model(self._workspace, corpus)
        seconds = None if fresh else seconds_without_capture(self._workspace, corpus)
        if seconds is not None:
            self._workspace.reporter.warn(
                f"curator trains again, for about {duration(seconds)}: an earlier version did not capture gradients"
                ' during the training. Set method = "quadratic" under [estimate] to keep the earlier estimates.'
            )
        observe = self._capture if self._workspace.config.captures else None
        parameters = {"tasks": len(corpus.tasks), "target": corpus.target_label}
        with self._workspace.job("train"), tracked_run(self._workspace, "meta-training", parameters):
            return make_meta_init(self._workspace, corpus, self.load, fresh=fresh, observe=observe), False

    def _capture(self, tuned: "TunedModel", corpus: "Corpus", key: str) -> "Capture":
        """Return the observer that captures gradients during the meta-training with a key."""
        from curator.gradients.capture import Capture
        from curator.gradients.segment_sets import capture_folder, captured_examples, sketch

        folder = capture_folder(self._workspace, key)
        if distributed.is_main():
            captured_examples(corpus, folder)
        return Capture(tuned, sketch(self._workspace.config), folder, self._workspace.reporter)

    def gradients(self, corpus: "Corpus", *, fresh: bool, fresh_train: bool) -> tuple["MetaInit", int, int]:
        """Compute the missing gradients.

        Args:
            corpus: Examples of the project.
            fresh: Compute all gradients again.
            fresh_train: Train the meta-initialization again.

        Returns:
            The meta-initialization, the number of computed gradients, and the number of examples.

        Raises:
            NumericalError: Training diverges, or a gradient is not finite.
            DataError: The model or a checkpoint cannot be read or written.
            StoreBusy: Another process works on the project.
        """
        from curator.data.model_check import check_model
        from curator.estimate.points import fill_sums
        from curator.gradients.segment_sets import completeness_inputs, sets_in_use, validation_key
        from curator.gradients.segments import make_segments
        from curator.gradients.stage import make_gradients, wanted_hashes

        workspace, store = self._workspace, self._workspace.store
        meta, cached = self.meta_init(corpus, fresh=fresh_train)
        captures = workspace.config.captures
        sets = sets_in_use(workspace.config, meta)
        inputs = completeness_inputs(workspace.config, sets, corpus)
        count = len(wanted_hashes(corpus))
        done = distributed.from_main(store.artifact("gradients", key_of(inputs)) is not None)
        if done and not fresh:
            where = f"in {len(sets)} segments" if captures else f"at {len(sets)} points"
            workspace.reporter.cached("gradients", f"{count} examples {where}")
            return meta, 0, count
        if cached:
            # Tasks may be new since the training, which checks the model itself.
            check_model(workspace, corpus)
        with workspace.job("gradients"):
            if fresh and distributed.is_main():
                store.drop_gradients([key for s in sets for key in (s.key, validation_key(s))])
            distributed.wait()
            took = Stopwatch()
            timed = workspace.reporting_to(workspace.reporter.with_sink(took))
            make = make_segments if captures else make_gradients
            away = self._away(corpus, meta) if self.ray else None
            computed = make(timed, corpus, meta, self.load, away)
            if distributed.is_main():
                if not captures:
                    fill_sums(workspace, corpus, sets)
                # Store the artifact last, because it marks all gradients as done. Time is unknown for cached gradients.
                outputs = {"examples": count} | ({"seconds": took.whole} if computed else {})
                store.put_artifact("gradients", key_of(inputs), inputs, outputs)
            if away is not None:
                away.remove()
        return meta, computed, count

    def _away(self, corpus: "Corpus", meta: "MetaInit") -> "AwayGradients":
        """Return what computes gradients on the Ray cluster.

        Raises:
            ConfigError: Ray is missing, or the cluster has no worker.
            DataError: The cluster cannot be started or reached.
        """
        from curator.gradients.away import AwayGradients
        from curator.workers.opening import check_alone
        from curator.workers.ray_cluster import connect

        check_alone()
        return AwayGradients(
            self._workspace, corpus.model, connect(self.ray), self._workspace.adapters / meta.key / "parts"
        )

    def _away_encoding(self) -> "AwayEncoding":
        """Return what encodes rows on the Ray cluster. It connects to the cluster only for many rows."""
        from curator.workers.opening import check_alone
        from curator.workers.ray_cluster import connect
        from curator.workers.ray_encoding import AwayEncoding

        check_alone()
        return AwayEncoding(self._workspace.config, self._workspace.folder / "encoding", lambda: connect(self.ray))

    def is_ready(self, targets: Targets) -> bool:
        """Return whether meta-initialization and gradients are in the store. Read no file that is new or changed.

        Raises:
            ConfigError: A target is not a task of the project.
            DataError: The store cannot be read.
        """
        from curator.data.corpus import read_corpus
        from curator.gradients.segment_sets import completeness_inputs, sets_in_use
        from curator.training.meta_init import find_meta_init

        config, corpus = self._workspace.config, read_corpus(self._workspace, targets, read=False)
        meta = None if corpus is None else find_meta_init(self._workspace, corpus)
        if corpus is None or meta is None:
            return False
        inputs = completeness_inputs(config, sets_in_use(config, meta), corpus)
        return self._workspace.store.artifact("gradients", key_of(inputs)) is not None

    def selections(self, targets: Targets, *, fresh: bool = False) -> "Selections":
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
        from curator.estimate.target import TargetEstimates
        from curator.select.selections import Selections

        if fresh or targets not in self._selections:
            corpus = self.corpus(targets)
            meta, _, _ = self.gradients(corpus, fresh=fresh, fresh_train=fresh)
            self._selections[targets] = Selections(TargetEstimates(self._workspace, corpus, meta), self.load)
        return self._selections[targets]

    def estimates(self, targets: Targets, *, fresh: bool = False) -> "TargetEstimates":
        """Return the estimates for the targets. Arguments and errors are those of `selections`."""
        return self.selections(targets, fresh=fresh).estimates

    @contextmanager
    def measuring(self, stage: str, *measured: Targets) -> Iterator[None]:
        """Hold the job lock while subsets are measured. Afterwards forget the estimates, because runs calibrate them.

        Args:
            stage: Name of the stage.
            measured: Names of the targets of each measured subset.

        Raises:
            StoreBusy: Another process holds the lock.
        """
        try:
            with self._workspace.job(stage):
                yield
        finally:
            for targets in measured:
                self._selections.pop(targets, None)

    def pool(self) -> "Pool":
        """Return the place for fine-tuning runs. A cluster or the GPUs are found once.

        Raises:
            ConfigError: Ray is missing, or the cluster has no worker.
            DataError: The cluster cannot be started or reached.
        """
        from curator.workers.opening import open_pool

        if self._pool is None:
            self._pool = open_pool(self.ray, self._workspace.config, self.load, self._workspace.reporter)
        return self._pool

    def load(self) -> "TunedModel":
        """Return the base model with a LoRA adapter. The model is loaded once.

        Raises:
            ConfigError: The configuration does not suit the model.
            DataError: The model cannot be read, or changed after it was hashed.
        """
        return self._tuned

    @cached_property
    def _tuned(self) -> "TunedModel":
        from curator.project.probe import chooses_threads
        from curator.training.model import load_project_model

        known = next(iter(self._corpora.values()), None)
        tuned = load_project_model(self._workspace, None if known is None else known.model)
        if self._read_last is not None and chooses_threads(tuned):
            self._probe(tuned, self._read_last)
        return tuned

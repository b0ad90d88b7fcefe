"""`Pipeline`: run the missing stages for one target, each once, and cache their results."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from curator.core import distributed
from curator.core.events import Stopwatch, duration
from curator.core.provenance import key_of
from curator.workspace.workspace import Workspace

if TYPE_CHECKING:
    from curator.data.corpus import Corpus
    from curator.estimate.target import TargetEstimates
    from curator.gradients.capture import Capture
    from curator.select.selections import Selections
    from curator.training.meta_init import MetaInit
    from curator.training.model import TunedModel

Targets = tuple[str, ...]


class Pipeline:
    """Stages of one project, from its files to its selections.

    Args:
        workspace: The project.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
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
        return self._corpora[targets]

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
        corpus = read_corpus(self._workspace, targets, refuse=refuse)
        if distributed.is_main():
            distributed.wait()
        assert corpus is not None
        return corpus

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
        with self._workspace.job("train"):
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
            workspace.reporter.cached("gradients", f"{count} examples at {len(sets)} points")
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
            computed = make(timed, corpus, meta, self.load)
            if distributed.is_main():
                if not captures:
                    fill_sums(workspace, corpus, sets)
                # Store the artifact last, because it marks all gradients as done. Time is unknown for cached gradients.
                outputs = {"examples": count} | ({"seconds": took.whole} if computed else {})
                store.put_artifact("gradients", key_of(inputs), inputs, outputs)
        return meta, computed, count

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
    def measuring(self, targets: Targets, stage: str) -> Iterator[None]:
        """Hold the job lock while subsets are measured. Afterwards forget the estimates, because runs calibrate them.

        Args:
            targets: Names of the targets.
            stage: Name of the stage.

        Raises:
            StoreBusy: Another process holds the lock.
        """
        try:
            with self._workspace.job(stage):
                yield
        finally:
            self._selections.pop(targets, None)

    def load(self) -> "TunedModel":
        """Return the base model with a LoRA adapter. The model is loaded once.

        Raises:
            ConfigError: The configuration does not suit the model.
            DataError: The model cannot be read.
        """
        return self._tuned

    @cached_property
    def _tuned(self) -> "TunedModel":
        from curator.training.model import load_project_model

        return load_project_model(self._workspace)

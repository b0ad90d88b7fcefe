"""`Measurer`: measure a model by the metric that the configuration or the command names, on every part of the rows."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property

from curator.core import distributed
from curator.core.errors import ConfigError
from curator.core.figures import fixed
from curator.core.metric_name import COMMAND, LM_EVAL, LOSS, MetricName, parse_metric
from curator.core.provenance import Inputs, key_of
from curator.data.corpus import Corpus
from curator.metrics.base import HeldOut, Metric, MetricValue, Part
from curator.metrics.choice import Choice
from curator.metrics.command import Command
from curator.metrics.exact_match import ExactMatch
from curator.metrics.harness import Harness
from curator.metrics.loss import Loss
from curator.metrics.rows import held_out_rows, project_tokenizer, rows_hash
from curator.training.fine_tune import FineTuned
from curator.training.model import TunedModel
from curator.workspace.store.metric_values import StoredMetric
from curator.workspace.workspace import Workspace

PARTS: tuple[Part, ...] = ("validation", "test")
# Stage of the artifact with the values of the model before training.
_BEFORE = "before"


def metric_name(workspace: Workspace, name: str | None) -> MetricName:
    """Return the metric that a call names, or else the configured one.

    Args:
        workspace: The project.
        name: Name as in `[verify] metric`. None for the configured metric.

    Raises:
        ConfigError: The name is not a metric.
    """
    try:
        return parse_metric(workspace.config.verify.metric if name is None else name)
    except ValueError as error:
        raise ConfigError(f"metric {error}", hint='Use, for example, "exact_match".') from error


class Measurer:
    """Measure models of one project by one metric, and by the loss on the test part.

    Args:
        workspace: The project.
        corpus: Tasks of the project, split for the targets.
        name: The metric.
    """

    def __init__(self, workspace: Workspace, corpus: Corpus, name: MetricName) -> None:
        self._workspace, self._corpus, self.metric_name = workspace, corpus, name
        self._loss = Loss(workspace.config.gradients.batch_tokens)
        self.metric = self._loss if name.kind == LOSS else _make(workspace, corpus, name)

    @property
    def name(self) -> str:
        """Name of the metric, as in `[verify] metric`."""
        return self.metric.name

    @cached_property
    def rows(self) -> dict[Part, list[HeldOut]]:
        """Held-out rows of every target, by part. Without a test part, the list of `test` is empty."""
        return {part: held_out_rows(self._workspace, self._corpus, part) for part in PARTS}

    @property
    def has_test(self) -> bool:
        """Whether every target has test rows."""
        return bool(self.rows["test"])

    def check(self) -> None:
        """Check that the metric can measure the rows, before anything is trained.

        Raises:
            ConfigError: A package or a program is missing, or the metric does not suit the rows.
            DataError: Rows cannot be read.
        """
        for part in PARTS:
            if self.rows[part]:
                self.metric.check(self.rows[part])

    def wanted(self) -> list[tuple[Metric, Part]]:
        """Return each metric and part that `measure` measures.

        The loss on the validation part is missing, because every run measures it anyway.
        """
        found: list[tuple[Metric, Part]] = [(self._loss, "test")] if self.has_test else []
        if self.metric is not self._loss:
            found.append((self.metric, "validation"))
            if self.has_test and self.metric.reads_rows:
                found.append((self.metric, "test"))
        return found

    def kept(self) -> list[tuple[Metric, Part]]:
        """Return each metric and part of which a run keeps a value: those of `wanted`, and the validation loss."""
        return [(self._loss, "validation"), *self.wanted()]

    def version(self, metric: Metric, part: Part) -> str:
        """Return a hash of what decides a value besides the model: the rows and the way to measure."""
        return key_of(self._inputs(metric, part))

    def measure(self, tuned: TunedModel, wanted: Sequence[tuple[Metric, Part]] | None = None) -> list[StoredMetric]:
        """Measure the model with its present adapter. With several processes, only the main one measures.

        Processes that share the weights make the same passes together.

        Args:
            tuned: The model.
            wanted: Metrics and parts. None for the result of `wanted`.

        Raises:
            DataError: Rows cannot be read, or a command fails.
            NumericalError: A value is not finite.
        """
        found: list[StoredMetric] = []
        for metric, part in self.wanted() if wanted is None else wanted:
            if distributed.is_main() or (tuned.sharded and metric.in_process):
                value = metric.measure(tuned, self.rows[part])
                found.append(self._stored(metric, part, value))
        return distributed.from_main(found)

    def of_run(self, tuned: TunedModel, run: FineTuned) -> list[StoredMetric]:
        """Measure the model of a run that has just ended. The run has measured the validation loss itself.

        Args:
            tuned: The model.
            run: Result of the run.

        Raises:
            DataError: Rows cannot be read, or a command fails.
            NumericalError: A value is not finite.
        """
        loss = MetricValue(value=run.loss, standard_error=run.loss_error, examples=run.examples)
        return [self._stored(self._loss, "validation", loss), *self.measure(tuned)]

    def known_before(self) -> list[StoredMetric] | None:
        """Return the values of the model before training, or None if they are not measured."""
        kept = self._workspace.store.artifact(_BEFORE, key_of(self._before_inputs()))
        values = distributed.from_main(None if kept is None else kept.outputs["values"])
        return None if values is None else [StoredMetric(**value) for value in values]

    def measure_base(self, tuned: TunedModel) -> list[StoredMetric]:
        """Measure the model before training, also its loss.

        Args:
            tuned: The model. Its adapter is reset.

        Raises:
            DataError: Rows cannot be read, or a command fails.
            NumericalError: A value is not finite.
        """
        # A new adapter does not change the base model.
        tuned.reset(self._workspace.config.train.seed)
        return self.measure(tuned, self.kept())

    def keep_before(self, found: Sequence[StoredMetric]) -> None:
        """Store and report the values of the model before training."""
        inputs = self._before_inputs()
        if distributed.is_main():
            outputs = {"values": [asdict(value) for value in found]}
            self._workspace.store.put_artifact(_BEFORE, key_of(inputs), inputs, outputs)
        for value in found:
            words = f"before training: {value.metric} {fixed(value.value)} on the {value.part} rows"
            self._workspace.reporter.note(words)

    def _before_inputs(self) -> Inputs:
        return {
            "model": self._corpus.model.sha256,
            "settings": self._workspace.config.model.model_dump(mode="json", exclude={"name_or_path", "revision"}),
            "metrics": [self._inputs(metric, part) for metric, part in self.kept()],
        }

    def _inputs(self, metric: Metric, part: Part) -> Inputs:
        return {
            "metric": metric.name,
            "version": metric.version,
            "part": part,
            "rows": rows_hash(self.rows[part]) if metric.reads_rows else "",
            "settings": metric.settings,
        }

    def _stored(self, metric: Metric, part: Part, value: MetricValue) -> StoredMetric:
        return StoredMetric(
            metric=metric.name,
            part=part,
            version=self.version(metric, part),
            value=value.value,
            standard_error=value.standard_error,
            examples=value.examples,
            higher_is_better=metric.higher_is_better,
        )


def _make(workspace: Workspace, corpus: Corpus, name: MetricName) -> Metric:
    if name.kind == "choice":
        return Choice(workspace, corpus)
    if name.kind == COMMAND:
        return Command(workspace, corpus, name)
    if name.kind == LM_EVAL:
        return Harness(workspace, corpus, name)
    tokenizer, encoder_decoder = project_tokenizer(workspace, corpus)
    return ExactMatch(tokenizer, encoder_decoder=encoder_decoder, batch_tokens=workspace.config.gradients.batch_tokens)

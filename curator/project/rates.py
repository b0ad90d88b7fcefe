"""Find time and memory of work on this machine, from earlier work or from a probe of the model.

A finished stage of at least a second leaves its rate in the store, by machine, model and recipe. A stage that several
workers shared leaves none. A probe leaves its rate too, until a stage has finished. Rates are not results: they change
what curator prints, and never what it computes.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curator.core import distributed
from curator.core.errors import DataError
from curator.core.provenance import Inputs, key_of
from curator.data.corpus import Corpus
from curator.data.model_files import load_architecture, weight_files
from curator.project.costs import Work
from curator.results.stages import CostReport, StageCost
from curator.workspace.workspace import Workspace

_STAGE = "rate"
# Shortest stage whose rate is kept, in seconds. Shorter ones measure the start more than the work.
_SHORTEST = 1.0
# Kinds of work by the model, and the kinds whose rates stand in for an unknown one, the closest first.
_OF_MODEL = ("train and capture", "train", "fine-tune", "gradients")
_PROBE = "probe"
_ALIKE = {kind: (kind, *(other for other in _OF_MODEL if other != kind), _PROBE) for kind in _OF_MODEL}
# Seconds of an operation of a stage without a model, until a rate is known. The operations are small matrix products.
_OPERATION = 2e-5
# Operations per second of a slow core. A bound from below, for work that is too short to probe.
_SLOW_CORE = 5e9
# Passes of training: one forward, and two backward. Each takes two operations a parameter and token.
_OPERATIONS = 6
# Memory of Python with torch and its libraries, and bytes of an activation, per layer, token and hidden number.
_PROGRAM_BYTES, _ACTIVATION_BYTES = 600_000_000, 70
# Bytes of a trained weight with its gradient and Adam's two moments, in float32.
_TRAINED_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Time of a unit of work, in seconds, and the largest memory in use, in bytes."""

    seconds: float
    peak_bytes: int


class Rates:
    """Rates of the project's model on this machine.

    Args:
        workspace: The project.
        corpus: Examples of the project.
    """

    def __init__(self, workspace: Workspace, corpus: Corpus) -> None:
        self._workspace, self._corpus = workspace, corpus
        self.probed: Rate | None = None
        """Rate of a training step, if a probe has measured one."""

    def find(self, kind: str) -> Rate | None:
        """Return the rate of a kind of work, or of the closest kind. None if no rate is known."""
        for alike in _ALIKE.get(kind, (kind,)):
            kept = self._workspace.store.artifact(_STAGE, key_of(self._inputs(alike)))
            if kept is not None:
                return Rate(seconds=kept.outputs["seconds"] / kept.outputs["size"], peak_bytes=kept.outputs["bytes"])
        return self.probed if kind in _OF_MODEL else None

    def keep(self, work: Work, *, seconds: float, peak_bytes: int) -> None:
        """Store the rate of a finished stage, unless the stage was too short to tell."""
        if seconds >= _SHORTEST and work.size > 0 and distributed.is_main():
            self._put(work.kind, size=work.size, seconds=seconds, peak_bytes=peak_bytes)

    def keep_probe(self, rate: Rate) -> None:
        """Store the rate of a probe, so that the next command needs no probe."""
        self.probed = rate
        if distributed.is_main():
            self._put(_PROBE, size=1.0, seconds=rate.seconds, peak_bytes=rate.peak_bytes)

    def _put(self, kind: str, *, size: float, seconds: float, peak_bytes: int) -> None:
        inputs = self._inputs(kind)
        outputs = {"size": size, "seconds": seconds, "bytes": peak_bytes}
        self._workspace.store.put_artifact(_STAGE, key_of(inputs), inputs, outputs)

    def needs_probe(self, works: Sequence[Work], seconds: float) -> bool:
        """Return whether work with an unknown rate may take longer than some seconds."""
        unknown = [w for w in works if not w.cached and w.kind in _OF_MODEL and self.find(w.kind) is None]
        return sum(self._slowest(work) for work in unknown) > seconds

    def report(self, works: Sequence[Work]) -> CostReport:
        """Return the costs of work."""
        return CostReport(
            stages=tuple(self._cost(work) for work in works), folder=self._workspace.folder, machine=platform.node()
        )

    def _cost(self, work: Work) -> StageCost:
        rate = self.find(work.kind)
        if work.cached:
            seconds = 0.0
        elif rate is not None:
            seconds = work.size * rate.seconds
        else:
            seconds = self._slowest(work) if work.kind in _OF_MODEL else _OPERATION * work.size
        return StageCost(
            stage=work.stage,
            steps=work.steps,
            tokens=work.tokens,
            seconds=round(seconds, 3),
            peak_bytes=0 if work.cached else rate.peak_bytes if rate is not None else self._memory(),
            cached=work.cached,
            exact=work.exact,
            workers=0 if work.cached else work.workers,
        )

    def _slowest(self, work: Work) -> float:
        return _OPERATIONS * self.parameters * work.tokens / _SLOW_CORE

    @property
    def parameters(self) -> int:
        """Number of weights of the base model, from the headers of its files.

        Raises:
            DataError: A header is damaged.
        """
        from math import prod

        from safetensors import SafetensorError, safe_open

        count = 0
        for path in weight_files(self._corpus.model.folder):
            try:
                with safe_open(path, framework="numpy") as weights:
                    count += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise DataError(f"cannot read {path}: {error}", hint="Copy or download the model again.") from error
        return count

    def _memory(self) -> int:
        """Return the memory that a stage needs: as the probe, else from the sizes of the model and of a batch."""
        if self.probed is not None:
            return self.probed.peak_bytes
        config = self._workspace.config
        architecture = load_architecture(self._corpus.model.folder, config.model).get_text_config()
        layers = _number(architecture, "num_hidden_layers", "n_layer", "num_layers")
        hidden = _number(architecture, "hidden_size", "n_embd", "d_model")
        lengths = [task.tokens / max(len(task.split.train), 1) for task in self._corpus.tasks]
        tokens = max(config.train.batch_size * max(lengths, default=0.0), config.gradients.batch_tokens)
        activations = tokens * (layers * hidden * _ACTIVATION_BYTES + 12 * _number(architecture, "vocab_size"))
        trained = 14 * layers * hidden * config.lora.r * _TRAINED_BYTES
        width = {"float16": 2, "bfloat16": 2}.get(config.model.dtype, 4)
        return int(_PROGRAM_BYTES + width * self.parameters + trained + activations)

    def _inputs(self, kind: str) -> Inputs:
        config = self._workspace.config
        of_model: dict[str, Any] = {
            "model": self._corpus.model.sha256,
            "settings": config.model.model_dump(mode="json", exclude={"name_or_path", "revision"}),
            "lora": config.lora.model_dump(mode="json"),
            "batch": [config.train.batch_size, config.data.max_length],
            "processes": distributed.world_size(),
        }
        return {"kind": kind, "machine": platform.node(), **(of_model if kind in _ALIKE or kind == _PROBE else {})}


def _number(architecture: Any, *names: str) -> int:
    """Return the first attribute that is a number. 0 if the architecture has none of them."""
    return next((value for name in names if isinstance(value := getattr(architecture, name, None), int)), 0)

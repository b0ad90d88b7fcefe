"""The metric `lm-eval:TASK`: a task of EleutherAI's lm-evaluation-harness, run on the model in memory.

The value is the task's first metric, with the standard error that the harness reports. The package `lm_eval` is
optional. Its version 0.4.13 is tested.
"""

import difflib
import io
import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

from curator.core.config import Config
from curator.core.errors import ConfigError, DataError, NumericalError, missing_extra
from curator.core.files import sha256_of
from curator.core.folders import entries_below
from curator.core.metric_name import MetricName
from curator.core.provenance import hash_of
from curator.core.text import clean
from curator.data.corpus import Corpus
from curator.data.model_files import first_line
from curator.metrics.base import HeldOut, MetricValue
from curator.metrics.rows import project_tokenizer
from curator.training.model import TunedModel
from curator.training.sharding import is_sharded
from curator.workspace.workspace import Workspace

# Files of a folder of tasks that decide a value.
_TASK_FILES = {".yaml", ".yml", ".py", ".json", ".jsonl", ".csv", ".parquet", ".txt"}


class Harness:
    """First metric of one task of lm-evaluation-harness.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        name: The task of the harness.
    """

    version = 1
    reads_rows = False
    in_process = True
    bounds = (-math.inf, math.inf)

    def __init__(self, workspace: Workspace, corpus: Corpus, name: MetricName) -> None:
        self._workspace, self._corpus = workspace, corpus
        self.name, self._task = str(name), name.argument

    @property
    def _config(self) -> Config:
        return self._workspace.config

    @cached_property
    def settings(self) -> str:
        """Return a hash of the settings and of the files in the folder of task files."""
        folder, verify = self._folder, self._config.verify
        there = [] if folder is None else entries_below(folder)
        files = sorted(path for path in there if path.suffix in _TASK_FILES and path.is_file())
        hashes = [f"{path.relative_to(folder or path)}={sha256_of(path)}" for path in files]
        return hash_of([json.dumps([verify.lm_eval_chat_template]), *hashes])

    @property
    def higher_is_better(self) -> bool:
        """Return what the task says about its first metric."""
        return self._first_metric[1]

    def check(self, rows: Sequence[HeldOut]) -> None:
        """Check that the package and the task exist, and read the task's data.

        Raises:
            ConfigError: The package, the folder or the task is missing, or several processes share the model.
            DataError: The harness cannot load the task.
        """
        if is_sharded(self._config.model):
            raise ConfigError(
                "lm-evaluation-harness cannot measure a model that several processes share (model.shard)",
                hint="Choose another metric under [verify].",
            )
        assert self._first_metric

    def measure(self, tuned: TunedModel, rows: Sequence[HeldOut]) -> MetricValue:
        """Run the task on the model in memory.

        Raises:
            DataError: The harness fails.
            NumericalError: The value is not finite.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        metric, _ = self._first_metric
        tokenizer, encoder_decoder = project_tokenizer(self._workspace, self._corpus)
        tuned.model.eval()
        budget, longest = self._config.gradients.batch_tokens, self._config.data.max_length
        try:
            with _silent():
                model = HFLM(
                    # LoRA's layers are in the base model.
                    pretrained=tuned.model.get_base_model(),
                    tokenizer=tokenizer,
                    backend="seq2seq" if encoder_decoder else "causal",
                    batch_size=max(1, budget // longest),
                )
                found = simple_evaluate(
                    model=model,
                    tasks=[self._task],
                    task_manager=self._manager,
                    log_samples=False,
                    apply_chat_template=self._config.verify.lm_eval_chat_template,
                )
        except Exception as error:
            # A task may hold functions of its authors, which can raise any exception.
            raise _failed(self._task, error) from error
        results: dict[str, Any] = found["results"][self._task]
        key = next(key for key in results if key.partition(",")[0] == metric)
        value, spread = results[key], results.get(f"{metric}_stderr,{key.partition(',')[2]}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise NumericalError(
                f"lm-eval task {clean(self._task, limit=80)!r} gave {metric} = {clean(value, limit=80)}",
                hint="Check the task with the command `lm_eval`.",
            )
        # The harness writes "N/A" where it has no standard error.
        standard_error = spread if isinstance(spread, float) and math.isfinite(spread) else None
        counted = found["n-samples"].get(self._task, {}).get("effective", 0)
        return MetricValue(value=float(value), standard_error=standard_error, examples=int(counted))

    @property
    def _folder(self) -> Path | None:
        written = self._config.verify.lm_eval_tasks
        if not written:
            return None
        folder = self._workspace.root / written
        if not folder.is_dir():
            raise ConfigError(f"verify.lm_eval_tasks: no such folder: {folder}", hint="Correct the path.")
        return folder

    @cached_property
    def _manager(self) -> Any:
        try:
            import lm_eval  # noqa: F401
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise missing_extra("metric 'lm-eval'", "lm_eval", "lm-eval") from error
        folder = self._folder
        with _silent():
            manager = TaskManager(include_path=None if folder is None else str(folder))
        if self._task not in manager.all_tasks:
            near = difflib.get_close_matches(self._task, manager.all_tasks, n=1)
            hint = f"Use {near[0]!r}" if near else "Name a task that `lm_eval ls tasks` lists"
            raise ConfigError(
                f"unknown task of lm-eval: {clean(self._task, limit=80)!r}",
                hint=f"{hint}, or set lm_eval_tasks under [verify] to the folder of your task files.",
            )
        return manager

    @cached_property
    def _first_metric(self) -> tuple[str, bool]:
        """Return the name of the first metric of the task, and whether higher is better."""
        manager = self._manager
        try:
            with _silent():
                loaded = manager.load([self._task])["tasks"]
                first = next(iter(loaded.values()))
                better: dict[str, bool] = first.higher_is_better()
                listed = first.get_config("metric_list") or [{"metric": name} for name in better]
                name = str(listed[0]["metric"])
                return name, bool(better[name])
        except Exception as error:
            raise _failed(self._task, error) from error


def _failed(task: str, error: Exception) -> DataError:
    return DataError(
        f"lm-eval task {clean(task, limit=80)!r} failed: {clean(first_line(error), limit=300)}",
        hint="Check the task and its data with the command `lm_eval`.",
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Keep logs and progress bars of the harness off the terminal."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "lm-eval")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

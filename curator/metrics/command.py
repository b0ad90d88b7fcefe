"""The metric `command:WORDS`: run a command of the user in the folder of the adapter, and read one number.

The command runs without a shell. The last line that it writes to standard output must be one number.
docs/how-to/verify.md lists the variables that the command can read.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from curator.core.config import Config
from curator.core.errors import ConfigError, DataError, NumericalError
from curator.core.interpreters import user_environment
from curator.core.metric_name import MetricName
from curator.core.text import clean
from curator.data.corpus import Corpus
from curator.metrics.base import HeldOut, MetricValue
from curator.training.model import TunedModel
from curator.workspace.workspace import Workspace

# Bytes of the end of an output that are read.
_END = 4096


class Command:
    """Number that a command of the user prints about an adapter.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        name: The words of the command.
    """

    version = 1
    reads_rows = True
    in_process = False
    settings = ""

    def __init__(self, workspace: Workspace, corpus: Corpus, name: MetricName) -> None:
        self._workspace, self._corpus = workspace, corpus
        self.name, self._words = str(name), name.words

    @property
    def higher_is_better(self) -> bool:
        """Return what the configuration says about the number."""
        return self._config.verify.higher_is_better

    @property
    def _config(self) -> Config:
        return self._workspace.config

    def check(self, rows: Sequence[HeldOut]) -> None:
        """Check that the program exists.

        Raises:
            ConfigError: No such program is in the path or the project.
        """
        self._program()

    def measure(self, tuned: TunedModel, rows: Sequence[HeldOut]) -> MetricValue:
        """Save the adapter to a temporary folder, run the command there, and read the number.

        Raises:
            DataError: The command fails, exceeds its time, or prints no number.
            NumericalError: The number is not finite.
        """
        work = self._workspace.adapters / "metric"
        # A killed call leaves its folder. The job lock keeps other calls out, and workers share the folder.
        if not self._workspace.is_away:
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work) as made:
            adapter, held_out = Path(made) / "adapter", Path(made) / "rows.jsonl"
            tuned.save_adapter(adapter)
            self._write_rows(held_out, rows)
            part = rows[0].part if rows else "validation"
            variables = {
                "CURATOR_ADAPTER": str(adapter),
                "CURATOR_BASE_MODEL": str(self._corpus.model.folder),
                "CURATOR_PART": part,
                "CURATOR_PROJECT": str(self._workspace.root),
                "CURATOR_ROWS": str(held_out),
                "CURATOR_TARGET": self._corpus.target_label,
            }
            last = self._run(adapter, variables, Path(made))
        try:
            value = float(last)
        except ValueError as error:
            raise DataError(
                f"metric command printed no number on its last line: {clean(last, limit=80)!r}",
                hint="Print one number on the last line of standard output.",
            ) from error
        if not math.isfinite(value):
            raise NumericalError(f"metric command printed {value}", hint="Print a finite number.")
        return MetricValue(value=value, standard_error=None, examples=0)

    def _program(self) -> str:
        """Return the path of the program: in the project if the word has a slash, else in the path."""
        word = self._words[0]
        place = os.path.join(self._workspace.root, word) if os.path.dirname(word) else word
        found = shutil.which(place)
        if found is None:
            raise ConfigError(
                f"no such program for metric 'command': {clean(word, limit=80)!r}",
                hint="Name a program of the path, or a path relative to the project.",
            )
        return found

    def _write_rows(self, path: Path, rows: Sequence[HeldOut]) -> None:
        """Write the held-out rows as JSON Lines: `task`, `prompt` and `answer`, as the model reads and writes them."""
        with path.open("w", encoding="utf-8") as file:
            for held in rows:
                table = self._workspace.store.example_texts(held.version.key).to_pydict()
                for number in held.numbers:
                    text, spans = table["text"][number], table["spans"][number]
                    start, end = spans[-2:] if spans else (len(text), len(text))
                    row = {"task": held.task.name, "prompt": text[:start], "answer": text[start:end]}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _run(self, folder: Path, variables: dict[str, str], work: Path) -> str:
        """Run the command and return its last line of output."""
        limit = self._config.verify.command_seconds
        program = self._program()
        with (work / "out").open("w+b") as out, (work / "errors").open("w+b") as errors:
            try:
                process = subprocess.Popen(  # noqa: S603 - the user's own words, from the user's own configuration
                    [program, *self._words[1:]],
                    cwd=folder,
                    env=user_environment() | variables,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise ConfigError(
                    f"cannot run metric command {clean(program, limit=200)}: {error.strerror}",
                    hint="Check that the file is a program, and that you may execute it.",
                ) from error
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired as error:
                raise DataError(
                    f"metric command ran longer than {limit:g} seconds",
                    hint="Raise command_seconds under [verify], or make the command faster.",
                ) from error
            finally:
                # An interrupt or the time limit ends the command with all the processes that it started.
                _end(process)
            if status != 0:
                reason = _last_line(errors.fileno())
                raise DataError(
                    f"metric command failed with exit code {status}" + (f": {reason}" if reason else ""),
                    hint="Run the command in the folder of an adapter to see why.",
                )
            return _last_line(out.fileno())


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a running process and its children. Do nothing if the process has ended."""
    if process.poll() is None:
        # The process may end between the two calls.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(descriptor: int) -> str:
    """Return the last line of a file that is not empty, in at most 4 KiB."""
    size = os.fstat(descriptor).st_size
    end = os.pread(descriptor, _END, max(size - _END, 0)).decode("utf-8", "replace")
    lines = [line.strip() for line in end.splitlines() if line.strip()]
    return clean(lines[-1], limit=300) if lines else ""

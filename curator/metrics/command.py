"""The metric `command:WORDS`: run a command of the user in the folder of the adapter, and read one number.

The command runs without a shell. The last line that it writes to standard output must be one number.
docs/how-to/verify.md lists the variables that the command can read.
"""

import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from curator.core.config import Config
from curator.core.errors import ConfigError, DataError, NumericalError
from curator.core.folders import remove_folder
from curator.core.interpreters import user_environment
from curator.core.metric_name import MetricName
from curator.core.text import clean
from curator.data.corpus import Corpus
from curator.metrics.base import HeldOut, MetricValue
from curator.training.model import TunedModel
from curator.workspace.workspace import Workspace

# Bytes of the end of an output that are kept, bytes of one read, and reads of what an ended process left in a pipe.
_END, _PART, _PARTS = 4096, 2**16, 16
# Seconds between two looks at a process that has closed its output.
_PAUSE = 0.1


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
    bounds = (-math.inf, math.inf)
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
            _remove(work)
        work.mkdir(parents=True, exist_ok=True)
        with _own_folder(work) as made:
            adapter, held_out = made / "adapter", made / "rows.jsonl"
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
            last = self._run(adapter, variables)
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

    def _run(self, folder: Path, variables: dict[str, str]) -> str:
        """Run the command and return its last line of output."""
        limit = self._config.verify.command_seconds
        program = self._program()
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own words, from the user's own configuration
                [program, *self._words[1:]],
                cwd=folder,
                env=user_environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(
                f"cannot run metric command {clean(program, limit=200)}: {error.strerror}",
                hint="Check that the file is a program, and that you may execute it.",
            ) from error
        with process:
            try:
                ends = _follow(process, limit)
            finally:
                # Also an interrupt ends the command with all the processes that it started.
                _end(process)
            if ends is None:
                raise DataError(
                    f"metric command ran longer than {limit:g} seconds",
                    hint="Raise command_seconds under [verify], or make the command faster.",
                )
            output, errors = ends
            if process.returncode != 0:
                reason = _last_line(errors)
                raise DataError(
                    f"metric command failed with exit code {process.returncode}" + (f": {reason}" if reason else ""),
                    hint="Run the command in the folder of an adapter to see why.",
                )
            return _last_line(output)


@contextmanager
def _own_folder(work: Path) -> Iterator[Path]:
    """Yield a new folder, and remove it at the end of the block, whatever the command made of it."""
    made = Path(tempfile.mkdtemp(dir=work))
    try:
        yield made
    finally:
        _remove(made)


def _remove(folder: Path) -> None:
    """Remove a folder, or a link in its place. Files that cannot be removed stay."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    remove_folder(folder)


def _follow(process: subprocess.Popen[bytes], limit: float) -> tuple[bytes, bytes] | None:
    """Read the output of a process until the process ends. No output is stored, because it may be endless.

    Args:
        process: Process whose output and errors are pipes.
        limit: Time limit in seconds.

    Returns:
        The end of the output and of the errors, or None if the process exceeds its time.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + limit
    ends = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as waiting:
        for pipe in ends:
            os.set_blocking(pipe, False)
            waiting.register(pipe, selectors.EVENT_READ)
        while process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            for key, _ in waiting.select(min(left, _PAUSE)):
                if _read(key.fd, ends[key.fd]) == 0:
                    waiting.unregister(key.fd)
    # A process that left the group may hold the pipe, and write for ever.
    for pipe, end in ends.items():
        for _ in range(_PARTS):
            if _read(pipe, end) <= 0:
                break
    output, errors = ends.values()
    return bytes(output), bytes(errors)


def _read(pipe: int, end: bytearray) -> int:
    """Read what a pipe holds, and keep the end. Return the number of bytes: 0 at the end, -1 if none are there yet."""
    try:
        part = os.read(pipe, _PART)
    except BlockingIOError:
        return -1
    end += part
    del end[:-_END]
    return len(part)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children, also those that outlive it. Processes that left its group stay."""
    # The group keeps its number while it has members. macOS refuses to signal a group of ended processes.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(end: bytes) -> str:
    """Return the last line of an output that is not empty."""
    lines = [line.strip() for line in end.decode("utf-8", "replace").splitlines() if line.strip()]
    return clean(lines[-1], limit=300) if lines else ""

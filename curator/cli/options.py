"""The Typer application and the options that several commands share."""

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

if TYPE_CHECKING:
    from curator.core.events import Reporter
    from curator.project.project import Project

app = typer.Typer(
    name="curator",
    help="Pick the auxiliary tasks that help a fine-tuning target, without training on every subset.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

METRIC_HELP = (
    "Set the metric of every run: loss, exact_match, choice, lm-eval:TASK or command:WORDS. [default: as configured]"
)
_OPTIONS: dict[str, Any] = {
    "project": Annotated[
        Path | None,
        typer.Option(
            "-p",
            "--project",
            metavar="DIR",
            envvar="CURATOR_PROJECT",
            help="Open this project. [default: the nearest with a curator.toml]",
        ),
    ],
    "target": Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="T",
            envvar="CURATOR_TARGET",
            help="Set the target task; repeatable. [default: as configured]",
        ),
    ],
    "fresh": Annotated[bool, typer.Option("--fresh", envvar="CURATOR_FRESH", help="Recompute even if cached.")],
    "dry_run": Annotated[
        bool,
        typer.Option(
            "--dry-run",
            envvar="CURATOR_DRY_RUN",
            help="Print stages, steps, tokens, time and memory, and train nothing.",
        ),
    ],
    "as_json": Annotated[bool, typer.Option("--json", envvar="CURATOR_JSON", help="Print one JSON document.")],
    "rehash": Annotated[
        bool,
        typer.Option(
            "--rehash",
            envvar="CURATOR_REHASH",
            help="Recompute the hashes of all files, and trust no stored hash.",
        ),
    ],
    "ray": Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            envvar="CURATOR_RAY",
            help="Run on a Ray cluster: local starts one, auto joins RAY_ADDRESS. [default: this machine]",
        ),
    ],
    "skip_bad_rows": Annotated[
        bool,
        typer.Option(
            "--skip-bad-rows",
            envvar="CURATOR_SKIP_BAD_ROWS",
            help="Leave out rows that cannot be used, and count them.",
        ),
    ],
    "quiet": Annotated[bool, typer.Option("-q", "--quiet", envvar="CURATOR_QUIET", help="Print errors only.")],
    "verbose": Annotated[
        bool, typer.Option("-v", "--verbose", envvar="CURATOR_VERBOSE", help="Show log output of libraries.")
    ],
    "log_file": Annotated[
        Path | None,
        typer.Option(
            "--log-file",
            metavar="FILE",
            envvar="CURATOR_LOG_FILE",
            help="Write progress, warnings and errors to the end of this file.",
        ),
    ],
}
_DEFAULTS = {"project": None, "target": None, "log_file": None, "ray": None}


class Report(Protocol):
    """A report that a command prints."""

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""


AnyReport = TypeVar("AnyReport", bound=Report)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Values of the shared options of one call. An option that a command does not take has its default."""

    project: Path | None = None
    target: list[str] | None = None
    fresh: bool = False
    rehash: bool = False
    ray: str | None = None
    dry_run: bool = False
    as_json: bool = False
    skip_bad_rows: bool = False
    quiet: bool = False
    verbose: bool = False
    log_file: Path | None = None

    @contextmanager
    def open(self, *, folder: Path | None = None, silent: bool = False) -> Iterator["Project"]:
        """Open the project, with progress on standard error and a log under `.curator/runs`.

        Args:
            folder: Project folder; None takes that of `--project`.
            silent: Whether to report errors only, as with `--quiet`.

        Raises:
            ConfigError, DataError: As `Project.open`.
        """
        from curator.cli.interrupt import Interrupt
        from curator.core import distributed
        from curator.project.project import Project
        from curator.workspace.job_log import JobLog
        from curator.workspace.workspace import Workspace

        workspace = Workspace.open(folder or self.project)
        if self.rehash and distributed.is_main():
            workspace.store.forget_file_hashes()
        if self.skip_bad_rows:
            workspace = workspace.skipping_bad_rows()
        if not distributed.is_main():
            yield Project(workspace, dry_run=self.dry_run, ray=self.ray or "")
            return
        with self.progress(silent=silent) as reporter:
            if self.dry_run:
                # A dry run leaves no record of a job.
                yield Project(workspace.reporting_to(reporter), dry_run=True, ray=self.ray or "")
                return
            with JobLog(workspace.folder / "runs", reporter.warn) as log:
                try:
                    yield Project(workspace.reporting_to(reporter.with_sink(log)), ray=self.ray or "")
                except Exception as error:
                    # An interrupted library may raise another error. An interrupted import leaves half a module.
                    if Interrupt.is_asked():
                        raise KeyboardInterrupt from error
                    raise

    @contextmanager
    def progress(self, *, silent: bool = False) -> Iterator["Reporter"]:
        """Report progress on standard error, and to the file of `--log-file`.

        Args:
            silent: Whether to report errors only, as with `--quiet`.

        Raises:
            DataError: The log file cannot be written.
        """
        from contextlib import nullcontext

        from curator.core.events import Reporter
        from curator.core.progress import LogFile, make_progress

        log = nullcontext() if self.log_file is None else LogFile(self.log_file)
        with log as file, make_progress(quiet=silent or self.quiet) as display:
            yield Reporter(display) if file is None else Reporter(display, file)

    def show(self, report: AnyReport, table: Callable[[AnyReport], None]) -> None:
        """Print a report as JSON or as a table. Only the main process of several prints."""
        if not is_main():
            return
        if self.as_json:
            print_json(report.to_json())
        else:
            table(report)


def shared_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add shared options to a command, after its own, and pass their values as its argument `shared`.

    Args:
        names: Fields of `Shared`, in the order in which `--help` lists them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "shared"]
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name, False), annotation=_OPTIONS[name]
            )
            for name in names
        ]

        @wraps(command)
        def run(**values: Any) -> None:
            shared = Shared(**{name: values.pop(name) for name in names})
            if not shared.dry_run:
                command(shared=shared, **values)
                return
            from curator.cli.tables import show_costs
            from curator.project.costs import DryRun

            try:
                command(shared=shared, **values)
            except DryRun as planned:
                shared.show(planned.report, show_costs)

        parameters = [*own, *added]
        # Typer reads both.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def is_main() -> bool:
    """Return whether this process prints: with several processes, only the first one does."""
    from curator.core import distributed

    return distributed.is_main()


def print_json(document: dict[str, Any]) -> None:
    """Print a JSON document without characters that steer a terminal."""
    # Escaped characters are the same document, also where standard output allows few characters.
    narrow = (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8"
    text = json.dumps(document, ensure_ascii=narrow, indent=1)
    # JSON keeps control characters of some terminals, and halves of surrogate pairs, which are not valid UTF-8.
    if not text.replace("\n", "").isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)
    sys.stdout.write(text + "\n")


def _escaped(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]

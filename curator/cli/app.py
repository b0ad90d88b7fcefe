"""The commands. Each opens the project, calls one verb and shows what it returns."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curator import __version__
from curator.core.errors import ConfigError, DataError
from curator.export import FORMATS

if TYPE_CHECKING:
    from curator.project.project import Project

app = typer.Typer(
    name="curator",
    help="Pick the auxiliary tasks that help a fine-tuning target, without training on every subset.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ProjectOption = Annotated[
    Path | None,
    typer.Option("-p", "--project", metavar="DIR", help="Project folder; default: the nearest with a curator.toml."),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="T", help="Target task, in place of the configured one. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
METHODS_HELP = (
    "forward, backward, exchange, ensemble or mixture; baselines to compare with:"
    " random, embedding, bm25, gradient-cosine, less or kmm."
)
FreshOption = Annotated[bool, typer.Option("--fresh", help="Run it again although it is there.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no warnings, only errors.")]
SkipOption = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Go on without rows that cannot be used; they are counted.")
]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Let the libraries underneath speak too.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"curator {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def _project(folder: Path | None, *, quiet: bool, skip_bad_rows: bool = False) -> Iterator["Project"]:
    """The project, with progress on standard error and a record under `.curator/runs`."""
    from curator.core import distributed
    from curator.core.events import Reporter
    from curator.core.progress import make_progress
    from curator.project.project import Project
    from curator.workspace.job_log import JobLog

    project = Project.open(folder)
    if skip_bad_rows:
        project = Project(project.workspace.skipping_bad_rows())
    if not distributed.is_main():
        yield project
        return
    with make_progress(quiet=quiet) as progress, JobLog(project.folder / "runs") as log:
        yield Project(project.workspace.reporting_to(Reporter(progress, log)))


def _print_json(document: dict[str, Any]) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=1)
    # JSON leaves as they are what steers some terminals, and halves of characters, which are no UTF-8.
    if not text.replace("\n", "").isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)
    sys.stdout.write(text + "\n")


def _escaped(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


@app.command(epilog="Example: curator init my-project --from 'data/*.jsonl' --target qa --model my-model")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if need be.")],
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="FILE/GLOB/HUB-ID",
            help="Fill in the tasks found there; or what LLaMA-Factory, axolotl or TRL is told. Repeatable.",
        ),
    ] = None,
    task_column: Annotated[
        str, typer.Option("--task-column", metavar="COLUMN", help="Make a task of each value of this column.")
    ] = "",
    model: Annotated[
        str | None, typer.Option("--model", help="Hub id or folder of the model; default: model, or what --from says.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", metavar="T", help="The task to improve.")] = None,
    group: Annotated[
        int | None,
        typer.Option("--group", metavar="N", min=2, help="Cut the other tasks into N groups of alike examples each."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Write a commented curator.toml."""
    from curator.cli.init import write_groups, write_project
    from curator.core.text import clean

    written = write_project(folder, sources or [], model=model, target=target, task_column=task_column)
    tasks = written.tasks
    if written.left_out and not quiet:
        typer.echo("not taken over:", err=True)
        for line in written.left_out:
            typer.echo(f"  {clean(line)}", err=True)
    if group is not None:
        with _project(folder, quiet=quiet) as opened:
            tasks = write_groups(opened, group, written)
    found = f" with {len(tasks)} tasks" if tasks else ""
    typer.echo(f"wrote {written.path}{found}; next: curator check -p {folder}")


@app.command(epilog="Example: curator check -p sample_data")
def check(
    project: ProjectOption = None,
    store: Annotated[bool, typer.Option("--store", help="Check the store itself: every row of every table.")] = False,
    as_json: JsonOption = False,
    skip_bad_rows: SkipOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Read config and data; print tasks, sizes, token counts, problems. Trains nothing."""
    from curator.cli import store_commands as of_store
    from curator.cli.tables import show_check

    if store:
        found = of_store.check(project)
        _print_json(found.to_json()) if as_json else of_store.show(found)
        of_store.fail_unless_sound(found)
        return
    with _project(project, quiet=quiet, skip_bad_rows=skip_bad_rows) as opened:
        report = opened.check()
    _print_json(report.to_json()) if as_json else show_check(report)


@app.command(epilog="Example: curator train --fresh")
def train(
    project: ProjectOption = None,
    target: TargetOption = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    skip_bad_rows: SkipOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Meta-train: LoRA on all tasks together."""
    from curator.cli.tables import show_train

    with _project(project, quiet=quiet, skip_bad_rows=skip_bad_rows) as opened:
        report = opened.train(target=target, fresh=fresh)
    if _speaks():
        _print_json(report.to_json()) if as_json else show_train(report)


@app.command(epilog="Example: accelerate launch --num_processes 2 -m curator gradients")
def gradients(
    project: ProjectOption = None,
    target: TargetOption = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    skip_bad_rows: SkipOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Project per-example gradients at the points of meta-training into the store."""
    from curator.cli.tables import show_gradients

    with _project(project, quiet=quiet, skip_bad_rows=skip_bad_rows) as opened:
        report = opened.gradients(target=target, fresh=fresh)
    if _speaks():
        _print_json(report.to_json()) if as_json else show_gradients(report)


@app.command(epilog="Example: curator estimate carry subtraction --json")
def estimate(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="The subset; none: the target alone.")
    ] = None,
    subsets: Annotated[
        Path | None,
        typer.Option("--subsets", metavar="FILE", help="JSON list of lists of task names; - for standard input."),
    ] = None,
    project: ProjectOption = None,
    target: TargetOption = None,
    as_json: JsonOption = False,
    skip_bad_rows: SkipOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Estimate the target's loss after fine-tuning on a subset, without training on it."""
    from curator.cli.tables import show_estimates

    if subsets is not None and tasks:
        raise ConfigError("both TASK and --subsets are given", hint="Name one subset, or a file of subsets.")
    wanted = [tasks or []] if subsets is None else _read_subsets(subsets)
    with _project(project, quiet=quiet, skip_bad_rows=skip_bad_rows) as opened:
        if not _speaks():
            opened.gradients(target=target)
            return
        report = opened.estimate_all(wanted, target=target)
    _print_json(report.to_json()) if as_json else show_estimates(report)


@app.command(epilog="Example: curator select --method exchange --max-tokens 20000 --exclude noise -o best.json --json")
def select(
    project: ProjectOption = None,
    target: TargetOption = None,
    method: Annotated[str | None, typer.Option("--method", metavar="M", help=METHODS_HELP)] = None,
    k: Annotated[int | None, typer.Option("--k", min=0, help="Most tasks.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=0, help="Most tokens of the selected tasks.")
    ] = None,
    max_examples: Annotated[
        int | None, typer.Option("--max-examples", min=0, help="Most examples of the selected tasks.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="Least gain worth a task, in nats; for the ensemble, least affinity; for a baseline, least score.",
        ),
    ] = None,
    include: Annotated[list[str] | None, typer.Option("--include", metavar="T", help="Must be in. Repeatable.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="T", help="Must not be in. Repeatable.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the selection.")] = "",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Manifest; default: curator-manifest.json in the project."),
    ] = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    skip_bad_rows: SkipOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Select the tasks that help: runs what is missing before it, and writes a manifest."""
    from curator.cli.tables import show_selection

    with _project(project, quiet=quiet, skip_bad_rows=skip_bad_rows) as opened:
        if not _speaks():
            opened.gradients(target=target)
            return
        result = opened.select(
            target=target,
            method=method,
            k=k,
            max_tokens=max_tokens,
            max_examples=max_examples,
            threshold=threshold,
            include=include or (),
            exclude=exclude or (),
            name=name,
            output=output,
            fresh=fresh,
        )
    _print_json(result.to_json()) if as_json else show_selection(result)


@app.command(epilog="Example: curator verify --runs 20 --seeds 2 --plot verify.svg")
def verify(
    project: ProjectOption = None,
    target: TargetOption = None,
    runs: Annotated[
        int | None,
        typer.Option("--runs", metavar="N", min=1, help="Subsets to add; default: 12 where none are measured yet."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", min=1, help="Fine-tuning runs on each subset; default: 2.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Fine-tune on what the other methods select within the same tokens; a table."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw estimated against measured losses: .svg, .png or .pdf."),
    ] = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    skip_bad_rows: SkipOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Really fine-tune on some subsets, compare with the estimates, calibrate these, and say how far to trust them."""
    from curator.cli.tables import show_verify
    from curator.results.plots import check_plot_file, plot_verify

    if plot is not None:
        check_plot_file(plot)
    with _project(project, quiet=quiet, skip_bad_rows=skip_bad_rows) as opened:
        report = opened.verify(target=target, runs=runs, seeds=seeds, compare=compare, fresh=fresh)
    if not _speaks():
        return
    if plot is not None:
        plot_verify(report, plot)
    _print_json(report.to_json()) if as_json else show_verify(report)


@app.command(epilog="Example: curator examples carry --top 5")
def examples(
    task: Annotated[str, typer.Argument(metavar="TASK", help="An auxiliary task.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many of each kind to print; --json has all.")] = 10,
    project: ProjectOption = None,
    target: TargetOption = None,
    as_json: JsonOption = False,
    skip_bad_rows: SkipOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the examples of a task that help the target most, and those that harm it most."""
    from curator.cli.tables import show_examples

    with _project(project, quiet=quiet, skip_bad_rows=skip_bad_rows) as opened:
        report = opened.examples(task, target=target)
    if not _speaks():
        return
    _print_json(report.to_json()) if as_json else show_examples(report, top)


@app.command(epilog="Example: curator curve --plot budget.svg")
def curve(
    project: ProjectOption = None,
    target: TargetOption = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw it: .svg, .png or .pdf.")] = None,
    as_json: JsonOption = False,
    skip_bad_rows: SkipOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what a budget buys: estimated loss against training tokens, and the subsets that no other one beats."""
    from curator.cli.tables import show_curve
    from curator.results.plots import check_plot_file, plot_curve

    if plot is not None:
        check_plot_file(plot)
    with _project(project, quiet=quiet, skip_bad_rows=skip_bad_rows) as opened:
        report = opened.curve(target=target)
    if not _speaks():
        return
    if plot is not None:
        plot_curve(report, plot)
    _print_json(report.to_json()) if as_json else show_curve(report)


@app.command(epilog="Example: curator export curator-manifest.json --format trl -o train-data")
def export(
    manifest: Annotated[
        str,
        typer.Argument(metavar="MANIFEST", help="File from `curator select`, or the name of one of its selections."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where to.")],
    format: Annotated[
        str, typer.Option("--format", metavar="F", help=f"For which trainer: {', '.join(FORMATS)}.")
    ] = "jsonl",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    allow_changed: Annotated[bool, typer.Option("--allow-changed", help="Although files have changed since.")] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Although files lie neither beside the manifest nor in a project.")
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write the selected tasks and the target's training examples as files that a trainer reads."""
    from curator.cli.tables import show_export, show_exported
    from curator.core.events import Reporter
    from curator.core.progress import make_progress
    from curator.export import prepare_export, write_export
    from curator.project.project import Project
    from curator.select.manifest import read_manifest

    path = Path(manifest)
    # A manifest says all there is to know: it can be exported where its project is not.
    found, here = (
        (read_manifest(path), path.absolute().parent)
        if os.path.isfile(path)
        else Project.open(project).manifest(manifest)
    )
    with make_progress(quiet=quiet) as progress:
        plan = prepare_export(
            found,
            here,
            format=format,
            folder=output,
            allow_changed=allow_changed,
            allow_outside=allow_outside,
            reporter=Reporter(progress),
        )
    if not as_json:
        show_export(plan.report)
    if not dry_run:
        write_export(plan)
    if as_json:
        _print_json(plan.report.to_json() | {"dry_run": dry_run})
    else:
        show_exported(plan.report, written=not dry_run)


@app.command(epilog="Example: curator apply curator-manifest.json -o adapter")
def apply(
    manifest: Annotated[
        str,
        typer.Argument(metavar="[MANIFEST]", help="File from `curator select`, or the name of one of its selections."),
    ] = "curator-manifest.json",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Adapter; default: in .curator/adapters/applied."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="Default: that of the first run of verify."),
    ] = None,
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Train on what is there now, though it is not what was selected.")
    ] = False,
    project: ProjectOption = None,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fine-tune the base model on a selection by the project's recipe; leaves an adapter and its measured loss."""
    from curator.cli.tables import show_apply

    with _project(project, quiet=quiet) as opened:
        report = opened.apply(manifest, output=output, seed=seed, allow_changed=allow_changed, fresh=fresh)
    if _speaks():
        _print_json(report.to_json()) if as_json else show_apply(report)


@app.command(epilog="Example: curator sql 'SELECT task, affinity FROM affinities ORDER BY affinity DESC' --format csv")
def sql(
    query: Annotated[
        str, typer.Argument(metavar="[QUERY]", help="One query; - reads it; none: the views are listed.")
    ] = "",
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="F", help="table, csv, json or parquet; default: as FILE ends, or table."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to.")] = None,
    project: ProjectOption = None,
    target: TargetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask the store by SQL: tasks, examples, affinities, subsets, runs and selections. Only reads."""
    from curator.cli.query_output import TABLE_ROWS, pick_format, write_answer

    wanted = pick_format("json" if as_json else format, output)
    text = sys.stdin.read() if query == "-" else query
    with _project(project, quiet=True) as opened:
        result = opened.sql(text, target=target, limit=TABLE_ROWS if wanted == "table" and text.strip() else None)
    write_answer(result, wanted, output, quiet=quiet)


@app.command(epilog="Example: curator export-store saved -p sample_data")
def export_store(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if need be, and empty.")],
    project: ProjectOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Save what can be read of the store, also of a damaged one: a Parquet file for each table."""
    from curator.cli import store_commands as of_store

    found = of_store.export(project, folder)
    _print_json(found.to_json()) if as_json else of_store.show(found)
    of_store.fail_unless_sound(found)


@app.command(epilog="Example: curator status --json")
def status(
    project: ProjectOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say which stages are done, which are stale and why; list runs and selections."""
    from curator.cli.tables import show_status

    with _project(project, quiet=True) as opened:
        report = opened.status()
    _print_json(report.to_json()) if as_json else show_status(report)


@app.command(epilog="Example: curator tui -p sample_data")
def tui(
    project: ProjectOption = None,
    mouse: Annotated[
        bool | None, typer.Option("--mouse/--no-mouse", help="Use the pointer; default: as in the settings.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Offer it to a browser; there is no password.")] = False,
    host: Annotated[str, typer.Option("--host", help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to serve on.")] = 8000,
    public_url: Annotated[
        str | None, typer.Option("--public-url", metavar="URL", help="Where browsers find it, behind a proxy.")
    ] = None,
) -> None:
    """Curate by looking: tasks, estimates that follow every change, examples, runs, export."""
    from curator.cli.tui import open_tui, serve_tui
    from curator.core.files import find_project

    root = find_project(project)
    if serve:
        serve_tui(root, host=host, port=port, public_url=public_url)
    else:
        open_tui(root, mouse=mouse)


def _speaks() -> bool:
    from curator.core import distributed

    return distributed.is_main()


def _read_subsets(path: Path) -> list[list[str]]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        subsets = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}", hint='Write [["a", "b"], ["c"]].') from error
    good = isinstance(subsets, list) and all(
        isinstance(subset, list) and all(isinstance(task, str) for task in subset) for subset in subsets
    )
    if not good:
        raise DataError(f"{path}: not a list of lists of task names", hint='Write [["a", "b"], ["c"]].')
    return subsets  # type: ignore[no-any-return]

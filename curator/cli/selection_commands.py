"""Commands that estimate, select and verify: estimate, select, verify, examples, curve."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli.options import METRIC_HELP, Shared, app, is_main, shared_options
from curator.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from curator import results

METHODS_HELP = (
    "Set the method: forward, backward, exchange, ensemble or mixture; or a baseline:"
    " random, embedding, bm25, gradient-cosine, less or kmm. [default: as configured]"
)
DropOption = Annotated[
    Path | None,
    typer.Option("--drop-examples", metavar="FILE", help="Leave out the examples that a JSON Lines file names."),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the result to a .svg, .png or .pdf file.")
]


@app.command(epilog="Example: curator estimate carry subtraction --json")
@shared_options("project", "target", "dry_run", "ray", "as_json", "skip_bad_rows", "quiet", "verbose", "log_file")
def estimate(
    shared: Shared,
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Tasks of the subset. [default: the target alone]")
    ] = None,
    subsets: Annotated[
        Path | None,
        typer.Option("--subsets", metavar="FILE", help="Read a JSON list of lists of task names; - is standard input."),
    ] = None,
    drop_examples: DropOption = None,
) -> None:
    """Estimate the target's loss after fine-tuning on a subset, without training on the subset."""
    from curator.cli.tables import show_estimates

    if subsets is not None and tasks:
        raise ConfigError("cannot combine TASK and --subsets", hint="Name one subset, or one file of subsets.")
    wanted = [tasks or []] if subsets is None else _read_subsets(subsets)
    with shared.open() as opened:
        if not is_main():
            opened.gradients(target=shared.target)
            return
        report = opened.estimate_all(wanted, target=shared.target, drop_examples=drop_examples or ())
    shared.show(report, show_estimates)


@app.command(epilog="Example: curator select --method exchange --max-tokens 20000 --exclude noise -o best.json --json")
@shared_options(
    *("project", "target", "fresh", "dry_run", "rehash", "ray"),
    *("as_json", "skip_bad_rows", "quiet", "verbose", "log_file"),
)
def select(
    shared: Shared,
    method: Annotated[str | None, typer.Option("--method", metavar="M", help=METHODS_HELP)] = None,
    k: Annotated[int | None, typer.Option("--k", min=0, help="Limit the number of tasks.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=0, help="Limit the training tokens of the selected tasks.")
    ] = None,
    max_examples: Annotated[
        int | None, typer.Option("--max-examples", min=0, help="Limit the training examples of the selected tasks.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="Set the smallest gain that adds a task, in nats. For ensemble: affinity. For a baseline: score.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="T", help="Always select this task; repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="T", help="Never select this task; repeatable.")
    ] = None,
    drop_examples: DropOption = None,
    per_example: Annotated[
        bool, typer.Option("--per-example", help="Choose examples inside tasks, within --max-tokens.")
    ] = False,
    name: Annotated[str, typer.Option("--name", help="Name the selection. [default: the method, or race]")] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the manifest to this file. [default: curator-manifest.json in the project]",
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs",
            metavar="N",
            min=1,
            help="Fine-tune up to N times on promising subsets, and select the best.",
        ),
    ] = None,
) -> None:
    """Select the tasks that help the target. Run missing stages first, and write a manifest."""
    from curator.cli.tables import show_selection

    with shared.open() as opened:
        if not is_main() and runs is None:
            opened.gradients(target=shared.target)
            return
        result = opened.select(
            target=shared.target,
            method=method,
            k=k,
            max_tokens=max_tokens,
            max_examples=max_examples,
            threshold=threshold,
            include=include or (),
            exclude=exclude or (),
            drop_examples=drop_examples or (),
            per_example=per_example,
            name=name,
            output=output,
            runs=runs,
            fresh=shared.fresh,
        )
    shared.show(result, show_selection)


@app.command(epilog="Example: curator verify --runs 20 --seeds 2 --plot verify.svg")
@shared_options(
    "project", "target", "fresh", "dry_run", "ray", "as_json", "skip_bad_rows", "quiet", "verbose", "log_file"
)
def verify(
    shared: Shared,
    runs: Annotated[
        int | None,
        typer.Option("--runs", metavar="N", min=1, help="Add N subsets. [default: as configured if none are measured]"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", min=1, help="Fine-tune N times on each subset. [default: as configured]"),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", metavar="M", help=METRIC_HELP)] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare with the selections of the other methods at equal tokens."),
    ] = False,
    selections: Annotated[
        str,
        typer.Option(
            "--selections",
            metavar="A,B",
            help="Measure or compare selections by runs with the same seeds; all, target and methods are also names.",
        ),
    ] = "",
    same_tokens: Annotated[
        bool,
        typer.Option("--same-tokens", help="Train each of --selections on as many tokens as the first."),
    ] = False,
    forgetting: Annotated[
        bool, typer.Option("--forgetting", help="Measure the loss on rows of every task, before and after each run.")
    ] = False,
    report_only: Annotated[
        bool,
        typer.Option("--report", help="Print the estimates from before the runs and the measured losses. Run nothing."),
    ] = False,
    plot: PlotOption = None,
) -> None:
    """Fine-tune on some subsets, compare with their estimates, and calibrate later estimates."""
    from curator.cli.metric_table import show_verify_with_metric
    from curator.cli.verify_tables import show_predictions
    from curator.results.plots import check_plot_file, plot_verify

    if plot is not None:
        check_plot_file(plot)
    with shared.open() as opened:
        report = opened.verify(
            target=shared.target,
            runs=runs,
            seeds=seeds,
            metric=metric,
            compare=compare,
            selections=[name.strip() for name in selections.split(",") if name.strip()],
            same_tokens=same_tokens,
            forgetting=forgetting,
            report=report_only,
            fresh=shared.fresh,
        )
    if plot is not None and is_main():
        plot_verify(report, plot)
    shared.show(report, show_predictions if report_only else show_verify_with_metric)


@app.command(epilog="Example: curator examples carry --top 5")
@shared_options("project", "target", "as_json", "skip_bad_rows", "quiet", "verbose", "log_file")
def examples(
    shared: Shared,
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Auxiliary task to read.")] = None,
    top: Annotated[
        int, typer.Option("--top", min=1, help="Print so many examples of each kind; --json prints all.")
    ] = 10,
    of: Annotated[str | None, typer.Option("--of", metavar="TASK", help="Read this auxiliary task.")] = None,
    drop_harmful: Annotated[
        int | None,
        typer.Option(
            "--drop-harmful", metavar="N", min=1, help="Write the N most harmful examples for --drop-examples."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write them to this file. [default: standard output]"),
    ] = None,
) -> None:
    """Print the examples of a task that help the target most, and those that harm it most."""
    from curator.cli.tables import show_examples

    if (task is None) == (of is None):
        raise ConfigError("name one task", hint="Use `curator examples TASK`, or --of TASK.")
    if output is not None and drop_harmful is None:
        raise ConfigError("-o needs --drop-harmful", hint="Add --drop-harmful N, or leave -o out.")
    with shared.open() as opened:
        report = opened.examples(task or of or "", target=shared.target)
    if drop_harmful is None:
        shared.show(report, lambda report: show_examples(report, top))
    elif is_main():
        _write_harmful(report, drop_harmful, output, quiet=shared.quiet)


def _write_harmful(report: "results.ExamplesReport", count: int, output: Path | None, *, quiet: bool) -> None:
    """Write the most harmful examples of a task as lines for `--drop-examples`."""
    from curator.core.files import write_whole
    from curator.core.text import clean
    from curator.data.dropped import lines_of

    found = report.most_harmful(count)
    text = lines_of((report.task, digest) for digest in found)
    if output is None:
        sys.stdout.write(text)
    else:
        try:
            write_whole(output, text.encode())
        except OSError as error:
            raise DataError(f"cannot write {output}: {error}", hint="Choose another file with -o.") from error
    if not quiet:
        fewer = f": no more than {len(found)} harm" if len(found) < count else ""
        typer.echo(clean(f"{len(found)} example{'' if len(found) == 1 else 's'} of {report.task}{fewer}"), err=True)


@app.command(epilog="Example: curator curve --plot budget.svg")
@shared_options("project", "target", "dry_run", "as_json", "skip_bad_rows", "quiet", "verbose", "log_file")
def curve(
    shared: Shared,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Print the Pareto front of several targets' losses instead.")
    ] = False,
    plot: PlotOption = None,
) -> None:
    """Print the estimated loss against training tokens, and the best subset found for each budget."""
    from curator.cli.tables import show_curve, show_pareto
    from curator.results.plots import check_plot_file, plot_curve, plot_pareto

    if plot is not None:
        check_plot_file(plot)
    if pareto:
        with shared.open() as opened:
            found = opened.pareto(target=shared.target)
        if plot is not None and is_main():
            plot_pareto(found, plot)
        shared.show(found, show_pareto)
        return
    with shared.open() as opened:
        report = opened.curve(target=shared.target)
    if plot is not None and is_main():
        plot_curve(report, plot)
    shared.show(report, show_curve)


def _read_subsets(path: Path) -> list[list[str]]:
    shape = 'Write [["a", "b"], ["c"]].'
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        subsets = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="Check the path and its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}", hint=shape) from error
    good = isinstance(subsets, list) and all(
        isinstance(subset, list) and all(isinstance(task, str) for task in subset) for subset in subsets
    )
    if not good:
        raise DataError(f"{path}: not a list of lists of task names", hint=shape)
    return subsets  # type: ignore[no-any-return]

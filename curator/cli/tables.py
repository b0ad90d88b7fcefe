"""Results as people read them, on standard output."""

import sys
from typing import TYPE_CHECKING

from curator import results
from curator.text import styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STATES = {"done": ("✓", "green"), "stale": ("~", "yellow"), "partial": ("◐", "yellow"), "missing": ("·", "dim")}


def console() -> "Console":
    """Standard output; as wide as need be when it is no terminal, so that nothing is cut off in a file."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def _table(*columns: str, numbers: tuple[str, ...] = ()) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        right = column in numbers
        table.add_column(column, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def show_check(report: results.CheckReport) -> None:
    """Tasks, sizes and problems."""
    out = console()
    numbers = ("rows", "train", "held out", "tokens", "longest", "truncated", "left out")
    table = _table("task", *numbers, numbers=numbers)
    for task in report.tasks:
        left_out = sum(count for reason, count in task.left_out.items() if reason != "validation")
        counts = (task.rows, task.examples, task.validation, task.tokens, task.longest, task.truncated, left_out)
        table.add_row(
            styled(f"{task.name} (target)" if task.target else task.name, "bold" if task.target else ""),
            *(styled(f"{count:,}" if count else "-", "" if count else "dim") for count in counts),
        )
    out.print(styled(f"{report.project}: {len(report.tasks)} tasks, model {report.model}"))
    out.print(table)
    if not report.target:
        out.print(styled("! no target is named: set `target` under [data], or pass --target", "yellow"))
    for problem in report.problems:
        out.print(styled("! ", "yellow"), styled(problem), sep="")


def show_train(report: results.TrainReport) -> None:
    """Where the meta-initialization is."""
    out = console()
    out.print(
        styled(
            f"meta-initialization: {report.trainable_parameters:,} parameters, {report.examples} examples"
            + (" (was there)" if report.cached else "")
        )
    )
    for point in report.points:
        out.print(styled(f"  {point['share']:>5.0%}  {point['folder']}", "dim"), soft_wrap=True)
    if report.unseen:
        out.print(styled(f"! has not seen {', '.join(report.unseen)}; --fresh trains on all", "yellow"))


def show_gradients(report: results.GradientsReport) -> None:
    """How many gradients are stored."""
    console().print(
        styled(
            f"{report.examples * report.points:,} gradients: {report.examples} examples at {report.points} points,"
            f" {report.projection_dim} dimensions; {report.computed} computed now"
        )
    )


def show_estimates(report: results.EstimatesReport) -> None:
    """Estimated losses, with their intervals."""
    table = _table("estimated loss", "90 % interval", "subset", numbers=("estimated loss",))
    for e in report.estimates:
        table.add_row(
            styled(f"{e.estimated_loss:.4f}", "bold"),
            styled(f"{e.estimated_loss_low:.4f} to {e.estimated_loss_high:.4f}"),
            styled(", ".join(e.subset) or "(the target alone)"),
        )
    out = console()
    out.print(styled(f"loss of {', '.join(report.target)} in nats per token (uncalibrated)"))
    out.print(table)


def show_selection(result: results.SelectionResult) -> None:
    """The selection: what is in, what it does, and what everything else would have done."""
    out = console()
    numbers = ("affinity", "± s.e.", "examples", "tokens")
    table = _table("", "task", *numbers, numbers=numbers)
    for task in sorted(result.tasks, key=lambda task: -task.affinity):
        error = task.affinity_standard_error
        table.add_row(
            styled("●", "green") if task.selected else styled("○", "dim"),
            styled(task.name, "bold" if task.selected else ""),
            styled(f"{task.affinity:+.4f}", "green" if task.affinity > 0 else "red"),
            styled("-" if error is None else f"{error:.4f}", "dim"),
            styled(f"{task.examples:,}"),
            styled(f"{task.tokens:,}"),
        )
    out.print(
        styled(
            f"{result.project}: {len(result.selected)} of {len(result.tasks)} tasks for {', '.join(result.target)},"
            f" by {result.method}",
            "bold",
        )
    )
    out.print(table)
    loss, low, high = result.estimated_loss, result.estimated_loss_low, result.estimated_loss_high
    out.print(styled("estimated loss, nats per target token (uncalibrated; 90 % interval over validation examples)"))
    out.print(styled(f"  selected     {loss:.4f}   {low:.4f} to {high:.4f}", "bold"))
    out.print(styled(f"  all tasks    {result.reference['all_tasks']:.4f}"))
    out.print(styled(f"  target only  {result.reference['target_only']:.4f}"))
    if result.manifest is not None:
        out.print(styled(f"manifest: {result.manifest}"), soft_wrap=True)


def show_export(report: results.ExportReport) -> None:
    """Files and rows."""
    out = console()
    for name, rows in report.files:
        out.print(styled(f"  {rows:>8,} rows  {name}"), soft_wrap=True)
    out.print(styled(f"{report.format}: {len(report.files)} files in {report.folder}"), soft_wrap=True)


def show_status(report: results.StatusReport) -> None:
    """Stages, selections and runs."""
    out = console()
    out.print(styled(report.project, "bold"))
    for stage in report.stages:
        mark, style = _STATES[stage.state]
        out.print(
            styled(f"  {mark} ", style),
            styled(f"{stage.stage:<10}{stage.state:<9}", style),
            styled(stage.detail),
            sep="",
        )
        for reason in stage.reasons:
            out.print(styled(f"      {reason}", "dim"), soft_wrap=True)
    if report.selections:
        out.print(styled("selections", "bold"))
        for row in report.selections:
            out.print(
                styled(
                    f"  {row['name']:<16} {row['target']:<16} {row['method']:<10} {row['loss']:.4f}  {row['created']}"
                )
            )
    if report.runs:
        out.print(styled("last runs", "bold"))
        for run in report.runs:
            out.print(styled(f"  {run['state']:<12} {run['started']}  {run['command']}"), soft_wrap=True)

"""Print reports as tables on standard output."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from curator import results
from curator.core.figures import chance, duration, fixed, is_zero, margin, signed
from curator.core.interval import is_clear
from curator.core.text import styled
from curator.results.text_plot import Series, draw

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_STATES = {
    "done": ("✓", "green"),
    "running": ("▶", "cyan"),
    "stale": ("~", "yellow"),
    "partial": ("◐", "yellow"),
    "missing": ("·", "dim"),
}


def console() -> "Console":
    """Return a console for standard output. Outside a terminal it is wide, so that files get whole lines."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def number_cell(value: float | None) -> str:
    """Write a loss or a metric, or a dash for an unknown one."""
    return "-" if value is None else fixed(value)


def help_cell(value: float, digits: int = 4, *, clear: bool = True) -> "Text":
    """Write an amount of help: green, or red if it harms. Zero as written, and an unclear amount, have no color.

    Args:
        value: Positive if it helps.
        digits: Digits after the point.
        clear: Whether noise alone cannot explain the value.
    """
    style = "dim" if not clear or is_zero(value, digits) else "green" if value > 0 else "red"
    return styled(signed(value, digits), style)


def margin_cell(value: float | None) -> str:
    """Write a standard error or half of an interval, or a dash for an unknown one."""
    return "-" if value is None else margin(value)


def table_of(*columns: str, numbers: tuple[str, ...] = ()) -> "Table":
    """Return an empty table. The columns in `numbers` are aligned to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        right = column in numbers
        table.add_column(column, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def show_train(report: results.TrainReport) -> None:
    """Print the saved adapters of the meta-initialization."""
    out = console()
    out.print(
        styled(
            f"meta-initialization: {report.trainable_parameters:,} parameters, {report.examples} examples"
            + (" (cached)" if report.cached else "")
        )
    )
    for point in report.points:
        out.print(styled(f"  {point['share']:>5.0%}  {point['folder']}", "dim"), soft_wrap=True)
    if report.unseen:
        unseen = ", ".join(report.unseen)
        out.print(styled(f"! trained without {unseen}. Pass --fresh to train on all tasks.", "yellow"))


def show_gradients(report: results.GradientsReport) -> None:
    """Print the number of stored gradients."""
    if report.captured:
        text = (
            f"gradients of {report.examples:,} examples in {report.points} segments of the training,"
            f" {report.projection_dim} dimensions; {report.computed} computed now, the others during the training"
        )
    else:
        text = (
            f"{report.examples * report.points:,} gradients: {report.examples} examples at {report.points} checkpoints,"
            f" {report.projection_dim} dimensions; {report.computed} computed now"
        )
    console().print(styled(text))


def _calibrated(subsets: int) -> str:
    return f"calibrated by {subsets} measured subsets" if subsets else "uncalibrated"


def show_estimates(report: results.EstimatesReport) -> None:
    """Print estimated losses with their intervals."""
    several = len(report.estimates) > 1
    table = table_of(
        "", "estimated loss", "90 % interval", "measured", "subset", numbers=("estimated loss", "measured")
    )
    for e in report.estimates:
        table.add_row(
            styled("≈ best" if several and e.as_good_as_best else "", "green"),
            styled(fixed(e.estimated_loss), "bold"),
            styled(f"{fixed(e.estimated_loss_low)} to {fixed(e.estimated_loss_high)}"),
            styled("-" if e.measured_loss is None else fixed(e.measured_loss)),
            styled(", ".join(e.subset) or "(the target alone)"),
        )
    out = console()
    out.print(styled(f"loss of {', '.join(report.target)} in nats per token ({_calibrated(report.calibrated_on)})"))
    out.print(table)
    if report.calibrated_on and any(e.measured_loss is not None for e in report.estimates):
        note = "A measured subset calibrates its own estimate. `curator verify` estimates each subset from the others."
        out.print(styled(note, "dim"))


def show_selection(result: results.SelectionResult) -> None:
    """Print the selection, its estimate, and the estimates of all tasks and of the target alone."""
    out = console()
    weighted = any(task.weight != 1.0 for task in result.tasks)
    numbers = ("affinity", "± s.e.", "examples", "tokens", *(("weight",) if weighted else ()))
    table = table_of("", "task", *numbers, numbers=numbers)
    for task in sorted(result.tasks, key=lambda task: -task.affinity):
        error = task.affinity_standard_error
        table.add_row(
            styled("●", "green") if task.selected else styled("○", "dim"),
            styled(task.name, "bold" if task.selected else ""),
            help_cell(task.affinity, clear=is_clear(task.affinity, error)),
            styled(margin_cell(error), "dim"),
            styled(f"{task.examples:,}"),
            styled(f"{task.tokens:,}"),
            *((styled(f"{task.weight:.2f}" if task.selected else "-"),) if weighted else ()),
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
    kind = "calibrated" if result.calibrated else "uncalibrated: run `curator verify` to measure the error"
    out.print(styled(f"estimated loss, nats per target token, with 90 % interval ({kind})"))
    measured = "" if result.measured_loss is None else f"   measured {fixed(result.measured_loss)}"
    wider = "   accounts for the choice of the subset" if result.interval_accounts_for_selection else ""
    out.print(styled(f"  selected     {fixed(loss)}   {fixed(low)} to {fixed(high)}{measured}{wider}", "bold"))
    if result.dropped_examples:
        count = len(result.dropped_examples)
        out.print(styled(f"  dropped      {count:,} {'example' if count == 1 else 'examples'}"))
    words_of = {"all_tasks": "all tasks  ", "target_only": "target only", "with_dropped": "with them  "}
    for name, words in words_of.items():
        if name not in result.reference:
            continue
        same = "   indistinguishable from the selection" if name in result.indistinguishable else ""
        out.print(styled(f"  {words}  {fixed(result.reference[name])}{same}"))
    if result.race is not None:
        _print_race(out, result.race)
    if result.manifest is not None:
        out.print(styled(f"manifest: {result.manifest}"), soft_wrap=True)


def _print_race(out: "Console", race: results.RaceResult) -> None:
    runner_up = "-" if race.runner_up is None else ", ".join(race.runner_up) or "(the target alone)"
    rows = [
        ("runs", f"{race.runs}"),
        ("probability that the selection is the best candidate", chance(race.probability_best)),
        ("measured loss above the lowest of all measured subsets", fixed(race.regret)),
        ("runner-up", runner_up),
    ]
    if race.measured_metric is not None:
        words = (
            f"{fixed(race.measured_metric)}, {fixed(race.metric_regret or 0.0)} from the best of all measured subsets"
        )
        rows.insert(2, (f"decided by {race.metric}", words))
    out.print(styled("race", "bold"))
    for name, value in rows:
        out.print(styled(f"  {name}: {value}"), soft_wrap=True)


def show_examples(report: results.ExamplesReport, top: int) -> None:
    """Print the most helpful and the most harmful examples with their places."""
    out = console()
    helping = [e for e in report.examples if e.gain > 0][:top]
    harming = [e for e in reversed(report.examples) if e.gain < 0][:top]
    kind = _calibrated(report.calibrated_on)
    kept = [e for e in report.examples if not e.dropped]
    count, total = len(kept), sum(e.gain for e in kept)
    helpful = sum(e.gain > 0 for e in kept)
    effect = f"{'change' if is_zero(total) else 'raise' if total < 0 else 'lower'} it by {fixed(abs(total))}"
    left = len(report.examples) - count
    words = f" The selection drops {left:,} other{'' if left == 1 else 's'}." if left else ""
    out.print(
        styled(
            f"{report.task}: {helpful:,} of {count:,} examples lower the loss of {', '.join(report.target)}."
            f" All {count:,} together {effect} nats ({kind}, to first order).{words}"
        ),
        soft_wrap=True,
    )
    for title, rows in (("most helpful", helping), ("most harmful", harming)):
        table = table_of("mnat", "place", title, numbers=("mnat",))
        for e in rows:
            place = f"{Path(e.file).name}:{e.line}" if e.line else f"{Path(e.file).name} row {e.row}"
            text = ("(dropped) " if e.dropped else "") + " ".join(e.text.split())
            table.add_row(
                help_cell(1000 * e.gain, 3),
                styled(place, "dim"),
                styled(text, limit=160),
            )
        out.print(table)


def show_curve(report: results.CurveReport) -> None:
    """Print the estimated loss against tokens as a plot, and the best subset found for each budget."""
    out = console()
    names, kind = ", ".join(report.target), _calibrated(report.calibrated_on)
    out.print(styled(f"{names}: estimated loss against training tokens ({kind})"))
    others = [(float(p.tokens), p.estimated_loss) for p in report.points if not p.on_front]
    front = [(float(p.tokens), p.estimated_loss) for p in report.front]
    series = [Series(others, mark="·"), Series(front), Series(front, mark="●")]
    picture = draw(series, min(out.width, 72), 16, x_label="tokens")
    for line in picture.lines:
        out.print(styled(line), soft_wrap=True)
    numbers = ("tokens", "estimated loss", "measured")
    table = table_of(*numbers, "90 % interval", "subset", numbers=numbers)
    for p in report.front:
        table.add_row(
            styled(f"{p.tokens:,}"),
            styled(fixed(p.estimated_loss), "bold"),
            styled("-" if p.measured_loss is None else fixed(p.measured_loss)),
            styled(f"{fixed(p.estimated_loss_low)} to {fixed(p.estimated_loss_high)}"),
            styled(", ".join(p.subset) or "(the target alone)"),
        )
    out.print(table)


def show_pareto(report: results.ParetoReport) -> None:
    """Print the Pareto front of the targets' losses as a plot and a table."""
    out = console()
    first, second = report.target[:2]
    kind = _calibrated(report.calibrated_on)
    out.print(styled(f"Pareto front of the losses of {', '.join(report.target)} in nats per token ({kind})"))
    others = [(p.losses[first], p.losses[second]) for p in report.points if not p.on_front]
    front = [(p.losses[first], p.losses[second]) for p in report.front]
    picture = draw([Series(others, mark="·"), Series(front, mark="●")], min(out.width, 72), 16, x_label=first)
    for line in picture.lines:
        out.print(styled(line), soft_wrap=True)
    best = min(report.points, key=lambda p: p.estimated_loss)
    numbers = (*report.target, "weighted", "tokens")
    table = table_of("", *numbers, "subset", numbers=numbers)
    for p in report.front:
        table.add_row(
            styled("best weighted" if p is best else "", "green"),
            *(styled(fixed(p.losses[name]), "bold") for name in report.target),
            styled(fixed(p.estimated_loss)),
            styled(f"{p.tokens:,}", "dim"),
            styled(", ".join(p.subset) or "(the targets alone)"),
        )
    out.print(table)


def show_export(report: results.ExportReport) -> None:
    """Print rows and tokens of each task, and notes, before the export writes anything."""
    out = console()
    numbers = ("rows", "tokens", "weight")
    table = table_of("task", *numbers, "file", numbers=numbers)
    for task in report.tasks:
        about = "" if task.tokens_are_exact else "about "
        table.add_row(
            styled(f"{task.name} (target)" if task.target else task.name, "bold" if task.target else ""),
            styled(f"{task.rows:,}"),
            styled(f"{about}{task.tokens:,}"),
            styled(f"{task.weight:g}", "" if task.weight != 1.0 else "dim"),
            styled(task.file or "-", "dim"),
        )
    for task in report.tasks:
        if task.validation:
            held_out = styled(f"{task.name} (held out)", "dim")
            table.add_row(held_out, styled(f"{task.validation_rows:,}"), "", "", styled(task.validation, "dim"))
    out.print(table)
    about = "" if all(task.tokens_are_exact for task in report.tasks) else "about "
    total = (
        f"{sum(task.rows for task in report.tasks):,} rows, {about}{sum(task.tokens for task in report.tasks):,} tokens"
    )
    out.print(styled(f"{report.format}: {total}; written as {report.form}"))
    for note in report.notes:
        out.print(styled("! ", "yellow"), styled(note), sep="", soft_wrap=True)


def show_exported(report: results.ExportReport, *, written: bool) -> None:
    """Print the folder of an export and the command that trains on it."""
    out = console()
    if not written:
        out.print(styled("dry run: nothing is written"))
        return
    out.print(styled(f"{report.format}: {len(report.files)} data files in {report.folder}"), soft_wrap=True)
    if report.command:
        out.print(styled(f"next: cd {shlex.quote(str(report.folder))} && {report.command}"), soft_wrap=True)


def show_apply(report: results.ApplyReport) -> None:
    """Print the tasks of an applied selection, its measured loss, and the adapter's folder."""
    out = console()
    table = table_of("task", "examples", "weight", numbers=("examples", "weight"))
    for task in report.tasks:
        table.add_row(
            styled(f"{task.name} (target)" if task.target else task.name, "bold" if task.target else ""),
            styled(f"{task.examples:,}"),
            styled(f"{task.weight:.2f}"),
        )
    words = "cached" if report.cached else f"trained in {duration(report.seconds)}"
    out.print(styled(f"{report.name}, for {', '.join(report.target)}: seed {report.seed}, {words}", "bold"))
    out.print(table)
    low, high = report.estimated_loss_low, report.estimated_loss_high
    out.print(styled("loss, nats per target token"))
    out.print(styled(f"  measured   {fixed(report.measured_loss)}", "bold"))
    out.print(styled(f"  estimated  {fixed(report.estimated_loss)}   {fixed(low)} to {fixed(high)}"))
    out.print(styled(f"adapter: {report.adapter}"), soft_wrap=True)
    out.print(styled(f"base model: {report.base_model}", "dim"), soft_wrap=True)
    if report.manifest is not None:
        out.print(styled(f"measured loss written into {report.manifest}", "dim"), soft_wrap=True)


def show_notes(report: results.NotesReport) -> None:
    """Print notes with what they are about."""
    out = console()
    for entry in report.notes:
        about = f"{entry.kind} {entry.name}" + (f" {entry.sha256[:12]}" if entry.sha256 else "")
        out.print(styled(about, "bold"), styled(f"  {entry.text}"), sep="", soft_wrap=True)
    if not report.notes:
        out.print(styled("no notes", "dim"))


def show_selections(report: results.SavedSelectionsReport) -> None:
    """Print saved selections, then the deleted ones."""
    out = console()
    numbers = ("tasks", "estimated", "measured")
    table = table_of("selection", "target", "method", *numbers, "note", numbers=numbers)
    for entry in report.selections:
        measured = "-" if entry.measured_loss is None else fixed(entry.measured_loss)
        table.add_row(
            styled(entry.name, "dim" if entry.deleted else "bold"),
            styled(entry.target),
            styled("deleted" if entry.deleted else entry.method, "dim" if entry.deleted else ""),
            styled(entry.tasks),
            styled(fixed(entry.estimated_loss)),
            styled(measured),
            styled(entry.note),
        )
    out.print(table if report.selections else styled("no selections", "dim"))


def show_costs(report: results.CostReport) -> None:
    """Print the costs of each stage, and their sum."""
    out = console()
    numbers = ("steps", "tokens", "time", "memory")
    table = table_of("stage", "state", *numbers, numbers=numbers)
    for stage in report.stages:
        about = "" if stage.exact else "about "
        table.add_row(
            styled(stage.stage, "dim" if stage.cached else "bold"),
            styled("cached" if stage.cached else "to do", "dim" if stage.cached else ""),
            styled(f"{about}{stage.steps:,}" if stage.steps else "-"),
            styled(f"{about}{stage.tokens:,}" if stage.tokens else "-"),
            styled("-" if stage.cached else duration(stage.seconds)),
            styled("-" if stage.cached else f"{stage.peak_bytes / 1e9:.1f} GB"),
        )
    out.print(table)
    out.print(styled(f"about {duration(report.seconds)} on {report.machine}"))
    if report.workers > 1:
        out.print(styled(f"with --ray, up to {report.workers:,} workers can share the work", "dim"))
    out.print(styled(f"results: {report.folder}", "dim"), soft_wrap=True)
    out.print(styled("dry run: nothing is trained"))


def show_status(report: results.StatusReport) -> None:
    """Print stages, selections and jobs."""
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
                    f"  {row['name']:<16} {row['target']:<16} {row['method']:<10} {fixed(row['loss'])}"
                    f"  {row['created']}"
                )
            )
    if report.runs:
        out.print(styled("last jobs", "bold"))
        for run in report.runs:
            out.print(styled(f"  {run['state']:<12} {run['started']}  {run['command']}"), soft_wrap=True)

"""Print the metric of verified runs and of an applied selection."""

import math

from curator import results
from curator.cli.tables import console, margin_cell, number_cell, show_apply, table_of
from curator.cli.verify_tables import show_verify
from curator.core.figures import correlation, fixed, margin, signed
from curator.core.metric_name import LOSS
from curator.core.text import styled

_ALONE = "(the target alone)"


def show_verify_with_metric(report: results.VerifyReport) -> None:
    """Print the report on the losses, then the metric of each subset and what it says about the loss."""
    show_verify(report)
    metric = report.metric
    if metric is None or (metric.name == LOSS and metric.test is None):
        return
    out, tested = console(), metric.test is not None
    better = "higher is better" if metric.higher_is_better else "lower is better"
    out.print(styled(f"{metric.name}, {better}, on the held-out rows", "bold"))
    numbers = ("metric", "±", "estimated", "loss", "test metric", "test loss")
    shown = numbers if tested else numbers[:4]
    table = table_of(*shown, "subset", numbers=numbers)
    for words, cells in _rows(report):
        table.add_row(*(styled(cell) for cell in cells[: len(shown)]), styled(words))
    out.print(table)
    for name, value, note in _lines(metric):
        out.print(styled(f"  {name:<28}{value:>8}  "), styled(note, "dim"), sep="", soft_wrap=True)
    if report.comparison is not None:
        _print_comparison(report.comparison)
    out.print(styled("  ±: standard error over the held-out rows; metric and losses: means over seeds", "dim"))


def _print_comparison(methods: tuple[results.ComparedMethod, ...]) -> None:
    """Print the metric and the losses of the compared selections."""
    numbers = ("metric", "loss", "test metric", "test loss")
    table = table_of("method", *numbers, "subset", numbers=numbers)
    for m in methods:
        cells = (m.metric, m.measured_loss, m.test_metric, m.test_loss)
        words = styled(", ".join(m.selected) or _ALONE)
        table.add_row(styled(m.method), *(styled(number_cell(cell)) for cell in cells), words)
    console().print(table)


def show_apply_with_metric(report: results.ApplyReport) -> None:
    """Print an applied selection, and its metric next to that of other models."""
    show_apply(report)
    metric = report.metric
    if metric is None:
        return
    out = console()
    numbers = ("runs", "metric", "±", "loss", "test metric", "test loss")
    table = table_of(f"{metric.name}", *numbers, numbers=numbers)
    several = False
    for words, found in (
        ("this adapter", metric.applied),
        ("before training", metric.before),
        ("all tasks", metric.all_tasks),
        ("target alone", metric.target_only),
    ):
        if found is not None:
            others = (number_cell(cell) for cell in (found.loss, found.test_value, found.test_loss))
            several |= found.runs > 1
            cells = (str(found.runs), number_cell(found.value), margin_cell(found.standard_error), *others)
            table.add_row(styled(words), *(styled(cell) for cell in cells))
    out.print(table)
    if several:
        # One run differs from a mean by the noise between seeds, which ± does not contain.
        note = f"this adapter is one run with seed {report.seed}; other lines with more runs are means over their seeds"
        out.print(styled(f"  {note}", "dim"), soft_wrap=True)


def show_adapters(report: results.AdaptersReport) -> None:
    """Print applied selections, one after the other."""
    for number, adapter in enumerate(report.adapters):
        if number:
            console().print()
        show_apply_with_metric(adapter)


def _rows(report: results.VerifyReport) -> list[tuple[str, list[str]]]:
    """Return the words and the cells of each line: the measured subsets, the best metric first, then the base model."""
    metric = report.metric
    assert metric is not None
    runs: dict[tuple[str, ...], list[results.VerifiedRun]] = {}
    for run in report.runs:
        if run.metric is not None:
            runs.setdefault(run.subset, []).append(run)
    lines = []
    for subset, of in runs.items():
        mean = _mean([run.metric for run in of])
        order = mean if mean is not None else math.nan
        cells = [
            number_cell(mean),
            margin_cell(_mean([run.metric_error for run in of])),
            number_cell(of[0].metric_estimate),
            number_cell(_mean([run.measured_loss for run in of])),
            number_cell(_mean([run.test_metric for run in of])),
            number_cell(_mean([run.test_loss for run in of])),
        ]
        lines.append((-order if metric.higher_is_better else order, ", ".join(subset) or _ALONE, cells))
    found = [(words, cells) for _, words, cells in sorted(lines, key=lambda line: line[0])]
    if metric.before is not None:
        b = metric.before
        cells = [number_cell(b.value), margin_cell(b.standard_error), "-", number_cell(b.loss)]
        found.append(("(before training)", [*cells, number_cell(b.test_value), number_cell(b.test_loss)]))
    return found


def _lines(metric: results.MetricReport) -> list[tuple[str, str, str]]:
    """Return name, value and note of each summary line."""
    lines = []
    if metric.name != LOSS:
        known = metric.low is not None and metric.high is not None
        interval = f", 90 % interval {correlation(metric.low)} to {correlation(metric.high)}" if known else ""
        words = f"over {metric.subsets} subsets{interval} (Spearman; Fisher's transformation)"
        value = metric.rank_correlation_with_loss
        lines.append(("rank correlation with loss", correlation(value), words))
        lines.append(("noise between seeds", number_cell(metric.seed_noise), "standard deviation of one run"))
        lines.append(("spread between subsets", number_cell(metric.spread), "standard deviation without that noise"))
        if metric.error is not None and metric.constant_error is not None:
            words = f"each subset estimated from the others; a constant guess: {fixed(metric.constant_error)}"
            lines.append(("error of its estimates", number_cell(metric.error), words))
    if metric.test is not None:
        words = f"loss on the test rows {fixed(metric.test.test_loss)}, on the validation rows"
        words += f" {fixed(metric.test.validation_loss)}, for the subset of the lowest validation loss"
        error = metric.test.standard_error
        shown = signed(metric.test.flattery)
        if error is not None:
            words = f"with a standard error of {margin(error)}; {words}"
        lines.append(("flattery of the choice", shown, words))
    return lines


def _mean(values: "list[float | None] | list[float]") -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

"""Print the report of `verify` as plots and tables on standard output."""

from typing import TYPE_CHECKING

from curator import results
from curator.cli.tables import console, margin_cell, number_cell, table_of
from curator.core.figures import correlation, duration, fixed, is_zero, margin, percent, signed, signed_percent
from curator.core.text import styled
from curator.results.text_plot import Series, draw

if TYPE_CHECKING:
    from rich.console import Console


def show_verify(report: results.VerifyReport) -> None:
    """Print measured and estimated losses as a plot and a table, and the accuracy of the estimates."""
    out = console()
    if report.runs:
        _print_accuracy(out, report)
    if report.comparison is not None:
        _print_comparison(out, report.comparison)
    if report.dropping is not None:
        _print_dropping(out, report.dropping)
    if report.selections is not None:
        _print_selections(out, report.selections, report.differences or ())
    if report.forgetting is not None:
        _print_forgetting(out, report.forgetting)


def _print_accuracy(out: "Console", report: results.VerifyReport) -> None:
    from curator.estimate.calibration import LEAST_ERRORS

    numbers = ("estimated", "measured", "seeds", "error")
    table = table_of("", "90 % interval", *numbers, "subset", numbers=numbers)
    for p in sorted(report.points(), key=lambda p: p.measured_loss):
        low, high = p.estimated_loss_low, p.estimated_loss_high
        inside = low <= p.measured_loss <= high
        seeds = sum(run.subset == p.subset for run in report.runs)
        table.add_row(
            styled("✓" if inside else "✗", "green" if inside else "red"),
            styled(f"{fixed(low)} to {fixed(high)}", "dim"),
            styled(fixed(p.estimated_loss)),
            styled(fixed(p.measured_loss), "bold"),
            styled(f"{seeds}", "dim"),
            styled(signed_percent(p.estimated_loss / p.measured_loss - 1) if p.measured_loss else "-"),
            styled(", ".join(p.subset) or "(the target alone)"),
        )
    out.print(styled(f"{', '.join(report.target)}: measured against estimated loss, nats per target token", "bold"))
    _print_scatter(out, report)
    out.print(table)
    kind = "each subset calibrated by the others" if report.calibrated else "uncalibrated: too few measured subsets"
    # Intervals of n subsets come from the errors of n − 1.
    has_errors = not report.calibrated or report.subsets > LEAST_ERRORS
    widths = kind if has_errors else "intervals of uncalibrated estimates: too few measured subsets"
    rows = [
        ("error of the estimates", _percent(report.relative_error, 2), kind),
        ("error of a constant guess", _percent(report.constant_relative_error, 2), "the mean measured loss"),
        ("noise between seeds", _percent(report.seed_noise), "standard deviation of one run"),
        ("rank correlation", correlation(report.spearman), "Spearman"),
        ("inside the 90 % interval", _percent(report.interval_coverage, 0), widths),
        ("speed-up", "-" if report.speedup is None else f"{report.speedup:,.0f}×", _speedup(report)),
    ]
    for name, value, note in rows:
        out.print(styled(f"  {name:<26}{value:>8}  "), styled(note, "dim"), sep="", soft_wrap=True)


def show_predictions(report: results.VerifyReport) -> None:
    """Print the estimate from before each run, then the measured loss, in the order of the estimates."""
    out = console()
    numbers = ("estimated before", "calibrated on", "measured", "error", "seed")
    table = table_of("", *numbers[:1], "90 % interval", *numbers[1:], "subset", numbers=numbers)
    known = [run for run in report.runs if run.estimated_before is not None]
    for run in sorted(known, key=lambda run: run.estimated_before or 0.0):
        before, low, high = run.estimated_before, run.estimated_before_low, run.estimated_before_high
        assert before is not None
        assert low is not None
        assert high is not None
        inside = low <= run.measured_loss <= high
        table.add_row(
            styled("✓" if inside else "✗", "green" if inside else "red"),
            styled(fixed(before), "bold"),
            styled(f"{fixed(low)} to {fixed(high)}", "dim"),
            styled(f"{run.calibrated_on_before}", "dim"),
            styled(fixed(run.measured_loss), "bold"),
            styled(signed_percent(before / run.measured_loss - 1) if run.measured_loss else "-"),
            styled(f"{run.seed}", "dim"),
            styled(", ".join(run.subset) or "(the target alone)"),
        )
    names = ", ".join(report.target)
    out.print(styled(f"{names}: estimates from before the runs, then measured losses, nats per target token", "bold"))
    found = report.predictions
    if found is None:
        out.print(styled("no run has an estimate from before: an older curator or `curator apply` made the runs"))
        return
    out.print(table)
    rows = [
        ("error of the estimates", _percent(found.relative_error, 2), f"{found.runs} runs, each estimated before it"),
        ("rank correlation", correlation(found.spearman), "Spearman"),
        ("inside the 90 % interval", _percent(found.interval_coverage, 0), "intervals from before the runs"),
    ]
    for name, value, note in rows:
        out.print(styled(f"  {name:<26}{value:>8}  "), styled(note, "dim"), sep="", soft_wrap=True)
    left = len(report.runs) - found.runs
    if left:
        words = "1 other run has" if left == 1 else f"{left} other runs have"
        out.print(styled(f"  {words} no estimate from before", "dim"))
    if report.forgetting is not None:
        _print_forgetting(out, report.forgetting)


def _print_dropping(out: "Console", found: results.DroppingReport) -> None:
    measured = f"measured {signed(found.measured_difference)}"
    if found.measured_noise is not None:
        is_noise = abs(found.measured_difference) <= found.measured_noise
        measured += f" ± {margin(found.measured_noise)} ({'within' if is_noise else 'more than'} the noise of seeds)"
    rows = "1 dropped row" if found.dropped_examples == 1 else f"{found.dropped_examples:,} dropped rows"
    out.print(styled(f"the selection without its {rows}", "bold"))
    words = f"  estimated {signed(found.estimated_difference)} ± {margin(found.estimated_noise)}, {measured}"
    out.print(styled(words), soft_wrap=True)
    if found.metric is not None:
        out.print(styled(f"  metric {fixed(found.metric)}, with these rows {number_cell(found.metric_with_dropped)}"))


def _print_comparison(out: "Console", methods: tuple[results.ComparedMethod, ...]) -> None:
    numbers = ("tasks", "tokens", "left", "estimated", "measured", "±")
    table = table_of("", "method", *numbers, "subset", numbers=numbers)
    for m in sorted(methods, key=lambda m: m.measured_loss):
        spread = (max(m.measured_losses) - min(m.measured_losses)) / 2
        table.add_row(
            styled({True: "≈ best", False: "", None: "?"}[m.as_good_as_best], "green" if m.as_good_as_best else "dim"),
            styled(m.method, "bold" if m is methods[0] else ""),
            styled(f"{len(m.selected)}"),
            styled(f"{m.tokens:,}"),
            styled("-" if m.tokens_left is None else f"{m.tokens_left:,}", "dim"),
            styled(fixed(m.estimated_loss)),
            styled(fixed(m.measured_loss), "bold"),
            styled(margin(spread) if len(m.measured_losses) > 1 else "-", "dim"),
            styled(", ".join(m.selected) or "(the target alone)"),
        )
    title = f"selections of other methods within the tokens of the current selection ({methods[0].method})"
    out.print(styled(title, "bold"))
    out.print(table)
    notes = (
        "estimated: calibrated without the subset; measured: mean over seeds ± half of their range",
        "≈ best: within the seed noise of the best at 90 % (Student's t, pooled noise)",
        "every subset is trained without the weights of kmm and mixtures",
    )
    for note in notes:
        out.print(styled(f"  {note}", "dim"), soft_wrap=True)


def _print_selections(
    out: "Console", selections: tuple[results.ComparedSelection, ...], differences: tuple[results.PairedDifference, ...]
) -> None:
    """Print the losses of the selections, their metric and test part if measured, and the differences of each pair."""
    has_metric, tested = (any(getattr(one, n) is not None for one in selections) for n in ("metric", "test_loss"))
    numbers = ["tasks", "tokens trained", "epochs", "seeds", "measured", "90 % interval"]
    numbers += ["metric", "interval", "± rows"] if has_metric else []
    numbers += ["test loss", "test metric"][: 1 + has_metric] if tested else []
    table = table_of("selection", *numbers, "subset", numbers=tuple(numbers))
    for one in sorted(selections, key=lambda one: one.measured_loss):
        cells = [f"{len(one.selected)}", f"{one.tokens_trained:,}", f"{one.epochs:.3g}", f"{len(one.seeds)}"]
        cells += [fixed(one.measured_loss), _ends(one.measured_low, one.measured_high)]
        if has_metric:
            cells += [number_cell(one.metric), _ends(one.metric_low, one.metric_high), margin_cell(one.metric_error)]
        if tested:
            cells += [number_cell(one.test_loss), number_cell(one.test_metric)][: 1 + has_metric]
        words = styled(", ".join(one.selected) or "(the target alone)")
        table.add_row(styled(one.name, "bold"), *(styled(cell) for cell in cells), words)
    out.print(styled("selections, measured with the same seeds", "bold"))
    out.print(table)
    pairs = table_of("difference", "of", "value", "90 % interval", "seeds", "", numbers=("value", "seeds"))
    for pair in differences:
        kinds = [("loss, nats", pair.difference, pair.difference_low, pair.difference_high)]
        if pair.metric_difference is not None:
            ends = pair.metric_difference_low, pair.metric_difference_high
            kinds.append(("metric", pair.metric_difference, *ends))
        for kind, value, low, high in kinds:
            known = low is not None and high is not None
            differs = known and (low > 0 or high < 0)  # type: ignore[operator]
            pairs.add_row(
                styled(f"{pair.first} − {pair.second}"),
                styled(kind, "dim"),
                styled(signed(value), "bold"),
                styled(_range(low, high) or _unknown(pair.seeds), "dim"),
                styled(f"{pair.seeds}", "dim"),
                styled("" if not known else "differs" if differs else "noise", "green" if differs else "dim"),
            )
    out.print(pairs)
    notes = ["the mean difference of runs with the same seed, with Student's interval over seeds"]
    notes += ["± rows: standard error over the held-out rows, which all runs share"] if has_metric else []
    for note in notes:
        out.print(styled(f"  {note}", "dim"), soft_wrap=True)


def _ends(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{fixed(low)} to {fixed(high)}"


def _print_forgetting(out: "Console", losses: tuple[results.ForgottenTask, ...]) -> None:
    """Print one column for each run and one row for each task: the change of the task's loss."""
    runs = list(dict.fromkeys((one.subset, one.seed) for one in losses))
    by_place = {(one.task, (one.subset, one.seed)): one for one in losses}
    labels = [f"run {number}" for number in range(1, len(runs) + 1)]
    table = table_of("task", "base model", *labels, numbers=("base model", *labels))
    for task in dict.fromkeys(one.task for one in losses):
        there = [by_place.get((task, run)) for run in runs]
        base = next(one.before for one in there if one is not None)
        cells = []
        for one in there:
            change = 0.0 if one is None else one.after - one.before
            mark = "" if one is None else "*" if not one.held_out else ""
            style = "dim" if one is None or is_zero(change) else "red" if change > 0 else "green"
            cells.append(styled("-" if one is None else f"{signed(change)}{mark}", style))
        table.add_row(styled(task), styled(fixed(base), "dim"), *cells)
    out.print(styled("change of each task's loss by each run, nats per token: positive is forgotten", "bold"))
    out.print(table)
    for label, (subset, seed) in zip(labels, runs, strict=True):
        out.print(styled(f"  {label}: seed {seed}, {', '.join(subset) or '(the target alone)'}", "dim"), soft_wrap=True)
    if any(not one.held_out for one in losses):
        out.print(styled("  *: the run trained on these rows, because the task has no held-out rows", "dim"))


def _percent(share: float | None, digits: int = 2) -> str:
    return "-" if share is None else percent(share, digits)


def _speedup(report: results.VerifyReport) -> str:
    if report.speedup is None or report.seconds_estimating is None or report.speedup_100 is None:
        return "unknown: an older curator recorded no time for meta-training or gradients"
    return (
        f"at {report.subsets_estimated:,} subsets, {report.speedup_100:,.0f}× at 100; estimating took"
        f" {duration(report.seconds_estimating)}, these {len(report.runs)} runs {duration(report.seconds_fine_tuning)}"
    )


def _print_scatter(out: "Console", report: results.VerifyReport) -> None:
    points = [(p.estimated_loss, p.measured_loss) for p in report.points()]
    if len(points) < 2:
        return
    every = [loss for point in points for loss in point]
    edges = [(min(every), min(every)), (max(every), max(every))]
    series = [Series(edges, style="dim"), Series(points, style="bold green", mark="●")]
    picture = draw(series, min(out.width, 72), 18, x_label="estimated")
    for line in picture.lines:
        out.print(styled(line), soft_wrap=True)


def _unknown(seeds: int) -> str:
    """Say why the interval of a difference is not known."""
    return "unknown: needs 2 common seeds" if seeds < 2 else "unknown: every seed has this difference"


def _range(low: float | None, high: float | None) -> str:
    """Write an interval of differences; "" if it is not known."""
    return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"

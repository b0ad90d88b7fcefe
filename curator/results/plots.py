"""Write plots as SVG, PNG or PDF files with matplotlib. The file name decides the format."""

import io
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from curator import results
from curator.core.errors import ConfigError, DataError, missing_extra
from curator.core.figures import correlation, percent
from curator.core.files import write_whole
from curator.core.text import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = (".svg", ".png", ".pdf")
# Metadata with the time of writing. Without it, the same plot gives the same bytes.
_TIMELESS = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def check_plot_file(path: Path) -> None:
    """Check that a plot can be written, before other work starts.

    Raises:
        ConfigError: The suffix of the file is unknown, its folder is missing, or matplotlib is not installed.
    """
    if path.suffix.lower() not in _KINDS:
        raise ConfigError(f"unknown plot format: {path}", hint=f"Name a file that ends in {', '.join(_KINDS)}.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"no such folder: {path.parent}", hint="Create the folder, or name another one.")
    _require_matplotlib()


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_extra("drawing a plot", "matplotlib", "plot") from error


def plot_verify(report: results.VerifyReport, path: Path) -> None:
    """Draw measured against estimated losses. Each subset is a point with its interval and the range of its seeds.

    Raises:
        DataError: The report has no run on whole tasks, or the file cannot be written.
    """
    import numpy as np

    points = report.points()
    if report.relative_error is None:
        raise DataError("no run on whole tasks to draw", hint="Run `curator verify` without --selections first.")
    figure = _figure(5.0, 5.0)
    axes = figure.add_subplot()
    estimated, measured = np.array([(p.estimated_loss, p.measured_loss) for p in points]).T
    ends = np.array([(p.estimated_loss_low, p.estimated_loss_high) for p in points], dtype=np.float64)
    across = np.nan_to_num(np.abs(ends.T - estimated))
    up = np.abs(np.array([(p.lowest_measured, p.highest_measured) for p in points]).T - measured)
    edges = [min(estimated.min(), measured.min()), max(estimated.max(), measured.max())]
    axes.plot(edges, edges, color="0.6", linewidth=1, label="equal")
    axes.errorbar(estimated, measured, xerr=across, yerr=up, fmt="o", markersize=4, elinewidth=0.8, alpha=0.8)
    axes.set_xlabel("estimated loss" + ("" if report.calibrated else " (uncalibrated)") + ", 90 % interval")
    axes.set_ylabel("measured loss, mean and range over seeds")
    rank = "" if report.spearman is None else f", Spearman {correlation(report.spearman)}"
    axes.set_title(f"{_names(report.target)}: error {percent(report.relative_error, 2)}{rank}", parse_math=False)
    _save(figure, path)


def plot_curve(report: results.CurveReport, path: Path) -> None:
    """Draw estimated loss against training tokens, with intervals, the Pareto front and measured losses.

    Raises:
        DataError: The file cannot be written.
    """
    figure = _figure(7.0, 4.5)
    axes = figure.add_subplot()
    front = report.front
    tokens = [p.tokens for p in front]
    axes.fill_between(
        tokens, [p.estimated_loss_low for p in front], [p.estimated_loss_high for p in front], alpha=0.2, linewidth=0
    )
    axes.plot(
        [p.tokens for p in report.points], [p.estimated_loss for p in report.points], ".", color="0.6", label="other"
    )
    axes.step(tokens, [p.estimated_loss for p in front], where="post", marker="o", markersize=4, label="best")
    measured = [(p.tokens, p.measured_loss) for p in report.points if p.measured_loss is not None]
    if measured:
        axes.plot(*zip(*measured, strict=True), "x", color="C3", label="measured")
    axes.set_xlabel("training tokens of the auxiliary tasks")
    axes.set_ylabel("estimated loss" + ("" if report.calibrated_on else " (uncalibrated)"))
    axes.set_title(_names(report.target), parse_math=False)
    axes.legend()
    _save(figure, path)


def plot_pareto(report: results.ParetoReport, path: Path) -> None:
    """Draw the losses of each pair of targets, with the Pareto front of all targets.

    Raises:
        DataError: The file cannot be written.
    """
    pairs = list(combinations(report.target, 2))
    across = min(len(pairs), 3)
    down = -(-len(pairs) // across)
    figure = _figure(4.5 * across, 4.2 * down)
    for number, (first, second) in enumerate(pairs, start=1):
        axes = figure.add_subplot(down, across, number)
        for chosen, label, style in ((False, "other", "."), (True, "front", "o")):
            points = [p.losses for p in report.points if p.on_front == chosen]
            color = "C0" if chosen else "0.6"
            axes.plot([p[first] for p in points], [p[second] for p in points], style, color=color, label=label)
        axes.set_xlabel(f"estimated loss of {_names([first])}", parse_math=False)
        axes.set_ylabel(f"estimated loss of {_names([second])}", parse_math=False)
        axes.legend()
    _save(figure, path)


def _names(names: Sequence[str]) -> str:
    """Return names for a title. A control character would make an SVG file unreadable."""
    return clean(", ".join(names), limit=60)


def _figure(width: float, height: float) -> "Figure":
    """Return a figure of a size in inches that needs no display."""
    _require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", path: Path) -> None:
    import matplotlib as mpl

    kind, picture = path.suffix.lower(), io.BytesIO()
    # A fixed salt makes the ids in an SVG file, and so its bytes, the same for the same plot.
    with mpl.rc_context({"svg.hashsalt": "curator", "svg.fonttype": "none"}):
        figure.savefig(picture, format=kind[1:], dpi=150, metadata=_TIMELESS.get(kind))
    try:
        write_whole(path, picture.getvalue())
    except OSError as error:
        raise DataError(f"cannot write plot {path}: {error}", hint="Choose another file.") from error

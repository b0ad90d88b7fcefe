"""Lines about one job: state, speed, stages and command. Lines about the load of the machine."""

import os
import shlex
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from curator.core.figures import percent, span
from curator.results.text_plot import sparkline
from tui.background.machine import Machine
from tui.background.run_watcher import JobView
from tui.widgets import numbers
from tui.widgets.job_log import fold
from tui.widgets.job_rows import GLYPHS, one_line, share_of
from tui.widgets.lines import Line, Part, fit, spread, width_of

if TYPE_CHECKING:
    from curator.core.config import Config

_CHAIN = {"train": "train", "gradients": "gradients", "select": "select", "verify": "verify"}
"""The last stage of each command that runs all stages before it."""
# `curator verify` needs these stages too. They are usually cached, and then the log omits them.
_UNSEEN = {"verify": ("estimate", "select")}
_HISTORY = 20

History = dict[str, deque[float]]
"""The last readings of the machine by name: shares from 0 to 1, or MB per second for the disk."""


def command_of(view: JobView) -> str:
    """Return the command for a shell."""
    arguments = view.job.arguments
    return view.job.command if arguments is None else shlex.join(["curator", *arguments])


def outlives_terminal(view: JobView) -> bool:
    """Return whether a job survives the end of its terminal: it runs here, and leads its own process session."""
    if view.job.state != "running" or view.job.pid <= 0 or view.job.host not in ("", socket.gethostname()):
        return False
    try:
        return os.getsid(view.job.pid) == view.job.pid
    except OSError:
        return False


def rule(left: Sequence[Part], right: str, width: int) -> Line:
    """Return a horizontal rule with texts at both ends. The left text is cut if space is short."""
    end = f" {right} ─" if right else "─"
    begin: list[Part] = [("─ ", "dim"), *left, " "]
    room = width - width_of([end])
    if width_of(begin) >= room:
        return spread(begin, [(end, "dim")], width)
    return [*begin, ("─" * (room - width_of(begin)), "dim"), (end, "dim")]


def head_line(view: JobView, width: int) -> Line:
    """Return the state of a job, and its process and host."""
    job = view.job
    glyph, style = GLYPHS[job.state]
    left: list[Part] = [(f"{glyph} ", style), (view.stage or job.state, "strong"), (" · ", "dim")]
    if job.state == "running":
        left.append(f"pid {job.pid}" + (f" on {job.host}" if job.host else ""))
        if outlives_terminal(view):
            left += [(" · ", "dim"), ("survives disconnect", "good")]
        right = f"elapsed {span(view.elapsed)}"
    elif job.state == "lost":
        last = (job.started + timedelta(seconds=view.elapsed)).astimezone()
        left.append((f"lost, last event {_moment(last)}", style))
        right = f"after {span(view.elapsed)}"
    else:
        ended = f" {_moment(job.ended.astimezone())}" if job.ended is not None else ""
        left.append((f"{job.state}{ended}", style))
        right = f"took {span(view.elapsed)}"
    return rule(left, right, width)


def count_line(view: JobView, width: int) -> Line:
    """Return progress, speed, remaining time and loss of a job."""
    left: list[Part] = [" "]
    if view.total:
        left += [(f"{view.done:,}/{view.total:,}", "strong"), f" {view.unit}"]
    elif view.done:
        left += [(f"{view.done:,}", "strong"), f" {view.unit}"]
    if view.rate > 0:
        left += [(" · ", "dim"), pace(view.rate), " ", (sparkline(view.rates, 20 if width >= 110 else 10), "accent")]
    if view.seconds_left is not None and view.job.state == "running":
        left += [(" · ", "dim"), f"{span(view.seconds_left)} left in the stage"]
    right: list[Part] = []
    if view.losses:
        right = [("loss ", "dim"), (numbers.loss(view.losses[-1][1]), "strong"), " "]
    return spread(left, right, width)


def pace(rate: float) -> str:
    """Format units per second, or units per minute for slow stages."""
    if rate < 0.1:
        return f"{rate * 60:.2g}/min"
    return f"{rate:.1f}/s" if rate < 100 else f"{numbers.short(rate)}/s"


def message_line(view: JobView, width: int) -> Line:
    """Return the error of a failed job."""
    words = one_line(view.job.message)
    return [(" ✗ ", "bad"), (fit(words, max(width - 3, 0)), "bad")]


def _stages(view: JobView, known: Sequence[str]) -> list[tuple[str, str, str, float | None]]:
    """Return glyph, style, name and seconds of every stage, pending stages included."""
    stopped = GLYPHS[view.job.state] if view.job.state != "done" else ("■", "dim")
    found: list[tuple[str, str, str, float | None]] = []
    for name, state, seconds in view.stages:
        glyph, style = {"done": ("✓", "good"), "cached": ("=", "dim")}.get(state, stopped)
        found.append((glyph, style, name, seconds if state == "done" else None))
    command = view.job.arguments[0] if view.job.arguments else ""
    if view.job.state == "running" and command in _CHAIN and _CHAIN[command] in known:
        last = known.index(_CHAIN[command])
        reached = max((known.index(name) for name, _, _ in view.stages if name in known), default=-1)
        unseen = _UNSEEN.get(command, ())
        found += [("·", "dim", name, None) for name in known[reached + 1 : last + 1] if name not in unseen]
    return found


def stage_chips(view: JobView, known: Sequence[str], width: int) -> Line:
    """Return the stages in one line. If space is short, only the last stages are shown."""
    chips: list[list[Part]] = []
    for glyph, style, name, seconds in _stages(view, known):
        took = f" {span(seconds)}" if seconds is not None else ""
        chips.append([(f"{glyph} ", style), (name, "dim" if glyph in "=·" else ""), (f"{took}  ", "dim")])
    while len(chips) > 1 and sum(width_of(chip) for chip in chips) > width - 3:
        del chips[1 if chips[0] == [("… ", "dim")] else 0]
        chips[:0] = [] if chips[0] == [("… ", "dim")] else [[("… ", "dim")]]
    return [" ", *(part for chip in chips for part in chip)]


def stage_lines(view: JobView, known: Sequence[str], width: int) -> list[Line]:
    """Return the stages, one in each line."""
    lines: list[Line] = []
    share = share_of(view)
    for glyph, style, name, seconds in _stages(view, known):
        right: list[Part] = [""]
        left: list[Part] = [(f"{glyph} ", style), fit(name, 11), " "]
        if glyph == "✓" and seconds is not None:
            right = [(span(seconds), "dim")]
        elif glyph == "=":
            right = [("cached", "dim")]
        elif glyph == "·":
            right = [("pending", "dim")]
        elif glyph == "▶":
            left += [(numbers.meter(share, 12), style), f" {percent(share)}"] if share is not None else []
            right = [(f"{span(view.seconds_left)} left", "")] if view.seconds_left is not None else [""]
        else:
            left += [(f"stopped at {percent(share)}" if share is not None else "stopped", style)]
        lines.append(spread(left, right, width))
    if view.rates:
        lines += [[], [("rate  ", "dim"), (sparkline(view.rates, 20), "accent"), f"  {view.unit} {pace(view.rate)}"]]
    return lines or [[("none yet", "dim")]]


def command_lines(view: JobView, config: "Config | None", width: int) -> list[Line]:
    """Return lines about the command, its process, and the current configuration."""
    job = view.job
    rows: list[tuple[str, str]] = [("command", command_of(view))]
    if job.cwd:
        rows.append(("in", job.cwd))
    rows.append(("process", f"{job.pid}" + (f" on {job.host}" if job.host else "")))
    rows.append(("started", _moment(job.started.astimezone())))
    if job.ended is not None:
        rows.append(("ended", _moment(job.ended.astimezone())))
    lines: list[Line] = []
    for title, text in rows:
        lines += _titled(title, text, width)
    if config is not None:
        train, lora = config.train, config.lora
        batch = f"{train.batch_size}" + (f"×{train.gradient_accumulation}" if train.gradient_accumulation > 1 else "")
        lines += [[], [("current curator.toml", "title")]]
        lines += _titled("model", config.model.name_or_path, width)
        lines += _titled("lora", f"r{lora.r} α{lora.alpha:g}", width)
        lines += _titled("train", f"{train.epochs:g} epochs · batch {batch} · lr {train.learning_rate:g}", width)
        lines += _titled("project", f"{config.gradients.projection_dim} dimensions", width)
    return lines


def _titled(title: str, text: str, width: int) -> list[Line]:
    pieces = fold(one_line(text), max(width - 9, 8))
    return [[(f"{title if not row else '':<8} ", "dim"), piece] for row, piece in enumerate(pieces)]


def _moment(time: datetime) -> str:
    today = datetime.now(time.tzinfo).date() == time.date()
    return f"{time:%H:%M:%S}" if today else f"{time:%Y-%m-%d %H:%M:%S}"


# -- the machine ----------------------------------------------------------------------------------------------------


def remember(history: History, machine: Machine) -> None:
    """Add one reading to the history."""
    readings = {
        "cpu": machine.cpu / 100,
        "ram": machine.memory_used_gb / max(machine.memory_total_gb, 1e-9),
        "disk": machine.disk_mb_s,
    } | {gpu.name: gpu.percent / 100 for gpu in machine.gpus}
    for name, value in readings.items():
        history.setdefault(name, deque(maxlen=_HISTORY)).append(value)


def machine_lines(machine: Machine | None, history: Mapping[str, Sequence[float]], width: int, most: int) -> list[Line]:
    """Return the load of this machine, GPUs first, in at most `most` lines."""
    if machine is None:
        return [[("reading …", "dim")]]
    bars = 8 if width < 44 else 16

    def row(name: str, value: str, more: str, *, high: float | None = 1.0) -> Line:
        drawn = sparkline(list(history.get(name, ()))[-bars:], bars, low=0.0, high=high)
        return [(f"{name:<5}", "dim"), (f"{drawn:<{bars}}", "accent"), f" {value:>5} ", (more, "")]

    gpus = [row(g.name, f"{g.percent:.0f}%", f"{g.used_gb:.0f}/{g.total_gb:.0f} GB") for g in machine.gpus]
    most_gpus = max(most - 3, 1)
    if len(gpus) > most_gpus:
        left_out = len(gpus) - most_gpus + 1
        gpus = [*gpus[: most_gpus - 1], [(f"… {left_out} more GPUs", "dim")]]
    peak = max([*history.get("disk", ()), 1.0])
    return [
        *gpus,
        row("cpu", f"{machine.cpu:.0f}%", f"{os.cpu_count() or 1} cores"),
        row(
            "ram",
            f"{machine.memory_used_gb / max(machine.memory_total_gb, 1e-9):.0%}",
            f"{machine.memory_used_gb:.1f}/{machine.memory_total_gb:.0f} GB",
        ),
        row("disk", f"{machine.disk_mb_s:.0f}", f"MB/s · {machine.disk_free_gb:.0f} GB free", high=peak),
    ]

"""Small plots as inline SVG: bars with intervals, a curve, and a scatter plot. Labels are escaped."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from curator.core.figures import fixed
from curator.core.text import clean

_WIDTH, _LABEL, _NAME = 720, 190, 26
_BLUE, _GREY, _RED = "#2f6fb3", "#8796a5", "#b3432f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One loss. `low` and `high` are the ends of its interval, or None."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    measured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """Estimated loss with its interval, and measured loss, of one subset."""

    name: str
    estimated: float
    low: float
    high: float
    measured: float


def bars_svg(bars: Sequence[Bar]) -> str:
    """Draw horizontal bars from 0. Measured bars are full, estimated bars are light."""
    most = max([max(bar.value, bar.high or 0.0) for bar in bars], default=1.0) or 1.0
    room = _WIDTH - _LABEL - 90
    parts = []
    for number, bar in enumerate(bars):
        y, length = 8 + 28 * number, room * max(bar.value, 0.0) / most
        parts.append(_text(0, y + 13, _cut(bar.name)))
        opacity = 1 if bar.measured else 0.55
        parts.append(
            f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="18" fill="{_BLUE}" opacity="{opacity}"/>'
        )
        if bar.low is not None and bar.high is not None:
            first, last = (_LABEL + room * max(end, 0.0) / most for end in (bar.low, bar.high))
            path = f"M{first:.1f} {y + 9}H{last:.1f}M{first:.1f} {y + 4}v10M{last:.1f} {y + 4}v10"
            parts.append(f'<path d="{path}" stroke="currentColor" fill="none"/>')
        end = _LABEL + room * max(bar.value, bar.high or 0.0) / most
        parts.append(_text(end + 8, y + 13, fixed(bar.value)))
    return _svg(_WIDTH, 28 * len(bars) + 12, parts, "losses as bars")


def curve_svg(values: Sequence[float], labels: Sequence[str]) -> str:
    """Draw a loss after each step as a line with dots. Each dot has a title."""
    width, height = _WIDTH, 220
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = (high - low) or 1.0
    step = (width - 110) / max(len(values) - 1, 1)
    points = [(70 + n * step, 190 - 170 * (value - low) / span) for n, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [
        f'<polyline points="{line}" fill="none" stroke="{_BLUE}"/>',
        *(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_BLUE}">'
            f"<title>{_escaped(f'{label}: {fixed(value)}')}</title></circle>"
            for (x, y), value, label in zip(points, values, labels, strict=True)
        ),
        _text(0, 24, fixed(high)),
        _text(0, 194, fixed(low)),
        _text(70, 214, "steps of the method"),
    ]
    return _svg(width, height, parts, "estimated loss after each step")


def scatter_svg(dots: Sequence[Dot]) -> str:
    """Draw measured losses against estimated losses, with the diagonal. Dots outside of their interval are red."""
    size = 420
    ends = [end for dot in dots for end in (dot.low, dot.high, dot.measured, dot.estimated)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return 60 + (size - 80) * (value - low) / span

    def y(value: float) -> float:
        return size - 40 - (size - 60) * (value - low) / span

    parts = [
        f'<path d="M{x(low):.1f} {y(low):.1f}L{x(high):.1f} {y(high):.1f}" stroke="{_GREY}" stroke-dasharray="4 4"/>',
        f'<path d="M60 20V{size - 40}H{size - 20}" stroke="{_GREY}" fill="none"/>',
    ]
    for dot in dots:
        color = _BLUE if dot.low <= dot.measured <= dot.high else _RED
        title = _escaped(f"{dot.name}: estimated {fixed(dot.estimated)}, measured {fixed(dot.measured)}")
        across = f"M{x(dot.low):.1f} {y(dot.measured):.1f}H{x(dot.high):.1f}"
        parts.append(f'<path d="{across}" stroke="{color}" opacity="0.5"/>')
        parts.append(
            f'<circle cx="{x(dot.estimated):.1f}" cy="{y(dot.measured):.1f}" r="4" fill="{color}">'
            f"<title>{title}</title></circle>"
        )
    parts += [
        _text(0, 26, fixed(high, 3)),
        _text(0, size - 42, fixed(low, 3)),
        _text(60, size - 22, fixed(low, 3)),
        _text(size - 60, size - 22, fixed(high, 3)),
        _text(60, size - 4, "estimated loss (horizontal), measured loss (vertical), nats per token"),
    ]
    return _svg(size + 40, size + 4, parts, "measured against estimated losses")


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    inner = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{_escaped(label)}">\n'
        f"{inner}\n</svg>"
    )


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="13" fill="currentColor">{_escaped(text)}</text>'


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-(_NAME // 2 - 1) :]}"


def _escaped(text: str) -> str:
    return html.escape(clean(text))

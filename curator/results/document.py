"""A document of headings, sentences, tables and plots, as one HTML file or as Markdown.

Every text is foreign. HTML escapes it, runs no script and loads nothing. Markdown escapes its signs.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from curator.core.figures import fixed
from curator.core.text import clean
from curator.results.svg import Bar, Dot, bars_svg, curve_svg, scatter_svg

_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #d5dbe1; }
table { border-collapse: collapse; margin: .5rem 0; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
th { border-bottom: 1px solid #8796a5; font-weight: 600; } td.number, th.number { text-align: right; }
td { vertical-align: top; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
tr:nth-child(even) td { background: #f5f7f9; } svg { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) {
  body { background: #10161d; color: #dbe3ea; } tr:nth-child(even) td { background: #182029; }
  h2, th { border-color: #3a4856; }
}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Sentence:
    """One paragraph of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table. Columns in `numbers` are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Bars:
    """Losses as bars with intervals."""

    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Curve:
    """A loss after each of several steps."""

    values: Sequence[float]
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class Scatter:
    """Estimated losses, with their intervals, against measured losses."""

    dots: Sequence[Dot]


Block = Sentence | Table | Bars | Curve | Scatter


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what follows it."""

    title: str
    blocks: Sequence[Block] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Document:
    """A title, one sentence that answers the question, and sections."""

    title: str
    summary: str
    sections: Sequence[Section]


def to_html(document: Document) -> str:
    """Return a document as one HTML file that loads nothing."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_html(document.title)}</title>",
        f"<style>{_CSS}</style>",
        "</head>",
        "<body>",
        f"<h1>{_html(document.title)}</h1>",
        f"<p>{_html(document.summary)}</p>",
    ]
    for section in document.sections:
        parts.append(f"<h2>{_html(section.title)}</h2>")
        parts += [_html_block(block) for block in section.blocks]
    return "\n".join([*parts, "</body>", "</html>", ""])


def _html_block(block: Block) -> str:
    if isinstance(block, Sentence):
        return f"<p>{_html(block.text)}</p>"
    if isinstance(block, Bars):
        return bars_svg(block.bars)
    if isinstance(block, Curve):
        return curve_svg(block.values, block.labels)
    if isinstance(block, Scatter):
        return scatter_svg(block.dots)

    def cell(tag: str, column: str, text: str) -> str:
        kind = ' class="number"' if column in block.numbers else ""
        return f"<{tag}{kind}>{_html(text)}</{tag}>"

    head = "".join(cell("th", column, column) for column in block.columns)
    body = "\n".join(
        "<tr>" + "".join(cell("td", c, text) for c, text in zip(block.columns, row, strict=True)) + "</tr>"
        for row in block.rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def to_markdown(document: Document) -> str:
    """Return a document as Markdown. Plots become tables."""
    parts = [f"# {_markdown(document.title)}", _markdown(document.summary)]
    for section in document.sections:
        parts.append(f"## {_markdown(section.title)}")
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block) -> str:
    if isinstance(block, Sentence):
        return _markdown(block.text)
    if isinstance(block, Bars):
        rows = [
            (b.name, fixed(b.value), "" if b.low is None or b.high is None else f"{fixed(b.low)} to {fixed(b.high)}")
            for b in block.bars
        ]
        return _markdown_table(("subset", "loss", "90 % interval"), rows, ("loss",))
    if isinstance(block, Curve):
        steps = list(zip(block.labels, (fixed(value) for value in block.values), strict=True))
        return _markdown_table(("step", "estimated loss"), steps, ("estimated loss",))
    if isinstance(block, Scatter):
        return _markdown("The HTML report shows these losses as a plot.")
    return _markdown_table(block.columns, block.rows, block.numbers)


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]) -> str:
    lines = [
        "| " + " | ".join(map(_markdown, columns)) + " |",
        "|" + "|".join("---:" if column in numbers else "---" for column in columns) + "|",
    ]
    return "\n".join([*lines, *("| " + " | ".join(map(_markdown, row)) + " |" for row in rows)])


def _html(text: str) -> str:
    return html.escape(clean(text))


def _markdown(text: str) -> str:
    """Escape every sign that Markdown or HTML reads."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&:@$])", r"\\\1", clean(text))

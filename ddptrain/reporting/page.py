"""A report as one HTML file that needs nothing else: sections of lines, tables and figures, drawn as SVG by hand."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape as escape_html
from typing import Any

import numpy as np

from ddptrain.reporting.pictures import encode
from ddptrain.reporting.table import UNKNOWN, Table, is_number
from ddptrain.system.printable import printable

COLOURS = ("#2f6db5", "#d9822b", "#3d9a6d", "#a34db0", "#b5413c", "#6b7785", "#1f9aa8", "#8d6b2f")
"""Of the series of a figure; they repeat."""
LETTER = 7
"""Width of a letter of a figure, in its units."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2329; background: #fff; max-width: 1080px; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: .2em } h2 { font-size: 1.15em; margin: 2em 0 .4em; border-bottom: 1px solid #d5dbe1 }
p { margin: .35em 0 } .quiet { color: #5b6770 }
.error, .warning { padding: .45em .8em; margin: .35em 0; border-left: 4px solid; border-radius: 2px }
.error { background: #fdecea; border-color: #b5413c } .warning { background: #fdf4e3; border-color: #d9822b }
.good { background: #e8f5ee; border-color: #3d9a6d; padding: .45em .8em; border-left: 4px solid }
table { border-collapse: collapse; margin: .6em 0; display: block; overflow-x: auto }
th, td { padding: .25em .8em; border-bottom: 1px solid #e6eaee; text-align: left; white-space: nowrap }
th { background: #f4f6f8; font-weight: 600 } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
td.unknown { color: #7a858e; background: repeating-linear-gradient(45deg, #f2f4f6 0 6px, #fff 6px 12px) }
img { max-width: 100%; height: auto; border: 1px solid #d5dbe1 }
svg { display: block; max-width: 100%; height: auto; margin: .4em 0 }
svg text { font: 12px system-ui, sans-serif; fill: #1c2329 }
details { margin: .4em 0 } code { background: #f4f6f8; padding: 0 .3em }
"""


@dataclass
class Section:
    """A part of a report, for the page and for the terminal.

    Attributes:
        title: its heading.
        lines: sentences.
        columns, rows: a table, if there are any rows, see `Table`; cells that are `UNKNOWN` are shaded.
        figures: pieces of HTML (`histogram`, `picture`); the terminal leaves them out.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    figures: list[str] = field(default_factory=list)


def page(title: str, subtitle: str, errors: Sequence[str], warnings: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole HTML file."""
    faults = [f'<p class="error"><b>error</b> {escape(e)}</p>' for e in errors]
    faults += [f'<p class="warning"><b>warning</b> {escape(w)}</p>' for w in warnings]
    body = "\n".join([*(faults or ['<p class="good">no errors, no warnings</p>']), *(_section(s) for s in sections)])
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<h1>{escape(title)}</h1>\n<p class="quiet">{escape(subtitle)}</p>\n{body}\n</html>\n'
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", *(f"<p>{escape(line)}</p>" for line in section.lines)]
    if section.rows:
        parts.append(_table(Table(section.columns, section.rows)))
    return "\n".join([*parts, *section.figures])


def _table(table: Table) -> str:
    right = table.right()
    head = "".join(f"<th{_class(r, '')}>{escape(c)}</th>" for c, r in zip(table.columns, right))
    cells = [[f"<td{_class(r, v)}>{escape(_cell(v))}</td>" for v, r in zip(row, right)] for row in table.rows]
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _class(numeric: bool, value: Any) -> str:
    names = " ".join(["number"] * numeric + ["unknown"] * (value == UNKNOWN))
    return f' class="{names}"' if names else ""


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if is_number(value) else str(value)


def escape(text: str) -> str:
    """The text inside HTML, characters that are not visible written out."""
    return escape_html(printable(text))


def picture(image: np.ndarray, text: str) -> str:
    """An image, uint8 `[H, W, 3]` RGB, inside the page; `text` says what it shows."""
    data = base64.b64encode(encode(image, ".jpg")).decode()
    return f'<p class="quiet">{escape(text)}</p>\n<img alt="{escape(text)}" src="data:image/jpeg;base64,{data}">'


def histogram(
    series: Sequence[tuple[str, Sequence[float]]],
    ticks: Sequence[str],
    label: str,
    marks: Sequence[tuple[float, str]] = (),
    side: str = "",
) -> str:
    """Bars side by side: for each bin one of every series.

    Args:
        series: (name, fraction 0..1 of each bin).
        ticks: text under each edge between two bins, one fewer than the bins, or under each bin; empty for none.
        label: of the axis below; side: of the one on the left.
        marks: (place counted in bins from the left, text) of vertical lines.
    """
    bins, left, top, width, height = len(series[0][1]), 66, 24, 940, 190
    high = max(max(values) for _, values in series) or 1.0
    step = width / bins
    bar = step * 0.86 / len(series)
    out = []
    for part in (0.0, 0.5, 1.0):
        y = top + height * (1 - part)
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#e6eaee"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{part * high:.0%}</text>')
    for s, (name, values) in enumerate(series):
        for b, value in enumerate(values):
            if value:
                where = f", {escape(ticks[b])}" if len(ticks) == bins else ""
                tall = max(height * value / high, 1.0)
                x, y = left + b * step + step * 0.07 + s * bar, top + height - tall
                out.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{tall:.1f}" fill="{COLOURS[s % len(COLOURS)]}">'
                    f"<title>{escape(name)}{where}: {value:.1%}</title></rect>"
                )
    for place, text in marks:
        x = left + place * step
        out.append(
            f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{top + height}" stroke="#5b6770" stroke-dasharray="4 3"/>'
        )
        out.append(f'<text x="{x + 4:.1f}" y="{top - 8}">{escape(text)}</text>')
    first = 0.5 if len(ticks) == bins else 1.0
    under, room = _ticks(ticks, left + first * step, step, top + height + 16, len(ticks) == bins)
    out += under
    bottom = top + height + room
    out.append(f'<text x="{left + width / 2}" y="{bottom + 36}" text-anchor="middle">{escape(label)}</text>')
    middle = f"14 {top + height / 2}"
    out.append(f'<text transform="translate({middle}) rotate(-90)" text-anchor="middle">{escape(side)}</text>')
    out += _legend([name for name, _ in series], left, bottom + 58)
    rows = -(-len(series) // 4)
    return f'<svg viewBox="0 0 {left + width + 10} {bottom + 50 + 20 * rows}">{"".join(out)}</svg>'


def _ticks(ticks: Sequence[str], x: float, step: float, y: float, may_turn: bool) -> tuple[list[str], float]:
    """Texts under an axis from `x` on, `step` apart, turned where the longest has no room, and the room they take then."""
    longest = LETTER * max(map(len, ticks), default=0)
    turned = may_turn and longest > step
    out = []
    for tick in ticks:
        where = f'text-anchor="end" transform="rotate(-30 {x:.1f} {y})"' if turned else 'text-anchor="middle"'
        out.append(f'<text x="{x:.1f}" y="{y}" {where}>{escape(tick)}</text>')
        x += step
    return out, longest / 2 if turned else 0


def _legend(names: Sequence[str], x: float, y: float) -> list[str]:
    out = []
    for i, name in enumerate(names):
        at, line = x + i % 4 * 240, y + i // 4 * 20
        out.append(f'<rect x="{at}" y="{line - 10}" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>')
        out.append(f'<text x="{at + 18}" y="{line}">{escape(name)}</text>')
    return out


def details(summary: str, lines: Sequence[str]) -> str:
    """Lines that fold out."""
    inner = "".join(f"<p><code>{escape(line)}</code></p>" for line in lines)
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"

"""Charts as SVG. A curve lies in a picture of its own, `UNITS` wide and high, that is stretched over the plot: page.js zooms by
looking at a part of it. Colours come from page.css."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ddptrain.reporting.page import escape
from ddptrain.reporting.run_page.parts import Bars, Chart, Line

UNITS = 10000
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 230, 52, 10, 8, 38
COLOURS = 8
"""Of page.css; with more series than these, only the first is coloured."""
DOTTED = 30
"""Points up to which each of a curve is marked."""
LETTER = 6.2
"""Width of a letter of a chart, in its units."""


def chart(c: Chart) -> str:
    """Curves with axes, and a legend below."""
    x_range = c.x_range or _limits([v for line in c.lines for v in line.x])
    y_range = c.y_range or _limits([v for line in c.lines for v in line.y], 0.04)
    many = len(c.lines) > COLOURS
    curves = [_curve(line, x_range, y_range, _colour(i, many)) for i, line in enumerate(c.lines)]
    curves += [_mark(place, x_range) for place, _ in c.marks]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    plot = (
        f'<svg class="plot" x="{LEFT}" y="{TOP}" width="{width}" height="{height}" viewBox="0 0 {UNITS} {UNITS}" '
        f'preserveAspectRatio="none">{"".join(curves)}</svg>'
    )
    limits = " ".join(f"{v:.9g}" for v in (*x_range, *y_range))
    notes = "".join(f"<span>{escape(text)}</span>" for _, text in c.marks if text)
    return (
        f'<figure class="chart lines" data-range="{limits}"><figcaption>{escape(c.title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(c.title)}">'
        f'<g class="axes">{"".join(_axes(x_range, y_range))}</g>{plot}{_names(c.x, c.y)}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
        f"{_legend([line.name for line in c.lines], many)}"
        f"{f'<p class=notes>{notes}</p>' if notes else ''}</figure>"
    )


def bars(b: Bars) -> str:
    """Bars side by side from 0 to 1."""
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = width / max(1, len(b.groups))
    bar = step * 0.8 / max(1, len(b.series))
    out = []
    for i, (name, values) in enumerate(b.series.items()):
        for k, value in enumerate(values):
            if value is not None and not math.isnan(value):
                x, tall = LEFT + (k + 0.1) * step + i * bar, max(0.8, height * min(value, 1.0))
                note = f", {b.notes[k]}" if b.notes else ""
                out.append(
                    f'<rect class="c{i % COLOURS}" x="{x:.1f}" y="{TOP + height - tall:.1f}" width="{0.92 * bar:.1f}" '
                    f'height="{tall:.1f}"><title>{escape(f"{b.groups[k]}: {name} {value:.3f}{note}")}</title></rect>'
                )
    room = int(step / LETTER)
    for k, group in enumerate(b.groups):
        x = LEFT + (k + 0.5) * step
        if room >= len(group) or (len(group) <= 4 and room >= 2):
            out.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{escape(group)}</text>')
        elif room >= 3:
            short = group[: room - 1] + "…"
            out.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{escape(short)}</text>')
    return (
        f'<figure class="chart"><figcaption>{escape(b.title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(b.title)}">'
        f'<g class="axes">{"".join(_y_axis((0.0, 1.0)))}</g>{"".join(out)}{_names(b.x, b.y)}</svg>'
        f"{_legend(list(b.series), False) if len(b.series) > 1 else ''}</figure>"
    )


def _limits(values: Sequence[float | None], room: float = 0.0) -> tuple[float, float]:
    """The least and the greatest value, `room` of their distance apart; apart in any case."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    more = room * (high - low) if high > low else (abs(high) or 1.0) / 2
    return low - more, high + more


def _curve(line: Line, x_range: tuple[float, float], y_range: tuple[float, float], colour: str) -> str:
    """Polylines between the gaps of a curve; dots where there are few points."""
    pieces: list[list[str]] = [[]]
    for x, y in zip(line.x, line.y):
        if x is None or y is None or math.isnan(y):
            pieces.append([])
        else:
            pieces[-1].append(f"{_unit(x, x_range)},{UNITS - _unit(y, y_range)}")
    pieces = [piece for piece in pieces if piece]
    name = escape(line.name)
    out = [f'<polyline class="{colour}" data-name="{name}" points="{" ".join(piece)}"/>' for piece in pieces]
    if sum(map(len, pieces)) <= DOTTED:
        dots = "".join(f"M{point.replace(',', ' ')}h0" for piece in pieces for point in piece)
        out.append(f'<path class="{colour} dots" d="{dots}"/>')
    return "".join(out)


def _unit(value: float, limits: tuple[float, float]) -> int:
    return round(UNITS * (value - limits[0]) / (limits[1] - limits[0]))


def _mark(place: float, x_range: tuple[float, float]) -> str:
    x = _unit(place, x_range)
    return f'<line class="mark" x1="{x}" x2="{x}" y1="0" y2="{UNITS}"/>'


def _colour(number: int, many: bool) -> str:
    return "quiet" if many and number else f"c{number % COLOURS}"


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between two limits: 1, 2 or 5 times a power of ten apart. page.js does the same."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def shown(value: float) -> str:
    """A number on an axis, four digits: 12k, 0.5, 6e-4. page.js does the same."""
    if 0 < abs(value) < 0.001:
        digits, power = f"{value:.3e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value / 1000:.4g}k" if abs(value) >= 10000 else f"{value:.4g}"


def _axes(x_range: tuple[float, float], y_range: tuple[float, float]) -> Iterator[str]:
    yield from _y_axis(y_range)
    low, high = x_range
    for value in ticks(low, high, 5):
        x = LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)
        yield f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{shown(value)}</text>'


def _y_axis(y_range: tuple[float, float]) -> Iterator[str]:
    low, high = y_range
    for value in ticks(low, high, 5):
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{shown(value)}</text>'


def _names(x: str, y: str) -> str:
    middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
    return (
        f'<text class="name" x="{LEFT + (WIDTH - LEFT - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>'
        f'<text class="name" transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    )


def _legend(names: Sequence[str], many: bool) -> str:
    if many:
        items = f'<span class="c0">{escape(names[0])}</span><span class="quiet">and {len(names) - 1} more</span>'
    else:
        items = "".join(f'<span class="c{i % COLOURS}">{escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{items}</p>'

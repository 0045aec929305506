"""Tables, matrices, pictures, sections and the frame of a page as HTML. All text is escaped here or in svg.py."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from ddptrain.reporting.page import escape
from ddptrain.reporting.pictures import encode, load
from ddptrain.reporting.run_page import svg
from ddptrain.reporting.run_page.parts import Bars, Chart, Matrix, Numbers, Part, Picture, Section, Text
from ddptrain.reporting.table import Table, is_number

PICTURE_BYTES = 500_000
"""A picture takes no more, in the file of the page a third more."""
CELLS = 40
"""Classes up to which a matrix is shown whole; of more, the largest confusions are listed."""
LISTED = 30


def page(title: str, head: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A whole file.

    Args:
        title: text of the window and the heading.
        head: HTML below the heading.
        sections: (anchor, heading, HTML) of each.
    """
    here = Path(__file__).parent
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # a browser loads nothing, and runs no script but this one, whatever a name in the data holds
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    contents = "".join(f'<li><a href="#{escape(key)}">{escape(name)}</a></li>' for key, name, _ in sections)
    body = "\n".join(f'<section id="{escape(key)}"><h2>{escape(name)}</h2>\n{html}</section>' for key, name, html in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n<body>\n"
        f"<nav><p>{escape(title)}</p><ol>{contents}</ol></nav>\n<main>\n<header><h1>{escape(title)}</h1>\n{head}</header>\n"
        f"{body}\n</main>\n<script>{script}</script>\n</body></html>\n"
    )


def section(s: Section, folder: Path) -> str:
    """The parts of a section, charts that follow each other side by side; empty where nothing of it can be shown."""
    out, row = [], []
    for part in [*s.parts, None]:
        html = "" if part is None else one(part, folder)
        if isinstance(part, (Chart, Bars)):
            row.append(html)
            continue
        if row:
            out.append(side_by_side(row))
            row = []
        out.append(html)
    return "\n".join(filter(None, out))


def side_by_side(figures: Sequence[str]) -> str:
    """Charts in rows, as many in each as there is room for."""
    return f'<div class="charts">{"".join(figures)}</div>'


def one(part: Part, folder: Path) -> str:
    """The HTML of a part; `folder` holds the pictures."""
    if isinstance(part, Picture):
        return picture(folder / part.file, part.caption)
    draw: Callable[[Any], str] = RENDERERS[type(part)]
    return draw(part)


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; `kind` is a class of page.css."""
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>"


def numbers(t: Numbers) -> str:
    """A table that a click on a heading sorts."""
    if not t.rows:
        return ""
    right = Table(t.columns, t.rows).right()
    head = "".join(f"<th{' class=n' if r else ''}>{escape(c)}</th>" for c, r in zip(t.columns, right))
    rows = "".join(
        f"<tr>{''.join(_cell(v, r, c in t.bars) for v, r, c in zip(row, right, t.columns))}</tr>\n" for row in t.rows
    )
    return _framed(t.title, "sortable", head, rows)


def _framed(title: str, kind: str, head: str, rows: str) -> str:
    heading = f"<h3>{escape(title)}</h3>\n" if title else ""
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>'
    return f'{heading}<div class="table">{table}</div>'


def _cell(value: Any, right: bool, bar: bool) -> str:
    if not right:
        return f"<td>{escape(cell(value))}</td>"
    sort = f' data-v="{value:.9g}"' if is_number(value) and math.isfinite(value) else ""
    fill = f' style="--v:{min(max(value, 0), 1):.3f}"' if bar and sort else ""
    return f'<td class="n{" bar" if fill else ""}"{sort}{fill}>{escape(cell(value))}</td>'


def cell(value: Any) -> str:
    """A value as text: three decimals below 100, none above 1000."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
    return f"{value:,}" if is_number(value) else str(value)


def matrix(m: Matrix) -> str:
    """Counts on a ground as strong as their part of the row."""
    if len(m.names) > CELLS:
        pairs = [(n, i, j) for i, row in enumerate(m.counts) for j, n in enumerate(row) if n and i != j]
        rows = [[m.names[i], m.names[j], n, n / sum(m.counts[i])] for n, i, j in sorted(pairs, key=lambda p: -p[0])[:LISTED]]
        return numbers(Numbers(("truth", "taken for", "times", "part of the truth"), rows, f"{m.title}: the largest"))
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in m.names)
    body = []
    for name, row in zip(m.names, m.counts):
        total = sum(row) or 1
        cells = "".join(_share(n, total, f"{name} as {other}", m.percent) for n, other in zip(row, m.names))
        body.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>\n')
    return _framed(m.title, "matrix", f'<td class="corner">truth ↓ answer →</td>{head}', "".join(body))


def _share(count: int, total: int, title: str, percent: bool) -> str:
    shown = f"{100 * count / total:.1f}" if percent else f"{count or ''}"
    return f'<td style="--v:{count / total:.3f}" title="{escape(f"{title}: {count:,}, {count / total:.1%}")}">{shown}</td>'


def picture(path: Path, caption: str) -> str:
    """A picture inside the page, smaller where it takes too many bytes; nothing where the file is not there."""
    if not path.is_file():
        return ""
    image, data = load(path), path.read_bytes() if path.suffix == ".jpg" else b""
    while not data or len(data) > PICTURE_BYTES:
        data = encode(image, ".jpg")
        image = cv2.resize(image, None, fx=0.85, fy=0.85, interpolation=cv2.INTER_AREA)
    text = escape(caption)
    tag = f'<img alt="{text}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
    return f'<figure class="picture"><figcaption>{text}</figcaption><div>{tag}</div></figure>'


def code(text: str) -> str:
    """Lines as they are."""
    lines = "\n".join(escape(line) for line in text.splitlines())
    return f"<pre>{lines}</pre>"


def folded(summary: str, html: str) -> str:
    """HTML that a click folds out."""
    return f"<details><summary>{escape(summary)}</summary>\n{html}</details>"


def facts(values: Mapping[str, Any]) -> str:
    """Names and values in two columns; empty values are left out."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(cell(v))}</dd>" for name, v in values.items() if v not in (None, ""))
    return f'<dl class="facts">{rows}</dl>'


RENDERERS: Mapping[type[Any], Callable[[Any], str]] = {
    Text: lambda part: paragraph(part.text),
    Numbers: numbers,
    Chart: svg.chart,
    Bars: svg.bars,
    Matrix: matrix,
}

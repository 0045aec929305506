"""What a page is made of, as plain data: a task describes with these parts what an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ddptrain.reporting.history import plain

POINTS = 300
"""Points that a curve keeps, at most."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Numbers:
    """A table, see `reporting.table.Table`.

    Attributes:
        bars: columns of numbers in 0..1 with a bar behind each number.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    bars: Sequence[str] = ()


@dataclass(frozen=True)
class Line:
    """A curve: x and y, NaN (in JSON null) where there is no value."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """Curves over one axis, which a reader can zoom.

    Attributes:
        title: what is shown; x, y: what the axes are, with units.
        marks: (place on the x axis, text) of vertical lines.
        x_range, y_range: the limits; None for those of the values.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    marks: Sequence[tuple[float, str]] = ()
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bars:
    """Bars side by side: for each group one of every series, in 0..1, None for none; `notes` stand below the groups."""

    title: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    y: str = "0 to 1"
    x: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Matrix:
    """What is taken for what: counts `[n][n]`, rows the truth; shown as they are, or as parts of their row in percent."""

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    percent: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture of the report's folder, left out of the page where it does not exist."""

    file: str
    caption: str


Part = Text | Numbers | Chart | Bars | Matrix | Picture
PARTS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Text, Numbers, Chart, Bars, Matrix, Picture)}


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading; `key` is its anchor."""

    key: str
    title: str
    parts: Sequence[Part] = field(default_factory=tuple)


def stored(section: Section) -> dict[str, Any]:
    """The section in JSON's types."""
    parts = [{"kind": type(part).__name__, **asdict(part)} for part in section.parts]
    return {"key": section.key, "title": section.title, "parts": plain(parts)}


def restored(values: Mapping[str, Any]) -> Section:
    """The section that `stored` was given. Raises `KeyError` or `TypeError` where it is of another version."""
    return Section(str(values["key"]), str(values["title"]), [_part(dict(part)) for part in values["parts"]])


def _part(values: dict[str, Any]) -> Part:
    kind = PARTS[values.pop("kind")]
    if kind is Chart:
        values["lines"] = [Line(**line) for line in values["lines"]]
    part: Part = kind(**values)
    return part


def line(name: str, x: Any, y: Any, points: int = POINTS) -> Line:
    """A curve of arrays `[n]`: of more than `points`, those that are evenly spread, and the last."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    chosen = np.linspace(0, max(len(x) - 1, 0), min(points, len(x))).round().astype(int)
    return Line(name, [rounded(v) for v in x[chosen]], [rounded(v) for v in y[chosen]])


def rounded(value: float) -> float | None:
    """Six significant digits; None for what is not finite."""
    return float(f"{value:.6g}") if np.isfinite(value) else None

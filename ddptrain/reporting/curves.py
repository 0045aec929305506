"""Figures of what detections are worth: by confidence, by kind of error, by size and crowding. See docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddptrain.reporting.page import COLOURS
from ddptrain.reporting.report import figure_of
from ddptrain.system.printable import counted, printable

F64 = NDArray[np.float64]
QUIET, INK = "#9aa4ac", "#1c2329"
PATCH = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
"""Behind a number that stands on lines."""
SHOWN = len(COLOURS)
"""Classes up to which each has a colour of its own."""


def confidence_curves(
    path: Path, grid: F64, of_class: Mapping[str, Mapping[str, F64]], mean: Mapping[str, F64], best: float
) -> None:
    """Precision, recall and F1 of the detections from each confidence on.

    Args:
        grid: float64 `[n]`, confidences.
        of_class: by the name of a class, `precision`, `recall` and `F1` over the grid.
        mean: the same of all classes.
        best: the confidence with the best mean F1.
    """
    with figure_of(path, 3, 4.6, 3.8) as axes:
        for axis, name in zip(axes, ("precision", "recall", "F1")):
            for i, (c, curves) in enumerate(of_class.items()):
                own = {"color": COLOURS[i], "label": printable(c)} if len(of_class) <= SHOWN else {"color": QUIET}
                axis.plot(grid, curves[name], linewidth=1.1, alpha=0.85 if len(of_class) <= SHOWN else 0.35, **own)
            axis.plot(grid, mean[name], color=INK, linewidth=2.2, label="mean")
            at = float(np.interp(best, grid, mean[name]))
            axis.axvline(best, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
            axis.plot([best], [at], "o", color=INK, markersize=5)
            near = {"xytext": (8, 8), "ha": "left"} if best < 0.6 else {"xytext": (-8, 8), "ha": "right"}
            axis.annotate(f"{at:.2f} at {best:.2f}", (best, at), textcoords="offset points", fontsize=9, bbox=PATCH, **near)
            axis.set(title=name, xlabel="confidence (0 to 1)", ylabel=f"{name} (0 to 1)", xlim=(0, 1), ylim=(0, 1.03))
            axis.grid(True)
        axes[0].legend(fontsize=8, loc="lower right")


def reliability(path: Path, confidence: F64, precision: F64, count: NDArray[np.integer], error: float) -> None:
    """How often answers of a confidence are right, and how many there are, in bins of equal width; all `[bins]`."""
    bins = len(count)
    centre, width = (np.arange(bins) + 0.5) / bins, 0.92 / bins
    with figure_of(path, 2, 4.8, 4.2) as (left, right):
        shown = count > 0
        left.bar(centre[shown], precision[shown], width, color=COLOURS[0], label="right")
        gap = confidence - precision
        over = shown & (gap > 0)
        left.bar(centre[over], gap[over], width, bottom=precision[over], color=COLOURS[1], alpha=0.45, label="too confident")
        under = shown & (gap < 0)
        left.bar(centre[under], gap[under], width, bottom=precision[under], color=COLOURS[2], alpha=0.8, label="too modest")
        left.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
        title = f"expected calibration error {error:.3f}"
        left.set(title=title, xlabel="confidence (0 to 1)", ylabel="part that is right", xlim=(0, 1), ylim=(0, 1.02))
        left.legend(fontsize=8, loc="upper left")
        right.bar(centre, np.maximum(count, 0.8), width, color=QUIET)
        right.set(title="how many", xlabel="confidence (0 to 1)", ylabel="answers (log scale)", yscale="log", xlim=(0, 1))
        right.set_ylim(bottom=0.8)
        right.yaxis.set_major_formatter("{x:,.0f}")
        for axis in (left, right):
            axis.grid(axis="y")


def error_costs(path: Path, count: Mapping[str, int], cost: Mapping[str, float], ap50: float) -> None:
    """What AP50 would gain without each kind of error, with how many there are; kinds without a count are sums of others."""
    kinds = [k for k in cost if k in count]
    sums = [k for k in cost if k not in count]
    limit = 1.28 * max([0.01, *cost.values()])
    with figure_of(path, 2, 6.4, 3.4) as axes:
        for axis, names, colour in zip(axes, (kinds, sums), (COLOURS[0], COLOURS[1])):
            values = [cost[k] for k in names]
            axis.barh(range(len(names)), values, 0.62 if len(names) > 2 else 0.3, color=colour)
            axis.set(yticks=range(len(names)), xlim=(0, limit), xlabel="gain of AP50 (0 to 1)", ylabel="")
            axis.set_yticklabels(names)
            axis.invert_yaxis()
            for place, (k, v) in enumerate(zip(names, values)):
                text = f"{v:.3f}" + (f"   ({counted(count[k], 'case')})" if k in count else "")
                axis.text(v + 0.012 * limit, place, text, va="center", fontsize=9)
            axis.grid(axis="x")
        axes[0].set(title=f"without one kind of error (AP50 is {ap50:.3f})", ylabel="kind of error")
        axes[1].set(title="without any false alarm, or any miss", ylabel="errors")
        axes[1].set_ylim(1.9, -0.9)


class Panel(NamedTuple):
    """Some numbers of groups.

    Attributes:
        groups: name of each, and a note below it.
        series: by name, the number of each group in 0..1, NaN of none.
    """

    title: str
    groups: Sequence[tuple[str, str]]
    series: Mapping[str, Sequence[float]]


def breakdown(path: Path, panels: Sequence[Panel]) -> None:
    """Bars side by side of some numbers in 0..1 by groups, one plot a panel."""
    with figure_of(path, len(panels), 5.0, 3.8) as axes:
        for axis, (title, groups, series) in zip(axes, panels):
            names = [f"{printable(name)}\n{note}" for name, note in groups]
            width = 0.8 / len(series)
            for i, (name, values) in enumerate(series.items()):
                places = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
                _bars(axis, places, values, width, COLOURS[i], name)
            axis.set(title=title, xticks=range(len(groups)), ylim=(0, 1.08), ylabel="0 to 1", xlabel=" ")
            axis.set_xticklabels(names, fontsize=8)
            axis.grid(axis="y")
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(series))


def _bars(axis: Any, places: NDArray[np.floating], values: Sequence[float], width: float, colour: str, name: str) -> None:
    axis.bar(places, np.nan_to_num(values), width * 0.92, color=colour, label=name)
    for x, v in zip(places, values):
        text = "none" if np.isnan(v) else f"{v:.2f}"
        axis.text(x, np.nan_to_num(v) + 0.015, text, ha="center", fontsize=8, color=QUIET if np.isnan(v) else INK)


def roc_curves(path: Path, curves: Mapping[str, tuple[F64, F64, float]]) -> None:
    """True over false positive rate; `curves` holds (false positive rate, true positive rate, area) by class."""
    with figure_of(path, 1, 6.6, 4.8) as (axis,):
        axis.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label="chance  0.500")
        for name, (x, y, area) in list(curves.items())[:20]:
            if not np.isnan(area):
                axis.plot(x, y, label=f"{printable(name)}  {area:.3f}")
        axis.set(xlabel="false positive rate (0 to 1)", ylabel="true positive rate (0 to 1)", xlim=(-0.01, 1), ylim=(0, 1.02))
        axis.grid(True)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="area under the curve", title_fontsize=8)

"""Figures of a run for people, made with matplotlib, which is imported only here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddptrain.reporting.table import Table
from ddptrain.system.files import replacing, write_text
from ddptrain.system.printable import printable

STYLE: Any = {
    "text.parse_math": False,  # a class may have $ in its name
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a949c",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "grid.color": "#e3e7ea",
    "legend.frameon": False,
}


@contextmanager
def figure_of(path: Path, count: int = 1, width: float = 5.0, height: float = 4.0) -> Iterator[list[Any]]:
    """`count` axes, at most five in a row; the figure is written to `path` afterwards. Needs no display and leaves pyplot's
    state alone."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-count // 5)
    columns = -(-count // rows)
    with rc_context(STYLE):
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(np.ravel(figure.subplots(rows, columns)))
        for spare in axes[count:]:
            spare.remove()
        yield axes[:count]
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            figure.savefig(file, dpi=110, format=path.suffix[1:])


def training_curves(path: Path, history: Mapping[str, Sequence[float]], names: Sequence[str]) -> None:
    """The loss of training and validation, the metrics `names` and the learning rate over the steps of all evaluations, one
    plot each.

    Args:
        history: columns of history.csv; `step` among them. Missing columns are left out.
    """
    plots: list[tuple[str, str, dict[str, str]]] = [("loss", "mean loss", {"training": "train/loss", "validation": "loss"})]
    plots += [(n, f"{n} (0 to 1)", {"validation": n}) for n in names if n != "loss"]
    plots.append(("learning rate", "learning rate per step", {"training": "lr"}))
    plots = [(title, unit, {k: v for k, v in lines.items() if v in history}) for title, unit, lines in plots]
    shown = [plot for plot in plots if plot[-1]]
    with figure_of(path, max(1, len(shown)), 4.0, 3.2) as axes:
        for axis, (title, unit, lines) in zip(axes, shown):
            for label, column in lines.items():
                axis.plot(history["step"], history[column], marker="o", markersize=3, label=label)
            axis.set(title=title, xlabel="step (update of the weights)", ylabel=unit)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.3)
            if len(lines) > 1:
                axis.legend(fontsize=8, loc="upper right")


def confusion(
    path: Path, matrix: NDArray[np.integer], classes: Sequence[str], percent: bool = False, title: str = "samples"
) -> None:
    """A confusion matrix `[classes, classes]`, rows the truth, coloured by the part of the row, with its counts, or with
    those parts in percent."""
    side = max(4.5, 0.5 * len(classes) + 2)
    parts = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with figure_of(path, 1, side, side) as (axis,):
        axis.imshow(parts, vmin=0, vmax=1, cmap="Blues")
        ticks = range(len(classes))
        axis.set(xticks=ticks, yticks=ticks, xlabel="predicted class", ylabel="true class")
        axis.set_title("% of the true class" if percent else title, fontsize=9)
        axis.set_xticklabels(list(map(printable, classes)), rotation=60, ha="right")
        axis.set_yticklabels(list(map(printable, classes)))
        if len(classes) <= 30:
            for i, j in np.ndindex(matrix.shape):
                cell = f"{100 * parts[i, j]:.0f}" if percent else str(matrix[i, j])
                axis.text(j, i, cell, ha="center", va="center", color="white" if parts[i, j] > 0.5 else "black")


def probability_distributions(
    path: Path,
    probabilities: NDArray[np.floating],
    truth: NDArray[np.bool_],
    known: NDArray[np.bool_],
    classes: Sequence[str],
) -> None:
    """For each class the histogram of its predicted probability, where it is true and where it is not.

    Args:
        probabilities: `[n, classes]` in 0..1.
        truth, known: bool `[n, classes]`; what is not known is left out.
    """
    shown = range(min(len(classes), 10))
    bins = np.linspace(0, 1, 26)
    with figure_of(path, len(shown), 3.0, 3.0) as axes:
        for axis, k in zip(axes, shown):
            for is_it, label in ((True, "true"), (False, "not")):
                values = probabilities[(truth[:, k] == is_it) & known[:, k], k]
                axis.hist(values, bins, alpha=0.6, label=f"{label} ({len(values)})", density=len(values) > 0)
            axis.set(title=printable(classes[k]), xlabel="probability (0 to 1)", ylabel="density")
            axis.legend(fontsize=7, loc="upper right")


def pr_curve(path: Path, curves: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating], float]]) -> None:
    """Precision over recall; `curves` holds (recall, precision, average precision) by class."""
    with figure_of(path, 1, 8.0, 5.0) as (axis,):
        for name, (recall, precision, ap) in list(curves.items())[:20]:
            if not math.isnan(ap):
                axis.step(recall, precision, where="pre", label=f"{printable(name)}  AP {ap:.3f}")
        axis.set(xlabel="recall (0 to 1)", ylabel="precision (0 to 1)", xlim=(0, 1.02), ylim=(0, 1.05))
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def class_iou(path: Path, iou: NDArray[np.floating], classes: Sequence[str]) -> None:
    """The IoU of each class, `[classes]`, the highest first; nan for a class that the truth does not show."""
    order = np.argsort(-np.nan_to_num(iou, nan=-1.0), kind="stable")
    with figure_of(path, 1, 7.0, max(2.5, 0.28 * len(classes) + 1)) as (axis,):
        axis.barh(range(len(classes)), np.nan_to_num(iou[order]))
        axis.set(yticks=range(len(classes)), xlim=(0, 1), xlabel="IoU (0 to 1)", ylabel="class")
        axis.set_yticklabels([printable(classes[k]) for k in order])
        axis.invert_yaxis()
        for place, k in enumerate(order):
            value = "not in the truth" if math.isnan(iou[k]) else f"{iou[k]:.3f}"
            axis.text(float(np.nan_to_num(iou[k])) + 0.01, place, value, va="center", fontsize=8)
        axis.grid(axis="x")


def text(path: Path, tables: Sequence[Table], metrics: Mapping[str, float], remarks: Sequence[str]) -> None:
    """The tables of an evaluation, the remarks on it, and every number, as plain text."""
    every = Table(("metric", "value"), list(metrics.items()))
    *parts, last = [dedent(each.text(decimals=4)) for each in (*tables, every)]
    lines = ["\n".join(map(printable, remarks))] if remarks else []
    write_text(path, "\n\n".join([*parts, *lines, last]) + "\n")

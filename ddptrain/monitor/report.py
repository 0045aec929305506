"""Figures of a run for people, made with matplotlib, which is imported only here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddptrain.files import write_text


@contextmanager
def _axes(path: Path, columns: int = 1, width: float = 5.0, height: float = 4.0) -> Iterator[list[Any]]:
    """Axes in a row; the figure is written to `path` afterwards. Needs no display and leaves pyplot's state alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield list(np.ravel(figure.subplots(1, columns)))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def training_curves(path: Path, history: Mapping[str, Sequence[float]], names: Sequence[str]) -> None:
    """The metrics `names` over the steps of all evaluations, one plot each.

    Args:
        history: columns of history.csv; `step` among them. Names that are not there are left out.
    """
    names = [n for n in names if n in history]
    with _axes(path, max(1, len(names)), 4.0, 3.2) as axes:
        for axis, name in zip(axes, names):
            axis.plot(history["step"], history[name], marker="o", markersize=3)
            axis.set(title=name, xlabel="step")
            axis.grid(alpha=0.3)


def confusion(path: Path, matrix: NDArray[np.integer], classes: Sequence[str]) -> None:
    """A confusion matrix `[classes, classes]`, rows the truth, coloured by the part of the row, with its counts."""
    side = max(4.5, 0.5 * len(classes) + 2)
    parts = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with _axes(path, 1, side, side) as (axis,):
        axis.imshow(parts, vmin=0, vmax=1, cmap="Blues")
        ticks = range(len(classes))
        axis.set(xticks=ticks, yticks=ticks, xlabel="predicted", ylabel="true")
        axis.set_xticklabels(classes, rotation=60, ha="right")
        axis.set_yticklabels(classes)
        if len(classes) <= 30:
            for i, j in np.ndindex(matrix.shape):
                axis.text(j, i, str(matrix[i, j]), ha="center", va="center", color="white" if parts[i, j] > 0.5 else "black")


def probability_distributions(
    path: Path, probabilities: NDArray[np.floating], truth: NDArray[np.bool_], classes: Sequence[str]
) -> None:
    """For each class the histogram of its predicted probability, where it is true and where it is not.

    Args:
        probabilities: `[n, classes]` in 0..1.
        truth: bool `[n, classes]`.
    """
    shown = range(min(len(classes), 10))
    bins = np.linspace(0, 1, 26)
    with _axes(path, len(shown), 3.0, 3.0) as axes:
        for axis, k in zip(axes, shown):
            for is_it, label in ((True, "true"), (False, "not")):
                values = probabilities[truth[:, k] == is_it, k]
                axis.hist(values, bins, alpha=0.6, label=f"{label} ({len(values)})", density=len(values) > 0)
            axis.set(title=classes[k], xlabel="probability")
            axis.legend(fontsize=7)


def pr_curve(path: Path, curves: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating], float]]) -> None:
    """Precision over recall; `curves` holds (recall, precision, average precision) by class."""
    with _axes(path, 1, 6.5, 5.0) as (axis,):
        for name, (recall, precision, ap) in list(curves.items())[:20]:
            if not math.isnan(ap):
                axis.step(recall, precision, where="post", label=f"{name}  AP {ap:.3f}")
        axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)


def classification(
    folder: Path,
    probabilities: NDArray[np.floating],
    truth: NDArray[np.bool_],
    classes: Sequence[str],
    several: bool,
    history: Mapping[str, Sequence[float]],
    curves: Sequence[str],
) -> None:
    """All figures of a classifier.

    Args:
        probabilities: `[n, classes]`.
        truth: bool `[n, classes]`.
        several: an image may have any number of classes; then there is no confusion matrix.
        history: columns of history.csv.
        curves: the metrics whose course is drawn.
    """
    training_curves(folder / "training_curves.png", history, list(dict.fromkeys(curves)))
    if not several:
        cells = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(cells, (truth.argmax(1), probabilities.argmax(1)), 1)
        confusion(folder / "confusion_matrix.png", cells, classes)
    probability_distributions(folder / "probability_distributions.png", probabilities, truth, classes)
    shown = {c: _pr(probabilities[:, k], truth[:, k]) for k, c in enumerate(classes) if truth[:, k].any()}
    pr_curve(folder / "pr_curve.png", shown)


def _pr(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[NDArray[np.floating], NDArray[np.floating], float]:
    """Recall, precision and average precision, one point for each score, falling."""
    order = np.argsort(-scores, kind="stable")
    hits = truth[order].cumsum()
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    recall, precision = hits[ends] / hits[-1], hits[ends] / (ends + 1)
    return recall, precision, float((np.diff(recall, prepend=0.0) * precision).sum())


def text(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], metrics: Mapping[str, float], remarks: Sequence[str]
) -> None:
    """The table of an evaluation, what to mind about it, and every number, as plain text."""

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    table = [list(header), *([cell(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ["  ".join(v.ljust(w) for v, w in zip(row, widths)).rstrip() for row in table]
    lines += ["", *remarks] if remarks else []
    lines += ["", *(f"{name:40} {cell(value)}" for name, value in metrics.items())]
    write_text(path, "\n".join(lines) + "\n")

"""Parts of a run's page and figures of its report that several tasks show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.metrics.curves import GRID, Calibration, Curve, Mean
from ddptrain.reporting import curves as figures
from ddptrain.reporting.run_page.parts import Bars, Chart, line, rounded
from ddptrain.reporting.run_page.svg import COLOURS

DRAWN = 24
"""Classes whose curves are drawn, those with the most objects, samples or pixels."""


def series(values: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Arrays by name as lists, None for what is not a number."""
    return {name: [rounded(float(v)) for v in np.asarray(array, np.float64)] for name, array in values.items()}


def calibration_bars(c: Calibration) -> Bars:
    """The reliability diagram."""
    groups = [f"{(i + 0.5) / len(c.number):.2g}" for i in range(len(c.number))]
    notes = [f"{n:,} answers" for n in c.number.tolist()]
    title = "calibration" + ("" if np.isnan(c.error) else f": expected error {c.error:.3f}")
    right = {"confidence": c.confidence, "part that is right": c.precision}
    return Bars(title, groups, series(right), x="confidence, in bins", notes=notes)


def confidence_charts(classes: Sequence[str], found: Sequence[Curve], mean: Mean) -> Iterator[Chart]:
    """Precision over recall, and precision, recall and F1 over the confidence, of the classes with truth."""
    order = sorted(sorted((k for k, c in enumerate(found) if c.truths), key=lambda k: -found[k].truths)[:DRAWN])
    recalled = [line(classes[k], found[k].recall, found[k].precision) for k in order]
    yield Chart("precision over recall", "recall", "precision", recalled, x_range=(0, 1), y_range=(0, 1.02))
    at, best = {k: found[k].at(GRID) for k in order}, mean.threshold
    for title, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1")):
        of_classes = [line(classes[k], GRID, getattr(at[k], key), points=150) for k in order]
        of_all = line("mean", GRID, getattr(mean, key))
        # a class has its colour in all charts; of many only the mean has one
        lines = [*of_classes, of_all] if len(of_classes) < COLOURS else [of_all, *of_classes]
        marks = [(best, f"mean {title} {np.interp(best, GRID, getattr(mean, key)):.3f} at confidence {best:.2f}")]
        yield Chart(title, "confidence", title, lines, marks, (0, 1), (0, 1.02))


def save_confidence_curves(path: Path, found: Mapping[str, Curve], mean: Mean) -> None:
    """The same over the confidence as a figure; `found` holds the curves by class."""
    at = {name: curve.at(GRID) for name, curve in found.items()}
    of_class = {name: {"precision": a.precision, "recall": a.recall, "F1": a.f1} for name, a in at.items()}
    of_all = {"precision": mean.precision, "recall": mean.recall, "F1": mean.f1}
    figures.confidence_curves(path, GRID, of_class, of_all, mean.threshold)

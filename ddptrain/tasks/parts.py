"""Parts of a run's page that several tasks show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddptrain.metrics.curves import Calibration
from ddptrain.reporting.run_page.parts import Bars, rounded


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

"""The table of how exact the metrics of an evaluation are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ddptrain.metrics.outcome import Outcome
from ddptrain.reporting.table import Table

SHOWN = 3
"""Metrics that the table shows, of boxes AP, AP50 and APs."""
TABLED = 30
"""Number of classes up to which each has a row."""


def shown_keys(outcome: Outcome) -> list[str]:
    """The metrics that have intervals in tables."""
    return [k for k in ("AP", "AP50", "APs") if k in outcome.keys] or list(outcome.keys[:SHOWN])


def interval_table(outcome: Outcome, found: Mapping[str, tuple[float, float]]) -> Table:
    """95 % intervals `found` over images, beside the value of each metric: in all, and by class for metrics with classes."""
    keys = shown_keys(outcome)
    scopes = [("all", ""), *((c, f"class/{c}/") for c in outcome.classes)]
    scopes = [(name, scope) for name, scope in scopes if f"{scope}{keys[0]}" in found]
    rows = []
    for name, scope in scopes if len(scopes) <= TABLED + 1 else scopes[:1]:
        row: list[object] = [name]
        for key in keys:
            low, high = found[f"{scope}{key}"]
            row += [outcome.metrics.get(f"{scope}{key}"), None if np.isnan(low) else f"{low:.3f} to {high:.3f}"]
        rows.append(row)
    return Table(("class", *(cell for key in keys for cell in (key, "95 % interval"))), rows)


def intervals_of(outcome: Outcome) -> Table:
    """The table of an outcome."""
    return interval_table(outcome, outcome.intervals(shown_keys(outcome)))

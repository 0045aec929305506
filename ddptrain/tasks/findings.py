"""What an evaluation found, for the page of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddptrain.metrics.outcome import Outcome
from ddptrain.reporting.run_page.findings import Findings
from ddptrain.tasks.base import Predictions, View
from ddptrain.tasks.intervals import shown_keys


def findings_of(
    view: View, predictions: Predictions, outcome: Outcome | None, metrics: Mapping[str, float], about: Mapping[str, Any]
) -> Findings:
    """Metrics, intervals, and what the task says.

    Args:
        outcome: what is kept of the evaluation; None for a task that keeps nothing, and has no intervals.
        about: which weights were evaluated: `step`, `weights`, `digest`.
    """
    intervals = {} if outcome is None else outcome.intervals(shown_keys(outcome))
    return Findings(about, metrics, intervals, view.sections(predictions, outcome))

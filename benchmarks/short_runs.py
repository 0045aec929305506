"""Whole runs inside a benchmark: train, take the summary, write a Markdown table."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ddptrain.config import resolve
from ddptrain.engine.stop import StopFlag
from ddptrain.engine.trainer import train


def summary_of(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Train (or go on with) a run and return its summary.json, a dataset's metrics as `dataset/<name>/<key>`; a stop signal
    ends the benchmark."""
    run = resolve(dict(config), [*overrides, "resume=auto"], source="benchmark")
    with StopFlag() as stop:
        status = train(run, stop)
    if status:
        raise SystemExit(status)
    summary = json.loads((run.folder / "summary.json").read_text())
    own = {f"dataset/{name}/{key}": v for name, metrics in summary["datasets"].items() for key, v in metrics.items()}
    return {**summary, **own}


def table(title: str, rows: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Sequence[str]) -> str:
    """A Markdown table: for each row the mean over its runs of each metric, in percent, with all values of the first."""
    head = ["", *metrics, f"{metrics[0]} by seed"]
    lines = [title, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, summaries in rows.items():
        values = [[_percent(s.get(m)) for s in summaries] for m in metrics]
        cells = [f"{statistics.mean(v):.1f}" for v in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " | " + ", ".join(f"{v:.1f}" for v in values[0]) + " |")
    return "\n".join(lines)


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value

"""The rows of a replayed step: its samples and its layers, for the terminal and for replay.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddptrain.engine.replay import Attempt
from ddptrain.reporting.table import Table
from ddptrain.structures import SampleKey
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Task

SHOWN = 16
"""Rows of a table on the terminal; replay.json has all."""

Row = dict[str, Any]


def sample_rows(attempt: Attempt, task: Task) -> list[Row]:
    """A row for each sample, the largest loss first, one that is not finite before all. Losses are divided by the normalizer of
    the step, so that they add up to its loss; None where the task reports none for a sample."""
    names = [d.name for d in task.config.data.train]
    rows: list[Row] = []
    for batch, loss in zip(attempt.batches, attempt.losses):
        columns = {"loss": loss.per_sample, **loss.parts_per_sample}
        values = {name: _numbers(column, attempt.report.normalizer) for name, column in columns.items()}
        for i, key in enumerate(SampleKey(*k) for k in batch.keys.tolist()):
            losses = {name: column[i] if column else None for name, column in values.items()}
            place = {"position": key.position, "dataset": names[key.dataset], "dataset_number": key.dataset, "index": key.index}
            rows.append({**losses, **place, "file": task.train.source(key)})
    return sorted(rows, key=lambda row: _descending(row["loss"]))


def layer_rows(attempt: Attempt, model: nn.Module) -> list[Row]:
    """A row for each layer with a gradient, the largest norm first: that of its gradient, divided by the normalizer and not
    clipped, and that of its weights."""
    layers: dict[str, list[tuple[float, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        if name in attempt.gradients:
            layers.setdefault(name.rpartition(".")[0] or name, []).append((attempt.gradients[name], parameter.detach()))
    rows: list[Row] = [
        {
            "layer": layer,
            "values": sum(p.numel() for _, p in own),
            "gradient_norm": math.hypot(*(g for g, _ in own)),
            "weight_norm": math.hypot(*(float(torch.linalg.vector_norm(p)) for _, p in own)),
        }
        for layer, own in layers.items()
    ]
    return sorted(rows, key=lambda row: _descending(row["gradient_norm"]))


def shown(known: Mapping[str, Any], samples: Sequence[Row], layers: Sequence[Row]) -> Iterator[str]:
    """The lines about a step for the terminal."""
    loss, *others = (f"{name.replace('_', ' ')} {value:.6g}" for name, value in known["numbers"].items())
    skipped = "" if known["updated"] else ", skipped"
    yield f"step {known['step']}, position {known['position']}{skipped}: {loss} ({', '.join(others)})"
    if known["gap"] is None:
        yield "the run recorded nothing to compare with"
    elif known["gap"] == 0:
        yield "the same numbers as the run recorded, to the last digit"
    else:
        recorded = ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in known["recorded"].items())
        yield f"the run recorded {recorded}: different by {known['gap']:.2g}, relative"
    if all(row["loss"] is None for row in samples):
        yield "its task reports no loss of single samples"
    columns = [name for name in (*samples[0],) if name not in ("dataset_number", "index")]
    yield from _table(columns, samples, "sample")
    yield from _table(list(layers[0]) if layers else [], layers, "layer")


def _table(columns: Sequence[str], rows: Sequence[Row], noun: str) -> Iterator[str]:
    cells = [[_short(row[name]) for name in columns] for row in rows[:SHOWN]]
    yield Table([name.replace("_", " ") for name in columns], cells).text()
    if len(rows) > SHOWN:
        yield f"  and {counted(len(rows) - SHOWN, f'more {noun}')}, see replay.json"


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _numbers(column: Tensor | None, normalizer: float) -> list[float]:
    return [] if column is None else (column.double() / normalizer).tolist()


def _descending(value: float | None) -> float:
    return math.inf if value is None else -math.inf if not math.isfinite(value) else -value

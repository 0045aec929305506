"""The numbers of a logging interval and of an evaluation by tag, for trackers and `metrics.jsonl`; see docs/watching.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ddptrain.engine.state import RunState
from ddptrain.engine.step_report import StepReport
from ddptrain.reporting.ledger import Ledger
from ddptrain.reporting.timing import Reading


def train_scalars(
    state: RunState, report: StepReport, parts: Mapping[str, float], reading: Reading, ledger: Ledger
) -> dict[str, float]:
    """Of the steps since the last interval.

    Args:
        report: of the last of them.
        parts: mean of each part of the loss.
        ledger: is read, and restarts its count.
    """
    rates = state.schedule.at(state.step - 1)
    groups = [(g["name"], "momentum" in g or "betas" in g) for g in state.optimizer.param_groups]
    return {
        "train/loss": sum(parts.values()),
        **{f"train/{name}": value for name, value in parts.items()},
        **{f"optim/lr/{name}": rates.of(name) for name, _ in groups},
        **{f"optim/momentum/{name}": rates.momentum for name, known in groups if known},
        "optim/gradient_norm/all": report.grad_norm,
        **report.norms,
        "optim/normalizer": report.normalizer,
        "optim/skipped_steps": float(state.skipped),
        "data/replaced_samples": float(state.replaced),
        **ledger.scalars(state.samples_by_dataset, ledger.read(), state.pasted_by_dataset),
        "time/epoch": state.epoch,
        "time/images_per_second": reading.images_per_second,
        "time/data_wait": reading.data_wait,
        "time/step_seconds": reading.step_seconds,
    }


def val_scalars(metrics: Mapping[str, float]) -> dict[str, float]:
    """Of an evaluation: `val/<metric>`, and `data/<dataset>/val/<metric>` of one dataset."""
    return {_tag(name): value for name, value in metrics.items()}


def _tag(metric: str) -> str:
    if not metric.startswith("dataset/"):
        return f"val/{metric}"
    _, dataset, name = metric.split("/", 2)
    return f"data/{dataset}/val/{name}"


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that say how it learns, dotted, with numbers, truth values and text: lists and null as JSON."""
    return dict(_leaves({k: v for k, v in config.items() if k not in _NOT_SHOWN}, ""))


_NOT_SHOWN = ("name", "output", "resume", "classes", "slurm", "monitor", "checkpoint")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}".lstrip("."))
    elif key not in ("data.train", "data.val"):
        yield key, value if isinstance(value, (bool, int, float, str)) else json.dumps(value, ensure_ascii=False)

"""Trackers that keep a run of their own: which one a resumed run continues."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ddptrain.reporting.metrics_log import NAME, TRAIN, MetricsLog
from ddptrain.reporting.trackers import build
from ddptrain.reporting.trackers.base import Service

RUNS: dict[str, list[tuple[int, float]]] = {}


class Server(Service):
    """Runs in memory, by their ids."""

    def __init__(self, folder: Path, known: str | None) -> None:
        self.id = known or f"run {len(RUNS)}"
        points = RUNS.setdefault(self.id, [])
        self.sent = {"train": points[-1][0]} if points else {}

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        RUNS[self.id].append((step, values["train/loss"]))


@pytest.mark.parametrize(
    ("how", "ids"),
    [
        ({"resumed": 2}, 1),  # the same steps come again
        ({"resumed": 2, "changed": True}, 2),
        ({"resumed": 4, "changed": True}, 1),  # nothing behind the checkpoint is known there
        ({"resumed": 1, "counted": 4}, 2),
    ],
)
def test_a_run_elsewhere_never_mixes_two_courses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], ids: int
) -> None:
    RUNS.clear()
    monkeypatch.setattr(build, "ELSEWHERE", {"wandb": Server})
    said: list[str] = []
    first = build.build_trackers(["wandb"], tmp_path, None, False, said.append)
    log = MetricsLog(tmp_path / NAME)
    for step in range(1, 5):
        first.scalars({"train/loss": float(step)}, step)
        log.append(TRAIN, step, {"train/loss": float(step)})
    MetricsLog(tmp_path / NAME, how["resumed"], counted=how.get("counted")).settle()
    again = build.build_trackers(["wandb"], tmp_path, unjudged=False, say=said.append, **how)
    again.scalars({"train/loss": 50.0}, 5)
    assert len(RUNS) == ids
    steps = [step for step, _ in RUNS[f"run {ids - 1}"]]
    assert steps == sorted(set(steps)) or "counted" in how
    assert steps[-1] == 5
    assert [
        "starting a new run there, because this one will not repeat the steps logged so far, up to 4" in line for line in said
    ] == [True] * (ids - 1)

"""Every task by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ddptrain.config.classification import ClassificationRun
from ddptrain.config.detection import DetectionRun
from ddptrain.config.interaction import InteractionRun
from ddptrain.config.own import PATTERN, OwnRun
from ddptrain.config.run import RunConfig
from ddptrain.config.segmentation import SegmentationRun

RUNS: Mapping[str, type[RunConfig]] = {
    "detection": DetectionRun,
    "classification": ClassificationRun,
    "segmentation": SegmentationRun,
    "interaction": InteractionRun,
}
"""The first one is what a config is of that names no task; `module:Class`, a task of the user's own, has `OwnRun`."""
OWN = "a task of your own"


def run_of(task: Any) -> type[RunConfig]:
    """The class of a task's config.

    Raises:
        ValueError: there is no such task.
    """
    if isinstance(task, str) and task in RUNS:
        return RUNS[task]
    if isinstance(task, str) and re.fullmatch(PATTERN, task):
        return OwnRun
    raise ValueError(f"task: {json.dumps(task)}: allowed: {', '.join(RUNS)}, or {OWN}, module:Class")


def every_run() -> dict[str, type[RunConfig]]:
    """The class of every kind of run, a task of the user's own last."""
    return {**RUNS, OWN: OwnRun}

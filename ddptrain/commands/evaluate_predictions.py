"""`ddptrain eval --predictions FILE --truth CONFIG`: score the predictions of any detector."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddptrain import distributed
from ddptrain.commands.eval_arguments import Output
from ddptrain.commands.eval_output import make_folders, show
from ddptrain.config import RunConfig, resolve
from ddptrain.config.text import parse_yaml
from ddptrain.data.formats.texts import read_text
from ddptrain.errors import UserError
from ddptrain.system.printable import warn
from ddptrain.tasks.build import new_task
from ddptrain.tasks.detection.external import read_external
from ddptrain.tasks.detection.scores import score, truth_of
from ddptrain.tasks.detection.task import DetectionTask


def evaluate_predictions(
    predictions: Path, truth: Path, overrides: Sequence[str], names: Sequence[str] | None, output: Output
) -> int:
    """Score predictions against `data.val` of a config, which needs nothing else but that and, perhaps, `classes`.

    Args:
        overrides: changes to that config, `key=value`.
        names: class names in the order of the numbers in YOLO's files; None for those of the truth.
    """
    if not distributed.discover("cpu").main:
        return 0
    make_folders(output)
    config = read_truth_config(truth, overrides)
    task = new_task(config).with_classes()
    if not isinstance(task, DetectionTask):
        raise UserError(f"--truth: {truth} is a config of {config.task}; give one of detection")
    task.read_truth()
    for line in task.notes:
        print(f"ddptrain: note: {line}", file=sys.stderr)
    truths = [truth_of(data) for data in task.val_sets]
    if not any((~(t.ignore | t.crowd)).any() for t in truths):
        warn(f"--truth: {truth}: there is no box to find in {', '.join(t.name for t in truths)}: every metric is undefined")
    detections = read_external(predictions, task.val_sets, task.classes, names, warn)
    metrics = score(truths, detections, task.classes, task.config.eval)
    outcome = task.keep(detections, metrics, {"step": None, "weights": str(predictions)})
    show(task, str(predictions), metrics, outcome, output, None)
    return 0


def read_truth_config(path: Path, overrides: Sequence[str]) -> RunConfig:
    """The config at `path`; `classes` (auto) and `data.train` (that of val), which are of no use here, may be missing in it."""
    content: Any = parse_yaml(read_text(path), str(path))
    if isinstance(content, dict):
        content = {"classes": "auto"} | content
        data = content.get("data")
        if isinstance(data, dict) and "val" in data:
            content["data"] = {"train": data["val"]} | data
    return resolve(content, overrides, source=str(path))

"""What `ddptrain eval` shows and writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ddptrain.commands.eval_arguments import Output, SplitBy
from ddptrain.errors import UserError
from ddptrain.metrics.outcome import BoxOutcome, Outcome, write_outcome
from ddptrain.reporting.console import Console
from ddptrain.reporting.history import plain
from ddptrain.reporting.table import Table
from ddptrain.system.files import write_text
from ddptrain.tasks.base import Predictions, Task
from ddptrain.tasks.detection.splits import SPLITS, Parts
from ddptrain.tasks.detection.task import DetectionTask
from ddptrain.tasks.intervals import interval_table, shown_keys

Intervals = Mapping[str, tuple[float, float]]


def make_folders(output: Output) -> None:
    """Make the folders of the files that are asked for, before anything is evaluated.

    Raises:
        UserError: one of them is not a file, or its folder cannot be made.
    """
    json_file = output.json if isinstance(output.json, Path) else None
    for option, file in (("--save", output.save), ("--save-predictions", output.predictions), ("--json", json_file)):
        if file is None:
            continue
        if file.is_dir():
            raise UserError(f"{option}: {file} is a directory; name a file")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"{option}: {file.parent} cannot be made ({e.strerror}); name another file") from None


def show(
    task: Task, title: str, metrics: Mapping[str, float], outcome: Outcome | None, output: Output, own: Path | None
) -> None:
    """Print the tables, or JSON, and write the files that are asked for.

    Args:
        metrics: all of them.
        outcome: what is kept of the evaluation.
        own: where it is kept, unless `output` says otherwise; None for nowhere.
    """
    parts = None if output.split_by is None else split(outcome, output.split_by)
    intervals = {} if outcome is None else outcome.intervals(shown_keys(outcome))
    if output.json:
        ends = {f"interval/{k}/{end}": v for k, pair in intervals.items() for end, v in zip(("low", "high"), pair)}
        of_parts = {f"split/{name}/{k}": v for name, values in (parts or {}).items() for k, v in values.items()}
        text = json.dumps(plain({**metrics, **ends, **of_parts}), indent=1)
        if output.json is True:
            print(text)
        else:
            write_text(output.json, text + "\n")
    if output.json is not True:
        _print_tables(task, title, metrics, outcome, output, intervals, parts)
    save = output.save or own
    if outcome is not None and save is not None:  # last: where it fails, the rest is there
        write_outcome(save, outcome)


def _print_tables(
    task: Task,
    title: str,
    metrics: Mapping[str, float],
    outcome: Outcome | None,
    output: Output,
    intervals: Intervals,
    parts: Parts | None,
) -> None:
    with Console(None, total_steps=0, steps_per_epoch=1, stream=sys.stdout) as console:
        console.table(title, Table(*task.view.summary(metrics)))
        if outcome is not None:
            console.table("with 95 % intervals over images", interval_table(outcome, intervals))
        if parts:
            console.table(f"by {output.split_by}", split_table(parts))
        for remark in task.view.remarks(metrics):
            console.line(f"warning: {remark}")


def split(outcome: Outcome | None, by: SplitBy) -> Parts:
    """The metrics of each part of an evaluation."""
    assert isinstance(outcome, BoxOutcome)  # see `evaluate_checkpoint`
    return SPLITS[by](outcome)


def split_table(parts: Parts) -> Table:
    """A row for each part."""
    keys = list(dict.fromkeys(key for values in parts.values() for key in values))
    counts = ("images", "objects")
    rows = [[name, *(int(v[k]) if k in counts else v[k] for k in keys)] for name, v in parts.items()]
    return Table(("part", *keys), rows)


def write_predictions(file: Path, task: Task, predictions: Predictions) -> None:
    """Write all detections by the paths of their images, in the form of `ddptrain predict`, every digit kept."""
    assert isinstance(task, DetectionTask)
    entries = []
    for data, of_dataset in zip(task.val_sets, predictions, strict=True):
        for index in of_dataset:
            p, (width, height) = of_dataset[index], data.table.sizes[index].tolist()
            rows = [
                {"class": task.classes[label], "score": score, "box": box}
                for label, score, box in zip(*(p[name].tolist() for name in ("labels", "scores", "boxes")), strict=True)
            ]
            entry = {"width": width, "height": height, "detections": rows}
            entries.append(f"{json.dumps(data.table.path(index))}: {json.dumps(entry)}")
    write_text(file, "{\n" + ",\n".join(entries) + "\n}\n")

"""`ddptrain report`: figures and text about the best weights of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ddptrain import distributed
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.commands.evaluate import evaluate_checkpoint
from ddptrain.errors import UserError
from ddptrain.metrics.outcome import FILE, read_outcome
from ddptrain.reporting.history import History
from ddptrain.system.printable import say, warn
from ddptrain.tasks.build import build_task


def report_run(run: Path, overrides: Sequence[str], out: Path | None) -> int:
    """Write the task's report on a run to `out`, by default `report` in the run folder.

    It is made from what the last evaluation has left, if that was of these weights and data and is enough for the task; else
    the run is evaluated as by `evaluate_run`. Raises `UserError` where the package for figures is not installed.
    """
    try:
        if not overrides and _report_kept(run, out):
            return 0
        checkpoint, task, evaluation, world = evaluate_checkpoint(run, overrides)
        if not world.main:
            return 0
        folder = run if run.is_dir() else checkpoint.path.parents[1]
        task.view.report(out or folder / "report", evaluation.predictions, _history(folder))
    except ImportError as e:
        raise UserError(f"report: {e.name} is not installed; pip install 'ddptrain[report]'") from None
    say(f"report on {checkpoint.path} in {out or folder / 'report'}")
    return 0


def _report_kept(run: Path, out: Path | None) -> bool:
    """Write the report from the kept outcome of these weights; False where there is none, or it is not enough."""
    checkpoint = load_checkpoint(run, best=True)
    folder = run if run.is_dir() else checkpoint.path.parents[1]
    try:
        outcome = read_outcome(folder)
    except UserError:
        return False
    if outcome.about.get("step") != checkpoint.step:
        return False
    if not distributed.discover(checkpoint.config.train.device).main:
        return True
    place = out or folder / "report"
    if not build_task(checkpoint.config).view.report_outcome(place, outcome, _history(folder)):
        return False
    say(f"report on {checkpoint.path} in {place}, from {folder / FILE}")
    return True


def _history(folder: Path) -> Mapping[str, Sequence[float]]:
    history = History(folder / "history.csv", sys.maxsize)
    if history.faults:
        warn(f"{folder / 'history.csv'}: malformed, left out of the curves: {', '.join(history.faults)}")
    return history.table

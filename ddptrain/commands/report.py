"""`ddptrain report`: figures and text about the best weights of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ddptrain.commands.evaluate import evaluate_checkpoint
from ddptrain.errors import UserError
from ddptrain.reporting.history import History
from ddptrain.system.printable import say, warn


def report_run(run: Path, overrides: Sequence[str], out: Path | None) -> int:
    """Evaluate a run as `evaluate_run` does, and write the task's report on it to `out`, by default `report` in the run folder.
    Raises `UserError` where the package for figures is not installed."""
    file, task, evaluation, world = evaluate_checkpoint(run, overrides)
    if not world.main:
        return 0
    folder = run if run.is_dir() else file.parents[1]
    history = History(folder / "history.csv", sys.maxsize)
    if history.faults:
        warn(f"{folder / 'history.csv'}: malformed, left out of the curves: {', '.join(history.faults)}")
    try:
        task.view.report(out or folder / "report", evaluation.predictions, history.table)
    except ImportError as e:
        raise UserError(f"report: {e.name} is not installed; pip install 'ddptrain[report]'") from None
    say(f"report on {file} in {out or folder / 'report'}")
    return 0

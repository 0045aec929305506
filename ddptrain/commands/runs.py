"""`ddptrain runs`: all runs below a folder in one table, or as JSON."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ddptrain.errors import UserError
from ddptrain.reporting.table import Table
from ddptrain.system.lock import NAME as LOCK
from ddptrain.system.owner import STALE_S, read_owner
from ddptrain.system.printable import age
from ddptrain.system.status import Status, read_status

COLUMNS = ("run", "state", "step", "metric", "best", "at step", "age", "job", "reason")
TAIL = 1 << 16
"""Bytes at the end of metrics.jsonl in which its last line is looked for."""


class Run(NamedTuple):
    """One run.

    Attributes:
        run: its folder, relative to the one that was looked through.
        state: that of `status.json`; `killed` where the process that trained is gone, `silent` where it does not respond.
        step: of the newest logging interval, checkpoint or end.
        metric, best, best_step: the metric by which the run is judged, its best value, and the step of that.
        age_s: seconds since the run last wrote its status or metrics.
        job: number of its Slurm job; empty without one.
        reason: why it stopped or failed.
    """

    run: str
    state: str
    step: int
    steps: int
    metric: str | None
    best: float | None
    best_step: int | None
    age_s: float
    job: str
    reason: str


def _by_best(run: Run) -> float:
    """The best first; of a loss that is the lowest."""
    if run.best is None:
        return math.inf
    return run.best if run.metric == "loss" else -run.best


SORTS: Mapping[str, Callable[[Run], Any]] = {
    "age": lambda run: run.age_s,
    "name": lambda run: run.run,
    "state": lambda run: (run.state, run.run),
    "step": lambda run: -run.step,
    "best": _by_best,
    "job": lambda run: (not run.job, run.job),
}
"""What the runs can be sorted by: the youngest, the one with most steps and the best first."""


def list_runs(folder: Path, sort: str, as_json: bool) -> int:
    """Print the runs below a folder.

    Args:
        sort: of `SORTS`.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a directory; give one that holds run folders, such as runs")
    now = time.time()
    runs = sorted((_read(path, folder, now) for path in _folders(folder)), key=SORTS[sort])
    if as_json:
        print(json.dumps([run._asdict() for run in runs], indent=2, ensure_ascii=False))
    elif not runs:
        print(f"{folder}: no runs")
    else:
        print(Table(COLUMNS, [_cells(run) for run in runs]).text())
    return 0


def _folders(folder: Path) -> Iterator[Path]:
    """The folders with a status, and none below them."""
    for path, below, files in os.walk(folder, onerror=None, followlinks=False):
        if "status.json" in files:
            below.clear()
            yield Path(path)
        below.sort()


def _read(path: Path, top: Path, now: float) -> Run:
    try:
        status = read_status(path)
    except UserError as e:
        status = Status("failed", 0, 0, "1970-01-01T00:00:00+00:00", str(e))
    assert status is not None
    state, job, step = str(status.state), _last_job(path), status.step
    written = datetime.fromisoformat(status.time).timestamp()
    with suppress(OSError):
        written = max(written, (path / "metrics.jsonl").stat().st_mtime)
    if state == "running":
        state, own = _alive(path / LOCK, now)
        job = own or job
        step = max(step, _newest_step(path / "metrics.jsonl"))
    summary: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        summary = dict(json.loads((path / "summary.json").read_text(encoding="utf-8")))
    metric, best, at = (summary.get(key) for key in ("monitor", "best", "best_step"))
    name = path.relative_to(top).as_posix()
    name = path.resolve().name if name == "." else name
    return Run(name, state, step, status.steps, metric, best, at, max(0.0, now - written), job, status.reason)


def _alive(lock: Path, now: float) -> tuple[str, str]:
    """The state of a run whose status says that it is running, and its job."""
    owner = read_owner(lock)
    if owner is None or (owner.process is not None and owner.process.alive() is False):
        return "killed", "" if owner is None else owner.job
    with suppress(OSError):
        if now - lock.stat().st_mtime > STALE_S:
            return "silent", owner.job
    return "running", owner.job


def _last_job(run: Path) -> str:
    ids = sorted((run / "jobs").glob("*/id"), key=lambda path: path.stat().st_mtime)
    return ids[-1].read_text(encoding="utf-8").strip() if ids else ""


def _newest_step(path: Path) -> int:
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        for line in reversed(file.read().splitlines()):
            with suppress(ValueError, KeyError, TypeError):
                return int(json.loads(line)["step"])
    return 0


def _cells(run: Run) -> list[Any]:
    best = None if run.best is None else f"{run.best:.4g}"
    last = (age(run.age_s), run.job, run.reason)
    return [run.run, run.state, f"{run.step}/{run.steps}", run.metric or "", best, run.best_step, *last]

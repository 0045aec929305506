"""The trackers of a run as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.errors import UserError
from ddptrain.reporting.metrics_log import read_metrics
from ddptrain.reporting.trackers.base import Counts, Service, Tracker, kind_of
from ddptrain.system.files import write_text

IDS = "trackers.json"
"""In the run folder: the id of the run at each tracker that gives one."""
Say = Callable[[str], None]


def _wandb(folder: Path, known: str | None) -> Service:
    from ddptrain.reporting.trackers.wandb import Wandb

    return Wandb(folder, known)


def _mlflow(folder: Path, known: str | None) -> Service:
    from ddptrain.reporting.trackers.mlflow import MLflow

    return MLflow(folder, known)


ELSEWHERE: Mapping[str, Callable[[Path, str | None], Service]] = {"wandb": _wandb, "mlflow": _mlflow}
"""Trackers that keep a run under an id of their own; each is a package that is installed by the extra of its name."""


class Trackers(Tracker):
    """Hands everything to each of some trackers: `("wandb", Wandb(…))`. One that fails is reported once, and tried again at
    the next call: it must not end the training."""

    def __init__(self, trackers: Sequence[tuple[str, Tracker]], say: Say) -> None:
        self._trackers, self._say = list(trackers), say
        self._failing: set[str] = set()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in self._trackers:
            try:
                call(tracker)
            except Exception as e:  # of a network, a disk, another version: whatever it is
                if name not in self._failing:
                    self._failing.add(name)
                    self._say(f"{_failure(name, e)}; training continues, later points are retried")
            else:
                self._failing.discard(name)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.scalars(values, step))

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._each(lambda tracker: tracker.image(tag, image, step))

    def text(self, tag: str, text: str, step: int) -> None:
        self._each(lambda tracker: tracker.text(tag, text, step))

    def pr_curve(self, tag: str, counts: Counts, step: int) -> None:
        self._each(lambda tracker: tracker.pr_curve(tag, counts, step))

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.hparams(values, metrics, step))

    def close(self, finished: bool = False) -> None:
        self._each(lambda tracker: tracker.close(finished))


class Continued(Tracker):
    """A tracker that cannot take back what it has: what it got before the run was stopped is left out when it comes again,
    which is the same, since a run that resumes with the same config repeats its steps; and it gets what a kill has kept from
    it.

    Args:
        sent: the last step of each kind of numbers that it has.
        rows: of the run up to its checkpoint, as `read_metrics` gives them.
    """

    def __init__(self, tracker: Tracker, sent: Mapping[str, int], rows: Iterable[Mapping[str, Any]]) -> None:
        self._tracker, self._sent = tracker, sent
        for row in rows:
            self.scalars({tag: value for tag, value in row.items() if "/" in tag and value is not None}, row["step"])

    def _new(self, tag: str, step: int) -> bool:
        return step > self._sent.get(kind_of([tag]), -1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if self._new(next(iter(values), ""), step):
            self._tracker.scalars(values, step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        if self._new(tag, step):
            self._tracker.image(tag, image, step)

    def text(self, tag: str, text: str, step: int) -> None:
        if self._new(tag, step):
            self._tracker.text(tag, text, step)

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        self._tracker.hparams(values, metrics, step)

    def close(self, finished: bool = False) -> None:
        self._tracker.close(finished)


def check_installed(names: Sequence[str]) -> None:
    """Raise `UserError` where the package of a tracker is not installed."""
    missing = [name for name in names if name in ELSEWHERE and find_spec(name) is None]
    if missing:
        raise UserError(f"monitor.trackers: {missing[0]} is not installed; pip install 'ddptrain[{missing[0]}]'")


def build_trackers(
    names: Sequence[str],
    folder: Path,
    resumed: int | None,
    unjudged: bool,
    say: Say,
    *,
    counted: int | None = None,
    changed: bool = False,
) -> Trackers:
    """Those of `monitor.trackers`; nothing of the others is imported.

    Args:
        folder: of the run, with its metrics.jsonl.
        resumed, unjudged, counted: see `TensorBoard`.
        say: takes a line about one that fails.
        changed: the run does not repeat the steps behind its checkpoint: its config has changed.
    """
    built: list[tuple[str, Tracker]] = []
    known = _read_ids(folder / IDS) if resumed is not None else {}
    for name in names:
        try:
            if name not in ELSEWHERE:
                from ddptrain.reporting.trackers.tensorboard import TensorBoard

                built.append((name, TensorBoard(folder / "tensorboard", resumed, unjudged, say, counted)))
                continue
            tracker = ELSEWHERE[name](folder, known.get(name))
            last = max(tracker.sent.values(), default=-1) if name in known else -1
            if (counted is not None and last >= 0) or (changed and last > (resumed or 0)):
                tracker.close()
                say(
                    f"warning: {name}: starting a new run there, because this one will not repeat the steps logged so far, "
                    f"up to {last}"
                )
                tracker = ELSEWHERE[name](folder, None)
            built.append((name, Continued(tracker, tracker.sent, read_metrics(folder)) if name in known else tracker))
            known[name] = tracker.id
        except Exception as e:  # a server that cannot be reached
            say(f"{_failure(name, e)}; the run is not tracked there")
    if known:
        try:
            write_text(folder / IDS, json.dumps(known) + "\n")
        except OSError as e:
            say(f"warning: {folder / IDS}: not written ({e.strerror}); a resumed run begins new ones at {', '.join(known)}")
    return Trackers(built, say)


def _failure(name: str, error: Exception) -> str:
    return f"warning: {name}: {type(error).__name__}: {str(error).rstrip('.')}"


def _read_ids(path: Path) -> dict[str, str]:
    try:
        return {str(k): str(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}

"""How fast a run goes, what share of the time it waits for data, and when it will be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")
RECENT = 9
"""Windows that the ETA is made from."""


@dataclass(frozen=True)
class Reading:
    """The window of steps since the last reading.

    Attributes:
        images_per_second: over all ranks, without pauses.
        data_wait: share of the time, 0..1, that this rank waited for its loader.
        step_seconds: mean seconds per step, without pauses.
        eta_seconds: seconds to the end of the run, pauses (evaluations, checkpoints) included at their rate so far;
            nan before the first step.
        seconds: length of the window, without pauses.
    """

    images_per_second: float
    data_wait: float
    step_seconds: float
    eta_seconds: float
    seconds: float


class Timing:
    """Clock of the training loop.

    It never waits for the device: a window is right because the loop reads its losses (and so waits) at the same log
    steps at which `read` is called.

        for batch in timing.wait_for(loader):
            ...
            timing.step(global_batch)
            with timing.pause():
                evaluate()

    Args:
        total_steps: length of the run.
        step: steps done before (resume).
        clock: seconds, monotonic.
    """

    def __init__(self, total_steps: int, step: int = 0, clock: Callable[[], float] = perf_counter) -> None:
        self._total, self._done, self._clock = total_steps, step, clock
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._start = clock()
        self._wait = self._paused = self._all_paused = 0.0
        self._steps = self._samples = self._all_steps = 0

    def wait_for(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, the time until each one arrives counted as waiting for data."""
        iterator = iter(batches)
        while True:
            before = self._clock()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._wait += self._clock() - before
            yield batch

    def step(self, samples: int) -> None:
        """One step is done; `samples` counts all ranks (the global batch)."""
        self._steps += 1
        self._samples += samples

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time outside training: an evaluation, a checkpoint."""
        before = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - before

    def read(self) -> Reading:
        """Close the window (at least one step) and start the next."""
        reading, now = self.peek(), self._clock()
        self._done += self._steps
        self._all_steps += self._steps
        self._all_paused += self._paused
        if self._steps:
            self._recent.append(reading.step_seconds)
        self._start, self._wait, self._paused, self._steps, self._samples = now, 0.0, 0.0, 0, 0
        return reading

    def first(self) -> Reading:
        """The same of the first step, which does not predict those to come (compilation, cold caches)."""
        reading = self.read()
        self._recent.clear()
        return replace(reading, eta_seconds=float("nan"))

    def peek(self) -> Reading:
        """The window so far, without closing it."""
        busy = max(self._clock() - self._start - self._paused, 1e-9)
        step_seconds = busy / self._steps if self._steps else float("nan")
        wait = min(self._wait / busy, 1.0)
        return Reading(self._samples / busy, wait, step_seconds, self._eta(step_seconds), busy)

    def _eta(self, step_seconds: float) -> float:
        # the median: a stall must not count
        recent = [*self._recent, step_seconds] if self._steps else list(self._recent)
        steps = self._all_steps + self._steps
        if not recent:
            return float("nan")
        left = max(self._total - self._done - self._steps, 0)
        return left * (median(recent[-RECENT:]) + (self._all_paused + self._paused) / steps)


def duration(seconds: float) -> str:
    """Seconds as `m:ss`, `h:mm:ss` or `1d hh:mm:ss`; `?` where unknown."""
    if seconds != seconds or seconds == float("inf"):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02}:{m:02}:{s:02}"
    return f"{h}:{m:02}:{s:02}" if h else f"{m}:{s:02}"

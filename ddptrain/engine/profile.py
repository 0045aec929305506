"""`monitor.profile`: what each part of a step takes, as a table and as a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch

from ddptrain.data.loading.costs import Costs
from ddptrain.reporting.table import Table
from ddptrain.system.clock import NO_TIME, Clock, Seconds

T = TypeVar("T")
WARM = 3
"""Steps before the first that is recorded: these take memory, choose kernels and fill the loader."""
PAUSE, OTHER = "evaluations, checkpoints", "other"
WAIT = "wait for data"
STEP_PARTS = (WAIT, "transfer", "forward", "loss", "backward", "reduction", "update", OTHER)
"""In the order of a step."""


class Profile:
    """Records `steps` steps with a clock, then as many with torch's profiler.

    On a GPU the host waits at both ends of a part while the clock runs, so that each part gets what it takes; such a step takes
    longer than one whose parts overlap, which the trace shows as it is.

    Args:
        folder: for the table (`steps.txt`) and the trace (`rank0.pt.trace.json.gz`).
        costs: what the loader of this rank tells.
        micro_batches: of this rank, in a step.
        workers: loader processes; with 0 their work is part of the step.
    """

    def __init__(self, steps: int, device: torch.device, folder: Path, costs: Costs, micro_batches: int, workers: int) -> None:
        self._steps, self._device, self._folder, self._costs, self._workers = steps, device, folder, costs, workers
        self._done = 0
        self._clock: Clock | None = None
        self._trace: Any = None
        costs.wanted = (WARM + steps) * micro_batches

    def part(self, name: str) -> AbstractContextManager[Any]:
        """Around a part of a step; parts may lie in others."""
        if self._clock is not None:
            return self._clock.part(name)
        return torch.profiler.record_function(name) if self._trace is not None else nullcontext()

    def taken(self, name: str, items: Iterator[T]) -> Iterator[T]:
        """The same items; to take one is a part of a step."""
        while True:
            with self.part(name):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def after_step(self) -> tuple[str, Table] | None:
        """Count a step; once the last one with the clock is over, the title and the table of what they took."""
        self._done += 1
        found = None
        if self._done == WARM:
            self._costs.clear()
            self._clock = Clock(OTHER, self._settle)
        elif self._done == WARM + self._steps:
            found = self._close_clock()
            self._start_trace()
        elif self._done == WARM + 2 * self._steps:
            self._close_trace()
        elif self._trace is not None:
            self._trace.step()
        return found

    def close(self) -> tuple[str, Table] | None:
        """At the end of a run, maybe before the last step that was to be recorded."""
        self._close_trace()
        return self._close_clock() if self._done > WARM else None

    def _settle(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _start_trace(self) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self._device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        # with a schedule, if only to record all, the steps are named, too
        self._trace = torch.profiler.profile(activities=kinds, schedule=lambda step: torch.profiler.ProfilerAction.RECORD)
        self._trace.start()

    def _close_trace(self) -> None:
        if self._trace is None:
            return
        trace, self._trace = self._trace, None
        trace.stop()
        self._folder.mkdir(exist_ok=True)
        trace.export_chrome_trace(str(self._folder / "rank0.pt.trace.json.gz"))

    def _close_clock(self) -> tuple[str, Table] | None:
        if self._clock is None:
            return None
        seconds, self._clock = self._clock.read(), None
        steps = self._done - WARM
        pause = seconds.pop(PAUSE, NO_TIME).wall
        whole = sum(s.wall for s in seconds.values()) / steps
        title = f"a step takes {1e3 * whole:.1f} ms, the mean of steps {WARM + 1} to {self._done} of this process"
        if pause:
            title += f" without {pause:.1f} s for {PAUSE}"
        table = step_table(seconds, self._costs.totals(), steps, self._costs.samples, self._workers)
        self._folder.mkdir(exist_ok=True)
        (self._folder / "steps.txt").write_text(f"{title}\n{table.text()}\n", encoding="utf-8")
        return title, table


def step_table(parts: dict[str, Seconds], making: dict[str, Seconds], steps: int, samples: int, workers: int) -> Table:
    """What each part takes: of the step, in ms and as a share; and of the work of the loader, CPU time in ms a sample.

    Args:
        parts: seconds of all steps by `STEP_PARTS`.
        making: seconds of the loader for `samples` samples by its parts; without loader processes they are part of the wait.
        steps, samples: how many.
    """
    whole = sum(s.wall for s in parts.values())
    walls = {name: parts.get(name, NO_TIME).wall for name in STEP_PARTS}
    if not workers:
        walls = {name: s.wall for name, s in making.items()} | walls
        walls[WAIT] -= sum(s.wall for s in making.values())
    rows: list[list[Any]] = []
    for name in dict.fromkeys((*making, *walls)):
        cpu = 1e3 * making[name].cpu / samples if name in making else None
        wall = walls.get(name)
        rows.append([name, None if wall is None else 1e3 * wall / steps, None if wall is None else 100 * wall / whole, cpu])
    total = 1e3 * sum(s.cpu for s in making.values()) / samples if samples else None
    rows.append(["step", 1e3 * whole / steps, 100.0, total])
    return Table(["part", "ms a step", "%", "CPU ms a sample"], rows)

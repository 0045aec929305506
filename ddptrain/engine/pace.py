"""Where the time of a run goes: the clock of the loop, what the loader tells, and what is said of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ddptrain.config.data import DataConfig
from ddptrain.data.loading.ahead import on_device
from ddptrain.data.loading.costs import Costs
from ddptrain.distributed import World
from ddptrain.engine.profile import PAUSE, WAIT, Profile
from ddptrain.engine.state import RunState
from ddptrain.reporting.console import Console
from ddptrain.reporting.table import Table
from ddptrain.reporting.timing import Reading, Timing
from ddptrain.structures import Batch
from ddptrain.system.clock import Seconds
from ddptrain.system.limits import available_cores
from ddptrain.system.printable import counted, listing

TOLD_WAIT, TOLD_S = 0.1, 1.0
"""Share of a reporting interval, and seconds in it: a run that waits longer for its data says why."""
_MEASURED = 16
"""Batches that are measured to know why."""


class Pace:
    """The pace of this rank's loop, which rank 0 reports.

    Attributes:
        timing: clock of the loop.
        costs: for the loader of the run.
    """

    def __init__(self, state: RunState, world: World, data: DataConfig, console: Console, folder: Path, profile: int) -> None:
        """`folder`: of the run; `profile`: steps to record."""
        self.timing, self.costs = Timing(state.steps, state.step), Costs()
        self._world, self._data, self._console, self._folder = world, data, console, folder / "profile"
        self._told = not world.main
        self._profile: Profile | None = None
        if profile and world.main:
            self._profile = Profile(profile, world.device, self._folder, self.costs, state.split.accumulation, data.workers)
            state.stepper.part = self._profile.part

    def batches(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of a loader on the device, with a clock on the wait for each."""
        waited = self.timing.wait_for(loader)
        if self._profile is None:
            return on_device(waited, self._world.device)
        return self._profile.taken("transfer", on_device(self._profile.taken(WAIT, waited), self._world.device))

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Around what is done between two steps: an evaluation, a checkpoint."""
        with self.timing.pause(), nullcontext() if self._profile is None else self._profile.part(PAUSE):
            yield

    def step(self, samples: int) -> None:
        """One step is done; `samples` counts all ranks (the global batch)."""
        self.timing.step(samples)
        if self._profile is not None:
            with self.timing.pause():
                self._record(self._profile.after_step)

    def close(self) -> None:
        """At the end of the steps, also of a run that fails; closing twice is fine."""
        if self._profile is not None:
            self._record(self._profile.close)

    def tell(self, reading: Reading) -> None:
        """Say once, in words, what a run waits for whose data come too late; nothing is measured before that is so."""
        if self._told or reading.data_wait <= TOLD_WAIT or reading.seconds < TOLD_S:
            return
        if not self.costs.samples:
            self.costs.wanted = _MEASURED
            return
        self._told = True
        # Slurm gives each task cores of its own
        cores = available_cores() // (1 if self._world.launcher == "srun" else self._world.local_size)
        each = {part: Seconds(*(1e3 * s / self.costs.samples for s in found)) for part, found in self.costs.totals().items()}
        self._console.line(f"warning: {advice(reading.data_wait, each, self._data, cores)}")

    def _record(self, record: Callable[[], tuple[str, Table] | None]) -> None:
        try:
            found = record()
        except OSError as e:
            self._console.line(f"warning: {self._folder}: not written ({e.strerror}); training continues")
        else:
            if found is not None:
                self._console.table(*found)


def advice(wait: float, each: dict[str, Seconds], data: DataConfig, cores: int) -> str:
    """Why a run waits for its data, and what to change, in one line.

    Args:
        wait: share of the time, 0..1.
        each: what a sample takes by part, in milliseconds.
        cores: that the rank may use.
    """
    most = max(each, key=lambda part: each[part].wall)
    disk = most == "read" and each[most].wall > 2 * each[most].cpu
    parts = ", ".join(f"{part} {ms.wall:.1f}" for part, ms in each.items())
    total = sum(ms.wall for ms in each.values())
    why = "most of it waiting for the disk" if disk else f"mostly {most}"
    found = f"making a sample takes {total:.1f} ms ({parts}), {why}"
    ways = []
    if disk or data.workers < cores:
        ways.append(f"raise data.workers ({data.workers} now, {counted(cores, 'core')})")
    if most in ("read", "decode") and data.cache == "none":
        ways.append("keep decoded pixels (data.cache=disk)")
    if not disk:
        ways.append("lower data.image_size")
    return f"the run waits for data {wait:.0%} of the time; {found}: {listing(ways, 'or')}"

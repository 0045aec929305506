"""`ddptrain lr-find`: a learning rate by Smith's range test (arXiv 1506.01186, section 3.3).

From fresh weights (or those of `init_from`), the rate rises exponentially from step to step over the batches of the run, the
same for all parameters, until the loss diverges. The loss is smoothed; the proposal is a tenth of the rate at which it was
lowest: there the loss still falls fast, and far from where it diverges. The steps are functions of config and seed, and so is
the proposal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ddptrain import distributed
from ddptrain.config import load_config
from ddptrain.config.batch import split_batch
from ddptrain.engine.arithmetic import arithmetic
from ddptrain.engine.batches import batches_from
from ddptrain.engine.build import build_state
from ddptrain.engine.state import RunState
from ddptrain.errors import UserError
from ddptrain.optim.schedule import Rates, Schedule
from ddptrain.reporting.rates import draw_rates
from ddptrain.structures import Batch
from ddptrain.system.printable import counted, say, warn
from ddptrain.tasks.build import build_task

DIVERGED, OF = 4.0, 3
"""Times the lowest mean of so many losses in a row at which their mean has diverged."""
WINDOW, BELOW_LOWEST = 0.04, 10.0
"""Standard deviation of the window that smooths the losses, as part of the steps; what the rate of the lowest is divided by."""
FALLEN = 0.98
"""A loss that stays above this part of its first value does not fall."""
MOST_OVERFLOWS = 20
"""Steps of fp16 that may overflow until the loss scale fits."""


class Rise(Schedule):
    """Rates that rise from `low` to `high`, the same for all groups of parameters, without a warm-up."""

    def __init__(self, schedule: Schedule, low: float, high: float, steps: int) -> None:
        super().__init__(schedule.config, schedule.optimizer, steps, 1.0)
        self._low, self._high = low, high

    def at(self, step: int) -> Rates:
        lr = self._low * (self._high / self._low) ** (step / (self.steps - 1))
        return Rates(lr, lr, self.optimizer.momentum)


class Point(NamedTuple):
    """A step: its rate and its loss."""

    lr: float
    loss: float


def find_rate(source: str, overrides: Sequence[str], steps: int, low: float, high: float, out: Path) -> int:
    """Run the test, print the proposal and why, and draw the curve.

    Raises:
        UserError: `steps`, `low` or `high` is impossible.
    """
    if steps < 10:
        raise UserError(f"--steps {steps}: must be an integer ≥ 10")
    if not 0 < low < high:
        raise UserError(f"--low {low:g} --high {high:g}: must be above 0, and high above low")
    config = load_config(source, [*overrides, "resume=null"])
    world = distributed.discover(config.train.device, {})
    with arithmetic(config.train, world.device):
        task = build_task(config)
        state = build_state(task, world, split_batch(config.train.global_batch, config.train.micro_batch, 1))
        if config.init_from is not None:
            state.start_from(Path(config.init_from), task.config.classes, config.init_strict)
        state.schedule = Rise(state.schedule, low, high, steps)
        with batches_from(state, task) as loader:
            points = list(rise(state, (batch.to(world.device) for batch in loader), steps))
    smoothed = smooth([p.loss for p in points], WINDOW * steps)
    why, lr = proposal(points, smoothed, steps)
    say(f"{config.optimizer.name}, {counted(len(points), 'step')} of {config.train.global_batch} samples: {why}")
    try:
        draw_rates(out, [p.lr for p in points], [p.loss for p in points], smoothed, lr, config.optimizer.lr)
        say(f"the curve is in {out}")
    except ImportError as e:
        warn(f"no picture: {e.name} is not installed; pip install 'ddptrain[report]'")
    if lr is None:
        return 1
    say(f"optimizer.lr={lr:.2g}")
    return 0


def rise(state: RunState, batches: Iterator[Batch], steps: int) -> Iterator[Point]:
    """Make the steps of a test, at most so many: to the one at which the loss diverges."""
    losses: list[float] = []
    lowest, tries = math.inf, steps + MOST_OVERFLOWS
    while state.step < steps and tries:
        tries -= 1
        lr = state.schedule.at(state.step).lr
        report = state.advance([next(batches) for _ in range(state.split.accumulation)])
        if report.overflow:
            continue
        losses.append(sum(report.parts.values()))
        if not (report.updated and math.isfinite(losses[-1])):
            return
        yield Point(lr, losses[-1])
        mean = fmean(losses[-OF:])
        lowest = min(lowest, mean)
        if mean > DIVERGED * lowest:
            return


def smooth(losses: Sequence[float], deviation: float) -> list[float]:
    """The losses under a Gaussian window, which leaves a minimum where it is, as a running mean would not."""
    near = np.arange(len(losses))
    weights = np.exp(-0.5 * ((near[:, None] - near) / max(deviation, 1e-9)) ** 2)
    return (weights @ np.asarray(losses) / weights.sum(1)).tolist() if losses else []


def proposal(points: Sequence[Point], smoothed: Sequence[float], steps: int) -> tuple[str, float | None]:
    """How a rate is chosen, in words, and the rate; None where there is none to choose."""
    if len(points) < 2:
        return "the loss is not finite at the first steps: no rate was found", None
    lowest = min(smoothed)
    if lowest > FALLEN * smoothed[0]:
        fell = f"the smoothed loss never fell below {lowest:.3g} (it began at {smoothed[0]:.3g})"
        return f"{fell}: no rate was found; look for the cause with ddptrain diagnose", None
    best = points[smoothed.index(lowest)].lr
    end = f"diverged at {points[-1].lr:.2g}" if len(points) < steps else f"did not diverge up to {points[-1].lr:.2g}"
    why = f"the smoothed loss was lowest, {lowest:.3g}, at {best:.2g} and {end}; a tenth of that rate is proposed"
    return why, best / BELOW_LOWEST

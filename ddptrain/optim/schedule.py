"""Learning rate and momentum as a function of the step: no state, so that resuming is setting the step. `plateau` alone has
one, since it follows the evaluations.

`step` is the number of updates made before this one: 0 at the first update of a run, `steps - 1` at the last.
"""

from collections.abc import Callable
from math import cos, pi
from typing import NamedTuple

from torch.optim import Optimizer

from ddptrain.config import OptimizerConfig, ScheduleConfig
from ddptrain.optim.plateau import Plateau
from ddptrain.system.exact import exact


def _between(start: float, end: float, x: float) -> float:
    """Half a cosine from `start` at x = 0 to `end` at x = 1."""
    return (1 - cos(pi * x)) / 2 * (end - start) + start


def _fraction(step: int, steps: int) -> float:
    return step / max(steps - 1, 1)


def constant(config: ScheduleConfig, step: int, steps: int) -> float:
    """1 throughout."""
    return 1.0


def linear(config: ScheduleConfig, step: int, steps: int) -> float:
    """A straight line from 1 at the first step to `final` at the last."""
    return 1 + _fraction(step, steps) * (config.final - 1)


def one_cycle(config: ScheduleConfig, step: int, steps: int) -> float:
    """Half a cosine from 1 at the first step to `final` at the last (YOLO's one-cycle, SGDR's annealing)."""
    return _between(1.0, config.final, _fraction(step, steps))


def one_cycle_3(config: ScheduleConfig, step: int, steps: int) -> float:
    """The three phases of `torch.optim.lr_scheduler.OneCycleLR(three_phase=True)`, each half a cosine.

    From 1 / div_factor up to 1 over `pct_start` of the run, down to 1 / div_factor over as much again, and on to
    1 / (div_factor * final_div_factor) at the last step (Super-Convergence, arXiv 1708.07120).
    """
    low = 1 / config.div_factor
    up_ends = config.pct_start * steps - 1
    down_ends = 2 * up_ends
    if step <= up_ends:
        return _between(low, 1.0, step / up_ends if up_ends > 0 else 1.0)
    if step <= down_ends:
        return _between(1.0, low, (step - up_ends) / (down_ends - up_ends))
    return _between(low, low / config.final_div_factor, (step - down_ends) / (steps - 1 - down_ends))


def multi_step(config: ScheduleConfig, step: int, steps: int) -> float:
    """`gamma` to the number of milestones passed; a milestone is a fraction of the run."""
    return config.gamma ** sum(step >= exact(milestone) * steps for milestone in config.milestones)


SCHEDULES: dict[str, Callable[[ScheduleConfig, int, int], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": one_cycle,
    "one_cycle": one_cycle,
    "one_cycle_3": one_cycle_3,
    "multi_step": multi_step,
    "plateau": constant,
}


class Rates(NamedTuple):
    """What one step uses: learning rate of the biases and of all other parameter groups, and the momentum."""

    lr: float
    bias_lr: float
    momentum: float

    def of(self, group: str) -> float:
        """The learning rate of a parameter group."""
        return self.bias_lr if group == "bias" else self.lr


class Schedule:
    """Learning rates and momentum of a run, each behind a linear warm-up.

    Over the warm-up the learning rate rises from 0, that of the biases under sgd falls from `warmup_bias_lr`, and the
    momentum rises from `warmup_momentum`, each to what it would be without the warm-up (the rule of YOLOv5). Under the
    other update rules, whose steps have about the size of the learning rate, the biases rise from 0 too.

    Args:
        config: the schedule.
        optimizer: gives the peak learning rate and the momentum.
        steps: length of the run in steps, >= 1.
        steps_per_epoch: steps in an epoch, > 0, for the length of the warm-up; that is capped so that the last step is
            outside it.

    Attributes:
        plateau: of the schedule of this name, whose rate is multiplied by `factor` each time that it was lowered; else None.
    """

    def __init__(self, config: ScheduleConfig, optimizer: OptimizerConfig, steps: int, steps_per_epoch: float) -> None:
        self.config, self.optimizer, self.steps = config, optimizer, steps
        self.warmup_steps = min(round(config.warmup_epochs * steps_per_epoch), steps - 1)
        self.bias_start = config.warmup_bias_lr if optimizer.name == "sgd" else 0.0
        self.momentum_start = min(config.warmup_momentum, optimizer.momentum)
        self.plateau = Plateau(config.patience, config.threshold) if config.name == "plateau" else None

    def at(self, step: int) -> Rates:
        """The rates of update `step`; past the end of the run, those of its last step.

        Raises:
            ValueError: `step` is negative.
        """
        if step < 0:
            raise ValueError(f"step {step}: must be ≥ 0")
        step = min(step, self.steps - 1)
        lr = self.optimizer.lr * SCHEDULES[self.config.name](self.config, step, self.steps)
        if self.plateau is not None:
            lr *= self.config.factor**self.plateau.lowered
        bias_lr, momentum = lr, self.optimizer.momentum
        if step < self.warmup_steps:
            x = step / self.warmup_steps
            bias_lr = self.bias_start + x * (lr - self.bias_start)
            momentum = self.momentum_start + x * (momentum - self.momentum_start)
            lr = x * lr
        return Rates(lr, bias_lr, momentum)

    def apply(self, optimizer: Optimizer, step: int) -> Rates:
        """Write the rates of update `step` into the optimizer's groups, found by their `name`; before that update.

        Momentum goes to `momentum` or to the first of `betas`, where the update rule has one.
        """
        rates = self.at(step)
        for group in optimizer.param_groups:
            group["lr"] = rates.of(group["name"])
            if "momentum" in group:
                group["momentum"] = rates.momentum
            if "betas" in group:
                group["betas"] = (rates.momentum, group["betas"][1])
        return rates

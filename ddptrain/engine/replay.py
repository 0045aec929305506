"""A step of a run recomputed, with everything that is recorded about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ddptrain.engine.batches import batches_from
from ddptrain.engine.state import RunState
from ddptrain.engine.step_report import StepReport
from ddptrain.engine.trainer import due as evaluation_due
from ddptrain.errors import UserError
from ddptrain.structures import Batch, LossSum
from ddptrain.tasks.base import Task


@dataclass(frozen=True)
class Attempt:
    """One try of a step: the one that made it, or one before it that was skipped.

    Attributes:
        position: of its first sample in the stream.
        report: its numbers, as the run reports them.
        batches: its micro batches.
        losses: of each micro batch; sums that the report's normalizer divides.
        gradients: norm of each parameter's gradient by its name, divided by the normalizer and not clipped; frozen ones are
            missing.
    """

    position: int
    report: StepReport
    batches: Sequence[Batch]
    losses: Sequence[LossSum]
    gradients: dict[str, float]


def replay(task: Task, state: RunState, step: int, most: int) -> Iterator[Attempt]:
    """Continue from a state to a step, and make it: attempts to the one that is not skipped, or as many as are skipped.

    Args:
        state: of one rank, before the step.
        step: number of the step, > `state.step`.
        most: attempts at most.

    Raises:
        UserError: the step depends on an evaluation that came before it and is not made again.
    """
    split, device = state.split, next(state.model.parameters()).device
    watch = Watch(state)
    follows = state.schedule.plateau is not None or (state.balance is not None and state.balance.by_ap)
    with batches_from(state, task) as loader:
        batches, unjudged = iter(loader), state.unjudged
        while state.step < step and most:
            if unjudged and follows:
                raise UserError(
                    f"--step {step}: the evaluation after step {state.step} decides about it (by a plateau schedule, or "
                    "by data.balance_by: ap) and is not made again; give a step up to that one, or keep a checkpoint from "
                    "after the evaluation (checkpoint.keep_last, checkpoint.every_steps)"
                )
            due = state.step == step - 1
            micro = [next(batches).to(device) for _ in range(split.accumulation)]
            position = state.position
            if due:
                watch.begin()
            report = state.advance(micro)
            unjudged = evaluation_due(task.config.eval, state, report.updated)
            if due:
                most -= 1
                yield Attempt(position, report, micro, watch.losses, watch.gradients)


class Watch:
    """Keeps what a step forgets: the loss of each micro batch, and the norms of the gradients."""

    def __init__(self, state: RunState) -> None:
        self._stepper, self._model, self._loss = state.stepper, state.model, state.stepper.loss
        self.losses: list[LossSum] = []
        self.gradients: dict[str, float] = {}

    def begin(self) -> None:
        """Watch the step that comes next."""
        self.losses, self.gradients = [], {}
        self._stepper.loss, self._stepper.watch = self._keep_loss, self._keep_gradients

    def _keep_loss(self, model: nn.Module, batch: Batch) -> LossSum:
        loss = self._loss(model, batch)
        self.losses.append(loss)
        return loss

    def _keep_gradients(self, factor: float) -> None:
        for name, parameter in self._model.named_parameters():
            if parameter.grad is not None:
                self.gradients[name] = float(torch.linalg.vector_norm(parameter.grad)) * factor

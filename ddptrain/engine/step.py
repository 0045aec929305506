"""One step: forward and backward over the micro batches, one small all-reduce, scale, clip, finite check, update.

The task returns sums. With L the summed loss and N the summed normalizer over all micro batches and ranks, the gradient that
is applied is grad(L) / N: the same for every split of the global batch. DDP averages gradients over W ranks, hence the factor
W / N on what it leaves behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ddptrain import distributed
from ddptrain.distributed import World
from ddptrain.structures import Batch, LossSum

Loss = Callable[[nn.Module, Batch], LossSum]


@dataclass(slots=True)
class StepReport:
    """The outcome of a step, in host numbers that are the same on every rank.

    Attributes:
        updated: False when the step was skipped.
        overflow: the step was skipped because fp16 overflowed; the next one is scaled down and likely fits.
        normalizer: the whole step's.
        grad_norm: of the normalised gradient, before clipping.
        parts: the loss parts, divided by the normalizer.
        loss_by_dataset: each dataset's own part of the summed loss, `[D]`.
        samples_by_dataset: samples of each dataset in the step, `[D]`.
        replaced: samples that stood in for unreadable ones.
        stop: some rank was asked to stop.
        losses: of this rank's micro batches if the step was skipped, else empty.
    """

    updated: bool
    overflow: bool
    normalizer: float
    grad_norm: float
    parts: dict[str, float]
    loss_by_dataset: list[float]
    samples_by_dataset: list[float]
    replaced: int
    stop: bool
    losses: list[LossSum]


@dataclass
class Stepper:
    """Everything a step needs that stays the same between steps.

    `normalizer` is the previous step's: under fp16 the sums are divided by the power of two next to it before the backward
    pass, to stay in range. It is the only state, and belongs in the checkpoint.

    `watch` is called before an update with the factor by which the gradients are then multiplied.
    """

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    world: World
    datasets: int
    clip_norm: float | None = None
    precision: str = "none"
    normalizer: float = 1.0
    scaler: torch.amp.GradScaler | None = None
    watch: Callable[[float], None] | None = None

    def __post_init__(self) -> None:
        device = self.world.device
        if self.precision == "fp16":
            self.scaler = torch.amp.GradScaler(device.type)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        buffers = _running_statistics(self.model)
        self._statistics = [b for b in buffers if b.is_floating_point()]
        counts = [b for b in buffers if not b.is_floating_point()]
        self._touched = [(group, [b.clone() for b in group]) for group in (self._statistics, counts) if group]
        self._gradients: AbstractContextManager[Any] = (
            distributed.Waiting("the gradients of a step") if self.world.size > 1 else nullcontext()
        )
        self._no_flags, self._no_loss = torch.zeros(2, device=device), torch.zeros(self.datasets, device=device)
        self._one_hot = torch.eye(self.datasets, device=device)

    def __call__(self, batches: Sequence[Batch], stop: bool = False) -> StepReport:
        """Run one step over this rank's micro batches; `stop` is this rank's wish to stop after it."""
        for buffers, before in self._touched:
            torch._foreach_copy_(before, buffers)
        losses = [self._backward(b, last=i == len(batches) - 1) for i, b in enumerate(batches)]
        sums = self._reduce(self._sums(batches, losses, stop))
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        grads = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)), keepdim=True)
        *numbers, (raw_norm,) = _to_host([*sums, norm.float()])

        report = self._report(numbers, raw_norm, losses)
        if self.watch is not None:
            self.watch(self._factor(report.normalizer))
        if report.updated:
            clip = min(1.0, self.clip_norm / (report.grad_norm + 1e-6)) if self.clip_norm else 1.0
            torch._foreach_mul_(grads, self._factor(report.normalizer) * clip)
            self.optimizer.step()
            self.normalizer = report.normalizer
        else:  # the forward pass has written into the running statistics: a skipped step leaves no trace
            for buffers, before in self._touched:
                torch._foreach_copy_(buffers, before)
        if self.scaler is not None:
            self.scaler.update()  # saw the same reduced gradients on every rank
        for p in self._parameters:
            p.grad = None
        return report

    def _backward(self, batch: Batch, last: bool) -> LossSum:
        with distributed.no_sync(self.model, enabled=not last):
            with autocast(self.world.device, self.precision):
                loss = self.loss(self.model, batch)
            total = loss.total
            if self.scaler is not None:
                total = self.scaler.scale(total * self._prescale())
            with self._gradients if last else nullcontext():
                total.backward()
        return loss

    def _prescale(self) -> float:
        return 2.0 ** -round(math.log2(max(self.normalizer, 1.0))) if self.scaler is not None else 1.0

    def _factor(self, normalizer: float) -> float:
        """What the gradients that DDP leaves behind lack to be those of the whole step's loss."""
        return self.world.size / (normalizer * self._prescale())

    def _sums(self, batches: Sequence[Batch], losses: Sequence[LossSum], stop: bool) -> list[Tensor]:
        """What a step sums, over this rank's micro batches, float32: normalizer and parts of the loss `[1 + P]`, loss by
        dataset (0 where the task has none per sample) `[D]`, samples by dataset `[D]`, wishes to stop and replaced samples
        `[2]`."""
        micro = [self._of_micro_batch(batch, loss) for batch, loss in zip(batches, losses)]
        totals, loss, samples = micro[0] if len(micro) == 1 else (torch.stack(alike).sum(0) for alike in zip(*micro))
        replaced = sum(len(b.replaced) for b in batches)
        flags = torch.tensor([float(stop), float(replaced)], device=self.world.device) if stop or replaced else self._no_flags
        return [totals, loss, samples, flags]

    def _of_micro_batch(self, batch: Batch, loss: LossSum) -> tuple[Tensor, Tensor, Tensor]:
        # products with a one-hot matrix [B, D]: in a fixed order also on CUDA, where index_add_ has none
        member = self._one_hot.index_select(0, batch.keys.select(1, 1))
        by_dataset = self._no_loss if loss.per_sample is None else loss.per_sample.float() @ member
        return torch.stack([loss.normalizer, *loss.parts.values()]).float(), by_dataset, member.sum(0)

    def _reduce(self, sums: list[Tensor]) -> list[Tensor]:
        """`sums` over the ranks; the same all-reduce turns the running statistics, which differ between ranks, into their
        mean: those of one model."""
        if self.world.size == 1:
            return sums
        tensors = [*sums, *self._statistics]
        flat = distributed.all_reduce_sum(torch.cat([t.float().flatten() for t in tensors]), "the sums of a step")
        reduced = [part.view_as(t) for part, t in zip(flat.split([t.numel() for t in tensors]), tensors)]
        if self._statistics:
            torch._foreach_copy_(self._statistics, torch._foreach_div(reduced[len(sums) :], self.world.size))
        return reduced[: len(sums)]

    def _report(self, sums: list[list[float]], raw_norm: float, losses: list[LossSum]) -> StepReport:
        (normalizer, *parts), loss_by_dataset, samples_by_dataset, (stop, replaced) = sums
        normalizer = max(normalizer, 1.0)
        grad_norm = raw_norm * self._factor(normalizer)
        finite_loss = math.isfinite(sum(map(sum, sums)))
        updated = finite_loss and math.isfinite(grad_norm)
        return StepReport(
            updated=updated,
            overflow=finite_loss and not updated and self.scaler is not None and self.scaler.get_scale() > 1,
            normalizer=normalizer,
            grad_norm=grad_norm,
            parts={name: part / normalizer for name, part in zip(losses[0].parts, parts)},
            loss_by_dataset=loss_by_dataset,
            samples_by_dataset=samples_by_dataset,
            replaced=int(replaced),
            stop=stop > 0,
            losses=[] if updated else losses,
        )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass at a precision: "none", "bf16" or "fp16"."""
    if precision == "none":
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16)


def _to_host(tensors: list[Tensor]) -> list[list[float]]:
    """The numbers of each `[N]` tensor, in one copy: the only wait for the device in a step."""
    numbers = iter(torch.cat(tensors).tolist())
    return [list(islice(numbers, t.shape[0])) for t in tensors]


def _running_statistics(model: nn.Module) -> list[Tensor]:
    """The buffers that a forward pass in training mode writes into."""
    norms = [m for m in model.modules() if getattr(m, "track_running_stats", False)]
    return [b for m in norms for b in m.buffers(recurse=False)]

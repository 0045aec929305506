"""One step: forward and backward over the micro batches, one small all-reduce, scale, clip, finite check, update.

The task returns sums. With L the summed loss and N the summed normalizer over all micro batches and ranks, the gradient that
is applied is grad(L) / N: the same for every split of the global batch. DDP averages gradients over W ranks, hence the factor
W / N on what it leaves behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from ddptrain import distributed
from ddptrain.distributed import World
from ddptrain.structures import Batch, LossSum

Loss = Callable[[nn.Module, Batch], LossSum]


@dataclass(slots=True)
class StepReport:
    """What one step found, in host numbers that are the same on every rank.

    Attributes:
        updated: False when the step was skipped (non-finite gradient or fp16 overflow).
        normalizer: the whole step's.
        grad_norm: of the normalised gradient, before clipping.
        parts: the loss parts, divided by the normalizer.
        loss_by_dataset: each dataset's own part of the summed loss, `[D]`.
        samples_by_dataset: samples of each dataset in the step, `[D]`.
        replaced: samples that stood in for unreadable ones.
        stop: some rank was asked to stop.
    """

    updated: bool
    normalizer: float
    grad_norm: float
    parts: dict[str, float]
    loss_by_dataset: list[float]
    samples_by_dataset: list[float]
    replaced: int
    stop: bool


@dataclass
class Stepper:
    """Everything a step needs that stays the same between steps.

    `normalizer` is the previous step's: under fp16 the sums are divided by the power of two next to it before the backward
    pass, to stay in range. It is the only state, and belongs in the checkpoint.
    """

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    world: World
    datasets: int
    clip_norm: float | None = None
    precision: str = "none"
    normalizer: float = 1.0
    scaler: torch.amp.GradScaler | None = field(default=None)

    def __post_init__(self) -> None:
        if self.precision == "fp16":
            self.scaler = torch.amp.GradScaler(self.world.device.type)
        # running statistics differ between ranks; averaged in the small all-reduce they are one model's
        self._statistics = [
            b for b in distributed.unwrap(self.model).buffers() if b.is_floating_point() and self.world.size > 1
        ]
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]

    def __call__(self, batches: Sequence[Batch], stop: bool = False) -> StepReport:
        """Run one step over this rank's micro batches; `stop` is this rank's wish to stop after it."""
        losses = [self._backward(b, last=i == len(batches) - 1) for i, b in enumerate(batches)]
        names = list(losses[0].parts)
        small = self._small(batches, losses, names, stop)
        self._reduce(small)

        normalizer = small[0].clamp(min=1.0)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        grads = [p.grad for p in self._parameters if p.grad is not None]
        factor = self.world.size / (normalizer * self._prescale())
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))).float() * factor
        # the only wait for the device in a step: flags, sums and the norm, in one copy
        values = torch.cat([small, norm[None], normalizer[None]]).tolist()
        report = _report(values, names, self.datasets, updated=math.isfinite(values[-2]))
        if report.updated:
            clip = min(1.0, self.clip_norm / (report.grad_norm + 1e-6)) if self.clip_norm else 1.0
            torch._foreach_mul_(grads, factor * clip)
        self._update(report.updated)
        if report.updated:
            self.normalizer = report.normalizer
        self.optimizer.zero_grad(set_to_none=True)
        return report

    def _backward(self, batch: Batch, last: bool) -> LossSum:
        amp = self.precision != "none"
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with distributed.no_sync(self.model, enabled=not last):
            with torch.autocast(self.world.device.type, dtype=dtype, enabled=amp):
                loss = self.loss(self.model, batch)
            total = loss.total
            if self.scaler is not None:
                total = self.scaler.scale(total * self._prescale())
            total.backward()
        return loss

    def _prescale(self) -> float:
        return 2.0 ** -round(math.log2(max(self.normalizer, 1.0))) if self.scaler is not None else 1.0

    def _small(self, batches: Sequence[Batch], losses: Sequence[LossSum], names: list[str], stop: bool) -> Tensor:
        """`[normalizer, stop, replaced, parts…, loss per dataset…, samples per dataset…]`, float32, this rank's sums."""
        device, n = self.world.device, self.datasets
        by_dataset = torch.zeros(2, n, device=device)
        for batch, loss in zip(batches, losses):
            which = batch.keys[:, 1].to(device)
            each = loss.per_sample if loss.per_sample is not None else torch.zeros(len(batch), device=device)
            by_dataset.index_add_(1, which, torch.stack([each.float(), torch.ones_like(each, dtype=torch.float32)]))
        head = torch.tensor([float(stop), float(sum(len(b.replaced) for b in batches))], device=device)
        total = sum((x.normalizer.detach().float() for x in losses), start=torch.zeros((), device=device))
        parts = [sum((x.parts[k].float() for x in losses), start=torch.zeros((), device=device)) for k in names]
        return torch.cat([total[None], head, torch.stack(parts), by_dataset.flatten()])

    def _reduce(self, small: Tensor) -> None:
        """Sum `small` over the ranks in place and, in the same call, average the running statistics."""
        if self.world.size == 1:
            return
        tensors = [small, *self._statistics]
        flat = distributed.all_reduce_sum(_flatten_dense_tensors([t.float() for t in tensors]))
        summed = _unflatten_dense_tensors(flat, tensors)
        small.copy_(summed[0])
        for buffer, value in zip(self._statistics, summed[1:]):
            buffer.copy_(value / self.world.size)

    def _update(self, finite: bool) -> None:
        if self.scaler is not None:
            # the scaler saw the same reduced gradients on every rank: it skips on all or on none
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif finite:
            self.optimizer.step()


def _report(values: list[float], names: list[str], datasets: int, updated: bool) -> StepReport:
    normalizer, stop, replaced = values[-1], values[1], values[2]
    parts, rest = values[3 : 3 + len(names)], values[3 + len(names) :]
    return StepReport(
        updated=updated,
        normalizer=normalizer,
        grad_norm=values[-2],
        parts={k: v / normalizer for k, v in zip(names, parts)},
        loss_by_dataset=rest[:datasets],
        samples_by_dataset=rest[datasets : 2 * datasets],
        replaced=int(replaced),
        stop=stop > 0,
    )

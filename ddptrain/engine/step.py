"""One step: forward and backward over the micro batches, their sums over all ranks, scale, clip, finite check, update.

The task returns sums. With L the summed loss and N the summed normalizer over all micro batches, the gradient that is applied
is grad(L) / N: the same for every split of the global batch. The micro batch is the unit of computing: each starts from the
running statistics of the step's start and draws its own random numbers, and what comes out of them is added in one fixed tree.
So a step has the same bits on any number of ranks.

On a GPU the host launches a step, its update included, before it has read the outcome of the one before: what decides about
the update is computed on the device. A step after one that made no update makes none either, and is launched again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddptrain.distributed import Gradients, TreeSum, Waiting
from ddptrain.engine.arithmetic import autocast, device_decides
from ddptrain.engine.norms import Measurement
from ddptrain.engine.parts import Forward, Parts, Stopwatch, unnamed
from ddptrain.engine.running_statistics import running_statistics
from ddptrain.engine.step_report import Launched, StepReport
from ddptrain.models.norms import refuse_single_values
from ddptrain.seeding import seed_torch
from ddptrain.structures import Batch, LossSum

Loss = Callable[[nn.Module, Batch], LossSum]


@dataclass
class Stepper:
    """Everything a step needs that stays the same between steps.

    `normalizer` is the previous step's that was finite: under fp16 the sums are divided by the power of two next to it before
    the backward pass, to stay in range. It is the only state, and belongs in the checkpoint.

    Attributes:
        model: neither wrapped in DDP nor compiled; `gradients.model` may be.
        gradients: how gradients are added over micro batches and ranks.
        tree: how everything else is, and which micro batches are this rank's.
        datasets: number of datasets.
        seed: the run's.
        launching: around a launch and what follows it on the device.
        at_step: a micro batch as the step with a number sees it, see `Task.at_step`.
        watch: called before an update with the factor by which the gradients are then multiplied; the host decides then.
        part: around each part of a step.
        waited: the seconds that the host has waited for other ranks, and on a GPU for that.
    """

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    gradients: Gradients
    tree: TreeSum
    datasets: int
    device: torch.device
    seed: int = 0
    clip_norm: float | None = None
    precision: str = "none"
    normalizer: float = 1.0
    scaler: torch.amp.GradScaler | None = None
    watch: Callable[[float], None] | None = None
    part: Parts = unnamed
    at_step: Callable[[Batch, int], Batch] = lambda batch, number: batch

    def __post_init__(self) -> None:
        if self.precision == "fp16":
            self.scaler = torch.amp.GradScaler(self.device.type)
        self._statistics = running_statistics(self.model)
        self._no_loss = torch.zeros(self.datasets, device=self.device)
        self._no_flags = torch.zeros(2 + self.datasets, device=self.device)
        self._one_hot = torch.eye(self.datasets, device=self.device)
        self._gated = device_decides(self.device, self.precision, self.optimizer)
        self.waited = Stopwatch()
        self._others: AbstractContextManager[Any] = self.waited if self.tree.ranks > 1 else nullcontext()
        self._reading, self.launching = self._watched("the sums of a step"), self._watched("the launch of a step")

    def __call__(self, batches: Sequence[Batch], number: int, stop: bool = False) -> StepReport:
        """Run one step over this rank's micro batches, and wait for it.

        Args:
            number: steps before this one, skipped ones included, for the random numbers in the network, and `at_step`.
            stop: this rank's wish to stop after it.
        """
        return self.read(self.launch(batches, number, stop))

    def launch(
        self,
        batches: Sequence[Batch],
        number: int,
        stop: bool = False,
        after: Launched | None = None,
        measurement: Measurement | None = None,
    ) -> Launched:
        """Start a step; `after` is the one before where that is not read yet. See `__call__` for the rest."""
        for values, before in self._statistics:
            before.copy_(values)
        losses, rows = [], []
        for i, batch in enumerate(batches):
            if i:
                self._restore()
            seed_torch(self.seed, number, self.tree.first + i)
            losses.append(self._forward_and_backward(self.at_step(batch, number), i))
            rows.append(self._sums(batch, losses[-1], stop))
            if self.tree.micro_batches > 1:
                rows[-1] = torch.cat([rows[-1], *(values - before for values, before in self._statistics)])
        with self.part("reduction"), self._others:
            sums = rows[0] if self.tree.micro_batches == 1 else self._add(rows)
        with self.part("update"):
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            grads = self.gradients.all()
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)), keepdim=True)
            launched = Launched(torch.cat([sums, norm.float()]), losses, grads, measurement=measurement)
            if measurement is not None:
                measurement.before(grads)
            if self._gated and self.watch is None:
                launched.updated = self._update_if_finite(launched.numbers, after)
                if self.device.type == "cuda":
                    launched.numbers = launched.numbers.to("cpu", non_blocking=True)  # into pinned memory
                    launched.ready = torch.cuda.Event(blocking=True)  # the loader's processes can use the time of this one
                    launched.ready.record()
        return launched

    def read(self, launched: Launched) -> StepReport:
        """The outcome of a step; where the device did not, update now, or leave no trace."""
        with self._reading, self._others:
            if launched.ready is not None:
                launched.ready.synchronize()
            *numbers, raw_norm = launched.numbers.tolist()  # the only wait for the device in a step
        report = self._report(numbers, raw_norm, launched.losses)
        if launched.updated is None:
            with self.part("update"):
                self._update(report, launched.grads)
        if report.updated or report.overflow:
            # after an overflow, too: a loss scale that fits sums which are not pre-scaled underflows once they are
            self.normalizer = report.normalizer
        return report

    def _watched(self, what: str) -> AbstractContextManager[Any]:
        """Around what waits for other ranks on a GPU: the reading of a step, and its launch, since queues are finite."""
        return Waiting(what, on_device=True) if self.device.type == "cuda" and self.tree.ranks > 1 else nullcontext()

    def _update(self, report: StepReport, grads: list[Tensor]) -> None:
        if self.watch is not None:
            self.watch(self._factor(report.normalizer))
        if report.updated:
            clip = min(1.0, self.clip_norm / (report.grad_norm + 1e-6)) if self.clip_norm else 1.0
            torch._foreach_mul_(grads, self._factor(report.normalizer) * clip)
            self.optimizer.step()
        else:
            self._restore()  # a skipped step leaves no trace
        if self.scaler is not None:
            self.scaler.update()  # saw the same reduced gradients on every rank
        self.gradients.clear()

    def _update_if_finite(self, numbers: Tensor, after: Launched | None) -> Tensor:
        """`_update` in the arithmetic of the device, by numbers that stay there; returns whether it was made."""
        exact = numbers.double()
        # a number over a tensor would be a product with its reciprocal, which is not what the host computes
        factor = exact.new_full((), self.gradients.divided) / exact[0].clamp(min=1.0)
        norm = exact[-1] * factor
        updated = (exact[:-1].sum() + norm).isfinite()
        if after is not None and after.updated is not None:
            updated &= after.updated
        if self.clip_norm:
            factor = factor * (exact.new_full((), self.clip_norm) / (norm + 1e-6)).clamp(max=1.0)
        grads = self.gradients.all()
        torch._foreach_mul_(grads, factor.to(grads[0].dtype))
        optimizer: Any = self.optimizer
        optimizer.found_inf = updated.logical_not().float()
        optimizer.step()
        del optimizer.found_inf
        for values, before in self._statistics:
            torch.where(updated, values, before, out=values)
        self.gradients.clear()
        return updated

    def _forward_and_backward(self, batch: Batch, number: int) -> LossSum:
        with self.gradients.micro_batch(number):
            model = self.gradients.model if self.part is unnamed else Forward(self.gradients.model, self.part)
            with self.part("loss"), autocast(self.device, self.precision), refuse_single_values(batch.images.shape[-1]):
                loss = self.loss(model, batch)
            total = loss.total
            if self.scaler is not None:
                total = self.scaler.scale(total * self._prescale())
            with self.part("backward"):
                self.gradients.backward(total, number)
            with self.part("reduction"), self._others:
                self.gradients.reduce(number)
        loss.total = loss.total.detach()  # without its graph, which would live as long as the next step's
        return loss

    def _restore(self) -> None:
        """Put back the running statistics of the step's start, which every micro batch starts from."""
        for values, before in self._statistics:
            values.copy_(before)

    def _prescale(self) -> float:
        return 2.0 ** -round(math.log2(max(self.normalizer, 1.0))) if self.scaler is not None else 1.0

    def _factor(self, normalizer: float) -> float:
        """What the gradients lack to be those of the whole step's loss."""
        return self.gradients.divided / (normalizer * self._prescale())

    def _sums(self, batch: Batch, loss: LossSum, stop: bool) -> Tensor:
        """What a step sums, of a micro batch, float32 `[1 + P + 3 D + 2]`: normalizer and parts of the loss, loss by dataset (0
        where the task has none per sample), samples by dataset, wishes to stop, replaced samples, pasted objects by dataset."""
        pasted = [0.0] * self.datasets
        for dataset, count in zip(batch.keys[:, 1].tolist() if batch.pasted else (), batch.pasted):
            pasted[dataset] += count
        flags = (float(stop), float(len(batch.replaced)), *pasted)
        if self.device.type == "cpu":  # by numpy: a call of torch takes microseconds
            datasets, each = batch.keys.numpy()[:, 1], loss.per_sample
            by_dataset = self._no_loss if each is None else np.bincount(datasets, each.float().numpy(), self.datasets)
            totals = [value.item() for value in (loss.normalizer, *loss.parts.values())]
            samples = np.bincount(datasets, minlength=self.datasets)
            return torch.tensor([*totals, *by_dataset.tolist(), *samples.tolist(), *flags], dtype=torch.float32)
        # products with a one-hot matrix [B, D]: in a fixed order, unlike index_add_ on CUDA
        member = self._one_hot.index_select(0, batch.keys.to(self.device, non_blocking=True).select(1, 1))
        by_dataset = self._no_loss if loss.per_sample is None else loss.per_sample.float() @ member
        last = torch.tensor(flags, device=self.device) if any(flags) else self._no_flags
        return torch.cat([torch.stack([loss.normalizer, *loss.parts.values()]).float(), by_dataset, member.sum(0), last])

    def _add(self, rows: list[Tensor]) -> Tensor:
        """The sums of the step from those of this rank's micro batches, in the order of the tree; the running statistics become
        the mean of what the micro batches made of them, and their counts advance by one."""
        flat = self.tree.add(rows, "the sums of a step")
        sizes = [values.numel() for values, _ in self._statistics]
        sums, *moves = flat.split([flat.numel() - sum(sizes), *sizes])
        for (values, before), move in zip(self._statistics, moves):
            mean = move / self.tree.micro_batches
            torch.add(before, mean if values.is_floating_point() else mean.ceil().long(), out=values)
        return sums

    def _report(self, sums: list[float], raw_norm: float, losses: list[LossSum]) -> StepReport:
        normalizer = max(sums[0], 1.0)
        first, second = -2 * self.datasets, -self.datasets
        *parts_and_datasets, stop, replaced = sums[1:second]
        grad_norm = raw_norm * self._factor(normalizer)
        finite_loss = math.isfinite(sum(sums))
        updated = finite_loss and math.isfinite(grad_norm)
        return StepReport(
            updated=updated,
            overflow=finite_loss and not updated and self.scaler is not None and self.scaler.get_scale() > 1,
            normalizer=normalizer,
            grad_norm=grad_norm,
            parts={name: part / normalizer for name, part in zip(losses[0].parts, parts_and_datasets)},
            loss_by_dataset=parts_and_datasets[first:second],
            samples_by_dataset=parts_and_datasets[second:],
            pasted_by_dataset=sums[second:],
            replaced=int(replaced),
            stop=stop > 0,
            losses=[] if updated else losses,
        )

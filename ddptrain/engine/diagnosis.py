"""What some updates on one and the same batch tell about a loss that does not fall: numbers, and what follows from them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ddptrain.engine.replay import Watch
from ddptrain.engine.state import RunState
from ddptrain.optim.schedule import Rates, Schedule
from ddptrain.structures import Batch
from ddptrain.system.printable import counted, first_few
from ddptrain.tasks.base import Task

UPDATES = 10
"""Updates on the one batch."""
SMALL_UPDATE, LARGE_UPDATE = 1e-6, 0.5
"""Relative change of the weights by an update below and above which the rate is far from any that learns."""
FALLEN, RISEN = 0.99, 1.5
"""The loss of the batch after the updates, as part of that before: above the first it did not fall, above the other it rose."""
CLIPPED, DEAD, SILENT = 1000.0, 0.9, 0.01
"""Times train.clip_norm from which on a gradient is far too large; part of a layer's channels that are 0 everywhere in a dead
one; part of the gradient below which a part of the loss is hardly learned."""

_LEVEL = re.compile(r"^(head\.[a-z_.]+)\.\d+\.")
"""What the names of a head's parameters begin with, up to the number of a level."""


class Held(Schedule):
    """The rates of one step, which is after the warm-up, at all steps."""

    def __init__(self, schedule: Schedule, step: int) -> None:
        super().__init__(schedule.config, schedule.optimizer, schedule.steps, 1.0)
        self.rates = schedule.at(max(step, schedule.warmup_steps))

    def at(self, step: int) -> Rates:
        return self.rates


@dataclass(frozen=True)
class Measured:
    """What the updates have shown.

    Attributes:
        lr: rate of the updates.
        samples: of the batch; empty: those of them that have no share in its loss's normalizer, where that is known.
        normalizer: of the loss of the batch.
        losses: by part, before each update; the last one after all of them, or that of the first update which was not made.
        finite: all updates were made.
        gradient_norm: of the first update, before clipping; clip_norm: the norm to which it is clipped, None for no clipping.
        gradients: norm of the first gradient of each trained parameter.
        updates: relative change of each weight (not of biases and norms) by the first update.
        parts: norm of the gradient of each part of the loss alone, by its gain, where there are several.
        dead: part of the channels of each layer of ReLUs that are 0 everywhere in the batch.
        frozen, values: numbers of values that are not trained, and of all.
    """

    lr: float
    samples: int
    normalizer: float
    losses: Sequence[Mapping[str, float]]
    finite: bool
    gradient_norm: float
    clip_norm: float | None
    gradients: Mapping[str, float]
    updates: Mapping[str, float]
    parts: Mapping[str, float]
    dead: Mapping[str, float]
    frozen: int
    values: int


def measure(task: Task, state: RunState, batches: Sequence[Batch]) -> Measured:
    """Update a state, of no use afterwards, on the same micro batches again and again, at the rate after the warm-up."""
    held = state.schedule = Held(state.schedule, state.step)
    state.stepper.at_step = lambda batch, number: batch  # one size, so that the losses compare
    model, batches = state.model, [batch.to(state.stepper.device) for batch in batches]
    parts = _part_gradients(task, model, batches[0])
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad and p.dim() > 1}
    watch = Watch(state)
    watch.begin()
    with _relus(model) as active:
        report = first = state.advance(batches)
    gradients, normalizer = dict(watch.gradients), sum(float(loss.normalizer) for loss in watch.losses)
    updates = {n: _change(before[n], p.detach()) for n, p in model.named_parameters() if n in before}
    losses = [report.parts]
    while report.updated and len(losses) <= UPDATES:
        report = state.advance(batches)
        losses.append(report.parts)
    sizes = [(p.requires_grad, p.numel()) for p in model.parameters()]
    return Measured(
        lr=held.rates.lr,
        samples=sum(map(len, batches)),
        normalizer=normalizer,
        losses=losses,
        finite=report.updated,
        gradient_norm=first.grad_norm,
        clip_norm=state.stepper.clip_norm,
        gradients={name: gradients.get(name, 0.0) for name, p in model.named_parameters() if p.requires_grad},
        updates=updates,
        parts=parts,
        dead={name: float((channels == 0).float().mean()) for name, channels in active.items()},
        frozen=sum(n for trained, n in sizes if not trained),
        values=sum(n for _, n in sizes),
    )


def _change(before: Tensor, after: Tensor) -> float:
    return float((after - before).norm() / before.norm().clamp(min=1e-12))


def _part_gradients(task: Task, model: nn.Module, batch: Batch) -> dict[str, float]:
    """The norm of the gradient of what each gain of the loss multiplies, where it has several; by the gain."""
    found, weights = task.loss(model, batch), [p for p in model.parameters() if p.requires_grad]
    by_gain: dict[str, Tensor] = {}
    for name, part in found.terms.items():
        gain = name.removeprefix("one_")  # of both branches of a dual head
        if hasattr(task.config.loss, gain):
            by_gain[gain] = by_gain.get(gain, 0) + part.sum() / found.normalizer.clamp(min=1.0)
    out: dict[str, float] = {}
    for gain, part in by_gain.items() if len(by_gain) > 1 else ():
        grads = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
        out[gain] = math.hypot(*(float(g.norm()) for g in grads if g is not None))
    return out


@contextmanager
def _relus(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """By the names of ReLU layers, at how many samples each channel was above 0, `[C]`; of one that is used for several numbers
    of channels, each on its own."""
    active: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, inputs: Any, out: Tensor) -> None:
        seen = (out.detach() > 0).flatten(2).any(2).sum(0) if out.dim() > 2 else (out.detach() > 0).sum(0)
        key = f"{name} ({len(seen)} channels)"
        active[key] = active.get(key, 0) + seen

    relus = [(name, m) for name, m in model.named_modules() if isinstance(m, (nn.ReLU, nn.ReLU6))]
    handles = [m.register_forward_hook(partial(note, name)) for name, m in relus]
    try:
        yield active
    finally:
        for handle in handles:
            handle.remove()


def without_gradient(gradients: Mapping[str, float]) -> list[str]:
    """The parameters without a gradient. Those that a head has for each of its levels count only where no level has one: a
    batch need not have an object on each."""
    heard = {_LEVEL.sub(r"\1.*.", name) for name, norm in gradients.items() if norm > 0}
    return [name for name, norm in gradients.items() if norm == 0 and _LEVEL.sub(r"\1.*.", name) not in heard]


def findings(found: Measured) -> Iterator[str]:
    """What is wrong, a sentence each with its number, the likeliest cause of a loss that does not fall first."""
    if found.normalizer == 0:
        yield (
            f"The batch has nothing to learn: the normalizer of its loss is 0, none of its {counted(found.samples, 'sample')} "
            "has a label that counts; look at names, rename, ignore and drop."
        )
    yield from _rate(found)
    if found.frozen > found.values / 2:
        yield (
            f"{found.frozen / found.values:.1%} of the {found.values} values of the network are not trained; look at freeze "
            "and at model.norm."
        )
    silent = without_gradient(found.gradients)
    if silent and found.normalizer:
        names = first_few(silent, "parameter", most=4)
        yield f"{counted(len(silent), 'parameter')} of {len(found.gradients)} have a gradient of exactly 0: {names}."
    if found.clip_norm is not None and CLIPPED * found.clip_norm < found.gradient_norm < math.inf:
        large = max(found.gradients, key=found.gradients.__getitem__)
        yield (
            f"The norm of the gradient is {found.gradient_norm:.3g}, of which train.clip_norm={found.clip_norm:g} leaves "
            f"{found.clip_norm / found.gradient_norm:.2g}; most of it comes from {large} ({found.gradients[large]:.3g})."
        )
    for name, part in found.dead.items():
        if part > DEAD:
            yield f"{part:.0%} of the ReLUs of {name} are 0 everywhere in the batch: dead, no gradient passes through them."
    total = math.hypot(*found.parts.values())
    for name, norm in found.parts.items():
        if total and norm < SILENT * total:
            yield f"The part {name} of the loss is only {norm / total:.1g} of the gradient, too little: see loss.{name}."


def _rate(found: Measured) -> Iterator[str]:
    """Sentences about the rate."""
    first, last = (sum(parts.values()) for parts in (found.losses[0], found.losses[-1]))
    change = median(found.updates.values()) if found.updates else 0.0
    rate = f"an update at lr {found.lr:.3g} changes the weights by {change:.1e} of their size (1e-4 to 1e-1 is usual)"
    if not math.isfinite(change) or change > LARGE_UPDATE:
        yield f"The learning rate is much too large: {rate}; lower optimizer.lr, or find one with ddptrain lr-find."
    elif change < SMALL_UPDATE and found.normalizer:
        yield f"The learning rate is far too small: {rate}; raise optimizer.lr, or find one with ddptrain lr-find."
    if not found.finite:
        yield f"Loss or gradient is no longer finite after {counted(len(found.losses) - 1, 'update')} on one batch."
    elif last > RISEN * first:
        yield f"The loss of one batch rises from {first:.4g} to {last:.4g} in {UPDATES} updates: the rate is too large."
    elif last > FALLEN * first and found.normalizer:
        stuck = ", ".join(f"{name} {value:.4g} to {found.losses[-1][name]:.4g}" for name, value in found.losses[0].items())
        yield f"The loss of one batch does not fall in {UPDATES} updates on it: {first:.6g} to {last:.6g} ({stuck})."


def measured_text(found: Measured) -> Iterator[str]:
    """What was measured, in some lines."""
    first, last = found.losses[0], found.losses[-1]
    parts = ", ".join(f"{name} {value:.4g} to {last[name]:.4g}" for name, value in first.items())
    yield (
        f"{len(found.losses) - 1} updates on one batch of {found.samples} samples at lr {found.lr:.3g}: loss "
        f"{sum(first.values()):.4g} to {sum(last.values()):.4g} ({parts}), gradient norm {found.gradient_norm:.3g} at first"
    )
    if total := sum(found.parts.values()):
        shares = ", ".join(f"{name} {norm:.3g} ({norm / total:.0%})" for name, norm in found.parts.items())
        yield f"gradient of each part of the loss alone: {shares}"

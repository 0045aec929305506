"""A step between its launch and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddptrain.engine.norms import Measurement
from ddptrain.structures import LossSum


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
        pasted_by_dataset: objects that copy-paste has added to them, `[D]`.
        replaced: samples that stood in for unreadable ones.
        stop: some rank was asked to stop.
        losses: of this rank's micro batches if the step was skipped, else empty.
        norms: where the step was measured, by tag.
    """

    updated: bool
    overflow: bool
    normalizer: float
    grad_norm: float
    parts: dict[str, float]
    loss_by_dataset: list[float]
    samples_by_dataset: list[float]
    pasted_by_dataset: list[float]
    replaced: int
    stop: bool
    losses: list[LossSum]
    norms: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Launched:
    """A step that is launched and not yet read.

    Attributes:
        numbers: its sums and the norm of the raw gradient, on the host once `ready`.
        grads: the raw gradients.
        updated: on the device, a bool; None where the host decides, and reading updates.
        measurement: of a step that is measured.
    """

    numbers: Tensor
    losses: list[LossSum]
    grads: list[Tensor] = field(default_factory=list)
    updated: Tensor | None = None
    ready: torch.cuda.Event | None = None
    measurement: Measurement | None = None

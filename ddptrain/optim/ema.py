"""Exponential moving average of a model, in float32."""

import copy
from collections.abc import Mapping
from math import exp

import torch
from torch import Tensor, nn

from ddptrain.config import EmaConfig


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters, each once, and buffers that a checkpoint holds, in a fixed order: the floating-point ones, and the others."""
    kept = model.state_dict().keys()
    every = [*model.parameters(), *(b for name, b in model.named_buffers() if name in kept)]
    return [t for t in every if t.is_floating_point()], [t for t in every if not t.is_floating_point()]


class Ema:
    """The average of a model over its updates: `ema ← d·ema + (1 − d)·model` after update n, with a decay d that rises, so that
    early weights are soon forgotten: see `decay_at`.

    Parameters and floating-point buffers (running statistics) are averaged in float32, integer buffers copied.

    Attributes:
        model: the average, a copy of the model in evaluation mode without gradients.
    """

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        """Start from `model` as it is, on its device; it must not be wrapped by DDP."""
        self.decay, self.tau = config.decay, config.tau
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        # walking through the modules costs more than the average: once a run
        self._own, self._source, self._theirs = _tensors(self.model), model, _tensors(model)

    def decay_at(self, step: int) -> float:
        """The decay after update number `step`, counted from 1: `decay·(1 − exp(−step/tau))`, the ramp of YOLOv5, or without
        `tau` the smaller one of `decay` and `(1 + step)/(10 + step)`, the rule of TensorFlow's `num_updates`: then the average
        is over about the last tenth of the updates so far."""
        if self.tau is None:
            return min(self.decay, (1 + step) / (10 + step))
        return self.decay * (1 - exp(-step / self.tau))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, updated: Tensor | None = None) -> None:
        """Take in `model` after its update number `step`, counted from 1, or do nothing if the scalar `updated` is false."""
        if model is not self._source:
            self._source, self._theirs = model, _tensors(model)
        decay = self.decay_at(step)
        values = [v if v.dtype == torch.float32 else v.float() for v in self._theirs[0]]
        if updated is None:
            torch._foreach_lerp_(self._own[0], values, 1 - decay)
        else:  # lerp takes a weight from the host only
            moves = torch._foreach_sub(values, self._own[0])
            torch._foreach_mul_(moves, updated.float() * (1 - decay))
            torch._foreach_add_(self._own[0], moves)
        if self._own[1]:
            torch._foreach_copy_(self._own[1], self._theirs[1])

    @torch.no_grad()
    def distance(self) -> Tensor:
        """The norm of the difference between the average and the weights it follows, over the norm of these: a scalar on their
        device."""
        own = [p.detach() for p in self.model.parameters()]
        theirs = [p.detach().float() for p in self._source.parameters()]
        apart, whole = (torch.stack(torch._foreach_norm(v)).norm() for v in (torch._foreach_sub(own, theirs), theirs))
        return apart / whole

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors of the average by name, in full precision; they are the live ones, not copies."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Resume from a saved average; raises RuntimeError where names or shapes differ."""
        self.model.load_state_dict(state)

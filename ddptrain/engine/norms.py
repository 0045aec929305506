"""Norms of gradients, updates and weights by part of the network, and how far the averaged weights are from the weights:
measured at the steps that are reported, on the device, so that the host waits for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from ddptrain.optim.ema import Ema


def part_names(model: nn.Module) -> list[str]:
    """The part of the network that each trained parameter belongs to, in the order of the parameters: the first module of its
    name, below those that hold all others (`backbone` for `model.backbone.stem.weight` where all are in `model`)."""
    names = [name.split(".")[:-1] for name, p in model.named_parameters() if p.requires_grad]
    depth = 0
    while len({tuple(name[: depth + 1]) for name in names}) == 1 and all(len(name) > depth + 1 for name in names):
        depth += 1
    return [".".join(name[depth : depth + 1]) or "all" for name in names]


class Norms:
    """What is measured at some steps of a run.

    Args:
        model: neither wrapped nor compiled.
        every: steps between two that are measured; so is the last one.
        steps: of the run.
    """

    def __init__(self, model: nn.Module, every: int, steps: int) -> None:
        self._every, self._steps = every, steps
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        # those of a part side by side, so that their sum is one of a slice
        runs = [(name, len(list(run))) for name, run in groupby(part_names(model))]
        self.names, self._sizes = list(dict.fromkeys(name for name, _ in runs)), [size for _, size in runs]
        self._runs = [[i for i, (other, _) in enumerate(runs) if other == name] for name in self.names]

    def measurement(self, step: int) -> Measurement | None:
        """Of the update with this number; None if it is not measured."""
        return Measurement(self) if step % self._every == 0 or step == self._steps else None

    @torch.no_grad()
    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of each part, float32 `[P]`, on the device; `tensors`: one for each trained parameter."""
        squares = torch.stack(torch._foreach_norm(list(tensors))).float().square()
        sums = [run.sum() for run in squares.split(self._sizes)]
        return torch.stack([torch.stack([sums[i] for i in own]).sum() for own in self._runs]).sqrt()


class Measurement:
    """Of one step: `before` its update, `after` it where the device makes it, then `read`."""

    def __init__(self, norms: Norms) -> None:
        self._norms = norms
        self._gradient: Tensor | None = None
        self._weights: list[Tensor] = []
        self._numbers: Tensor | None = None

    def before(self, grads: Sequence[Tensor]) -> None:
        """Take the gradients as they are, and a copy of the weights."""
        self._gradient = self._norms.of(grads)
        self._weights = [p.detach().clone() for p in self._norms.parameters]

    @torch.no_grad()
    def after(self, average: Ema | None, ready: torch.cuda.Event | None = None) -> None:
        """Measure what the update has done to the weights, and to their average where there is one; `ready` is then recorded
        anew, so that whoever waits for it has the numbers."""
        assert self._gradient is not None
        own = [p.detach() for p in self._norms.parameters]
        moved = self._norms.of(torch._foreach_sub(own, self._weights))
        self._weights = []
        distance = self._gradient.new_zeros(1) if average is None else average.distance().float().reshape(1)
        self._numbers = torch.cat([self._gradient, moved, self._norms.of(own), distance])
        if ready is not None:
            self._numbers = self._numbers.to("cpu", non_blocking=True)
            ready.record()

    def read(self, gradient_norm: float, average: Ema | None) -> Mapping[str, float]:
        """The numbers by tag, once the step is over; measures now what `after` has not.

        Args:
            gradient_norm: of the whole gradient, as the step reports it.
        """
        if self._numbers is None:
            self.after(average)
        assert self._numbers is not None
        values, names = self._numbers.tolist(), self._norms.names
        count = len(names)
        gradient, update, weight = (values[i * count : (i + 1) * count] for i in range(3))
        raw = sum(x * x for x in gradient) ** 0.5
        scale = gradient_norm / raw if raw else 0.0
        out = {"optim/gradient_norm/all": gradient_norm}
        out |= {f"optim/gradient_norm/{name}": x * scale for name, x in zip(names, gradient)}
        out |= {f"optim/update_norm/{name}": x for name, x in zip(names, update)}
        out |= {f"optim/weight_norm/{name}": x for name, x in zip(names, weight)}
        out |= {f"optim/update_ratio/{name}": x / w for name, x, w in zip(names, update, weight) if w}
        if average is not None:
            out["optim/average_distance"] = values[-1]
        return out

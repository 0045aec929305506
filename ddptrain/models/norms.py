"""Norm layers of every kind, made or put in the place of batch norms; and batch norm over all ranks for the CPU, where torch
has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ddptrain import distributed

Norm = Literal["batch", "sync", "group", "frozen", "none"]


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` for the CPU: statistics over the micro batches of all ranks, which are of one size.

    Two all-reduces in the forward pass and two in the backward pass: exact rather than fast. The arithmetic is the same on
    one rank: torch's own CPU kernel loses five to ten times as many digits of channels-last images, which deep networks
    amplify until one rank and two no longer agree.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → the same shape."""
        self._check_input_dim(x)
        rest, shape = (0, 2, 3), (1, -1, 1, 1)
        count = distributed.rank_and_size()[1] * x.numel() // x.shape[1]
        if not self.training or count == 1:  # torch refuses to normalise a single value
            return super().forward(x)
        values = x if x.dtype == torch.float64 else x.float()
        # two passes: the square of the mean would cancel digits
        mean = distributed.differentiable_sum(values.sum(rest)) / count
        centred = values - mean.view(shape)
        variance = distributed.differentiable_sum(centred.square().sum(rest)) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


SYNC_BATCH_NORMS = (nn.SyncBatchNorm, CpuSyncBatchNorm)
_GROUP = 8  # channels that share statistics in `group`


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a model, of whatever dimension and kind (all have the members of `nn.BatchNorm2d`)."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return [cast("nn.BatchNorm2d", m) for m in model.modules() if isinstance(m, kinds)]


def _sync(channels: int, eps: float, momentum: float | None) -> nn.Module:
    """A batch norm over all ranks for this machine; checkpoints fit into either kind."""
    kind = nn.SyncBatchNorm if torch.cuda.is_available() else CpuSyncBatchNorm
    return kind(channels, eps=eps, momentum=momentum)


NORMS: dict[Norm, Callable[[int, float, float | None], nn.Module]] = {
    "batch": lambda channels, eps, momentum: nn.BatchNorm2d(channels, eps, momentum),
    "sync": _sync,
    "group": lambda channels, eps, momentum: nn.GroupNorm(channels // _GROUP if channels % _GROUP == 0 else 1, channels),
    "frozen": lambda channels, eps, momentum: FrozenBatchNorm2d(channels, eps=eps),
    "none": lambda channels, eps, momentum: nn.Identity(),
}
"""Kinds of norm layers by channels, epsilon and momentum of a batch norm: `batch` over a micro batch, `sync` over all ranks,
`group` within one sample (groups of 8 channels where that divides them), `frozen` constants, `none`."""


def replace_batch_norms(module: nn.Module, kind: Norm) -> None:
    """Make every batch norm below `module` one of a kind, with those of its parameters and statistics that the kind has."""
    if kind == "batch":
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            new = NORMS[kind](child.num_features, child.eps, child.momentum)
            new.load_state_dict({k: v for k, v in child.state_dict().items() if k in new.state_dict()})
            setattr(module, name, new)
        else:
            replace_batch_norms(child, kind)

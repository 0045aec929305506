"""Batch norm over all ranks, on CUDA as torch has it and on the CPU, where torch has none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddptrain import distributed


class SyncBatchNorm(nn.SyncBatchNorm):
    """`nn.SyncBatchNorm` that also runs on the CPU: statistics over the micro batches of all ranks, which are of one size.

    There two all-reduces in the forward pass and two in the backward pass: exact rather than fast.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → the same shape."""
        size = distributed.rank_and_size()[1]
        if x.is_cuda or size == 1 or not self.training:
            return super().forward(x)
        rest = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = size * x.numel() // x.shape[1]
        values = x.float()
        # two passes: the square of the mean would cancel digits
        mean = distributed.differentiable_sum(values.sum(rest)) / count
        centred = values - mean.view(shape)
        variance = distributed.differentiable_sum(centred.square().sum(rest)) / count
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)


def sync_batch_norms(module: nn.Module) -> None:
    """Replace every batch norm below `module` by one over all ranks, with its parameters and statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            options = {"affine": child.affine, "track_running_stats": child.track_running_stats}
            synced = SyncBatchNorm(child.num_features, child.eps, child.momentum, **options)
            synced.load_state_dict(child.state_dict())
            setattr(module, name, synced)
        else:
            sync_batch_norms(child)

"""Norm layers of every kind, made or put in the place of batch norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from ddptrain import distributed
from ddptrain.errors import UserError

MOMENTUM = 0.1
"""Of the running statistics of batch norms that start afresh."""
Norm = Literal["batch", "sync", "group", "frozen", "none"]


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm with the statistics of the micro batches of all ranks.

    On the CPU two all-reduces in the forward pass and two in the backward pass, of micro batches of one size: exact rather than
    fast. The arithmetic is the same on one rank: torch's own CPU kernel loses five to ten times as many digits of
    channels-last images, which deep networks amplify until one rank and two no longer agree. On a GPU the kernels of
    `nn.SyncBatchNorm`, one all-reduce each way, and no wait for the device.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → the same shape."""
        self._check_input_dim(x)
        ranks = distributed.rank_and_size()[1]
        count = ranks * x.numel() // x.shape[1]
        # torch refuses to normalise a single value
        if not self.training or count == 1 or (x.is_cuda and ranks == 1):
            return super().forward(x)
        return self._by_kernels(x) if x.is_cuda else self._exactly(x, count)

    def _exactly(self, x: Tensor, count: int) -> Tensor:
        rest, shape = (0, 2, 3), (1, -1, 1, 1)
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

    def _by_kernels(self, x: Tensor) -> Tensor:
        momentum = 0.1 if self.momentum is None else self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        out: Tensor = _SyncedByKernels.apply(x, self.weight, self.bias, self.running_mean, self.running_var, momentum, self.eps)
        return out

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _SyncedByKernels(torch.autograd.Function):
    """What `nn.SyncBatchNorm` computes, by the same kernels. It looks for ranks without values, which makes the host wait for
    the device three times a layer; here every rank has some."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
        running_mean, running_var, momentum, eps = rest
        x, channels = _dense(x), x.shape[1]
        own = [*torch.batch_norm_stats(x, eps), weight.new_full((1,), x.numel() // channels, dtype=torch.float32)]
        rows = distributed.gather_rows(torch.cat(own), "the statistics of a batch norm")
        means, scales, counts = rows.split([channels, channels, 1], 1)
        mean, scale = torch.batch_norm_gather_stats_with_counts(
            x, means, scales, running_mean, running_var, momentum, eps, counts.flatten()
        )
        ctx.save_for_backward(x, weight, mean, scale, counts.to(torch.int32))
        return torch.batch_norm_elemt(x, weight, bias, mean, scale, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, mean, scale, counts = ctx.saved_tensors
        grad = _dense(grads[0])
        wanted = ctx.needs_input_grad[:3]
        sum_dy, sum_dy_xmu, *of_parameters = torch.batch_norm_backward_reduce(grad, x, mean, scale, weight, *wanted)
        of_input = None
        if wanted[0]:
            sums = torch.cat([sum_dy, sum_dy_xmu])
            sums = distributed.all_reduce_sum(sums, "the gradient of a batch norm's statistics")
            sum_dy, sum_dy_xmu = sums.chunk(2)
            of_input = torch.batch_norm_backward_elemt(grad, x, mean, scale, weight, sum_dy, sum_dy_xmu, counts)
        return of_input, *of_parameters, None, None, None, None


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


class FrozenBatchNorm(FrozenBatchNorm2d):
    """torchvision's, which gives float32 under autocast; this one keeps the type of its input, in one kernel."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → the same shape and type."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


SYNC_BATCH_NORMS = (nn.SyncBatchNorm, SyncBatchNorm)
_GROUP = 8  # channels that share statistics in `group`


def average_fast(model: nn.Module) -> None:
    """Give the batch norms of a network with fresh weights PyTorch's own momentum; those of some networks (MobileNet's 0.01,
    MNASNet's 0.0003) keep the statistics of fresh weights for hundreds of steps and more."""
    for norm in batch_norms(model):
        norm.momentum = MOMENTUM


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a model, of whatever dimension and kind (all have the members of `nn.BatchNorm2d`)."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return [cast("nn.BatchNorm2d", m) for m in model.modules() if isinstance(m, kinds)]


NORMS: dict[Norm, Callable[[int, float, float | None], nn.Module]] = {
    "batch": lambda channels, eps, momentum: nn.BatchNorm2d(channels, eps, momentum),
    "sync": lambda channels, eps, momentum: SyncBatchNorm(channels, eps, momentum),
    "group": lambda channels, eps, momentum: nn.GroupNorm(channels // _GROUP if channels % _GROUP == 0 else 1, channels),
    "frozen": lambda channels, eps, momentum: FrozenBatchNorm(channels, eps=eps),
    "none": lambda channels, eps, momentum: nn.Identity(),
}
"""Kinds of norm layers by channels, epsilon and momentum of a batch norm: `batch` over a micro batch, `sync` over all ranks,
`group` within one sample (groups of 8 channels where that divides them), `frozen` constants, `none`."""


@contextmanager
def refuse_single_values(size: int) -> Iterator[None]:
    """Around a forward pass in training of images with this side in pixels: torch's error about a batch norm that sees one
    value of a channel becomes a line.

    Raises:
        UserError: the micro batch is one image, of which the network makes a single pixel.
    """
    try:
        yield
    except ValueError as e:
        if "more than 1 value per channel" not in str(e):
            raise
        raise UserError(
            f"train.micro_batch: at data.image_size={size} the network reduces an image to a single pixel, but a batch norm "
            "needs more than one value per channel; use micro batches of 2 or more, or larger images"
        ) from None


def keep_types(module: nn.Module) -> None:
    """Let torchvision's frozen batch norms below `module` keep the type of their inputs."""
    for child in module.modules():
        if type(child) is FrozenBatchNorm2d:
            child.__class__ = FrozenBatchNorm


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

"""The layers the detector is made of: convolution with norm and activation, CSP stage, pyramid pooling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddptrain.models.norms import NORMS, Norm

BN_EPS = 1e-3
BN_MOMENTUM = 0.03


class ConvNormAct(nn.Module):
    """Convolution (padded so that stride 1 keeps the size), norm, SiLU (another by `set_activation`). The bias is on only
    without a norm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, norm: Norm, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=norm == "none")
        self.norm = NORMS[norm](c_out, BN_EPS, BN_MOMENTUM)
        self.act: nn.Module = nn.SiLU()  # not in place: autograd would have to copy its input

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "mish": nn.Mish,
}


def set_activation(model: nn.Module, name: str) -> None:
    """Give every `ConvNormAct` below `model` the activation of this name."""
    for module in model.modules():
        if isinstance(module, ConvNormAct):
            module.act = ACTIVATIONS[name]()


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, added to the input when `shortcut`."""

    def __init__(self, channels: int, norm: Norm, shortcut: bool) -> None:
        super().__init__()
        self.first = ConvNormAct(channels, channels, 3, norm)
        self.last = ConvNormAct(channels, channels, 3, norm)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.last(self.first(x))
        return x + out if self.shortcut else out


class CspStage(nn.Module):
    """Cross-stage partial stage (CSPNet, arXiv 1911.11929) whose blocks' outputs are all kept and merged at the end
    (ELAN, arXiv 2211.04800): half of the channels pass by, the other half runs through `depth` bottlenecks."""

    def __init__(self, c_in: int, c_out: int, depth: int, norm: Norm, shortcut: bool) -> None:
        super().__init__()
        half = c_out // 2
        self.split = ConvNormAct(c_in, 2 * half, 1, norm)
        self.blocks = nn.ModuleList(Bottleneck(half, norm, shortcut) for _ in range(depth))
        self.merge = ConvNormAct((2 + depth) * half, c_out, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.merge(torch.cat(parts, 1))


class PyramidPool(nn.Module):
    """Spatial pyramid pooling (arXiv 1406.4729) by three 5x5 max pools in a row, which see 5, 9 and 13 cells."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, channels // 2, 1, norm)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.merge = ConvNormAct(2 * channels, channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.merge(torch.cat(parts, 1))


@torch.no_grad()
def scale_to_unit_variance(model: nn.Module, in_channels: int) -> None:
    """Scale the weights of every `ConvNormAct` below `model` so that its convolution gives unit variance.

    For a network without norm layers: one pass over noise of several scales, each layer in its turn
    (layer-sequential unit variance, arXiv 1511.06422). The gain of SiLU depends on the size of its input, so no
    fixed gain would hold over a hundred layers. Filters are centred, or else the mean that every SiLU leaves behind
    would grow from layer to layer (arXiv 2101.08692).
    """

    def rescale(conv: nn.Conv2d, _: tuple[Tensor, ...], out: Tensor) -> Tensor:
        std = out.std()
        conv.weight.div_(std)
        return out / std

    layers = [m for m in model.modules() if isinstance(m, ConvNormAct)]
    for layer in layers:
        if layer.conv.groups == 1:
            layer.conv.weight.sub_(layer.conv.weight.mean((1, 2, 3), keepdim=True))
        if layer.conv.bias is not None:
            nn.init.zeros_(layer.conv.bias)
    hooks = [layer.conv.register_forward_hook(rescale) for layer in layers]
    noise = [F.interpolate(torch.rand(2, in_channels, n, n), size=64, mode="bilinear") for n in (2, 4, 8, 16)]
    model(torch.cat(noise))
    for hook in hooks:
        hook.remove()

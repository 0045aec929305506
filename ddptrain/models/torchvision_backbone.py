"""Any of torchvision's classifiers as a backbone: image → feature maps at the strides 4, 8, 16, 32."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from ddptrain.errors import UserError
from ddptrain.models.norms import Norm, average_fast, replace_batch_norms
from ddptrain.models.pretrained import MEAN, STD, published, torchvision_model

Fusion = Literal["early", "add"]


class TorchvisionBackbone(nn.Module):
    """A torchvision classification model, cut open at the last feature map of each stride.

    Images in 0..1 are normalised with ImageNet's mean and deviation (their average for further channels).

    Args:
        name: torchvision's name of the model.
        pretrained: start from its default published weights.
        norm: `batch` leaves its norm layers alone, `sync` and `frozen` replace its batch norms.
        fusion: "early" inflates the first convolution to further channels; "add" gives these a convolution of their
            own, which starts from 0, and adds it.

    Raises:
        UserError: unknown name, no feature maps at these strides, no weights, or a norm it cannot have.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        strides: tuple[int, ...],
        in_channels: int,
        norm: Norm,
        pretrained: bool,
        fusion: Fusion = "early",
    ) -> None:
        super().__init__()
        if norm in ("group", "none"):
            raise UserError(
                f"model.norm: {norm} is for the package's own backbone; with model.backbone: {name} use batch, sync or frozen"
            )
        known = tv.list_models(module=tv)
        if name not in known:
            raise UserError(
                f"model.backbone: {name} is not a classification model of torchvision; choose one of {', '.join(known)}"
            )
        model = torchvision_model(name, published(name, pretrained))
        if not pretrained:
            average_fast(model)
        nodes, self.channels = _feature_nodes(model, name, strides)
        self.body = create_feature_extractor(model, return_nodes=nodes, suppress_diff_warning=True)
        replace_batch_norms(self.body, norm)
        if in_channels != 3:
            stem, conv = next((n, m) for n, m in self.body.named_modules() if isinstance(m, nn.Conv2d))
            added = in_channels > 3 and fusion == "add"
            self.body.set_submodule(stem, _AddedStem(conv, in_channels - 3) if added else _inflated(conv, in_channels))
        for key, v in (("mean", torch.tensor(MEAN)), ("std", torch.tensor(STD))):
            v = torch.cat([v, v.mean().repeat(max(in_channels - 3, 0))])[:in_channels]
            self.register_buffer(key, v.view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `[B, C, H, W]` → one map `[B, channels[i], H / strides[i], W / strides[i]]` per stride."""
        return list(self.body((images - self.mean) / self.std).values())


_PROBE = 128  # side of the image that finds the strides: every map of stride 4 to 32 has a side of its own


def _feature_nodes(model: nn.Module, name: str, strides: tuple[int, ...]) -> tuple[dict[str, str], tuple[int, ...]]:
    """Names in the traced model and channels of the feature map of each stride.

    A module stands for its last operation; of all modules that end at a stride, the last one of the outermost level
    is taken: a whole stage rather than a layer inside the next stage.
    """
    advice = f"use a convolutional model with strides {list(strides)}, such as resnet18"
    try:
        with redirect_stderr(StringIO()):  # fx prints the traced code of a model that fails
            names, outputs = _probe(model)
    except (AssertionError, RuntimeError, TypeError, ValueError):
        raise UserError(f"model.backbone: {name} cannot be cut into feature maps; {advice}") from None
    last: dict[str, Any] = {}
    for node in names[1:]:  # the first is the input
        parts = node.split(".")
        for depth in range(1, len(parts) + 1):
            prefix = ".".join(parts[:depth])
            last.pop(prefix, None)
            last[prefix] = outputs[node]
    nodes, channels = {}, []
    for stride in strides:
        side = _PROBE // stride
        ends = [k for k, v in last.items() if isinstance(v, Tensor) and v.ndim == 4 and v.shape[2:] == (side, side)]
        if not ends:
            raise UserError(f"model.backbone: {name} has no feature map of stride {stride}; {advice}")
        outermost = min(k.count(".") for k in ends)
        chosen = [k for k in ends if k.count(".") == outermost][-1]
        nodes[chosen] = str(stride)
        channels.append(last[chosen].shape[1])
    return nodes, tuple(channels)


def _probe(model: nn.Module) -> tuple[list[str], dict[str, Any]]:
    """The operations of the traced model, in order, and what each gives for a small image."""
    in_train, in_eval = get_graph_node_names(model, suppress_diff_warning=True)
    common = set(in_train)
    names = [n for n in in_eval if n in common]
    probe = create_feature_extractor(model, return_nodes=names, suppress_diff_warning=True).eval()
    with torch.no_grad():
        return names, probe(torch.zeros(1, 3, _PROBE, _PROBE))


class _AddedStem(nn.Module):
    """A convolution of the first channels and one of the others, added; as that starts from 0, what is pretrained stays as it
    is."""

    def __init__(self, first: nn.Conv2d, others: int) -> None:
        super().__init__()
        self.first = first
        self.added = _like(first, others, bias=False)
        nn.init.zeros_(self.added.weight)

    def forward(self, x: Tensor) -> Tensor:
        split = self.first.in_channels
        return self.first(x[:, :split]) + self.added(x[:, split:])


def _like(conv: nn.Conv2d, in_channels: int, bias: bool) -> nn.Conv2d:
    """A fresh convolution of the same shape with other input channels."""
    old: Any = conv  # its sizes are tuples of any length to the type checker
    return nn.Conv2d(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=bias)


@torch.no_grad()
def _inflated(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """A convolution that takes `in_channels`: its weights repeat, scaled so that the sum stays."""
    new = _like(conv, in_channels, bias=conv.bias is not None)
    repeats = -(-in_channels // conv.in_channels)
    new.weight.copy_(conv.weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (conv.in_channels / in_channels))
    if conv.bias is not None and new.bias is not None:
        new.bias.copy_(conv.bias)
    return new

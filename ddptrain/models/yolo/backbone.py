"""Feature extractors: image → feature maps at the strides 4, 8, 16, 32. The own one, and any of torchvision's."""

from __future__ import annotations

from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops import FrozenBatchNorm2d

from ddptrain.errors import UserError
from ddptrain.models.norms import sync_batch_norms
from ddptrain.models.pretrained import with_weights_hint
from ddptrain.models.yolo.blocks import ConvNormAct, CspStage, Norm, PyramidPool

Fusion = Literal["early", "add"]


@dataclass(frozen=True)
class Size:
    """Depth and width of one size.

    Attributes:
        widths: channels at strides 2, 4, 8, 16, 32.
        depths: bottlenecks of the backbone's stages at strides 4, 8, 16, 32.
        neck_depth: bottlenecks of each stage of the neck.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int]
    neck_depth: int


SIZES = {
    "n": Size((16, 32, 64, 128, 256), (1, 2, 2, 1), 1),
    "s": Size((32, 64, 128, 256, 512), (1, 2, 2, 1), 1),
    "m": Size((48, 96, 192, 384, 576), (2, 4, 4, 2), 2),
    "l": Size((64, 128, 256, 512, 512), (3, 6, 6, 3), 3),
}


class CspBackbone(nn.Module):
    """The own backbone: a stem, then per stride a 3x3 convolution of stride 2 and a CSP stage, pooling at the end.

    It ends at the coarsest of `strides`: with (4, 8, 16) there is no stage of stride 32.
    """

    def __init__(self, size: Size, strides: tuple[int, ...], in_channels: int, norm: Norm, fusion: Fusion = "early") -> None:
        super().__init__()
        self.strides = strides
        w = dict(zip((2, 4, 8, 16, 32), size.widths))
        self.channels = tuple(w[s] for s in strides)
        added = max(in_channels - 3, 0) if fusion == "add" else 0
        self.stem = ConvNormAct(in_channels - added, w[2], 3, norm, stride=2)
        self.added_stem = ConvNormAct(added, w[2], 3, norm, stride=2) if added else None
        self.stages = nn.ModuleDict()
        for stride, depth in zip((4, 8, 16, 32), size.depths):
            if stride <= max(strides):
                layers: list[nn.Module] = [
                    ConvNormAct(w[stride // 2], w[stride], 3, norm, stride=2),
                    CspStage(w[stride], w[stride], depth, norm, shortcut=True),
                ]
                if stride == max(strides):
                    layers.append(PyramidPool(w[stride], norm))
                self.stages[str(stride)] = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `[B, C, H, W]` → one map `[B, channels[i], H / strides[i], W / strides[i]]` per stride."""
        if self.added_stem is None:
            x = self.stem(images)
        else:
            x = self.stem(images[:, :3]) + self.added_stem(images[:, 3:])
        out = []
        for stride, stage in self.stages.items():
            x = stage(x)
            if int(stride) in self.strides:
                out.append(x)
        return out


class TorchvisionBackbone(nn.Module):
    """A torchvision classification model, cut open at the last feature map of each stride.

    Images in 0..1 are normalised with ImageNet's mean and deviation (their average for further channels).

    Args:
        name: torchvision's name of the model.
        pretrained: start from its default published weights.
        norm: "batch" leaves its norm layers alone, "sync" and "frozen" convert its batch norms.
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
                f"model.norm: {norm} is for the own backbone; with model.backbone: {name} use batch, sync or frozen"
            )
        model = classification_model(name, pretrained)
        nodes, self.channels = _feature_nodes(model, name, strides)
        self.body = create_feature_extractor(model, return_nodes=nodes, suppress_diff_warning=True)
        if norm == "sync":
            sync_batch_norms(self.body)
        elif norm == "frozen":
            freeze_batch_norms(self.body)
        if in_channels > 3 and fusion == "add":
            _add_stem(self.body, in_channels - 3)
        elif in_channels != 3:
            _inflate_stem(self.body, in_channels)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        for key, v in (("mean", mean), ("std", std)):
            v = torch.cat([v, v.mean().repeat(max(in_channels - 3, 0))])[:in_channels]
            self.register_buffer(key, v.view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """As `CspBackbone.forward`."""
        return list(self.body((images - self.mean) / self.std).values())


def classification_model(name: str, pretrained: bool) -> nn.Module:
    """A torchvision classification model by name, with or without its default weights."""
    known = tv.list_models(module=tv)
    if name not in known:
        raise UserError(f"model.backbone: {name}: not a classification model of torchvision; known are {', '.join(known)}")
    weights = tv.get_model_weights(name).DEFAULT if pretrained else None
    return with_weights_hint(lambda: tv.get_model(name, weights=weights), weights)


_PROBE = 128  # side of the image that finds the strides: every map of stride 4 to 32 has a side of its own


def _feature_nodes(model: nn.Module, name: str, strides: tuple[int, ...]) -> tuple[dict[str, str], tuple[int, ...]]:
    """Names in the traced model and channels of the feature map of each stride.

    A module stands for its last operation; of all modules that end at a stride, the last one of the outermost level
    is taken: a whole stage rather than a layer inside the next stage.
    """
    advice = f"take a convolutional model with strides {list(strides)}, such as resnet18"
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


def freeze_batch_norms(module: nn.Module) -> None:
    """Replace every batch norm below `module` by one with constant statistics, weight and bias."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_batch_norms(child)


class _AddedStem(nn.Module):
    """A convolution of the first channels and one of the others, added."""

    def __init__(self, first: nn.Conv2d, others: int) -> None:
        super().__init__()
        self.first = first
        self.added = _like(first, others, bias=False)
        nn.init.zeros_(self.added.weight)

    def forward(self, x: Tensor) -> Tensor:
        split = self.first.in_channels
        return self.first(x[:, :split]) + self.added(x[:, split:])


def _first_convolution(module: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d))


def _like(conv: nn.Conv2d, in_channels: int, bias: bool) -> nn.Conv2d:
    """A fresh convolution of the same shape with other input channels."""
    return nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        bias=bias,
    )


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def _add_stem(module: nn.Module, others: int) -> None:
    """Give further channels a first convolution of their own; as it starts from 0, what is pretrained stays as it is."""
    name, conv = _first_convolution(module)
    _replace(module, name, _AddedStem(conv, others))


def _inflate_stem(module: nn.Module, in_channels: int) -> None:
    """Let the first convolution take `in_channels`: its weights repeat, scaled so that the sum stays."""
    name, conv = _first_convolution(module)
    new = _like(conv, in_channels, bias=conv.bias is not None)
    with torch.no_grad():
        repeats = -(-in_channels // conv.in_channels)
        new.weight.copy_(conv.weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (conv.in_channels / in_channels))
        if conv.bias is not None and new.bias is not None:
            new.bias.copy_(conv.bias)
    _replace(module, name, new)

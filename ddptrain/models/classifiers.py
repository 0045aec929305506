"""Networks for whole images: torchvision's classifiers, and two for small images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddptrain.config import ClassifierConfig, LeNetConfig, SmallResNetConfig
from ddptrain.config.labels import TORCHVISION_CLASSIFIERS
from ddptrain.errors import UserError
from ddptrain.models.class_layers import Layout
from ddptrain.models.norms import average_fast
from ddptrain.models.pretrained import Normalised, published, torchvision_model

SMALLEST = {"alexnet": 64}
"""Of torchvision's networks for classification, those that need images of more than 32 pixels."""


class Classifier(Normalised):
    """A network for classification: logits `[B, classes]` of float images `[B, 3, S, S]` in 0..1."""

    def class_layers(self) -> dict[str, Layout]:
        """The last layer."""
        return {f"model.{last_layer(self.model)[0]}": Layout()}


class LeNet(nn.Sequential):
    """LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition", 1998) as it is built today: three
    input channels, ReLU and max-pooling. Logits `[B, classes]` of images `[B, 3, 32, 32]`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )


class _Block(nn.Module):
    """Two 3 × 3 convolutions around an identity; the first norm comes before the first convolution (arXiv 1603.05027)."""

    def __init__(self, c_in: int, c_out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(norm, c_in), _norm(norm, c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(y)))) + self.shortcut(x)
        return out


class SmallResNet(nn.Module):
    """The three-stage residual network for CIFAR (arXiv 1512.03385, section 4.2) with norms before convolutions.

    Logits `[B, classes]` of images `[B, 3, S, S]`, S a multiple of 4.
    """

    def __init__(self, config: SmallResNetConfig, num_classes: int) -> None:
        super().__init__()
        widths = [config.width, config.width, 2 * config.width, 4 * config.width]
        self.stem = nn.Conv2d(3, config.width, 3, 1, 1, bias=False)
        self.stages = nn.Sequential(
            *(
                _Block(widths[s] if b == 0 else widths[s + 1], widths[s + 1], 2 if b == 0 and s > 0 else 1, config.norm)
                for s in range(3)
                for b in range(config.blocks)
            )
        )
        self.norm = _norm(config.norm, widths[-1])
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stages(self.stem(x)))).mean((2, 3))
        out: Tensor = self.head(self.dropout(x))
        return out


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(8, channels)


def lenet(config: LeNetConfig, num_classes: int, image_size: int) -> nn.Module:
    """See `build_classifier`."""
    if image_size != 32:
        raise UserError(f"model.name: lenet takes images of 32 pixels, data.image_size is {image_size}; set it to 32")
    return Classifier(LeNet(num_classes))


def torchvision_classifier(config: ClassifierConfig, num_classes: int, image_size: int) -> nn.Module:
    """See `build_classifier`."""
    weights = published(config.name, config.pretrained)
    _refuse_size(config.name, image_size, weights)
    if config.pretrained and config.weights is not None:
        raise UserError("model: both pretrained and weights are given; keep one")
    state = _read_state(Path(config.weights)) if config.weights is not None else None
    # a vision transformer's position embeddings are made for one size
    sized = {"image_size": image_size} if config.name.startswith("vit_") and weights is None else {}
    model = torchvision_model(config.name, weights, num_classes=1000 if weights else num_classes, **sized)
    name, last = last_layer(model)
    learned = len(last.weight)
    if state is None and weights is None:
        average_fast(model)
    if state is not None:
        learned = len(state.get(f"{name}.bias", last.weight))
        if learned != num_classes:
            model.set_submodule(name, _class_layer(last, learned))
        try:
            model.load_state_dict(state)
        except RuntimeError as e:
            line = " ".join(str(e).split())[:300]
            raise UserError(f"model.weights: {config.weights} does not fit {config.name}: {line}") from None
    if learned != num_classes:
        model.set_submodule(name, _class_layer(last, num_classes))
    return Classifier(model)


def _class_layer(like: nn.Linear | nn.Conv2d, num_classes: int) -> nn.Linear | nn.Conv2d:
    """A fresh last layer of another number of classes."""
    width = like.weight.shape[1]
    return nn.Linear(width, num_classes) if isinstance(like, nn.Linear) else nn.Conv2d(width, num_classes, 1)


CLASSIFIERS: dict[str, Callable[[Any, int, int], nn.Module]] = {
    "lenet": lenet,
    "small_resnet": lambda config, num_classes, image_size: Classifier(SmallResNet(config, num_classes)),
    **dict.fromkeys(TORCHVISION_CLASSIFIERS, torchvision_classifier),
}


def build_classifier(
    config: ClassifierConfig | LeNetConfig | SmallResNetConfig, num_classes: int, image_size: int
) -> nn.Module:
    """A network whose forward gives logits `[B, num_classes]` of float images `[B, 3, S, S]` in 0..1.

    Raises:
        UserError: weights that are not available or do not fit, or an image size that the network cannot take.
    """
    return CLASSIFIERS[config.name](config, num_classes, image_size)


def _refuse_size(name: str, image_size: int, weights: Any) -> None:
    """Raise `UserError` where the network, with these published weights or None, cannot take images of that size."""
    least = SMALLEST.get(name, 0)
    if image_size < least:
        raise UserError(
            f"model: {name} takes images of {least} pixels or more, data.image_size is {image_size}; set "
            f"data.image_size={least}, or use another network"
        )
    if name.startswith("vit_") and weights is not None and image_size != weights.meta["min_size"][0]:
        only = weights.meta["min_size"][0]
        raise UserError(
            f"model: the published weights of {name} are for images of exactly {only} pixels, but "
            f"data.image_size is {image_size}; set data.image_size={only}, or leave pretrained out"
        )


def _read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of plain tensors, also below `state_dict`, `model` or `ema`.

    Raises:
        UserError: the file is missing or something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise UserError(f"model.weights: {path}: {e.strerror}; give a file of the model's weights") from None
    except Exception as e:  # torch.load raises half a dozen kinds for anything but a plain archive
        raise UserError(f"model.weights: {path}: not a file of plain tensors ({' '.join(str(e).split())[:120]})") from None
    for inner in ("state_dict", "model", "ema"):
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"model.weights: {path}: not a state dict (names to tensors)")
    return state


def last_layer(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The last layer and its name; in torchvision's networks it is the last linear layer or, in one, a 1 × 1 convolution."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]

"""The config of the package's own detector."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ddptrain.config.section import NetworkSection, Switch
from ddptrain.system.printable import counted

STRIDES = (4, 8, 16, 32, 64)


class YoloConfig(NetworkSection):
    """The package's own detector."""

    name: Literal["yolo"] = "yolo"
    """The package's own detector, or a torchvision detector by its torchvision name."""
    size: Literal["n", "s", "m", "l", "x"] = "n"
    """Depth and width of backbone, neck and head."""
    strides: tuple[int, ...] = (8, 16, 32)
    """Strides of the head's levels, in pixels: consecutive powers of two from 4 to 64, such as [4, 8, 16] (small objects) or
    [8, 16, 32, 64] (large images); the backbone ends at the coarsest."""
    head: Literal["anchor_free", "dual", "anchor_based"] = "anchor_free"
    """`anchor_free`: distances from a point to the sides of a box; `dual`: two of these; the one that learns a single point for
    each object makes the predictions, without suppression (YOLOv10); `anchor_based`: anchors with an objectness."""
    head_width: float = Field(default=1.0, gt=0, le=8)
    """Factor on the channels inside the head's two branches, which are rounded to multiples of 8."""
    anchors: tuple[tuple[tuple[float, float], ...], ...] | None = None
    """Of an anchor-based head, for each level, finest first, a list of [width, height] in pixels of the input, as many on each
    level. null: squares of 1.5, 3 and 6 strides, or, where these miss training boxes, anchors that fit them."""
    in_channels: int = Field(default=3, ge=1, le=64)
    """Channels of the input image: 3 (RGB), 4 (RGB and depth) or 5 (RGB, depth, and whether the depth is known)."""
    fusion: Literal["early", "add"] = "early"
    """Where depth enters the network: `early`, as channels of the one stem; `add`, through a stem of its own whose output is
    added."""
    backbone: str | None = None
    """A torchvision classification model (`resnet18`, `mobilenet_v3_large`, `convnext_tiny` …) that replaces the package's
    own backbone."""
    pretrained: Switch = False
    """Start a torchvision backbone from its published weights (from torchvision's cache, or downloaded)."""
    norm: Literal["batch", "sync", "group", "frozen", "none"] = "batch"
    """Normalization layers: `batch` over a micro batch, `sync` over all ranks, `group` within one sample, `frozen`
    constants, `none`."""
    activation: Literal["silu", "relu", "leaky_relu", "gelu", "hardswish", "mish"] = "silu"
    """Activation after each convolution of the package's own layers."""
    reg_max: int = Field(default=16, ge=1, le=64)
    """Bins of the distribution over each box side; 1 predicts the distance itself, without DFL."""

    @field_validator("strides")
    @classmethod
    def _strides(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        first = STRIDES.index(value[0]) if value and value[0] in STRIDES else 0
        if not value or value != STRIDES[first : first + len(value)]:
            raise ValueError("must be consecutive powers of two from 4 to 64, such as [8, 16, 32] or [4, 8, 16, 32]")
        return value

    @field_validator("anchors")
    @classmethod
    def _anchors(
        cls, value: tuple[tuple[tuple[float, float], ...], ...] | None
    ) -> tuple[tuple[tuple[float, float], ...], ...] | None:
        if value is not None:
            if len({len(level) for level in value}) != 1 or not value[0]:
                raise ValueError("must give every level the same number of [width, height] pairs")
            if min(side for level in value for anchor in level for side in anchor) <= 0:
                raise ValueError("sides must be numbers > 0, in pixels")
        return value

    @model_validator(mode="after")
    def _level_each(self) -> "YoloConfig":
        if self.anchors is not None and len(self.anchors) != len(self.strides):
            given, levels = counted(len(self.anchors), "level"), len(self.strides)
            raise ValueError(f"anchors: given for {given}, but strides has {levels}; give one list for each level")
        return self

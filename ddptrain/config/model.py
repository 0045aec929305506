"""`model` and `loss`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from ddptrain.config.section import Section

TORCHVISION_DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssdlite320_mobilenet_v3_large",
)


class YoloConfig(Section):
    """The package's own anchor-free detector."""

    name: Literal["yolo"] = "yolo"
    """The package's own detector, or a torchvision detector by its torchvision name."""
    size: Literal["n", "s", "m", "l"] = "n"
    """Depth and width of backbone, neck and head."""
    strides: tuple[int, ...] = (8, 16, 32)
    """Strides of the head's levels, in pixels: [8, 16, 32], [4, 8, 16] or [4, 8, 16, 32] (small objects)."""
    in_channels: int = Field(default=3, ge=1, le=64)
    """Channels of the input image: 3 (RGB), 4 (and depth) or 5 (and whether the depth is known)."""
    fusion: Literal["early", "add"] = "early"
    """Where depth comes in: as channels of the one stem, or through a stem of its own whose output is added."""
    backbone: str | None = None
    """A torchvision classification model (`resnet18`, `mobilenet_v3_large`, `convnext_tiny` …) in the place of the
    own backbone."""
    pretrained: bool = False
    """Start a torchvision backbone from its published weights (from torchvision's cache, else downloaded)."""
    norm: Literal["batch", "sync", "group", "frozen", "none"] = "batch"
    """Normalisation layers: `batch` over a micro batch, `sync` over all ranks, `group` within one sample, `frozen`
    constants, `none`."""
    reg_max: int = Field(default=16, ge=1, le=64)
    """Bins of the distribution over each box side; 1 predicts the distance itself, without DFL."""

    @field_validator("name", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value != "yolo":
            names = ", ".join(("yolo", *TORCHVISION_DETECTORS))
            raise PydanticCustomError("unknown_model", "allowed: {names}", {"names": names})
        return value

    @field_validator("strides")
    @classmethod
    def _strides(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        allowed = ((8, 16, 32), (4, 8, 16), (4, 8, 16, 32))
        if value not in allowed:
            raise ValueError("allowed: " + ", ".join(str(list(a)) for a in allowed))
        return value


class TorchvisionConfig(Section):
    """A detector of torchvision, its classes replaced by the run's."""

    name: Literal[TORCHVISION_DETECTORS]  # type: ignore[valid-type]
    """The model's torchvision name."""
    pretrained: bool = False
    """Start from torchvision's COCO weights, all but the class layers (from torchvision's cache, else downloaded)."""
    pretrained_backbone: bool = False
    """Start the backbone from torchvision's ImageNet weights."""


def _kind(value: Any) -> str:
    name = value.get("name", "yolo") if isinstance(value, dict) else getattr(value, "name", "yolo")
    return "torchvision" if name in TORCHVISION_DETECTORS else "yolo"


ModelConfig = Annotated[
    Annotated[YoloConfig, Tag("yolo")] | Annotated[TorchvisionConfig, Tag("torchvision")], Discriminator(_kind)
]


class SizeWeights(Section):
    """Factors on the box loss and the distribution focal loss of an object, by its size."""

    small: float = Field(default=1.0, ge=0)
    """Objects below 32² square pixels of the network's input."""
    medium: float = Field(default=1.0, ge=0)
    """Objects from 32² to 96² square pixels."""
    large: float = Field(default=1.0, ge=0)
    """Objects of 96² square pixels and more."""


class LossConfig(Section):
    """Gains of the detection loss (the package's own detector; torchvision's detectors bring their own loss)."""

    box: float = Field(default=7.5, ge=0)
    """Gain of the box loss (complete IoU)."""
    cls: float = Field(default=0.5, ge=0)
    """Gain of the classification loss (binary cross entropy)."""
    dfl: float = Field(default=1.5, ge=0)
    """Gain of the distribution focal loss."""
    topk: int = Field(default=10, ge=1, le=100)
    """Anchor points that the task-aligned assigner gives to each object at most."""
    alpha: float = Field(default=0.5, gt=0)
    """Exponent of the score in the alignment metric."""
    beta: float = Field(default=6.0, gt=0)
    """Exponent of the IoU in the alignment metric."""
    size_weights: SizeWeights = SizeWeights()
    """Weights by size; `ddptrain check` tells what part of the box loss each size gets."""

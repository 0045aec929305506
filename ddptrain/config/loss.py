"""`loss`: one section a kind, told apart by its name; the task decides which there are."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ddptrain.config.section import Section

ClassWeights = Literal["none", "balanced"] | tuple[float, ...]


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

    name: Literal["detection"] = "detection"
    """Which loss."""
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


class ImageLossConfig(Section):
    """The loss of classification and interaction."""

    name: Literal["cross_entropy", "focal", "bce"] = "cross_entropy"
    """Cross entropy; focal: the same, less for what is easy; bce: binary cross entropy for images of many classes."""
    class_weights: ClassWeights = "none"
    """Weight of each class: `balanced` for one over its number of training samples, or a number for each class."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Part of each target that is spread over all classes (cross_entropy, focal)."""
    gamma: float = Field(default=2.0, ge=0)
    """`focal`: exponent of 1 - p."""
    pos_weight: ClassWeights = "none"
    """`bce`: weight of the positives of each class: `balanced` for negatives over positives, or a number for each."""


class PixelLossConfig(Section):
    """The loss of segmentation by pixels, of all segmenters but mask2former."""

    name: Literal["pixels"] = "pixels"
    """Which loss."""
    cross_entropy: float = Field(default=1.0, ge=0)
    """Gain of the cross entropy of the pixels that are not void."""
    dice: float = Field(default=0.0, ge=0)
    """Gain of the Dice loss, a mean over the classes that an image shows; an image counts by its pixels."""
    aux: float = Field(default=0.4, ge=0)
    """Gain of the auxiliary head's loss, where the model has one."""
    class_weights: ClassWeights = "none"
    """Weight of each class in the cross entropy: `balanced` for one over its number of pixels, or a number for each."""

    @model_validator(mode="after")
    def _some(self) -> PixelLossConfig:
        if self.cross_entropy == self.dice == 0:
            raise ValueError("cross_entropy and dice are both 0: nothing would be learned; set one above 0")
        return self


class MaskLossConfig(Section):
    """The loss of mask2former: each class that an image shows is matched to one query."""

    name: Literal["masks"] = "masks"
    """Which loss."""
    cls: float = Field(default=2.0, ge=0)
    """Gain of the cross entropy of the queries' classes, in the loss and in the matching cost."""
    mask: float = Field(default=5.0, ge=0)
    """Gain of the binary cross entropy of the masks, in the loss and in the matching cost."""
    dice: float = Field(default=5.0, ge=0)
    """Gain of the Dice loss of the masks, in the loss and in the matching cost."""
    no_object: float = Field(default=0.1, ge=0)
    """Weight of the queries that are matched to nothing, in the cross entropy."""
    points: int = Field(default=12544, ge=1)
    """Points at which a mask is compared; they are drawn by the seed and the sample's position."""
    oversample: float = Field(default=3.0, ge=1)
    """So many times as many points are drawn, and the most uncertain ones are kept,"""
    importance: float = Field(default=0.75, ge=0, le=1)
    """for this part of the points; the rest is drawn anew, anywhere."""


_KINDS = {"pixels": "pixels", "masks": "masks", **dict.fromkeys(("cross_entropy", "focal", "bce"), "image")}


def _kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return _KINDS.get(str(name), "detection")


AnyLossConfig = Annotated[
    Annotated[LossConfig, Tag("detection")]
    | Annotated[ImageLossConfig, Tag("image")]
    | Annotated[PixelLossConfig, Tag("pixels")]
    | Annotated[MaskLossConfig, Tag("masks")],
    Discriminator(_kind),
]

"""The config of the loss of the package's own detector."""

from typing import Literal

from pydantic import Field, field_validator

from ddptrain.config.labels import ClassWeights
from ddptrain.config.section import NamedSection, Section, Switch

Gain = float | tuple[float, ...]
BoxLoss = Literal["iou", "giou", "diou", "ciou", "eiou", "nwd"]
Assigner = Literal["task_aligned", "simota", "rule"]
ScoreLoss = Literal["bce", "focal", "quality_focal", "varifocal"]


class SizeWeights(Section):
    """Factors on the box loss and the distribution focal loss of an object, by its size."""

    small: float = Field(default=1.0, ge=0)
    """Objects below 32² square pixels of the network's input."""
    medium: float = Field(default=1.0, ge=0)
    """Objects from 32² to 96² square pixels."""
    large: float = Field(default=1.0, ge=0)
    """Objects of 96² square pixels and more."""


class LossConfig(NamedSection):
    """Gains of the detection loss (of the package's own detector; torchvision's detectors bring their own loss)."""

    name: Literal["detection"] = "detection"
    box: Gain = 7.5
    """Gain of the box loss: a number, or one for each level of the head, finest first."""
    cls: Gain = 0.5
    """Gain of the classification loss: a number, or one for each level."""
    dfl: Gain = 1.5
    """Gain of the distribution focal loss: a number, or one for each level."""
    obj: Gain = 1.0
    """Gain of the objectness loss (of an anchor-based head): a number, or one for each level."""
    box_loss: BoxLoss = "ciou"
    """The box loss is 1 minus this similarity of two boxes: `iou`, `giou`, `diou`, `ciou`, `eiou`, or `nwd`, the normalised
    Wasserstein distance, which small boxes that do not overlap can still learn from."""
    nwd_scale: float = Field(default=12.8, gt=0)
    """Pixels of distance at which `nwd` has fallen to 1/e, in loss and assignment; about the size of the objects."""
    cls_loss: ScoreLoss = "bce"
    """The classification loss: `bce`, binary cross entropy; `focal`, `quality_focal` and `varifocal` give less weight to easy
    examples."""
    focal_gamma: float = Field(default=2.0, ge=0)
    """Exponent of the error in the focal losses."""
    focal_alpha: float = Field(default=0.25, ge=0, le=1)
    """Weight of objects in `focal` (background has 1 minus this); weight of the background in `varifocal`, whose paper has
    0.75."""
    cls_pw: float = Field(default=1.0, gt=0)
    """Factor on the term of objects in the binary cross entropy (its `pos_weight`); above 1 for more recall."""
    obj_pw: float = Field(default=1.0, gt=0)
    """The same for the objectness."""
    class_weights: ClassWeights = "none"
    """Factor on the classification loss of each class: `balanced` for one over its number of training objects, or a number
    for each; their mean becomes 1."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """At an object's points the target of its class loses half of this part, and the other classes get it."""
    assigner: Assigner | None = None
    """Which points learn an object: `task_aligned`, the best by score and IoU (TOOD); `simota`, as many as their IoUs sum up
    to, of the lowest cost (YOLOX); `rule`, those near its centre on the level of its size (FCOS), or, of an anchor-based head,
    the anchors of its shape at its cell and two beside it. null: `task_aligned`, of an anchor-based head `rule`."""
    anchor_t: float = Field(default=4.0, gt=1)
    """Largest ratio between a side of an object and the same side of an anchor that learns it, of assigner `rule`; anchors are
    fitted, and their recall is counted, by it for each assigner."""
    iou_t: float | None = Field(default=None, gt=0, lt=1)
    """Of assigner `rule` of an anchor-based head: an anchor learns an object where the IoU of their shapes, both about one
    centre, is above this, whatever `anchor_t` says (YOLOv3). null: by `anchor_t`."""
    assign_by: Literal["iou", "nwd"] = "iou"
    """How the assigners compare a predicted box with an object: `iou`, or `nwd`, which is above 0 also where they do
    not overlap."""
    every_object: Switch = False
    """Give an object that the assigner leaves without a point the nearest free one."""
    topk: int = Field(default=10, ge=1, le=100)
    """Largest number of points that the task-aligned assigner and SimOTA give to each object."""
    alpha: float = Field(default=0.5, gt=0)
    """Exponent of the score in the metric of the task-aligned assigner."""
    beta: float = Field(default=6.0, gt=0)
    """Exponent of the IoU in the metric of the task-aligned assigner."""
    size_weights: SizeWeights = SizeWeights()
    """Weights by size; `ddptrain check` reports what part of the box loss each size gets."""

    @field_validator("box", "cls", "dfl", "obj")
    @classmethod
    def _gains(cls, value: Gain) -> Gain:
        if min(value, default=0) < 0 if isinstance(value, tuple) else value < 0:
            raise ValueError("must be a number ≥ 0, or a list of one for each level")
        return value

    def score_loss(self) -> tuple[ScoreLoss, float, float]:
        """Kind, gamma and alpha, as `losses.scores` takes them."""
        return self.cls_loss, self.focal_gamma, self.focal_alpha

"""The config of detection: its datasets, its augmentation, its detectors and its evaluation."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ddptrain.config.balance import BALANCE_RULES, BoxBalanceData
from ddptrain.config.data import DATASETS, HoldoutDataset
from ddptrain.config.detection_augment import MIXING, DetectionAugment
from ddptrain.config.detection_eval import DetectionEval
from ddptrain.config.detection_loss import LossConfig
from ddptrain.config.labels import check_weights
from ddptrain.config.multi_scale import input_sides
from ddptrain.config.rules import PRETRAINED_BACKBONE, SHARE, SUMMED, Rule, above_0, holdout_rule, only, split_rule, tiles_rule
from ddptrain.config.run import RunConfig
from ddptrain.config.section import NetworkSection, Switch
from ddptrain.config.tiles import TrainTiles
from ddptrain.config.yolo import YoloConfig
from ddptrain.config.yolo_heads import HEAD_RULES, check_assigner, head_of

FORMATS = ("coco", "yolo", "voc", "visdrone", "visdrone-vid", "uavdt", "uavdt-xml", "auair", "csv")
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

LEVELS = {"fasterrcnn_resnet50": 5, "fasterrcnn_mobilenet": 3, "retinanet": 5, "ssdlite": 6}
"""Of torchvision's detectors with anchors, by the beginning of their names: the number of levels that anchors lie on."""


class DetectionDataset(HoldoutDataset):
    """One dataset of boxes with classes."""

    format: Literal[FORMATS]  # type: ignore[valid-type]
    tiles: TrainTiles | None = None
    """Cut the images, and with them their masks, into tiles, which are samples of their own (in `train`)."""
    depth: str | None = None
    """Folder of depth maps, relative to `root`: 8- or 16-bit files (PNG, TIFF) with the images' names, for a model with
    `in_channels` 4 (depth) or 5 (depth, and whether it is known)."""
    depth_range: tuple[float, float] | None = None
    """Values in the files that become the ends of the 8-bit range, nearest first. Default: 0 and the largest."""
    depth_invalid: tuple[int, ...] = (0,)
    """Values in the files that mean that nothing is known."""
    depth_missing: Literal["error", "zeros"] = "error"
    """What an image without a depth map is: `error`, a fault like a missing image; `zeros`, unknown everywhere (with
    `in_channels` 5)."""

    @field_validator("depth_range")
    @classmethod
    def _range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] == value[1]:
            raise ValueError("the two ends must differ")
        return value


class DetectionData(BoxBalanceData):
    train: tuple[DetectionDataset, ...] = DATASETS
    val: tuple[DetectionDataset, ...] = DATASETS
    augment: DetectionAugment = DetectionAugment()
    allow_missing_annotations: Switch = False
    """Train a torchvision detector, whose loss cannot leave out a class, on datasets that do not label all classes: it
    learns the unlabelled objects there as background."""


class TorchvisionConfig(NetworkSection):
    """A detector of torchvision, its classes replaced by the run's."""

    name: Literal[TORCHVISION_DETECTORS]  # type: ignore[valid-type]
    """The model's torchvision name."""
    pretrained: Switch = False
    """Start from torchvision's COCO weights, all but the class layers (from torchvision's cache, or downloaded)."""
    pretrained_backbone: Switch = False
    """Start the backbone from torchvision's ImageNet weights."""
    anchor_sizes: tuple[float | tuple[float, ...], ...] | None = None
    """Sides of the anchors in pixels of the network's input, a number or several for each level, finest first: 5 levels of
    RetinaNet and of Faster R-CNN with ResNet-50, 3 of Faster R-CNN with MobileNet, 6 of SSDlite (a number each). Default:
    torchvision's own, [32, 64, 128, 256, 512] in Faster R-CNN."""
    aspect_ratios: tuple[float, ...] | None = None
    """Heights of the anchors over their widths, of Faster R-CNN and RetinaNet. Default: [0.5, 1, 2]."""

    @model_validator(mode="after")
    def _anchors(self) -> "TorchvisionConfig":
        levels = next((n for begin, n in LEVELS.items() if self.name.startswith(begin)), 0)
        for key in ("anchor_sizes", "aspect_ratios"):
            if getattr(self, key) is not None and not levels:
                raise ValueError(f"{key}: {self.name} has no anchors; remove it")
        if self.aspect_ratios is not None and self.name.startswith("ssdlite"):
            raise ValueError(f"aspect_ratios: those of {self.name} are 1, 2, 3 and their inverses; remove it")
        if self.aspect_ratios is not None and not min(self.aspect_ratios, default=0) > 0:
            raise ValueError("aspect_ratios: must be one or more numbers above 0")
        if self.anchor_sizes is None:
            return self
        if len(self.anchor_sizes) != levels:
            given = len(self.anchor_sizes)
            raise ValueError(
                f"anchor_sizes: {self.name} has {levels} levels, and {given} are given; give a size for each level"
            )
        sizes = [size if isinstance(size, tuple) else (size,) for size in self.anchor_sizes]
        if not min((s for level in sizes for s in level), default=0) > 0 or len({*map(len, sizes)}) > 1:
            raise ValueError("anchor_sizes: must be numbers above 0, the same count for every level (they share a head)")
        if self.name.startswith("ssdlite") and len(sizes[0]) > 1:
            raise ValueError(f"anchor_sizes: {self.name} takes one number for each level")
        return self


Models = YoloConfig | TorchvisionConfig


def _yolo(run: "DetectionRun") -> bool:
    return isinstance(run.model, YoloConfig)


def _torchvision(run: "DetectionRun") -> bool:
    return isinstance(run.model, TorchvisionConfig)


def _one_look(run: "DetectionRun") -> bool:
    """What the detector suppresses itself, if anything, is all."""
    return (_torchvision(run) or head_of(run) == "dual") and not run.eval.flip and len(run.eval.scales) == 1


class DetectionRun(RunConfig):
    """A run that learns boxes with classes."""

    task: Literal["detection"] = "detection"
    data: DetectionData
    model: Models = Field(default=YoloConfig(), discriminator="name")
    loss: LossConfig = LossConfig()
    eval: DetectionEval = DetectionEval()

    @model_validator(mode="after")
    def _weights_fit(self) -> "DetectionRun":
        check_weights("class_weights", self.loss.class_weights, len(self.classes))
        check_assigner(self)
        for name in ("box", "cls", "dfl", "obj"):
            gain = getattr(self.loss, name)
            if isinstance(gain, tuple) and isinstance(self.model, YoloConfig) and len(gain) != len(self.model.strides):
                levels = len(self.model.strides)
                raise ValueError(
                    f"loss.{name}: {len(gain)} gains for {levels} levels (model.strides); give {levels}, or one number"
                )
        return self

    @property
    def sides(self) -> range:
        """Sides of the network's input in training, in pixels: data.image_size alone, or those that multi-scale draws from."""
        stride = max(self.model.strides) if isinstance(self.model, YoloConfig) else 1
        return input_sides(self.data.augment.multi_scale, self.data.image_size, stride)

    @model_validator(mode="after")
    def _sides_fit(self) -> "DetectionRun":
        if isinstance(self.model, YoloConfig):
            _ = self.sides
        return self

    rules = (
        *RunConfig.rules,
        *BALANCE_RULES,
        Rule(
            "loss.box loss.cls loss.dfl loss.topk loss.alpha loss.beta loss.size_weights loss.box_loss loss.cls_loss "
            "loss.cls_pw loss.class_weights loss.label_smoothing loss.assigner loss.assign_by loss.every_object loss.obj "
            "loss.obj_pw loss.anchor_t loss.iou_t loss.nwd_scale loss.focal_gamma loss.focal_alpha",
            "model.name=yolo (torchvision's detectors bring their own loss)",
            _torchvision,
            "model.name",
        ),
        *HEAD_RULES,
        only("loss.focal_gamma", "loss.cls_loss", "focal", "quality_focal", "varifocal"),
        only("loss.focal_alpha", "loss.cls_loss", "focal", "varifocal"),
        Rule("model.pretrained", "model.backbone", lambda run: _yolo(run) and run.model.backbone is None),
        Rule(
            "model.fusion",
            "model.in_channels=4 or 5",
            lambda run: _yolo(run) and run.model.in_channels <= 3,
            "model.in_channels",
        ),
        PRETRAINED_BACKBONE,
        Rule(
            "eval.nms",
            "model.name=yolo (torchvision's detectors keep their own) without model.head=dual (which needs none), several "
            "eval.scales, or eval.flip=true",
            _one_look,
            "model.name model.head",
        ),
        Rule(
            "eval.nms_iou eval.nms_agnostic",
            "model.name=yolo (torchvision's detectors keep their own) without model.head=dual (which needs none), several "
            "eval.scales, eval.flip=true, or eval.tiles",
            lambda run: _one_look(run) and run.eval.tiles is None,
            "model.name model.head",
        ),
        Rule(
            "eval.soft_nms_sigma",
            "eval.nms=soft, or eval.tiles.merge=soft,",
            lambda run: run.eval.nms != "soft" and (run.eval.tiles is None or run.eval.tiles.merge != "soft"),
            "eval.nms",
        ),
        Rule(
            "eval.nms_iou",
            "eval.nms=hard, or eval.tiles,",
            lambda run: run.eval.nms != "hard" and run.eval.tiles is None,
            "eval.nms",
        ),
        Rule(
            "eval.rectangular",
            "an evaluation of whole images (windows of eval.tiles are square)",
            lambda run: run.eval.tiles is not None,
            "eval.tiles",
        ),
        Rule("eval.voc_points eval.voc_iou", "voc among eval.protocols", lambda run: "voc" not in run.eval.protocols),
        Rule("data.allow_missing_annotations", "a detector of torchvision", _yolo, "model.name"),
        Rule(
            "data.augment.multi_scale",
            "model.name=yolo",
            _torchvision,
            "model.name",
        ),
        above_0("data.augment.close_epochs", "data.augment", *MIXING),
        above_0("data.augment.pool", "data.augment", *MIXING[:-1]),
        above_0("data.augment.copy_paste_objects", "data.augment", "copy_paste"),
    )
    dataset_rules = (
        SHARE,
        SUMMED,
        tiles_rule("eval.tiles"),
        Rule("depth_range depth_invalid", "depth: FOLDER beside it", lambda run, part, d: d.depth is None, "depth"),
        Rule(
            "depth_missing",
            "model.in_channels=5",
            lambda run, part, d: not _yolo(run) or run.model.in_channels <= 3,
            "model.in_channels",
        ),
        holdout_rule("visdrone-vid", "uavdt", "uavdt-xml", "auair"),
        split_rule("coco", "csv"),
    )

"""The evaluation of detection: what is kept of a prediction, how often an image is seen, and by which rules it is scored."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ddptrain.config.section import Switch, distinct
from ddptrain.config.tiles import EvalTiles
from ddptrain.config.train import EvalConfig


class DetectionEval(EvalConfig):
    max_detections: int = Field(default=300, ge=1)
    """Number of detections that are kept per image; COCO's AP counts the best `coco_max_detections` of each class among
    them."""
    score_threshold: float = Field(default=0.001, ge=0, lt=1)
    """Detections below this score are dropped before non-maximum suppression."""
    nms_iou: float = Field(default=0.7, gt=0, le=1)
    """Intersection over union above which the lower of two boxes of one class is suppressed; torchvision's
    detectors keep their own."""
    nms: Literal["hard", "soft"] = "hard"
    """What becomes of the lower of two boxes that overlap: `hard` drops it above `nms_iou`; `soft` lowers its score by the
    overlap, the more the closer they are (Gaussian Soft-NMS, arXiv 1704.04503)."""
    soft_nms_sigma: float = Field(default=0.5, gt=0)
    """Width of Soft-NMS: a score is multiplied by exp(-IoU² / sigma)."""
    nms_agnostic: Switch = False
    """Let boxes also suppress those of other classes: at most one class per place."""
    flip: Switch = False
    """Predict each image mirrored as well, and merge both by non-maximum suppression: slower, usually a little better."""
    scales: Annotated[tuple[float, ...], distinct(0.1, 4)] = (1.0,)
    """Sizes of the input, as factors of data.image_size, at which each image is predicted; the predictions are merged by
    non-maximum suppression."""
    rectangular: Switch = False
    """Leave out what the letterbox adds to images that are not square, up to a multiple of 32 pixels, and forward images of
    equal shape together: faster; the pixels at the border differ, and so may the metrics in the last digits."""
    tiles: EvalTiles | None = None
    """Predict images in windows, whose detections are merged in pixels of the file: for objects that are too small for the
    network when the whole image is scaled to its input."""
    protocols: tuple[Literal["coco", "visdrone", "voc", "uavdt"], ...] = ("coco",)
    """Metrics: `coco` (always: AP is by its rules), and as `visdrone/AP` …, `voc/AP` … and `uavdt/AP70` … the means over the
    datasets by the rules of the VisDrone-DET, PASCAL VOC and UAVDT benchmarks; docs/metrics.md defines them all."""
    coco_max_detections: int = Field(default=100, ge=1)
    """Number of detections of each class that count in an image by COCO's rules, best first; another number than 100 is no
    longer COCO's."""
    voc_points: Literal["all", "11"] = "all"
    """VOC's average precision: `all`, the area under the precision's envelope (VOC 2010 and later), or `11`, the mean at
    recalls of 0, 0.1, …, 1 (VOC 2007)."""
    voc_iou: float = Field(default=0.5, gt=0, le=1)
    """Smallest intersection over union at which VOC counts an object as found."""

    @field_validator("protocols")
    @classmethod
    def _with_coco(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "coco" not in value:
            raise ValueError("coco must be among them, since the best checkpoint is chosen by its AP")
        return value

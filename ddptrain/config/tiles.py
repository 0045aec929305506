"""How images are cut into windows: as samples of their own in training (tiles), and to predict them in parts."""

from typing import Annotated, Literal

from pydantic import Field

from ddptrain.config.section import Section, Switch, distinct


class WindowsConfig(Section):
    """Square windows that cover an image. An image that is not larger than a window is taken whole, once."""

    size: int | None = Field(default=None, ge=32)
    """Side of a window in pixels of the scaled image; the network sees it at data.image_size. Default: data.image_size, so that
    a pixel of the scaled image is one of the network's input."""
    overlap: float = Field(default=0.2, ge=0, le=0.9)
    """Overlap of neighbouring windows, as a fraction of their side; best as large as most objects."""
    scales: Annotated[tuple[float, ...], distinct(0.05, 4)] = (1.0,)
    """Scales at which an image is looked at before it is cut: at 0.5 a window shows twice as much of it along each side."""


class BoxWindows(WindowsConfig):
    """Windows of images with boxes."""

    keep: float = Field(default=0.3, ge=0, le=1)
    """An object that is cut by the border of a window is learned where at least this fraction of its area is inside; else its
    part inside is an ignore region."""


class TrainTiles(BoxWindows):
    """Tiles of the images of a training dataset: each window is a sample of its own; no file is written."""

    empty: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the drawn tiles that show no object, however many such tiles there are."""


class EvalTiles(BoxWindows):
    """Images are predicted in windows, whose detections are merged in pixels of the file. `keep` is for the loss only."""

    merge: Literal["nms", "soft", "wbf"] = "nms"
    """How boxes of several windows on one object become one: `nms` keeps the best one (`eval.nms_iou`); `soft` lowers the
    scores of the others (Soft-NMS, `eval.soft_nms_sigma`); `wbf`, weighted boxes fusion (arXiv 1910.13302), takes their mean by
    score."""
    whole: Switch = False
    """Predict the whole image as well, for objects larger than a window."""

"""The config of a task of the user's own, which may use every key of the package's tasks, and `options`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ddptrain.config import classification, detection, interaction, segmentation
from ddptrain.config.balance import BoxBalance
from ddptrain.config.data import DATASETS
from ddptrain.config.labels import ImageLossConfig
from ddptrain.config.run import RunConfig

PATTERN = r"^[\w.]+:\w+$"
FORMATS = tuple(
    dict.fromkeys((*detection.FORMATS, *classification.FORMATS, *segmentation.FORMATS, *interaction.FORMATS, "own"))
)


class OwnDataset(
    detection.DetectionDataset,
    classification.ClassificationDataset,
    segmentation.SegmentationDataset,
    interaction.InteractionDataset,
):
    """One dataset of the mixture."""

    format: Literal[FORMATS]  # type: ignore[valid-type]


class OwnAugment(detection.DetectionAugment, classification.ClassificationAugment, segmentation.SegmentationAugment):
    """Augmentation of training images; every draw is a function of the seed and the sample's position in the stream."""


class OwnData(
    detection.DetectionData, classification.ClassificationData, segmentation.SegmentationData, interaction.InteractionData
):
    train: tuple[OwnDataset, ...] = DATASETS
    val: tuple[OwnDataset, ...] = DATASETS
    augment: OwnAugment = OwnAugment()
    balance: BoxBalance | Literal["oversample", "undersample"] = "none"  # type: ignore[assignment]


class OwnEval(detection.DetectionEval, segmentation.SegmentationEval):
    """When and how to evaluate."""


Models = detection.Models | classification.Models | segmentation.Models | interaction.InteractionConfig
Losses = detection.LossConfig | ImageLossConfig | segmentation.Losses


class OwnRun(RunConfig):
    """A run of a task of your own."""

    task: Annotated[str, Field(pattern=PATTERN)]
    options: dict[str, Any] = {}
    """Anything that your task needs."""
    data: OwnData
    model: Models = Field(default=detection.YoloConfig(), discriminator="name")
    loss: Losses = Field(default=detection.LossConfig(), discriminator="name")
    eval: OwnEval = OwnEval()

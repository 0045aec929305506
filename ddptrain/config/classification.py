"""The config of classification: its datasets, its augmentation and its networks; the loss is in `labels`."""

from typing import Literal

from pydantic import Field, model_validator

from ddptrain.config.data import DATASETS, HoldoutDataset, MixingAugment
from ddptrain.config.labels import (
    ANNOTATED,
    LOSS_RULES,
    TORCHVISION_CLASSIFIERS,
    ClassBalanceData,
    ImageLossConfig,
    check_weights,
)
from ddptrain.config.rules import SHARE, Rule, above_0, holdout_rule, split_rule
from ddptrain.config.run import RunConfig
from ddptrain.config.section import NetworkSection, Switch

FORMATS = ("folder", "csv", "mnist")


class ClassificationDataset(HoldoutDataset):
    """One dataset of images with classes."""

    format: Literal[FORMATS]  # type: ignore[valid-type]


class ClassificationAugment(MixingAugment):
    mix_alpha: float = Field(default=1.0, gt=0)
    """The second image's part in mixup, and its area in cutmix, are drawn from Beta(mix_alpha, mix_alpha)."""


class ClassificationData(ClassBalanceData):
    train: tuple[ClassificationDataset, ...] = DATASETS
    val: tuple[ClassificationDataset, ...] = DATASETS
    augment: ClassificationAugment = ClassificationAugment()


class ClassifierConfig(NetworkSection):
    """A classifier of torchvision, its last layer replaced by one for the run's classes."""

    name: Literal[TORCHVISION_CLASSIFIERS] = "resnet18"  # type: ignore[valid-type]
    """The model's torchvision name."""
    pretrained: Switch = False
    """Start from torchvision's ImageNet weights, all but the last layer (from torchvision's cache, or downloaded)."""
    weights: str | None = None
    """Start from a file of the model's weights (a state dict, `.pt` or `.pth`), all but a last layer of other classes."""


class LeNetConfig(NetworkSection):
    """LeNet-5 with ReLU and max-pooling, for images of 32 × 32 pixels."""

    name: Literal["lenet"] = "lenet"


class SmallResNetConfig(NetworkSection):
    """The residual network of the ResNet paper for CIFAR, for images of about 32 × 32 pixels."""

    name: Literal["small_resnet"] = "small_resnet"
    blocks: int = Field(default=2, ge=1, le=50)
    """Number of residual blocks at each of the three resolutions; the network has 6 × blocks + 2 layers."""
    width: int = Field(default=32, ge=8, multiple_of=8)
    """Channels at the first resolution; twice and four times as many at the others."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalization layers: `batch` over a micro batch, `group` within one sample, `none`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the pooled features that is dropped before the last layer."""


Models = ClassifierConfig | LeNetConfig | SmallResNetConfig


class ClassificationRun(RunConfig):
    """A run that learns the classes of images."""

    task: Literal["classification"]
    data: ClassificationData
    model: Models = Field(default=ClassifierConfig(), discriminator="name")
    loss: ImageLossConfig = ImageLossConfig()

    @model_validator(mode="after")
    def _weights(self) -> "ClassificationRun":
        check_weights("class_weights", self.loss.class_weights, len(self.classes))
        check_weights("pos_weight", self.loss.pos_weight, len(self.classes))
        return self

    rules = (
        *RunConfig.rules,
        *LOSS_RULES,
        above_0("data.augment.mix_alpha data.augment.close_epochs data.augment.pool", "data.augment", "mixup", "cutmix"),
    )
    dataset_rules = (
        SHARE,
        ANNOTATED,
        Rule(
            "annotations images",
            "a format that keeps annotations beside images (these two have usual places only)",
            lambda run, part, d: d.format in ("folder", "mnist"),
        ),
        holdout_rule("mnist"),
        split_rule("csv"),
        Rule("exif", "a format with image files", lambda run, part, d: d.format == "mnist"),
    )

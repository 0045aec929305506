"""The config of interaction: its datasets, its pairs and its network; the loss is in `labels`."""

from typing import Literal

from pydantic import Field, model_validator

from ddptrain.config.data import DATASETS, DatasetConfig
from ddptrain.config.labels import (
    ANNOTATED,
    LOSS_RULES,
    TORCHVISION_CLASSIFIERS,
    ClassBalanceData,
    ImageLossConfig,
    check_weights,
)
from ddptrain.config.rules import SHARE, Rule, only
from ddptrain.config.run import RunConfig
from ddptrain.config.section import NetworkSection, Section, Switch

FORMATS = ("jrdb",)
PAIR_BACKBONES = ("small_resnet", *TORCHVISION_CLASSIFIERS)


class InteractionDataset(DatasetConfig):
    """One dataset of panoramas with people."""

    format: Literal[FORMATS]  # type: ignore[valid-type]
    sequences: tuple[str, ...] | None = None
    """The sequences that are read. Default: those of the split, or all."""


class PairsConfig(Section):
    """Which pairs of people are considered. All but the first three keys thin out the training pairs only; what is drawn is
    a function of the seed and the frame's name."""

    distance_multiplier: float = Field(default=3.0, gt=0)
    """Two people are a candidate when the horizontal distance of their centres, around the panorama's seam, is at most
    this many mean widths of their two boxes."""
    max_difficulty: int | None = Field(default=None, ge=1)
    """Labels that are harder than this (JRDB: 1 easy to 3 hard) count as unknown: pairs without an easier one are left
    out. Default: all labels count."""
    use_group_sampling: Switch = False
    """Everyone in a group (people connected by interactions) interacts with everyone else in it, also in validation. Of a group
    of n people, only max_group_samples_ratio × n interacting pairs are learned from; a pair that is not drawn is left out
    and does not become a negative."""
    max_group_samples_ratio: float = Field(default=1.0, gt=0)
    """Number of interacting pairs that are learned from, per person of a group; see use_group_sampling."""
    max_negatives_per_frame: int | None = Field(default=None, ge=0)
    """Number of candidates without interaction that are learned from, per frame; null for all."""
    balance_ratio: float | None = Field(default=None, gt=0)
    """Number of candidates without interaction that are learned from, over a dataset, for each interacting pair; null for
    all."""


class InteractionData(ClassBalanceData):
    train: tuple[InteractionDataset, ...] = DATASETS
    val: tuple[InteractionDataset, ...] = DATASETS
    pairs: PairsConfig = PairsConfig()
    """Which pairs of people are considered."""


class InteractionConfig(NetworkSection):
    """One network for both people of a pair and for their union, and a head for each stage."""

    name: Literal["interaction"] = "interaction"
    stage: Literal[1, 2] = 1
    """What is learned: 1, whether two people interact (the other head stays as it is); 2, how (the first head stays)."""
    backbone: Literal[PAIR_BACKBONES] = "resnet18"  # type: ignore[valid-type]
    """The network that sees the crops: a classifier of torchvision by its name, or `small_resnet`, the classifier of that
    name."""
    pretrained: Switch = False
    """Start the backbone from torchvision's ImageNet weights (from torchvision's cache, or downloaded)."""
    weights: str | None = None
    """Start the backbone from a file of its weights (a state dict, `.pt` or `.pth`)."""
    blocks: int = Field(default=1, ge=1, le=50)
    """Number of residual blocks at each of the three resolutions of `small_resnet`."""
    width: int = Field(default=16, ge=8, multiple_of=8)
    """Channels at the first resolution of `small_resnet`."""
    norm: Literal["batch", "group", "none"] = "group"
    """Normalization layers of `small_resnet`: `batch` over a micro batch, `group` within one sample, `none`."""
    hidden: int = Field(default=128, ge=1)
    """Width of each head's hidden layer."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the hidden layer that is dropped in training."""


class InteractionRun(RunConfig):
    """A run that learns whether, or how, pairs of people interact."""

    task: Literal["interaction"]
    data: InteractionData
    model: InteractionConfig = InteractionConfig()
    loss: ImageLossConfig = ImageLossConfig()

    @model_validator(mode="after")
    def _of_the_stage(self) -> "InteractionRun":
        classes = 2 if self.model.stage == 1 else len(self.classes)
        check_weights("class_weights", self.loss.class_weights, classes)
        check_weights("pos_weight", self.loss.pos_weight, classes)
        if self.loss.name == "bce" and self.model.stage == 1:
            raise ValueError("loss.name: bce is for pairs of several classes, in stage 2; use cross_entropy or focal")
        return self

    rules = (
        *RunConfig.rules,
        *LOSS_RULES,
        only("model.blocks model.width model.norm", "model.backbone", "small_resnet"),
        Rule(
            "model.pretrained model.weights",
            "a model.backbone of torchvision, such as resnet18",
            lambda run: run.model.backbone == "small_resnet",
        ),
        only("data.pairs.max_group_samples_ratio", "data.pairs.use_group_sampling", True),
        Rule(
            "data.pairs.max_negatives_per_frame data.pairs.balance_ratio",
            "model.stage=1 (stage 2 looks at interacting pairs only)",
            lambda run: run.model.stage == 2,
            "model.stage",
        ),
    )
    dataset_rules = (SHARE, ANNOTATED)

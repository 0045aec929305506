"""The config of segmentation: its datasets, its augmentation, its networks, their losses and its evaluation."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ddptrain.config.data import DATASETS, AugmentConfig, DataConfig, HoldoutDataset
from ddptrain.config.labels import ClassWeights, check_weights
from ddptrain.config.rules import PRETRAINED_BACKBONE, SHARE, Rule, holdout_rule, only, split_rule, tiles_rule
from ddptrain.config.run import RunConfig
from ddptrain.config.section import NamedSection, NetworkSection, Switch
from ddptrain.config.tiles import WindowsConfig
from ddptrain.config.train import EvalConfig

FORMATS = ("masks", "camvid", "ade20k")
TORCHVISION_SEGMENTERS = (
    "lraspp_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
)


class SegmentationDataset(HoldoutDataset):
    """One dataset of images with a class for each pixel."""

    format: Literal[FORMATS]  # type: ignore[valid-type]
    void: int | None = Field(default=None, ge=0, le=255)
    """Value of the pixels that belong to no class, neither right nor wrong. Default: 255, of CamVid 11, of ADE20K 0."""
    values: dict[Annotated[int, Field(ge=0, lt=6656)], Annotated[int, Field(ge=0)] | None] = {}
    """Value in the masks → class number in `names`, counted from 0, or null for void, as in `{255: 1}`. A class that is
    listed here keeps no other value; all others stay as they are."""
    tiles: WindowsConfig | None = None
    """Cut the images, and with them their masks, into tiles, which are samples of their own (in `train`)."""


class SegmentationAugment(AugmentConfig):
    crop: Switch = False
    """Take a random window of image_size at the image's own scale (times the drawn zoom), instead of the whole image scaled
    to fit: what `eval.window: slide` sees."""


class SegmentationData(DataConfig):
    train: tuple[SegmentationDataset, ...] = DATASETS
    val: tuple[SegmentationDataset, ...] = DATASETS
    augment: SegmentationAugment = SegmentationAugment()


class SegmenterConfig(NetworkSection):
    """A segmenter of torchvision, its last layers replaced by ones for the run's classes."""

    name: Literal[TORCHVISION_SEGMENTERS] = "lraspp_mobilenet_v3_large"  # type: ignore[valid-type]
    """The model's torchvision name."""
    pretrained: Switch = False
    """Start from torchvision's COCO weights, all but the last layers (from torchvision's cache, or downloaded)."""
    pretrained_backbone: Switch = False
    """Start the backbone from torchvision's ImageNet weights."""
    aux: Switch = False
    """Add the auxiliary head of DeepLab and FCN (see `loss.aux`)."""
    norm: Literal["batch", "sync", "group", "frozen"] = "batch"
    """Normalization layers: `batch` over a micro batch, `sync` over all ranks, `group` within one sample, `frozen`
    constants (the pretrained ones)."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Part of the head's features that is dropped in DeepLab and FCN. Default: torchvision's own, 0.5 and 0.1."""

    @model_validator(mode="after")
    def _lraspp(self) -> "SegmenterConfig":
        if self.name.startswith("lraspp") and (self.aux or self.dropout is not None):
            raise ValueError(f"{'aux' if self.aux else 'dropout'}: {self.name} has none; remove it")
        return self


class Mask2FormerConfig(NetworkSection):
    """Mask2Former (arXiv 2112.01527) with a Swin backbone, from transformers (the extra [transformers])."""

    name: Literal["mask2former"] = "mask2former"
    weights: str | None = None
    """Folder that transformers' `save_pretrained` wrote (config.json, model.safetensors). The architecture is the one
    stored there, and a class layer of as many classes as the run has is kept. Default: fresh weights, by the keys below."""
    embed_dim: int = Field(default=96, ge=8)
    """Channels of Swin's first stage (tiny and small 96, base 128, large 192)."""
    depths: tuple[int, ...] = Field(default=(2, 2, 6, 2), min_length=4, max_length=4)
    """Blocks of Swin's four stages (tiny [2, 2, 6, 2], the others [2, 2, 18, 2])."""
    heads: tuple[int, ...] = Field(default=(3, 6, 12, 24), min_length=4, max_length=4)
    """Attention heads of Swin's four stages."""
    window: int = Field(default=7, ge=1)
    """Side of Swin's attention windows, in patches (base and large 12)."""
    drop_path: float = Field(default=0.3, ge=0, lt=1)
    """Stochastic depth of Swin. Its draws belong to the micro batch, so the result then depends on the split."""
    hidden: int = Field(default=256, ge=32, multiple_of=32)
    """Channels of pixel decoder, mask features and queries."""
    feedforward: int = Field(default=2048, ge=1)
    """Width of the feed-forward layers of the transformer decoder; those of the pixel decoder are half as wide."""
    attention_heads: int = Field(default=8, ge=1)
    """Attention heads of both decoders."""
    encoder_layers: int = Field(default=6, ge=1)
    """Layers of the pixel decoder."""
    decoder_layers: int = Field(default=10, ge=2)
    """Number of predictions of the transformer decoder, which has one layer fewer; each one is learned from."""
    queries: int = Field(default=100, ge=1)
    """Number of masks that are predicted."""

    @model_validator(mode="after")
    def _fits(self) -> "Mask2FormerConfig":
        if self.weights is not None:
            fields = type(self).model_fields
            for key in sorted(self.model_fields_set - {"name", "weights"}):
                if getattr(self, key) != fields[key].get_default():
                    raise ValueError(f"{key}: the folder of weights determines the architecture; remove it")
        if self.hidden % self.attention_heads:
            raise ValueError(f"attention_heads: {self.attention_heads} does not divide hidden, {self.hidden}")
        for stage, count in enumerate(self.heads):
            if (self.embed_dim << stage) % count:
                raise ValueError(f"heads: {count} does not divide the {self.embed_dim << stage} channels of stage {stage + 1}")
        return self


Models = SegmenterConfig | Mask2FormerConfig


class PixelLossConfig(NamedSection):
    """The loss by pixels, of all segmenters but mask2former."""

    name: Literal["pixels"] = "pixels"
    cross_entropy: float = Field(default=1.0, ge=0)
    """Gain of the cross entropy of the pixels that are not void."""
    dice: float = Field(default=0.0, ge=0)
    """Gain of the Dice loss, a mean over the classes that an image shows; an image counts by its pixels, with
    `class_weights` by the weights of its pixels."""
    aux: float = Field(default=0.4, ge=0)
    """Gain of the auxiliary head's loss, where the model has one."""
    class_weights: ClassWeights = "none"
    """Weight of the pixels of each class: `balanced` for one over its number of pixels, or a number for each."""

    @model_validator(mode="after")
    def _some(self) -> "PixelLossConfig":
        if self.cross_entropy == self.dice == 0:
            raise ValueError("cross_entropy: it and dice are both 0, so that nothing would be learned; set one above 0")
        return self


class MaskLossConfig(NamedSection):
    """The loss of mask2former, and its default: each class that an image shows is matched to one query."""

    name: Literal["masks"] = "masks"
    cls: float = Field(default=2.0, ge=0)
    """Gain of the cross entropy of the queries' classes, in the loss and in the matching cost."""
    mask: float = Field(default=5.0, ge=0)
    """Gain of the binary cross entropy of the masks, in the loss and in the matching cost."""
    dice: float = Field(default=5.0, ge=0)
    """Gain of the Dice loss of the masks, in the loss and in the matching cost."""
    no_object: float = Field(default=0.1, ge=0)
    """Weight of the queries that are matched to nothing, in the cross entropy."""
    points: int = Field(default=12544, ge=1)
    """Number of points at which a mask is compared; they are drawn by the seed and the sample's position."""
    oversample: float = Field(default=3.0, ge=1)
    """This many times as many points are drawn first, and the most uncertain of them are kept."""
    importance: float = Field(default=0.75, ge=0, le=1)
    """Fraction of the points that are chosen this way; the rest are drawn anywhere in the mask."""


Losses = PixelLossConfig | MaskLossConfig


class SegmentationEval(EvalConfig):
    window: Literal["whole", "slide"] = "whole"
    """What is predicted at once: `whole`, the whole image scaled to image_size; `slide`, its native pixels in windows of
    image_size."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Overlap of neighbouring windows, as a fraction of their side."""


class SegmentationRun(RunConfig):
    """A run that learns the class of each pixel."""

    task: Literal["segmentation"]
    data: SegmentationData
    model: Models = Field(default=SegmenterConfig(), discriminator="name")
    loss: Losses = Field(default=PixelLossConfig(), discriminator="name")
    eval: SegmentationEval = SegmentationEval()

    @classmethod
    def default_names(cls, data: dict[str, Any]) -> dict[str, str]:
        """Also the loss of mask2former."""
        model = data.get("model")
        own = isinstance(model, dict) and model.get("name") == "mask2former"
        return super().default_names(data) | ({"loss": "masks"} if own else {})

    @model_validator(mode="after")
    def _fitting_loss(self) -> "SegmentationRun":
        fitting = "masks" if self.model.name == "mask2former" else "pixels"
        if self.loss.name != fitting:
            raise ValueError(f"loss.name: {self.loss.name} is not the loss of {self.model.name}; set it to {fitting}")
        if isinstance(self.loss, PixelLossConfig):
            check_weights("class_weights", self.loss.class_weights, len(self.classes))
        return self

    rules = (
        *RunConfig.rules,
        Rule(
            "loss.aux",
            "model.aux=true",
            lambda run: isinstance(run.model, SegmenterConfig) and not run.model.aux,
            "model.aux",
        ),
        Rule(
            "loss.oversample",
            "loss.importance above 0",
            lambda run: isinstance(run.loss, MaskLossConfig) and run.loss.importance == 0,
            "loss.importance",
        ),
        PRETRAINED_BACKBONE,
        only("eval.overlap", "eval.window", "slide"),
    )
    dataset_rules = (SHARE, tiles_rule("eval.window=slide"), holdout_rule("camvid", "ade20k"), split_rule(*FORMATS))

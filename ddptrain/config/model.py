"""`model`: every network, told apart by its name."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ddptrain.config.section import Section, Switch

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
TORCHVISION_CLASSIFIERS = (
    "alexnet", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large", "densenet121", "densenet161",
    "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_s",
    "efficientnet_v2_m", "efficientnet_v2_l", "mnasnet0_5", "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_small",
    "mobilenet_v3_large", "regnet_x_400mf", "regnet_x_1_6gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf",
    "regnet_y_3_2gf", "regnet_y_8gf", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "squeezenet1_1", "swin_t",
    "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b", "vgg11_bn", "vgg16", "vgg16_bn", "vit_b_16",
    "vit_b_32", "vit_l_16", "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
TORCHVISION_SEGMENTERS = (
    "lraspp_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
)
CLASSIFIERS = ("resnet18", "lenet", "small_resnet", *(n for n in TORCHVISION_CLASSIFIERS if n != "resnet18"))
PAIR_BACKBONES = ("small_resnet", *TORCHVISION_CLASSIFIERS)
SEGMENTERS = (*TORCHVISION_SEGMENTERS, "mask2former")


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
    pretrained: Switch = False
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
            names = ", ".join(("yolo", *TORCHVISION_DETECTORS, *CLASSIFIERS, "interaction", *SEGMENTERS))
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
    pretrained: Switch = False
    """Start from torchvision's COCO weights, all but the class layers (from torchvision's cache, else downloaded)."""
    pretrained_backbone: Switch = False
    """Start the backbone from torchvision's ImageNet weights."""


class ClassifierConfig(Section):
    """Classification: a model of torchvision, its last layer replaced by one for the run's classes."""

    name: Literal[TORCHVISION_CLASSIFIERS]  # type: ignore[valid-type]
    """The model's torchvision name."""
    pretrained: Switch = False
    """Start from torchvision's ImageNet weights, all but the last layer (from torchvision's cache, else downloaded)."""
    weights: str | None = None
    """Start from a file of the model's weights (a state dict, `.pt` or `.pth`), all but a last layer of other classes."""


class LeNetConfig(Section):
    """Classification: LeNet-5 with ReLU and max-pooling, for images of 32 × 32 pixels."""

    name: Literal["lenet"] = "lenet"
    """The model's name."""


class SmallResNetConfig(Section):
    """Classification: the residual network of the ResNet paper for CIFAR, for images of about 32 × 32 pixels."""

    name: Literal["small_resnet"] = "small_resnet"
    """The model's name."""
    blocks: int = Field(default=2, ge=1, le=50)
    """Residual blocks at each of the three resolutions; the network has 6 × blocks + 2 layers."""
    width: int = Field(default=32, ge=8, multiple_of=8)
    """Channels at the first resolution; twice and four times as many at the others."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalisation layers: `batch` over a micro batch, `group` within one sample, `none`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the pooled features that is dropped before the last layer."""


class InteractionConfig(Section):
    """Interaction: one network for both people of a pair and for their union, and a head for each stage."""

    name: Literal["interaction"] = "interaction"
    """The model's name."""
    stage: Literal[1, 2] = 1
    """What is learned: 1, whether two people interact (the other head stays as it is); 2, how (the first head stays)."""
    backbone: Literal[PAIR_BACKBONES] = "resnet18"  # type: ignore[valid-type]
    """The network that sees the crops: a classifier of torchvision by its name, or `small_resnet` (see there)."""
    pretrained: Switch = False
    """Start the backbone from torchvision's ImageNet weights (from torchvision's cache, else downloaded)."""
    weights: str | None = None
    """Start the backbone from a file of its weights (a state dict, `.pt` or `.pth`)."""
    blocks: int = Field(default=1, ge=1, le=50)
    """`small_resnet`: residual blocks at each of the three resolutions."""
    width: int = Field(default=16, ge=8, multiple_of=8)
    """`small_resnet`: channels at the first resolution."""
    norm: Literal["batch", "group", "none"] = "group"
    """`small_resnet`: normalisation layers, `batch` over a micro batch, `group` within one sample, `none`."""
    hidden: int = Field(default=128, ge=1)
    """Width of each head's hidden layer."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the hidden layer that is dropped in training."""


class SegmenterConfig(Section):
    """Segmentation: a model of torchvision, its last layers replaced by ones for the run's classes."""

    name: Literal[TORCHVISION_SEGMENTERS]  # type: ignore[valid-type]
    """The model's torchvision name."""
    pretrained: Switch = False
    """Start from torchvision's COCO weights, all but the last layers (from torchvision's cache, else downloaded)."""
    pretrained_backbone: Switch = False
    """Start the backbone from torchvision's ImageNet weights."""
    aux: Switch = False
    """Add the auxiliary head that DeepLab and FCN know (`loss.aux`)."""
    norm: Literal["batch", "sync", "group", "frozen"] = "batch"
    """Normalisation layers: `batch` over a micro batch, `sync` over all ranks, `group` within one sample, `frozen`
    constants (the pretrained ones)."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Part of the head's features that is dropped in DeepLab and FCN. Default: torchvision's own, 0.5 and 0.1."""

    @model_validator(mode="after")
    def _lraspp(self) -> "SegmenterConfig":
        if self.name.startswith("lraspp") and (self.aux or self.dropout is not None):
            raise ValueError(f"{'aux' if self.aux else 'dropout'}: {self.name} has none; take it out")
        return self


class Mask2FormerConfig(Section):
    """Segmentation: Mask2Former (arXiv 2112.01527) with a Swin backbone, from transformers (the extra [transformers])."""

    name: Literal["mask2former"] = "mask2former"
    """The model's name."""
    weights: str | None = None
    """Folder that transformers' `save_pretrained` wrote (config.json, model.safetensors). The architecture is the one
    stored there, and a class layer of as many classes as the run has is kept. Default: fresh weights, by the keys below."""
    embed_dim: int = Field(default=96, ge=8)
    """Swin: channels of the first stage (tiny and small 96, base 128, large 192)."""
    depths: tuple[int, ...] = Field(default=(2, 2, 6, 2), min_length=4, max_length=4)
    """Swin: blocks of the four stages (tiny [2, 2, 6, 2], the others [2, 2, 18, 2])."""
    heads: tuple[int, ...] = Field(default=(3, 6, 12, 24), min_length=4, max_length=4)
    """Swin: attention heads of the four stages."""
    window: int = Field(default=7, ge=1)
    """Swin: side of the attention windows, in patches (base and large 12)."""
    drop_path: float = Field(default=0.3, ge=0, lt=1)
    """Swin: stochastic depth. Its draws belong to the micro batch, so that with it the split matters."""
    hidden: int = Field(default=256, ge=32, multiple_of=32)
    """Channels of pixel decoder, mask features and queries."""
    feedforward: int = Field(default=2048, ge=1)
    """Width of the feed-forward layers of the transformer decoder; half as wide in the pixel decoder."""
    attention_heads: int = Field(default=8, ge=1)
    """Attention heads of both decoders."""
    encoder_layers: int = Field(default=6, ge=1)
    """Layers of the pixel decoder."""
    decoder_layers: int = Field(default=10, ge=2)
    """Predictions of the transformer decoder, which has a layer fewer; each one is learned from."""
    queries: int = Field(default=100, ge=1)
    """Masks that are predicted."""

    @model_validator(mode="after")
    def _fits(self) -> "Mask2FormerConfig":
        if self.weights is not None:
            changed = sorted(self.model_fields_set - {"name", "weights"})
            defaults = type(self).model_fields
            changed = [k for k in changed if getattr(self, k) != defaults[k].get_default()]
            if changed:
                raise ValueError(f"{changed[0]}: the folder of weights decides the architecture; take it out")
        if self.hidden % self.attention_heads:
            raise ValueError(f"attention_heads: {self.attention_heads} does not divide hidden, {self.hidden}")
        for stage, count in enumerate(self.heads):
            if (self.embed_dim << stage) % count:
                raise ValueError(f"heads: {count} does not divide the {self.embed_dim << stage} channels of stage {stage + 1}")
        return self


_KINDS = {
    "lenet": "lenet",
    "small_resnet": "small_resnet",
    "interaction": "interaction",
    **dict.fromkeys(TORCHVISION_DETECTORS, "torchvision"),
    **dict.fromkeys(TORCHVISION_CLASSIFIERS, "classifier"),
    **dict.fromkeys(TORCHVISION_SEGMENTERS, "segmenter"),
    "mask2former": "mask2former",
}


def _kind(value: Any) -> str:
    name = value.get("name", "yolo") if isinstance(value, dict) else getattr(value, "name", "yolo")
    return _KINDS.get(str(name), "yolo")


ModelConfig = Annotated[
    Annotated[YoloConfig, Tag("yolo")]
    | Annotated[TorchvisionConfig, Tag("torchvision")]
    | Annotated[ClassifierConfig, Tag("classifier")]
    | Annotated[LeNetConfig, Tag("lenet")]
    | Annotated[SmallResNetConfig, Tag("small_resnet")]
    | Annotated[InteractionConfig, Tag("interaction")]
    | Annotated[SegmenterConfig, Tag("segmenter")]
    | Annotated[Mask2FormerConfig, Tag("mask2former")],
    Discriminator(_kind),
]

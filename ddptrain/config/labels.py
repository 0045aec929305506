"""What the configs of classification and interaction share: classifiers, the balance of the classes and the loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ddptrain.config.balance import BalancedData
from ddptrain.config.rules import Rule, only
from ddptrain.config.section import NamedSection
from ddptrain.system.printable import counted

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
ClassWeights = Literal["none", "balanced"] | tuple[float, ...]


def check_weights(key: str, weights: ClassWeights, classes: int) -> None:
    """Raise ValueError for weights that are not one number for each of the classes; 0 classes are not known yet."""
    if not isinstance(weights, tuple) or not classes:
        return
    if len(weights) != classes:
        given = counted(len(weights), "number")
        raise ValueError(f"loss.{key}: {given} for {counted(classes, 'class', 'classes')}; give one number ≥ 0 for each class")
    if min(weights) < 0 or not max(weights) > 0:
        wrong = f"{min(weights):g} is below 0" if min(weights) < 0 else "all are 0"
        raise ValueError(f"loss.{key}: {wrong}; give one number ≥ 0 for each of the {classes} classes, at least one above 0")


class ClassBalanceData(BalancedData):
    balance: Literal["none", "oversample", "undersample"] = "none"


class ImageLossConfig(NamedSection):
    """The loss of classification and interaction."""

    name: Literal["cross_entropy", "focal", "bce"] = "cross_entropy"
    """The loss: `cross_entropy`; `focal`, the same with less weight on easy examples; `bce`, binary cross entropy, for samples
    of several classes."""
    class_weights: ClassWeights = "none"
    """Weight of each class: `balanced` for one over its number of training samples, or a number for each class."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Part of each target that is spread over all classes (of `cross_entropy` and `focal`)."""
    gamma: float = Field(default=2.0, ge=0)
    """Exponent of 1 - p (of `focal`)."""
    pos_weight: ClassWeights = "none"
    """Weight of the positives of each class (of `bce`): `balanced` for negatives over positives, or a number for each."""


def _loss_rule(key: str, *names: str, remark: str = "") -> Rule:
    """Of a key of some losses; a change of the loss alone does not switch it off."""
    rule = only(f"loss.{key}", "loss.name", *names)
    return rule._replace(user=rule.user + remark, switches="")


LOSS_RULES: tuple[Rule, ...] = (
    _loss_rule("gamma", "focal"),
    _loss_rule("pos_weight", "bce"),
    _loss_rule("label_smoothing", "cross_entropy", "focal"),
    _loss_rule("class_weights", "cross_entropy", "focal", remark=" (bce has loss.pos_weight)"),
)
ANNOTATED = Rule(
    "annotated",
    "loss.name=bce (the other losses take one class of all for each sample)",
    lambda run, part, d: run.loss.name != "bce",
)

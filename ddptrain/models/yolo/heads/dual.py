"""Dual head (YOLOv10, arXiv 2405.14458): one branch learns from many points of an object, one from a single one."""

from __future__ import annotations

from torch import Tensor, nn

from ddptrain.models.class_layers import Layout
from ddptrain.models.yolo.heads.anchor_free import DecoupledHead
from ddptrain.models.yolo.prediction import DensePrediction, DualPrediction


class DualHead(nn.Module):
    """Two heads on the same maps. The one-to-many branch alone teaches the network below, since the one-to-one branch sees its
    maps detached; only the latter is used, and needs no suppression."""

    def __init__(self, many: DecoupledHead, one: DecoupledHead) -> None:
        super().__init__()
        self.many, self.one = many, one
        self.strides, self.per_point = one.strides, one.per_point

    def init_outputs(self) -> None:
        self.many.init_outputs()
        self.one.init_outputs()

    def forward(self, maps: list[Tensor], both: bool = False) -> DensePrediction | DualPrediction:
        """The one-to-one branch's prediction; in training, and where they are asked for, both."""
        if not (self.training or both):
            return self.one(maps)
        return DualPrediction(self.many(maps), self.one([x.detach() for x in maps]))

    def class_layers(self) -> dict[str, Layout]:
        branches = {"many": self.many, "one": self.one}
        return {f"{name}.{key}": layout for name, head in branches.items() for key, layout in head.class_layers().items()}

    def longest(self) -> list[int | None]:
        return self.one.longest()

"""Depth beside colour: one stem for all channels, or a second one whose output is added."""

from __future__ import annotations

import pytest
import torch

from ddptrain.config import YoloConfig
from ddptrain.models.yolo.network import Yolo


def network(**keys: object) -> Yolo:
    return Yolo(YoloConfig.model_validate(keys), 3, 64)


@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("fusion", ["early", "add"])
@pytest.mark.parametrize("backbone", [None, "resnet18"])
def test_depth_reaches_the_output_and_gets_a_gradient(channels: int, fusion: str, backbone: str | None) -> None:
    torch.manual_seed(0)
    model = network(in_channels=channels, fusion=fusion, backbone=backbone)
    images = torch.rand(2, channels, 64, 64, requires_grad=True)
    out = model(images)
    assert out.logits.shape == (2, 84, 3)
    (out.logits.float().sum() + out.distances.float().square().sum()).backward()
    stems = [p for n, p in model.backbone.named_parameters() if "added" in n and n.endswith("weight") and p.ndim == 4]
    assert len(stems) == (fusion == "add")
    assert all(p.grad is not None and p.grad.abs().sum() > 0 and p.shape[1] == channels - 3 for p in stems)
    assert images.grad is not None
    # the added stem of a torchvision backbone starts from 0: its weights learn first
    starts_at_zero = fusion == "add" and backbone is not None
    assert (images.grad[:, 3:].abs().sum() > 0) != starts_at_zero


def test_an_added_stem_leaves_a_pretrained_backbone_as_it_was() -> None:
    torch.manual_seed(0)
    plain = network(backbone="resnet18").eval()
    torch.manual_seed(0)
    both = network(backbone="resnet18", in_channels=4, fusion="add").eval()
    images = torch.rand(1, 4, 64, 64)
    before = plain.backbone(images[:, :3])
    after = both.backbone(images)
    assert all(torch.equal(a, b) for a, b in zip(before, after))


def test_without_further_channels_there_is_one_stem() -> None:
    assert network(fusion="add").state_dict().keys() == network().state_dict().keys()

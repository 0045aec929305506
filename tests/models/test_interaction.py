"""The network of pairs: no order, one head at a time, any backbone."""

from __future__ import annotations

import pytest
import torch

from ddptrain.config import InteractionConfig
from ddptrain.models.interaction import InteractionModel


def inputs(n: int = 3, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(n, 9, size, size), torch.rand(n, 10)


def swapped(images: torch.Tensor) -> torch.Tensor:
    return images[:, [3, 4, 5, 0, 1, 2, 6, 7, 8]]


@pytest.mark.parametrize("backbone", ["small_resnet", "resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_the_order_of_the_two_does_not_matter(backbone: str) -> None:
    torch.manual_seed(0)
    size = 64 if backbone == "squeezenet1_1" else 32
    model = InteractionModel(InteractionConfig(backbone=backbone, norm="batch"), 5, 10, size).eval()
    images, geometry = inputs(size=size)
    with torch.no_grad():
        one, other = model(images, geometry), model(swapped(images), geometry)
        another = model(images[:, [0, 1, 2, 6, 7, 8, 3, 4, 5]], geometry) if backbone == "small_resnet" else None
    assert one["interacting"].shape == (3, 2)
    assert one["kind"].shape == (3, 5)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)
        # but which crop is that of both does
        assert another is None or (value - another[name]).abs().max() > 1e-5


@pytest.mark.parametrize("stage", [1, 2])
def test_only_the_head_of_the_stage_learns(stage: int) -> None:
    model = InteractionModel(InteractionConfig(stage=stage, backbone="small_resnet"), 5, 10, 32)
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"backbone", "interacting" if stage == 1 else "kind"}
    out = model(*inputs())["interacting" if stage == 1 else "kind"]
    out.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())

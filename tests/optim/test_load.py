"""What an optimizer has learned goes on, however its parameters lie in memory now."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ddptrain.config import OptimizerConfig
from ddptrain.optim.build import OPTIMIZERS, build_optimizer, load_optimizer


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in model.parameters():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=g))
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resume_with_another_memory_format_goes_on_as_if_nothing_were(name: str) -> None:
    """The fused ones took a channels-last moment for one in rows, without a word."""
    config, layouts = OptimizerConfig(name=name), (torch.channels_last, torch.contiguous_format)
    torch.manual_seed(0)
    first = nn.Conv2d(4, 3, 3).to(memory_format=layouts[0])
    optimizer = build_optimizer(config, first, 4)
    steps(first, optimizer, 3, 0)
    ends = []
    for layout in layouts:
        model = nn.Conv2d(4, 3, 3).to(memory_format=layout)
        model.load_state_dict(first.state_dict())
        resumed = build_optimizer(config, model, 4)
        load_optimizer(resumed, copy.deepcopy(optimizer.state_dict()))
        kept = [v for s in resumed.state.values() for v in s.values() if isinstance(v, torch.Tensor) and v.ndim == 4]
        assert kept
        assert all(v.stride() == model.weight.stride() for v in kept)
        steps(model, resumed, 2, 1)
        ends.append(model.weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)

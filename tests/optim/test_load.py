"""An optimizer's state is kept at a resume, however its parameters lie in memory now."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from ddptrain.config import OptimizerConfig
from ddptrain.optim.build import OPTIMIZERS, _sgd, build_optimizer, load_optimizer


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in model.parameters():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=g))
        optimizer.step()


def test_a_fused_sgd_resumes_from_one_without_momentum_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped on a CPU before its first update, resumed on a GPU where the next step is not finite either: what
    torch's fused SGD would start from is memory that nobody has written."""
    config, model = OptimizerConfig(name="sgd"), nn.Linear(3, 2)
    unused = copy.deepcopy(build_optimizer(config, model, 4).state_dict())
    monkeypatch.setitem(OPTIMIZERS, "sgd", lambda groups, c: _sgd(groups, c, fused=True))
    resumed: Any = build_optimizer(config, model, 4)
    load_optimizer(resumed, unused)
    before = copy.deepcopy(model.state_dict())
    resumed.found_inf = torch.ones(())
    steps(model, resumed, 1, 0)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    kept = [s["momentum_buffer"] for s in resumed.state.values()]
    assert len(kept) == 2
    assert not any(v.any() for v in kept)


def test_where_a_fused_optimizer_counts_its_steps_is_its_own_affair() -> None:
    """A checkpoint's groups say how its optimizer computed; torch would load by what they say."""
    config, model = OptimizerConfig(name="adamw"), nn.Linear(3, 2)
    optimizer = build_optimizer(config, model, 4)
    steps(model, optimizer, 2, 0)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group["fused"] = None
    for values in state["state"].values():
        values["step"] = values["step"].double()
    resumed = build_optimizer(config, model, 4)
    load_optimizer(resumed, state)
    assert {s["step"].dtype for s in resumed.state.values()} == {torch.float32}
    assert {g["fused"] for g in resumed.param_groups} == {True}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resume_with_another_memory_format_changes_nothing(name: str) -> None:
    """The fused ones silently took a channels-last moment for one in rows."""
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

"""The moving average follows its formula, in float32, and resumes from a saved state bit by bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ddptrain.config import EmaConfig
from ddptrain.optim.ema import Ema


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def train(model: nn.Module, ema: Ema, first: int, last: int) -> None:
    for step in range(first, last + 1):
        torch.manual_seed(step)
        model.train()(torch.randn(2, 3, 6, 6))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p), alpha=0.1)
        ema.update(model, step)


@pytest.mark.parametrize(
    ("tau", "decay"), [(5.0, lambda n: 0.9 * (1 - math.exp(-n / 5.0))), (None, lambda n: min(0.3, (1 + n) / (10 + n)))]
)
def test_formula(tau: float | None, decay: Callable[[int], float]) -> None:
    model = network()
    ema = Ema(model, EmaConfig(decay=0.9 if tau else 0.3, tau=tau))
    wanted = {k: v.double().clone() for k, v in model.state_dict().items()}
    for step in range(1, 8):
        train(model, ema, step, step)
        d = decay(step)
        for k, v in model.state_dict().items():
            wanted[k] = d * wanted[k] + (1 - d) * v.double() if v.is_floating_point() else v.double()
    got = ema.state_dict()
    assert got["1.num_batches_tracked"] == 7
    for k, v in wanted.items():
        assert torch.allclose(got[k].double(), v, atol=1e-6), k


@pytest.mark.parametrize("steps", [200, 5000])
def test_without_tau_the_average_follows_the_length_of_the_run(steps: int) -> None:
    """Weights that grow by 1 a step are a tenth of the steps ahead of their average."""
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(model, EmaConfig(tau=None))
    for step in range(1, steps + 1):
        nn.init.constant_(model.weight, step)
        ema.update(model, step)
    assert ema.model.weight.item() == pytest.approx(0.9 * steps, rel=0.01)


def test_average_is_ready_to_evaluate_and_leaves_the_model_alone() -> None:
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    ema = Ema(model, EmaConfig())
    ema.update(model, 1)
    assert model.training
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in ema.model.parameters()}
    assert not shared


def test_half_precision_is_averaged_in_float32() -> None:
    """Increments below bfloat16's resolution still arrive."""
    model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    ema = Ema(model, EmaConfig(decay=0.9999, tau=0.001))
    nn.init.constant_(model.weight, 2.0)
    for step in range(1, 11):
        ema.update(model, step)
    assert ema.model.weight.dtype is torch.float32
    assert ema.model.weight.item() == pytest.approx(2 - 0.9999**10, abs=1e-6)


def test_shared_parameter_is_averaged_once() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[1].weight = model[0].weight
    nn.init.constant_(model[0].weight, 0.0)
    ema = Ema(model, EmaConfig(decay=0.5, tau=1e-3))
    nn.init.constant_(model[0].weight, 1.0)
    ema.update(model, 1)
    assert ema.model[1].weight.item() == 0.5


def test_resume_is_bit_equal() -> None:
    model = network()
    ema = Ema(model, EmaConfig())
    train(model, ema, 1, 5)
    model_state, ema_state = copy.deepcopy(model.state_dict()), copy.deepcopy(ema.state_dict())
    train(model, ema, 6, 10)
    other = network()
    other.load_state_dict(model_state)
    resumed = Ema(other, EmaConfig())
    resumed.load_state_dict(ema_state)
    train(other, resumed, 6, 10)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in ema.state_dict().items())

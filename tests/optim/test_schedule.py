"""Rates are functions of the step alone, equal to the formulas they name."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from ddptrain.config import OptimizerConfig, ScheduleConfig
from ddptrain.optim.build import build_optimizer
from ddptrain.optim.schedule import SCHEDULES, Schedule

SGD = OptimizerConfig(name="sgd", lr=0.02, momentum=0.9)


def rates(steps: int, optimizer: OptimizerConfig = SGD, **settings: object) -> list[float]:
    settings = {"warmup_epochs": 0.0, **settings}
    schedule = Schedule(ScheduleConfig(**settings), optimizer, steps, 10)
    return [schedule.at(step).lr for step in range(steps)]


@pytest.mark.parametrize("steps", [3, 10, 97, 1000])
@pytest.mark.parametrize("pct_start", [0.05, 0.3, 0.5])
def test_one_cycle_3_is_torch(steps: int, pct_start: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.02,
        total_steps=steps,
        pct_start=pct_start,
        three_phase=True,
        div_factor=20,
        final_div_factor=50,
    )
    wanted = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer.step() is needed to read the rates
        for step in range(steps):
            wanted.append(optimizer.param_groups[0]["lr"])
            if step < steps - 1:
                torchs.step()
    got = rates(steps, name="one_cycle_3", pct_start=pct_start, div_factor=20.0, final_div_factor=50.0)
    assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) < 1e-9


def test_one_cycle_3_peaks_at_lr() -> None:
    got = rates(100, name="one_cycle_3", pct_start=0.3)
    assert max(got) == got[29] == 0.02
    assert got[0] == pytest.approx(0.02 / 25)
    assert got[-1] == pytest.approx(0.02 / 25e4)


@pytest.mark.parametrize("name", ["one_cycle", "cosine"])
def test_one_cycle_is_half_a_cosine(name: str) -> None:
    got = rates(101, name=name, final=0.1)
    for step, value in enumerate(got):
        assert value == pytest.approx(0.02 * (((1 - math.cos(step * math.pi / 100)) / 2) * (0.1 - 1) + 1), abs=1e-15)
    assert got[0] == 0.02
    assert got[50] == pytest.approx(0.02 * 0.55)
    assert got[-1] == pytest.approx(0.002)


def test_linear_constant_multi_step() -> None:
    assert rates(5, name="linear", final=0.2) == pytest.approx([0.02, 0.016, 0.012, 0.008, 0.004])
    assert rates(4, name="constant") == [0.02] * 4
    got = rates(10, name="multi_step", milestones=(0.5, 0.8), gamma=0.1)
    assert got == pytest.approx([0.02] * 5 + [0.002] * 3 + [0.0002] * 2)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_warmup(name: str) -> None:
    config = ScheduleConfig(name=name, warmup_epochs=2.0, warmup_bias_lr=0.1, warmup_momentum=0.8)
    schedule = Schedule(config, SGD, 100, 10)
    bare = Schedule(config.model_copy(update={"warmup_epochs": 0.0}), SGD, 100, 10)
    start, half, end = schedule.at(0), schedule.at(10), schedule.at(20)
    assert start == (0.0, 0.1, 0.8)
    target = bare.at(10).lr
    assert half.lr == pytest.approx(target / 2)
    assert half.bias_lr == pytest.approx((0.1 + target) / 2)
    assert half.momentum == pytest.approx(0.85)
    assert all(schedule.at(step) == bare.at(step) for step in range(20, 100))
    assert end.lr == end.bias_lr == bare.at(20).lr


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_warmup_is_capped(steps: int) -> None:
    schedule = Schedule(ScheduleConfig(name="constant", warmup_epochs=3.0), SGD, steps, 10)
    assert schedule.at(steps - 1).lr == schedule.at(steps - 1).bias_lr == 0.02
    assert schedule.at(steps - 1).momentum == 0.9
    assert schedule.at(steps + 5) == schedule.at(steps - 1)


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad", "rmsprop"])
def test_only_sgd_starts_biases_high(name: str) -> None:
    schedule = Schedule(ScheduleConfig(), OptimizerConfig(name=name, lr=0.001, momentum=0.7), 1000, 100)
    assert schedule.at(0).lr == schedule.at(0).bias_lr == 0.0
    assert schedule.at(0).momentum == 0.7  # the warm-up never starts above the momentum asked for


def test_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="must be ≥ 0"):
        Schedule(ScheduleConfig(), SGD, 10, 10).at(-1)


@pytest.mark.parametrize("name", ["sgd", "adamw", "adagrad", "rmsprop"])
def test_apply_writes_by_name(name: str) -> None:
    config = OptimizerConfig(name=name, lr=0.02, momentum=0.9)
    optimizer = build_optimizer(config, nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), 16)
    optimizer.param_groups.reverse()
    schedule = Schedule(ScheduleConfig(), config, 1000, 100)
    rates = schedule.apply(optimizer, 30)
    assert rates == schedule.at(30)
    for group in optimizer.param_groups:
        assert group["lr"] == (rates.bias_lr if group["name"] == "bias" else rates.lr)
        if name in ("sgd", "rmsprop"):
            assert group["momentum"] == rates.momentum
        if name == "adamw":
            assert group["betas"] == (rates.momentum, 0.999)


@pytest.mark.parametrize(("milestone", "step"), [(0.55, 55), (0.07, 7), (0.29, 29)])
def test_a_milestone_acts_at_the_step_that_it_names(milestone: float, step: int) -> None:
    """In floats 0.55 x 100 is more than 55."""
    got = rates(100, name="multi_step", milestones=(milestone,), gamma=0.1)
    assert [i for i in range(1, 100) if got[i] != got[i - 1]] == [step]

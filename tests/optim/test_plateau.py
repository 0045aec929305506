"""The plateau schedule lowers the rate when torch's would, and its state is all that a resume needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ddptrain.config import OptimizerConfig, ScheduleConfig
from ddptrain.optim.plateau import Plateau
from ddptrain.optim.schedule import Schedule


@pytest.mark.parametrize("lower_is_better", [False, True])
@pytest.mark.parametrize(("patience", "threshold"), [(1, 0.0), (3, 1e-4), (4, 0.05)])
def test_the_rule_is_torchs(lower_is_better: bool, patience: int, threshold: float) -> None:
    """With a patience that is one less: torch waits for more than `patience` evaluations."""
    values = np.cumsum(np.random.default_rng(patience).normal(0, 0.05, 80)) + 1
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    mode = "min" if lower_is_better else "max"
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.5, patience - 1, threshold, "rel", min_lr=0, eps=0)
    plateau = Plateau(patience, threshold)
    for value in values.tolist():
        torchs.step(value)
        plateau.judge(value, lower_is_better)
        assert optimizer.param_groups[0]["lr"] == 0.5**plateau.lowered
    assert plateau.lowered > 3


def test_by_hand() -> None:
    """AP 0.5 is the best; 0.504 is not 1 % better; an undefined value counts neither way; after two the rate is lowered, and it
    takes two more."""
    plateau = Plateau(patience=2, threshold=0.01)
    seen = []
    for value in (0.0, 0.5, 0.504, math.nan, 0.4, 0.5, 0.506, 0.5, 0.1):
        plateau.judge(value, lower_is_better=False)
        seen.append((plateau.lowered, plateau.waited))
    assert seen == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 1), (1, 0), (1, 1), (2, 0)]
    assert plateau.best == 0.506


def test_the_rates_follow_and_the_warm_up_leads_to_what_they_are() -> None:
    schedule = Schedule(
        ScheduleConfig(name="plateau", factor=0.5, warmup_epochs=1.0), OptimizerConfig(name="sgd", lr=0.1), 50, 10
    )
    assert schedule.plateau is not None
    assert (schedule.at(5).lr, schedule.at(10).lr, schedule.at(49).lr) == (0.05, 0.1, 0.1)
    schedule.plateau.lowered = 2
    assert (schedule.at(5).lr, schedule.at(10).lr, schedule.at(49).lr) == (0.0125, 0.025, 0.025)
    again = Plateau(7, 0.5)
    again.load_state_dict(schedule.plateau.state_dict())
    assert (again.lowered, again.patience, again.threshold) == (2, 7, 0.5)

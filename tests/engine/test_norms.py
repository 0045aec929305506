"""Norms by part of the network, against numbers worked out by hand and against a plain computation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from host_waits import HostWaits, needs_fakes, on_fake_gpu, put_on_fake_gpu
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ddptrain.config import EmaConfig
from ddptrain.engine.norms import Measurement, Norms, part_names
from ddptrain.optim.ema import Ema


def network() -> nn.Module:
    """Parts `body` and `head`, all below `model`."""
    model = nn.Module()
    model.model = nn.ModuleDict({"body": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 1)})
    return model


def test_parts_are_the_first_modules_below_those_that_hold_all_others() -> None:
    assert part_names(network()) == ["body", "head", "head"]
    assert part_names(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))) == ["0", "0", "1", "1"]
    assert part_names(nn.Linear(1, 1)) == ["all", "all"]


def test_steps_that_are_reported_are_measured() -> None:
    norms = Norms(network(), every=4, steps=10)
    assert [step for step in range(1, 11) if norms.measurement(step) is not None] == [4, 8, 10]


def test_gradient_update_and_weights_of_each_part() -> None:
    model = network()
    for p, value in zip(model.parameters(), (1.0, 2.0, 2.0)):
        p.data.fill_(value)
    average = Ema(model, EmaConfig(decay=0.5, tau=1e-9))
    norms = Norms(model, every=1, steps=1)
    # body: 4 values of 3, norm 6; head: 2 values of 4 and one of 2, norm 6: of all sqrt(72)
    grads = [torch.full((2, 2), 3.0), torch.full((1, 2), 4.0), torch.full((1,), 2.0)]
    measurement = Measurement(norms)
    measurement.before(grads)
    for p, grad in zip(model.parameters(), grads):
        p.data -= 0.1 * grad
    average.update(model, 1)
    found = measurement.read(2 * math.sqrt(72), average)
    assert {k: found[f"optim/gradient_norm/{k}"] for k in ("all", "body", "head")} == pytest.approx(
        {"all": 2 * math.sqrt(72), "body": 12, "head": 12}
    )
    assert [found[f"optim/update_norm/{part}"] for part in ("body", "head")] == pytest.approx([0.6, 0.6])
    # body: 4 values of 0.7; head: 1.6, 1.6 and 1.8
    assert found["optim/weight_norm/body"] == pytest.approx(1.4)
    assert found["optim/weight_norm/head"] == pytest.approx(math.sqrt(2 * 1.6**2 + 1.8**2))
    assert found["optim/update_ratio/body"] == pytest.approx(0.6 / 1.4)
    # the average is half an update behind
    assert found["optim/average_distance"] == pytest.approx(0.5 * math.sqrt(0.72) / math.sqrt(1.96 + 2 * 1.6**2 + 1.8**2))


@needs_fakes
def test_the_host_waits_for_nothing() -> None:
    model, average = network(), network()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    ema = Ema(model, EmaConfig())
    for each in (model, ema.model):
        put_on_fake_gpu(each, mode)
    norms, grads = Norms(model, 1, 1), [on_fake_gpu(p.detach(), mode) for p in average.parameters()]
    with mode, HostWaits() as waits:
        measurement = Measurement(norms)
        measurement.before(grads)
        measurement.after(ema)
    assert waits.lines == {}


def test_a_run_learns_the_same_bits_whether_it_is_watched_or_not(small_config: Callable[[str], Path], tmp_path: Path) -> None:
    from support import train

    config, keys = small_config("classification"), ("train.steps=5", "optimizer={name: adamw, lr: 0.01}")
    logs = [
        train(1, config, *keys, "name=seldom", "monitor.every_steps=100"),
        train(1, config, *keys, "name=often", "monitor.every_steps=1", "monitor.tensorboard=true"),
    ]
    digests = [log.rpartition("SHA-256 of the weights: ")[2].split()[0] for log in logs]
    assert digests[0] == digests[1]
    assert (tmp_path / "seldom" / "steps.csv").read_text() == (tmp_path / "often" / "steps.csv").read_text()

"""A model that begins with another run's weights, and parts that stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import final_state, train

from ddptrain.engine import checkpoint
from ddptrain.engine.initial import freeze, load_initial
from ddptrain.errors import UserError
from ddptrain.models.yolo.detector import Yolo


def test_weights_are_taken_over_and_frozen_ones_stay(config: Path, tmp_path: Path) -> None:
    train(1, config, "name=first", "train.steps=2", "model.norm=batch")
    first = final_state(tmp_path / "first")
    short = ("train.steps=3", "model.norm=batch", "ema.enabled=false")
    train(1, config, "name=second", f"init_from={tmp_path}/first", "freeze=[backbone]", *short)
    second = final_state(tmp_path / "second")
    assert second["step"] == 3
    moved = {k.split(".")[0] for k, v in second["model"].items() if not torch.equal(v, first["ema"][k])}
    assert moved == {"neck", "head"}  # not even the running statistics of the backbone


def test_another_architecture_is_named(tmp_path: Path) -> None:
    small, other = torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Linear(3, 2))
    checkpoint.save(tmp_path, {"ema": None, "model": small.state_dict()}, 1)
    load_initial(torch.nn.Linear(3, 2), tmp_path)
    with pytest.raises(
        UserError, match=r"weight is \[2, 3\] there and \[5, 3\] here; bias is|weight is \[2, 3\] there and \[5, 3\] here, "
    ):
        load_initial(torch.nn.Linear(3, 5), tmp_path)
    with pytest.raises(UserError, match=r"only here: 0.weight, 0.bias; only there: weight, bias"):
        load_initial(other, tmp_path)
    with pytest.raises(UserError, match=r"init_from: .*no such checkpoint"):
        load_initial(small, tmp_path / "gone")


def test_freezing() -> None:
    model = Yolo(2)
    frozen = freeze(model, ["backbone"])
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"neck", "head"}
    assert len(frozen) > 10
    with pytest.raises(UserError, match="no part 'back'; its parts are backbone, neck, head"):
        freeze(model, ["back"])


def test_a_metric_that_is_not_there_is_told_before_training(config: Path) -> None:
    text = train(1, config, "checkpoint.monitor=[accuracy]", expect=2)
    assert "checkpoint.monitor: no metric 'accuracy'; there are AP, AP50, AP75" in text

"""`ddptrain model`: parameters, operations, and what the levels of the detector see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddptrain.cli import main
from ddptrain.commands.model import stages_of
from ddptrain.config import YoloConfig
from ddptrain.config.classification import LeNetConfig
from ddptrain.models.classifiers import lenet
from ddptrain.models.yolo.network import Yolo
from ddptrain.models.yolo.reach import levels


def test_operations_are_those_of_the_layers() -> None:
    """LeNet's two convolutions and three matrices, a multiplication and an addition counted as two."""
    model = lenet(LeNetConfig(name="lenet"), 10, 32)
    *parts, whole = stages_of(model.eval(), (torch.rand(2, 3, 32, 32),))
    convolutions = 2 * (28 * 28 * 6 * 25 * 3 + 10 * 10 * 16 * 25 * 6)
    matrices = 2 * (400 * 120 + 120 * 84 + 84 * 10)
    assert whole.gflops * 1e9 == pytest.approx(convolutions + matrices)
    assert sum(part.gflops for part in parts) == pytest.approx(whole.gflops)
    assert sum(part.parameters for part in parts) == whole.parameters == sum(p.numel() for p in model.parameters())
    assert (parts[0].output, parts[-1].output) == ("6 x 28 x 28", "10")


def test_the_field_of_a_level_is_what_its_scores_depend_on() -> None:
    """Pixels outside it never matter; those at its edge do where weights are as they come."""
    torch.manual_seed(0)
    config = YoloConfig(strides=(4, 8, 16), norm="none")
    model = Yolo(config, 2, 64).double().eval()
    found = levels(model, 3)
    assert [level.stride for level in found] == [4, 8, 16]
    assert [level.longest for level in found] == [120, 240, 480]
    assert levels(Yolo(YoloConfig(reg_max=1), 2, 64), 3)[0].longest is None
    side = 768
    strip = torch.rand(1, 3, 16, side, dtype=torch.float64, requires_grad=True)
    logits = model(strip).logits[0, :, 0]
    first = 0
    for level in found:
        rows, columns = 16 // level.stride, side // level.stride
        (gradient,) = torch.autograd.grad(logits[first + rows // 2 * columns + columns // 2], strip, retain_graph=True)
        (seen,) = (gradient.abs().amax((0, 1, 2)) > 0).nonzero(as_tuple=True)
        assert 0.8 * level.field < int(seen.max() - seen.min()) + 1 <= level.field < side
        first += rows * columns


def test_a_field_that_reaches_too_far_is_given_as_a_least_one(
    small_config: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddptrain.models.yolo.reach._FARTHEST", 512)
    found = levels(Yolo(YoloConfig(strides=(4, 8, 16)), 2, 64), 3)
    assert [(level.beyond, level.field) for level in found[:1]] == [(False, 495)]
    assert found[-1].beyond
    assert found[-1].field <= 512
    assert main(["model", str(small_config("detection")), "model.strides=[4, 8, 16]"]) == 0
    first, *_, last = (line for line in capsys.readouterr().out.splitlines() if line.startswith("level"))
    assert "each sees a square of 495 pixels" in first
    assert f"each sees a square of at least {found[-1].field} pixels" in last


def test_a_config_is_described(small_config: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", str(small_config("detection")), "model.strides=[8, 16, 32]", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [level["stride"] for level in facts["levels"]] == [8, 16, 32]
    for task in ("classification", "segmentation", "interaction"):
        assert main(["model", str(small_config(task))]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["part", "output", "parameters", "GFLOPs"]
        assert lines[-1].split()[0] == "all"
    assert main(["model", str(small_config("detection")), "classes=auto"]) == 2
    assert "list the classes, or use ddptrain check" in capsys.readouterr().err

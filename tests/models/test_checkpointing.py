"""Activation checkpointing: less memory, and otherwise the same to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from run_states import state_of
from torch import Tensor, nn
from torchvision.models import get_model

from ddptrain.config.segmentation import Mask2FormerConfig
from ddptrain.config.yolo import YoloConfig
from ddptrain.errors import UserError
from ddptrain.models.checkpointing import checkpoint_stages
from ddptrain.models.mask2former.network import build_mask2former
from ddptrain.models.norms import replace_batch_norms
from ddptrain.models.yolo.network import Yolo


class Dropping(nn.Module):
    """A stage that draws random numbers, between layers that do, too."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Dropout(0.5), nn.Dropout(0.5)
        self.layer1 = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 8, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.layer1(self.before(x)))
        return out


def yolo(norm: str = "batch") -> nn.Module:
    return Yolo(YoloConfig.model_validate({"name": "yolo", "norm": norm}), 3, 64)


def synced() -> nn.Module:
    model = get_model("resnet18", num_classes=3)
    replace_batch_norms(model, "sync")
    return model


def mask2former() -> nn.Module:
    """Its swin drops whole blocks at random."""
    small = {"embed_dim": 8, "depths": (2, 1, 1, 1), "heads": (1, 1, 1, 1), "hidden": 32, "feedforward": 16, "window": 2}
    few = {"attention_heads": 2, "encoder_layers": 1, "decoder_layers": 2, "queries": 5, "drop_path": 0.5}
    return build_mask2former(Mask2FormerConfig.model_validate({"name": "mask2former", **small, **few}), 3)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "yolo": yolo,
    "group norm": lambda: yolo("group"),
    "resnet": lambda: get_model("resnet18", num_classes=3),
    "sync": synced,
    "dropout": Dropping,
    "mask2former": mask2former,
}


def built(name: str, checkpointing: bool) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[name]().to(memory_format=torch.channels_last)
    if checkpointing:
        checkpoint_stages(model, name)
    return model.train()


def learn(model: nn.Module) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Gradients and state after two steps' forward and backward passes, the second in half precision."""
    torch.manual_seed(1)
    for enabled in (False, True):
        images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = model(images)
        parts = out["masks"] if isinstance(out, dict) else out if isinstance(out, tuple) else (out,)
        sum(part.float().square().mean() for part in parts[:2]).backward()
    return [p.grad for p in model.parameters() if p.grad is not None], model.state_dict()


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_statistics_are_the_same_bits(name: str) -> None:
    (grads, state), (again, other) = (learn(built(name, checkpointing)) for checkpointing in (False, True))
    assert len(grads) == len(again) > 0
    assert all(torch.equal(a, b) for a, b in zip(grads, again))
    assert list(state) == list(other)
    assert [key for key in state if not torch.equal(state[key], other[key])] == []


def peak(model: nn.Module, tmp: Path) -> int:
    """The most bytes that a forward and backward pass holds at a time, from the trace of its allocations."""
    model(torch.rand(1, 3, 64, 64))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as trace:
        out = model(torch.rand(4, 3, 192, 192))
        (out.logits.sum() + out.distances.sum()).backward()
    path = tmp / "trace.json"
    trace.export_chrome_trace(str(path))
    events = [e["args"] for e in json.loads(path.read_text())["traceEvents"] if e["name"] == "[memory]"]
    start = events[0]["Total Allocated"] - events[0]["Bytes"]
    return max(int(e["Total Allocated"]) for e in events) - int(start)


def test_the_peak_of_memory_is_lower(tmp_path: Path) -> None:
    plain, lower = (peak(built("yolo", checkpointing), tmp_path) for checkpointing in (False, True))
    assert lower < 0.8 * plain


def test_without_gradients_nothing_is_computed_twice() -> None:
    model = built("dropout", checkpointing=True)
    with torch.no_grad():
        model(torch.rand(2, 3, 16, 16))
    assert model.get_buffer("layer1.1.num_batches_tracked") == 1
    assert not model.eval()(torch.rand(2, 3, 16, 16)).isnan().any()


@pytest.mark.parametrize("task", ["detection", "classification"])
def test_the_key_is_used_or_refused_in_one_line(small_config: Callable[[str], Path], task: str) -> None:
    if task == "detection":
        model = state_of(small_config(task), "model.checkpointing=true", "model.strides=[8, 16, 32]").model
        assert [type(stage).__name__ for stage in model.backbone.stages.values()] == ["ForgetfulSequential"] * 4  # type: ignore[union-attr]
        return
    with pytest.raises(UserError, match=r"^model.checkpointing: lenet has no stages that can be computed again; .*$"):
        state_of(small_config(task), "model.checkpointing=true")

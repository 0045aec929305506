"""A model that begins with another run's weights, and parts that stay as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from support import final_state, save_checkpoint, train
from torch import nn

from ddptrain.checkpoint.weights import fit_weights, load_initial
from ddptrain.config import (
    ClassifierConfig,
    InteractionConfig,
    LeNetConfig,
    Mask2FormerConfig,
    SegmenterConfig,
    SmallResNetConfig,
    TorchvisionConfig,
    YoloConfig,
)
from ddptrain.errors import UserError
from ddptrain.models.class_layers import Layout, class_layers
from ddptrain.models.classifiers import build_classifier
from ddptrain.models.interaction import InteractionModel
from ddptrain.models.mask2former.network import build_mask2former
from ddptrain.models.pretrained import Normalised
from ddptrain.models.torchvision_detectors import TorchvisionNetwork
from ddptrain.models.torchvision_segmenters import SegmenterNetwork
from ddptrain.models.yolo.network import Yolo
from ddptrain.optim.freeze import freeze


def test_weights_are_taken_over_and_frozen_ones_stay(config: Path, tmp_path: Path) -> None:
    train(1, config, "name=first", "train.steps=2", "model.norm=batch")
    first = final_state(tmp_path / "first")
    short = ("train.steps=3", "model.norm=batch", "ema.enabled=false")
    train(1, config, "name=second", f"init_from={tmp_path}/first", "freeze=[backbone]", *short)
    second = final_state(tmp_path / "second")
    assert second["step"] == 3
    moved = {k.split(".")[0] for k, v in second["model"].items() if not torch.equal(v, first["ema"][k])}
    assert moved == {"neck", "head"}  # not even the running statistics of the backbone
    # the checkpoint has these weights, too
    shutil.rmtree(tmp_path / "first")
    longer = (*short, "train.steps=4", "resume=auto")
    text = train(1, config, "name=second", f"init_from={tmp_path}/first", "freeze=[backbone]", *longer)
    assert "step_00000003.pt; init_from is ignored: it applies only when a run starts" in text


def saved(folder: Path, model: nn.Module, classes: Sequence[str]) -> Path:
    config = json.dumps({"classes": list(classes)})
    return save_checkpoint(folder, {"ema": None, "model": model.state_dict(), "config": config}, 1)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    small, other = nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2))
    saved(tmp_path, small, "ab")
    load_initial(nn.Linear(3, 2), tmp_path, "ab", strict=True)
    for strict, line in (
        (True, "set init_strict=false to load what fits"),
        (False, "by name and shape it holds 0% of the values"),
    ):
        with pytest.raises(UserError, match=r"another architecture: weight is \[2, 3\] there and \[5, 3\] here, bias is") as e:
            load_initial(nn.Linear(3, 5), tmp_path, "ab", strict)
        assert line in str(e.value)
    with pytest.raises(UserError, match=r"only here: 0.weight, 0.bias; only there: weight, bias"):
        load_initial(other, tmp_path, "ab")
    with pytest.raises(UserError, match=r"init_from: .*no such checkpoint"):
        load_initial(small, tmp_path / "gone", "ab")
    with pytest.raises(
        UserError, match=r"its classes are a, b, those of this run b, a; make them the same, or set init_strict"
    ):
        load_initial(small, tmp_path, "ba", strict=True)


OLD, NEW = ("person", "car", "bus"), ("bus", "kite", "person", "van")


def networks() -> dict[str, Callable[[int], nn.Module]]:
    """A network of each kind by its number of classes; small, or without its weights."""
    small = {"blocks": 1, "width": 8, "norm": "group"}
    mask2former = Mask2FormerConfig(
        embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), hidden=32, feedforward=16, attention_heads=2, encoder_layers=1,
        decoder_layers=2, queries=5, window=2,
    )  # fmt: skip
    segmenters = [SegmenterConfig(name=n) for n in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")]
    pairs = InteractionConfig.model_validate({"backbone": "small_resnet", "hidden": 8, **small})
    return {
        "yolo": lambda n: Yolo(YoloConfig(), n, 64),
        "fasterrcnn": lambda n: TorchvisionNetwork(TorchvisionConfig(name="fasterrcnn_mobilenet_v3_large_320_fpn"), n, 0.01, 5),
        "ssdlite": lambda n: TorchvisionNetwork(TorchvisionConfig(name="ssdlite320_mobilenet_v3_large"), n, 0.01, 5),
        "retinanet": lambda n: TorchvisionNetwork(TorchvisionConfig(name="retinanet_resnet50_fpn"), n, 0.01, 5),
        "fcos": lambda n: TorchvisionNetwork(TorchvisionConfig(name="fcos_resnet50_fpn"), n, 0.01, 5),
        "lenet": lambda n: build_classifier(LeNetConfig(), n, 32),
        "small_resnet": lambda n: build_classifier(SmallResNetConfig.model_validate(small), n, 32),
        "squeezenet": lambda n: build_classifier(ClassifierConfig(name="squeezenet1_1"), n, 64),
        "lraspp": lambda n: Normalised(SegmenterNetwork(segmenters[0], n)),
        "deeplab": lambda n: Normalised(SegmenterNetwork(segmenters[1].model_copy(update={"aux": True}), n)),
        "mask2former": lambda n: Normalised(build_mask2former(mask2former, n)),
        "interaction": lambda n: InteractionModel(pairs, n, 4, 32),
    }


@pytest.mark.parametrize("name", networks())
def test_all_tensors_of_other_sizes_are_class_layers(name: str) -> None:
    """What changes its shape with the number of classes is known, and has that many rows."""
    with torch.device("meta"):
        old, new = networks()[name](3), networks()[name](4)
    a, b = old.state_dict(), new.state_dict()
    changed = {k for k in a if a[k].shape != b[k].shape}
    layers = class_layers(new)
    assert changed == {k for k in layers if k in b}
    assert changed
    for key in changed:
        assert layers[key].cut(a[key], 3) is not None, key
        assert layers[key].cut(b[key], 4) is not None, key


@pytest.mark.parametrize("name", ["yolo", "lenet", "interaction", "mask2former"])
def test_class_rows_are_taken_by_name(name: str, tmp_path: Path) -> None:
    old, new = networks()[name](3), networks()[name](4)
    saved(tmp_path, old, OLD)
    fresh = {k: v.clone() for k, v in new.state_dict().items()}
    lines = load_initial(new, tmp_path, NEW)
    a, b, layers = old.state_dict(), new.state_dict(), class_layers(new)
    for key, value in b.items():
        if key not in layers:
            assert torch.equal(value, a[key]), key
            continue
        layout = layers[key]
        theirs, before, ours = layout.cut(a[key], 3), layout.cut(fresh[key], 4), layout.cut(value, 4)
        assert theirs is not None
        assert before is not None
        assert ours is not None
        for i, c in enumerate(NEW):
            there = theirs[:, layout.before + OLD.index(c)] if c in OLD else before[:, layout.before + i]
            assert torch.equal(ours[:, layout.before + i], there), (key, c)
        if layout.after:
            assert torch.equal(ours[:, -1], theirs[:, -1])
    assert "tensors loaded whole" in lines[0]
    assert lines[1:] == [
        "init_from: classes: copied by name: 2 (bus, person); initialized: 2 (kite, van); left out: 1 (car)",
    ]


def test_the_order_of_the_classes_does_not_matter(tmp_path: Path) -> None:
    """Equal shapes say nothing about which row is whose."""
    old, new = networks()["lenet"](3), networks()["lenet"](3)
    saved(tmp_path, old, OLD)
    load_initial(new, tmp_path, OLD[::-1])
    assert torch.equal(new.state_dict()["model.11.weight"], old.state_dict()["model.11.weight"].flip(0))


def test_anchors_hold_all_classes_each() -> None:
    """Of a detector with several anchors a point, the rows of a class are spread, behind those of the background."""
    old, new = torch.arange(2 * 4).float(), torch.zeros(2 * 3)
    fit = fit_weights({"x": old}, {"x": new}, {"x": Layout(2, before=1)}, ["a", "b", "c"], ["c", "new"])
    assert fit.tensors["x"].tolist() == [0, 3, 0, 4, 7, 0]


def test_what_does_not_fit_is_reported(tmp_path: Path) -> None:
    saved(tmp_path, Yolo(YoloConfig(), 3, 64), OLD)
    lines = load_initial(Yolo(YoloConfig(strides=(4, 8, 16, 32), in_channels=5), 3, 64), tmp_path, OLD)
    assert len(lines) == 2
    assert "other tensors initialized, " in lines[1]
    assert "backbone.stem.conv.weight is [16, 3, 3, 3] there and [16, 5, 3, 3] here" in lines[1]
    assert "only here: " in lines[1]


def test_a_run_of_other_classes_starts_from_a_run_and_says_how(config: Path, tmp_path: Path) -> None:
    train(1, config, "name=first", "train.steps=1")
    other = ("name=second", "classes=[pedestrian, car, bus, van]", f"init_from={tmp_path}/first", "train.steps=1")
    text = train(1, config, *other)
    assert "init_from: classes: copied by name: 3 (pedestrian, car, bus); initialized: 1 (van)" in text
    text = train(1, config, "name=third", *other[1:], "init_strict=true", expect=2)
    assert "its classes are car, bus, pedestrian, those of this run pedestrian, car, bus, van; make them the same" in text


def test_freezing() -> None:
    model = Yolo(YoloConfig(), 2)
    frozen = freeze(model, ["backbone"])
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"neck", "head"}
    assert len(frozen) > 10
    with pytest.raises(UserError, match="no part 'back'; its parts are backbone, neck, head"):
        freeze(model, ["back"])


def test_an_unknown_metric_is_reported_before_training(config: Path) -> None:
    text = train(1, config, "checkpoint.monitor=[accuracy]", expect=2)
    assert "checkpoint.monitor: no metric 'accuracy'; there are AP, AP50, AP75" in text

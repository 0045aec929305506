"""torchvision's detectors: one training and one evaluation pass each, no download."""

import json

import pytest
import torch

from ddptrain.config import TorchvisionConfig
from ddptrain.config.detection import TORCHVISION_DETECTORS
from ddptrain.errors import UserError
from ddptrain.models.torchvision_detectors import TorchvisionNetwork


@pytest.mark.parametrize("name", TORCHVISION_DETECTORS)
def test_training_and_evaluation(name):
    torch.manual_seed(0)
    model = TorchvisionNetwork(TorchvisionConfig(name=name), 3, score_threshold=0.0, max_detections=7)
    images = torch.rand(2, 3, 64, 64)
    targets = [
        {"boxes": torch.tensor([[10.0, 10, 50, 40]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    seen = {}
    model.model.backbone.register_forward_pre_hook(lambda m, args: seen.update(shape=args[0].shape))
    losses = model.train()(images, targets)
    assert seen["shape"] == (2, 3, 64, 64)  # neither resized nor padded
    total = sum(losses.values())
    assert total.isfinite()
    assert total.requires_grad

    with torch.no_grad():
        out = model.eval()(images)
    assert len(out) == 2
    for d in out:
        assert len(d.boxes) <= 7
        assert (d.scores.diff() <= 0).all()
        assert ((d.labels >= 0) & (d.labels < 3)).all()
        assert (d.boxes >= 0).all()
        assert (d.boxes <= 64).all()


@pytest.mark.learning
@pytest.mark.parametrize(
    ("name", "lr"), [("fasterrcnn_mobilenet_v3_large_320_fpn", 3e-4), ("ssdlite320_mobilenet_v3_large", 1e-3)]
)
def test_labels_come_back_as_they_went_in(name, lr):
    """A few steps on one image with one class: what is found is that class, not its neighbour."""
    torch.manual_seed(0)
    model = TorchvisionNetwork(TorchvisionConfig(name=name), 3, 0.01, 5)
    image = torch.full((2, 3, 64, 64), 0.5)
    image[:, 0, 10:50, 10:50] = 1
    target = [{"boxes": torch.tensor([[10.0, 10, 50, 50]]), "labels": torch.tensor([1])}] * 2
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    for _ in range(12):
        optimizer.zero_grad()
        sum(model(image, target).values()).backward()
        optimizer.step()
    for m in model.modules():  # running statistics of so few steps say nothing yet
        if isinstance(m, torch.nn.BatchNorm2d):
            m.track_running_stats = False
            m.running_mean = m.running_var = None
    with torch.no_grad():
        (d, _) = model.eval()(image)
    assert d.labels[0] == 1


def test_coco_weights_all_but_the_class_layers(tmp_path, monkeypatch):
    from torchvision.models import get_model, get_model_weights

    name = "ssdlite320_mobilenet_v3_large"
    torch.manual_seed(5)
    source = get_model(name, weights=None, weights_backbone=None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(source.state_dict(), folder / get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # with the background as many classes as COCO's 91
    model = TorchvisionNetwork(TorchvisionConfig(name=name, pretrained=True), 90, 0.01, 5)
    before = source.state_dict()
    differ = [k for k, v in model.model.state_dict().items() if not torch.equal(v, before[k])]
    assert len(differ) > 0
    assert all(k.startswith("head.classification_head.module_list.") and ".1." in k for k in differ)


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    (tmp_path / "hub").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"pretrained weights: .*ssdlite320"):
        TorchvisionNetwork(TorchvisionConfig(name="ssdlite320_mobilenet_v3_large", pretrained=True), 3, 0.01, 5)


def test_anchors_have_the_given_sizes_and_ratios():
    config = TorchvisionConfig(
        name="fasterrcnn_mobilenet_v3_large_320_fpn", anchor_sizes=(16, 32, 64), aspect_ratios=(1.0, 4.0)
    )
    model = TorchvisionNetwork(config, 3, 0.01, 5)
    cells = model.model.rpn.anchor_generator.cell_anchors
    # the height is the size times the root of the ratio, the width is the size over it
    assert cells[0].tolist() == [[-8, -8, 8, 8], [-4, -16, 4, 16]]
    assert cells[2].tolist() == [[-32, -32, 32, 32], [-16, -64, 16, 64]]
    assert learns(model)
    assert model.model.rpn.head.cls_logits.out_channels == 2


def test_anchors_of_one_stage():
    plain = TorchvisionNetwork(TorchvisionConfig(name="retinanet_resnet50_fpn"), 3, 0.01, 5)
    sizes = tuple((s, 1.5 * s) for s in (8.0, 16.0, 32.0, 64.0, 128.0))
    model = TorchvisionNetwork(TorchvisionConfig(name="retinanet_resnet50_fpn", anchor_sizes=sizes), 3, 0.01, 5)
    counts = [m.model.head.regression_head.bbox_reg.out_channels for m in (plain, model)]
    assert counts == [4 * 9, 4 * 6]  # three ratios of three and of two sizes
    assert learns(model)


def test_anchors_of_ssdlite_are_parts_of_the_input():
    config = TorchvisionConfig(name="ssdlite320_mobilenet_v3_large", anchor_sizes=(16, 32, 64, 96, 160, 240))
    model = TorchvisionNetwork(config, 3, 0.01, 5, image_size=320)
    assert model.model.anchor_generator.scales == [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]
    assert learns(model)


def learns(model):
    """One training pass over a small image."""
    targets = [{"boxes": torch.tensor([[10.0, 10, 50, 40]]), "labels": torch.tensor([2])}] * 2
    return sum(model.train()(torch.rand(2, 3, 64, 64), targets).values()).isfinite()


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("fcos_resnet50_fpn", {"anchor_sizes": [8]}, "anchor_sizes: fcos_resnet50_fpn has no anchors"),
        ("fcos_resnet50_fpn", {"aspect_ratios": [1]}, "aspect_ratios: fcos_resnet50_fpn has no anchors"),
        ("ssdlite320_mobilenet_v3_large", {"aspect_ratios": [1]}, "aspect_ratios: those of ssdlite320_mobilenet_v3_large are"),
        ("ssdlite320_mobilenet_v3_large", {"anchor_sizes": [[8, 16]] * 6}, "takes one number for each level"),
        ("retinanet_resnet50_fpn", {"anchor_sizes": [8, 16, 32]}, "has 5 levels, and 3 are given"),
        ("retinanet_resnet50_fpn", {"anchor_sizes": [[8], [16], [32], [64], [1, 2]]}, "the same count for every level"),
        ("retinanet_resnet50_fpn", {"anchor_sizes": [8, 16, 32, 64, 0]}, "must be numbers above 0"),
        ("retinanet_resnet50_fpn", {"aspect_ratios": [1, -1]}, "aspect_ratios: must be one or more numbers above 0"),
    ],
)
def test_anchors_that_a_network_cannot_have(name, keys, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionConfig.model_validate_json(json.dumps({"name": name, **keys}))

"""The detector: shapes, sizes, gradients, initial state."""

import pytest
import torch
from torch import nn

from ddptrain.config import LossConfig, YoloConfig
from ddptrain.config.detection_eval import DetectionEval
from ddptrain.models.norms import NORMS
from ddptrain.models.yolo.decode import detections
from ddptrain.models.yolo.loss import detection_loss
from ddptrain.models.yolo.network import Yolo
from ddptrain.models.yolo.prediction import DensePrediction

STRIDES = [(8, 16, 32), (4, 8, 16), (4, 8, 16, 32), (8, 16, 32, 64), (8,), (4, 8)]


def no_targets(b: int, classes: int) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.long),
        "image": torch.zeros(0, dtype=torch.long),
        "ignore_boxes": torch.zeros(0, 4),
        "ignore_image": torch.zeros(0, dtype=torch.long),
        "annotated": torch.ones(b, classes, dtype=torch.bool),
    }


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("size", ["n", "s"])
def test_shapes_points_and_strides(size, strides):
    with torch.no_grad():
        pred = Yolo(YoloConfig(size=size, strides=strides, in_channels=4), 5).eval()(torch.rand(2, 4, 64, 128))
    total = sum((64 // s) * (128 // s) for s in strides)
    assert pred.logits.shape == (2, total, 5)
    assert pred.distances.shape == (2, total, 4, 16)
    assert pred.points.shape == (total, 2)
    assert pred.strides.shape == (total,)
    # the points of each level are the centres of its cells
    for s in strides:
        own = pred.points[pred.strides == s]
        expected = {(x * s + s / 2, y * s + s / 2) for y in range(64 // s) for x in range(128 // s)}
        assert set(map(tuple, own.tolist())) == expected


def test_points_belong_to_the_pixels_that_they_name():
    """A change at one place of the image moves the finest level's prediction most at the point of that place."""
    torch.manual_seed(0)
    model = Yolo(YoloConfig(strides=(4, 8, 16)), 2).eval()
    image = torch.rand(1, 3, 64, 96)
    other = image.clone()
    other[:, :, 40:44, 80:84] += 3.0
    with torch.no_grad():
        a, b = model(image), model(other)
    finest = a.strides == 4
    change = (a.distances - b.distances).abs().sum((2, 3))[0][finest]
    x, y = a.points[finest][change.argmax()].tolist()
    assert abs(x - 82) <= 8
    assert abs(y - 42) <= 8


@pytest.mark.parametrize(
    ("size", "low", "high"),
    [("n", 2.4e6, 3.0e6), ("s", 8.5e6, 11.5e6), ("m", 20e6, 28e6), ("l", 36e6, 46e6), ("x", 58e6, 72e6)],
)
def test_parameter_counts(size, low, high):
    with torch.device("meta"):
        count = sum(p.numel() for p in Yolo(YoloConfig(size=size), 80).parameters())
    assert low < count < high


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_every_parameter_gets_a_gradient_without_any_label(strides, norm):
    model = Yolo(YoloConfig(strides=strides, norm=norm), 3)
    loss = detection_loss(model(torch.rand(2, 3, 64, 64)), **no_targets(2, 3), config=LossConfig())
    loss.total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert loss.normalizer == 0


@pytest.mark.parametrize("reg_max", [1, 16])
def test_first_boxes_and_scores_are_sensible(reg_max):
    torch.manual_seed(0)
    model = Yolo(YoloConfig(reg_max=reg_max), 4, 128).eval()
    with torch.no_grad():
        pred = model(torch.rand(1, 3, 128, 128))
    sides = (pred.boxes()[..., 2:] - pred.boxes()[..., :2]) / pred.strides[:, None]
    assert sides.min() > 3
    assert sides.max() < 9
    # about 5 objects expected on each level, over all classes
    for s in (8, 16, 32):
        assert pred.logits[:, pred.strides == s].sigmoid().sum() == pytest.approx(5, rel=0.3)


@pytest.mark.parametrize("width", [0.01, 0.5, 2])
def test_the_width_of_the_head_changes_its_branches_alone(width):
    usual, other = (Yolo(YoloConfig(head_width=w), 4, 128) for w in (1, width))
    shapes, others = ({n: p.shape for n, p in m.named_parameters()} for m in (usual, other))
    changed = {name for name, shape in shapes.items() if others[name] != shape}
    assert changed
    assert all(name.startswith("head.") for name in changed)
    # n has 64 channels in the branch of boxes and in that of classes
    assert {m.in_channels for m in (*other.head.distances, *other.head.logits)} == {max(64 * width, 8)}
    assert other.eval()(torch.rand(1, 3, 64, 64)).logits.shape == (1, 84, 4)


@pytest.mark.parametrize("size", ["n", "l"])
@pytest.mark.parametrize("norm", ["batch", "none", "group", "frozen"])
def test_signals_keep_their_size_through_all_layers(size, norm):
    torch.manual_seed(0)
    model = Yolo(YoloConfig(size=size, norm=norm), 2)
    # blotches of several sizes, as in photographs
    images = sum(nn.functional.interpolate(torch.rand(2, 3, n, n), size=128, mode="bilinear") for n in (4, 16, 64)) / 3
    with torch.no_grad():
        maps = model.neck(model.backbone(images))
    for m in maps:
        assert 0.005 < m.std() < 50


def test_norms_are_what_was_asked_for():
    kinds = {
        "batch": nn.BatchNorm2d,
        "sync": type(NORMS["sync"](8, 1e-5, 0.1)),
        "group": nn.GroupNorm,
    }
    for norm, kind in kinds.items():
        model = Yolo(YoloConfig(norm=norm), 2)
        assert any(type(m) is kind for m in model.modules())
        others = [k for k in kinds.values() if k is not kind]
        assert not any(type(m) in others for m in model.modules())
    for norm in ("frozen", "none"):
        model = Yolo(YoloConfig(norm=norm), 2)
        assert not any(isinstance(m, tuple(kinds.values())) for m in model.modules())
    # a checkpoint of one fits into the other
    frozen = Yolo(YoloConfig(norm="frozen"), 2)
    frozen.load_state_dict(Yolo(YoloConfig(), 2).state_dict())


def test_a_stride_of_64_takes_images_that_are_multiples_of_32():
    """They are enlarged on the right and below, so that points and boxes stay where they are."""
    model = Yolo(YoloConfig(strides=(16, 32, 64)), 2).eval()
    image = torch.rand(1, 3, 96, 160)
    with torch.no_grad():
        pred, padded = model(image), model(nn.functional.pad(image, (0, 32, 0, 32)))
    assert pred.points.shape == (8 * 12 + 4 * 6 + 2 * 3, 2)
    assert torch.equal(pred.logits, padded.logits)


@pytest.mark.parametrize(("name", "kind"), [("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU), ("mish", nn.Mish)])
def test_the_activation_is_what_was_asked_for(name, kind):
    model = Yolo(YoloConfig(activation=name), 2)
    assert not any(isinstance(m, nn.SiLU) for m in model.modules())
    assert sum(isinstance(m, kind) for m in model.modules()) == sum(
        isinstance(m, nn.Conv2d) and m.bias is None for m in model.modules()
    )


@pytest.mark.parametrize("strides", [[], [8, 32], [16, 8], [2, 4], [64, 128], [8, 8]])
def test_strides_are_consecutive_powers_of_two(strides):
    with pytest.raises(ValueError, match="consecutive powers of two"):
        YoloConfig.model_validate({"strides": tuple(strides)})


@pytest.mark.learning
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_it_learns_two_painted_rectangles(norm):
    torch.manual_seed(0)
    model = Yolo(YoloConfig(norm=norm), 2, 64)
    images = torch.full((2, 3, 64, 64), 0.5)
    images[0, 0, 10:40, 8:30] = 1
    images[1, 2, 20:60, 25:60] = 1
    truth = {
        **no_targets(2, 2),
        "boxes": torch.tensor([[8.0, 10, 30, 40], [25, 20, 60, 60]]),
        "labels": torch.tensor([0, 1]),
        "image": torch.tensor([0, 1]),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(50):
        loss = detection_loss(model(images), **truth, config=LossConfig())
        optimizer.zero_grad()
        (loss.total / loss.normalizer.clamp_min(1)).backward()
        optimizer.step()
    # in training mode: 50 steps are too few for the running statistics
    best = detections(model(images), DetectionEval(score_threshold=0.001, nms_iou=0.7, max_detections=1))
    for i, d in enumerate(best):
        assert d.labels.tolist() == [i]
        assert d.scores[0] > 0.5
        a, b = d.boxes[0], truth["boxes"][i]
        inter = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp_min(0).prod()
        union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter
        assert inter / union > 0.8


def test_initial_weights_are_a_function_of_the_seed():
    def weights() -> torch.Tensor:
        torch.manual_seed(7)
        return torch.cat([p.flatten() for p in Yolo(YoloConfig(), 2).parameters()])

    assert torch.equal(weights(), weights())


def test_prediction_of_half_precision_images():
    model = Yolo(YoloConfig(), 2).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        pred = model(torch.rand(1, 3, 64, 64))
    assert isinstance(pred, DensePrediction)
    assert pred.logits.dtype == torch.bfloat16
    assert pred.boxes().dtype == torch.float32

"""The knobs of the detection loss: what each changes, and that none of them learns what is unknown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddptrain.config import LossConfig
from ddptrain.losses.boxes import similarity
from ddptrain.models.yolo.loss import detection_loss

KNOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "levels": {"cls": (1.0, 2.0, 0.5), "box": (1.0, 2.0, 3.0)},
    "pos_weight": {"cls_pw": 3.0},
    "smoothing": {"label_smoothing": 0.2},
    "smoothed, weighted": {"label_smoothing": 0.2, "cls_pw": 0.5},
    **{kind: {"cls_loss": kind, "label_smoothing": 0.1} for kind in ("focal", "quality_focal", "varifocal")},
    **{kind: {"box_loss": kind} for kind in ("iou", "giou", "diou", "eiou", "nwd")},
}


def loss_of(pred: Any, targets: dict[str, Tensor], config: dict[str, Any], **more: Any) -> Any:
    return detection_loss(pred, **targets, config=LossConfig.model_validate(config), **more)


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0, 0.5])])
def test_no_knob_learns_what_is_unknown(scenes: Any, knob: str, weights: Tensor | None) -> None:
    """Neither a class that an image does not label, nor the background in an ignore region; and each changes the loss."""
    pred, targets = scenes.prediction(2, seed=0), scenes.targets([12, 7], seed=1)
    targets["annotated"] = torch.tensor([[True, False, True, True], [False, True, True, False]])
    targets["ignore_boxes"], targets["ignore_image"] = torch.tensor([[-999.0, -999, 999, 999]]), torch.tensor([1])
    loss = loss_of(pred, targets, KNOBS[knob], class_weights=weights)
    (gradient,) = torch.autograd.grad(loss.total, pred.logits)
    assert (gradient[0, :, 1] == 0).all()
    assert (gradient[1][:, [0, 3]] == 0).all()
    assert (gradient[1].abs().sum(1) > 0).sum() <= 7 * 10  # the points of its objects alone
    assert gradient[0, :, 0].abs().min() > 0
    plain = loss_of(pred, targets, {})
    assert torch.equal(loss.normalizer, plain.normalizer)
    if knob != "plain" or weights is not None:
        assert loss.total != plain.total


@pytest.mark.parametrize("part", ["box", "cls", "dfl"])
def test_gains_by_level_are_parts_of_one_gain(scenes: Any, part: str) -> None:
    pred, targets = scenes.prediction(2, seed=2), scenes.targets([9, 9], seed=3)
    whole = loss_of(pred, targets, {part: 2.0}).parts[part]
    each = [loss_of(pred, targets, {part: tuple(2.0 * (i == level) for i in range(3))}).parts[part] for level in range(3)]
    assert all(value > 0 for value in each)
    torch.testing.assert_close(sum(each), whole)


def test_class_weights_are_factors_on_each_class(scenes: Any) -> None:
    pred, targets = scenes.prediction(2, seed=4), scenes.targets([9, 9], seed=5)
    plain = loss_of(pred, targets, {})
    each = [loss_of(pred, targets, {}, class_weights=torch.eye(4)[c]) for c in range(4)]
    torch.testing.assert_close(sum(loss.parts["cls"] for loss in each), plain.parts["cls"])
    assert all(torch.equal(loss.parts["box"], plain.parts["box"]) for loss in each)


def test_smoothing_is_of_the_points_of_objects_alone(scenes: Any) -> None:
    """Elsewhere the scores still learn 0; at an object's point each other class learns half the part."""
    pred, targets = scenes.prediction(1, seed=6), scenes.targets([1], seed=7)
    plain, smooth = (
        torch.autograd.grad(loss_of(pred, targets, c).total, pred.logits)[0][0] for c in ({}, {"label_smoothing": 0.2})
    )
    own = int(targets["labels"][0])
    moved = plain - smooth  # of the binary cross entropy the gradient is p - t
    at = moved[:, own] != 0
    assert 0 < at.sum() <= 10
    other = [c for c in range(4) if c != own]
    assert (moved[~at] == 0).all()
    for c in other:
        torch.testing.assert_close(moved[at, c], -moved[at, own], atol=1e-6, rtol=1e-4)


def test_boxes_are_alike_as_their_papers_say() -> None:
    """Two squares of side 4, 2 apart in x: shared 8, union 24, enclosing 6 x 4."""
    a, b = torch.tensor([0.0, 0, 4, 4]), torch.tensor([2.0, 0, 6, 4])
    third, distance = 1 / 3, 4 / (36 + 16)
    expected = {"iou": third, "giou": third, "diou": third - distance, "ciou": third - distance, "eiou": third - distance}
    expected["nwd"] = float(torch.tensor(-2 / 12.8).exp())
    for kind, value in expected.items():
        assert float(similarity(a, b, kind)) == pytest.approx(value, abs=1e-6), kind  # type: ignore[arg-type]
    # apart and of another size: union 16 + 4, enclosing 10 x 4, centres 6 apart in x and 1 in y, sides 2 and 2 apart
    c = torch.tensor([8.0, 1, 10, 3])
    c[1], c[3] = 0.0, 2.0
    assert float(similarity(a, c, "giou")) == pytest.approx(-20 / 40, abs=1e-6)
    assert float(similarity(a, c, "eiou")) == pytest.approx(-(7**2 + 1) / 116 - (2 / 10) ** 2 - (2 / 4) ** 2, abs=1e-6)
    assert float(similarity(a, c, "nwd", 5.0)) == pytest.approx(float(torch.tensor(-((49 + 1 + 2) ** 0.5) / 5).exp()), abs=1e-6)


@pytest.mark.parametrize("kind", ["bce", "focal", "quality_focal", "varifocal"])
def test_smoothing_begins_at_none(scenes: Any, kind: str) -> None:
    """A part of next to nothing changes next to nothing, for each loss of the scores; and no score is too low to learn from."""
    pred, targets = scenes.prediction(1, seed=6), scenes.targets([4], seed=7)
    pred.logits.data[0, 0, 0] = -200
    none, hardly = (
        torch.autograd.grad(loss_of(pred, targets, {"cls_loss": kind, **keys}).total, pred.logits)[0]
        for keys in ({}, {"label_smoothing": 1e-6})
    )
    assert none.isfinite().all()
    torch.testing.assert_close(hardly, none, atol=1e-4, rtol=1e-3)

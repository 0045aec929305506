"""The dual head: what each branch teaches and is used for."""

from __future__ import annotations

from typing import Any

import torch

from ddptrain.config import LossConfig, YoloConfig
from ddptrain.config.detection import DetectionEval
from ddptrain.models.yolo.decode import detections
from ddptrain.models.yolo.loss import detection_loss, every_term
from ddptrain.models.yolo.network import Yolo
from ddptrain.models.yolo.prediction import DualPrediction


def test_the_one_to_one_branch_does_not_teach_the_network_below(scenes: Any) -> None:
    torch.manual_seed(0)
    model = Yolo(YoloConfig(head="dual", norm="group"), 4, 128)
    targets = scenes.targets([5], seed=0)
    pred = model(torch.rand(1, 3, 128, 128))
    assert isinstance(pred, DualPrediction)
    terms = every_term(pred, **targets, config=LossConfig())
    sum(part.sum() for name, part in terms.parts.items() if name.startswith("one_")).backward()  # type: ignore[union-attr]
    taught = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert taught
    assert all(name.startswith("head.one.") for name in taught)
    loss = detection_loss(model(torch.rand(1, 3, 128, 128)), **targets, config=LossConfig())
    loss.total.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_each_object_has_one_point_in_the_one_to_one_branch_by_the_same_metric(scenes: Any) -> None:
    """With equal predictions its point is the best of those of the other branch, its loss that of `topk: 1`, times topk / 2."""
    pred, targets = scenes.prediction(1, seed=0), scenes.targets([4], seed=1)
    both = detection_loss(DualPrediction(pred, pred), **targets, config=LossConfig(topk=6))
    many, one = (detection_loss(pred, **targets, config=LossConfig(topk=k)) for k in (6, 1))
    assert both.normalizer == many.normalizer > one.normalizer
    for name, part in one.parts.items():
        assert both.parts[name] == many.parts[name]
        torch.testing.assert_close(both.parts[f"one_{name}"], 3 * part)


def test_it_is_used_alone_and_without_suppression() -> None:
    torch.manual_seed(0)
    model = Yolo(YoloConfig(head="dual", norm="group"), 3, 64).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        used, both = model(images), model(images, both=True)
    assert torch.equal(used.logits, both.one.logits)
    assert not torch.equal(used.logits, both.many.logits)
    settings = DetectionEval(score_threshold=0, max_detections=50)
    (found,) = detections(used, settings, one_to_one=True)
    best = used.logits.sigmoid().flatten().sort(descending=True).values[:50]
    assert torch.equal(found.scores, best)
    (suppressed,) = detections(used, settings)
    assert suppressed.scores[-1] < found.scores[-1]  # many of those overlap

"""Of every head with every assigner: what is unknown is learned neither as an object nor as background, whatever the split."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddptrain.config import LossConfig, YoloConfig
from ddptrain.config.yolo_heads import ASSIGNERS
from ddptrain.models.yolo.loss import detection_loss
from ddptrain.models.yolo.network import Yolo
from ddptrain.models.yolo.prediction import AnchorPrediction, DualPrediction

COMBINATIONS = [
    (head, {"assigner": assigner, **more})
    for head, assigners in ASSIGNERS.items()
    for assigner in assigners
    for more in (
        {},
        {"every_object": True, "cls_loss": "quality_focal"},
        {"label_smoothing": 0.1, "cls_pw": 2.0},
        {"assign_by": "nwd", "box_loss": "nwd"},
    )
]
OBJECTS = (12, 7)


@pytest.fixture(scope="module")
def predictions() -> dict[str, Any]:
    """Of a network of each head, in training mode, whose boxes are of all sizes."""
    out = {}
    for head in ASSIGNERS:
        torch.manual_seed(0)
        model = Yolo(YoloConfig.model_validate({"head": head, "norm": "group"}), 4, 128)
        for parameter in model.head.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        out[head] = model(torch.rand(2, 3, 128, 128))
    return out


def tensors(pred: Any) -> list[Tensor]:
    branches = pred if isinstance(pred, DualPrediction) else [pred]
    return [t for branch in branches for t in branch if t.requires_grad]


def gradients(pred: Any, targets: dict[str, Tensor], config: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The loss, and each branch with gradients in the place of its tensors."""
    loss = detection_loss(pred, **targets, config=LossConfig.model_validate(config))
    found = iter(torch.autograd.grad(loss.total, tensors(pred), retain_graph=True))
    branches = pred if isinstance(pred, DualPrediction) else [pred]
    return loss, [branch._make([next(found) if t.requires_grad else t for t in branch]) for branch in branches]


@pytest.mark.parametrize(("head", "config"), COMBINATIONS)
def test_what_is_unknown_is_not_learned(predictions: Any, scenes: Any, head: str, config: dict[str, Any]) -> None:
    """Image 0 does not label class 1, and all of image 1 is an ignore region in which two classes are labelled."""
    pred, targets = predictions[head], scenes.targets(list(OBJECTS), seed=1)
    targets["annotated"] = torch.tensor([[True, False, True, True], [False, True, True, False]])
    targets["labels"] = torch.where(targets["image"] == 0, torch.tensor(2), targets["labels"])
    targets["ignore_boxes"], targets["ignore_image"] = torch.tensor([[-9999.0, -9999, 9999, 9999]]), torch.tensor([1])
    loss, found = gradients(pred, targets, config)
    assert loss.normalizer > 0
    for grad in found:
        assert (grad.logits[0, :, 1] == 0).all()
        assert (grad.logits[1][:, [0, 3]] == 0).all()
        assert grad.logits[0, :, 0].abs().amin() > 0 or isinstance(grad, AnchorPrediction)
        most = OBJECTS[1] * 27
        assert 0 < (grad.logits[1].abs().sum(1) > 0).sum() <= most  # the points of its objects alone
        if isinstance(grad, AnchorPrediction):
            # an object of class 1 may be anywhere in image 0: no place but those of its objects learns an objectness
            assert 0 < (grad.objectness[0] != 0).sum() <= OBJECTS[0] * 27
            assert (grad.objectness[1] != 0).sum() <= most


@pytest.mark.parametrize(("head", "config"), COMBINATIONS)
def test_a_batch_is_the_sum_of_its_images(predictions: Any, scenes: Any, head: str, config: dict[str, Any]) -> None:
    """Loss, normalizer and gradient: so a step does not depend on how it is split over micro batches and ranks."""
    pred, targets = predictions[head], scenes.targets(list(OBJECTS), seed=2, ignore=[1, 2])
    targets["annotated"][0, 3] = False
    whole, found = gradients(pred, targets, config)
    total, normalizer = torch.zeros(()), torch.zeros(())
    for i in range(2):
        own = [b._make([t[i : i + 1] if t.requires_grad else t for t in b]) for b in ([*pred] if head == "dual" else [pred])]
        part = DualPrediction(*own) if head == "dual" else own[0]
        loss, grads = gradients(part, scenes.only(targets, i), config)
        total, normalizer = total + loss.total.detach(), normalizer + loss.normalizer
        for grad, all_of_it in zip(grads, found):
            torch.testing.assert_close(grad.logits[0], all_of_it.logits[i])
    torch.testing.assert_close(total, whole.total.detach())
    torch.testing.assert_close(normalizer, whole.normalizer)


def test_the_objectness_learns_the_background_of_what_is_all_labelled(predictions: Any, scenes: Any) -> None:
    """And the classes nothing there; in an image with an unknown class it is the other way round."""
    pred, targets = predictions["anchor_based"], scenes.targets([3, 3], seed=3)
    targets["annotated"][1, 0] = False
    targets["labels"] = targets["labels"].clamp_min(1)
    _, (grad,) = gradients(pred, targets, {})
    free = grad.offsets.abs().sum(-1) == 0
    assert (grad.objectness[0] > 0)[free[0]].all()
    assert (grad.logits[0][free[0]] == 0).all()
    assert (grad.objectness[1] == 0)[free[1]].all()
    score = pred.objectness[1].detach().sigmoid()[:, None] * pred.logits[1, :, 1:].detach().sigmoid()
    torch.testing.assert_close(grad.logits[1, :, 1:][free[1]], 0.5 * score[free[1]])

"""Losses of pixels, against torch's own and by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ddptrain.config import PixelLossConfig
from ddptrain.losses.pixels import dice, known_logits, pixel_cross_entropy
from ddptrain.models.segmenter import pixel_loss
from ddptrain.structures import VOID, Batch, LossSum


def world(void: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 4, (3, 6, 5), dtype=torch.uint8)
    target[torch.rand(target.shape) < void] = VOID
    target[2] = VOID
    return torch.randn(3, 4, 6, 5, requires_grad=True), target


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.0, 5.0])])
def test_the_sum_over_the_counts_is_the_mean_of_torch(weights: torch.Tensor | None) -> None:
    logits, target = world()
    each, counts = pixel_cross_entropy(logits, target, weights)
    expected = F.cross_entropy(logits, target.long(), weights, ignore_index=VOID)
    assert float((each.sum() / counts.sum()).detach()) == pytest.approx(float(expected.detach()))
    assert each[2] == counts[2] == 0


def test_an_unknown_class_gets_no_gradient_and_takes_no_part() -> None:
    logits, target = world()
    target[target == 3] = VOID
    annotated = torch.tensor([[True, True, True, False]] * 3)
    known = known_logits(logits, annotated)
    total = pixel_cross_entropy(known, target).each.sum() + dice(known, target).sum()
    total.backward()
    assert (logits.grad[:, 3] == 0).all()
    assert (logits.grad[:2, :3] != 0).any()
    # the same as if the class did not exist
    rest = logits[:, :3].detach()
    assert torch.allclose(total, pixel_cross_entropy(rest, target).each.sum() + dice(rest, target).sum())


def test_an_image_with_one_known_class_teaches_nothing_and_weakens_no_other() -> None:
    logits, target = world()
    target[target == 3] = VOID
    target[2] = 0
    annotated = torch.tensor([[True, True, True, True], [True, True, True, False], [True, False, False, False]])

    def loss(images: slice) -> LossSum:
        mask, keys = target[images], torch.zeros(len(target[images]), 3)
        batch = Batch(mask, keys, annotated[images], {"mask": mask}, mask, mask)
        return pixel_loss({"out": logits[images]}, batch, None, PixelLossConfig(dice=1.0))

    every, two, last = loss(slice(3)), loss(slice(2)), loss(slice(2, 3))
    assert last.total == last.normalizer == 0
    assert torch.allclose(every.total, two.total)
    assert every.normalizer == two.normalizer > 0


def test_dice_by_hand() -> None:
    target = torch.tensor([[[0, 0, 1, VOID]]], dtype=torch.uint8)
    p = torch.tensor([[0.8, 0.2, 0.0], [0.6, 0.3, 0.1], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    found = dice(p.log().T.reshape(1, 3, 1, 4), target)
    first = 1 - 2 * (0.8 + 0.6) / (0.8 + 0.6 + 0.5 + 2)
    second = 1 - 2 * 0.25 / (0.2 + 0.3 + 0.25 + 1)
    assert float(found) == pytest.approx((first + second) / 2, abs=1e-6)  # of the two classes that are there
    right = torch.full((1, 3, 1, 4), -100.0)
    right[0, 0, 0, :2] = right[0, 1, 0, 2] = 100.0
    assert float(dice(right, target)) == pytest.approx(0, abs=1e-6)

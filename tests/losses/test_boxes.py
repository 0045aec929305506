"""Overlap of boxes, against torchvision."""

import pytest
import torch
from torchvision.ops import box_iou, complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from ddptrain.losses.boxes import areas, intersections, iou, similarity

KINDS = ("iou", "giou", "diou", "ciou", "eiou", "nwd")


def random_boxes(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 50
    return torch.cat([corner, corner + 0.5 + torch.rand(n, 2, generator=g) * 60], 1)


def test_iou_is_torchvision_s():
    a, b = random_boxes(40, 0), random_boxes(30, 1)
    torch.testing.assert_close(iou(a[:, None], b[None]), box_iou(a, b))


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [("ciou", complete_box_iou_loss), ("giou", generalized_box_iou_loss), ("diou", distance_box_iou_loss)],
)
def test_kinds_and_their_gradients_are_torchvision_s(kind, theirs):
    a, b = random_boxes(200, 2).requires_grad_(), random_boxes(200, 3)
    ours = 1 - similarity(a, b, kind)
    torch.testing.assert_close(ours, theirs(a, b))
    (g_ours,) = torch.autograd.grad(ours.sum(), a)
    (g_theirs,) = torch.autograd.grad(theirs(a, b).sum(), a)
    torch.testing.assert_close(g_ours, g_theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_against_itself(kind):
    a = random_boxes(20, 4)
    torch.testing.assert_close(similarity(a, a, kind), torch.ones(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(intersections(a, a), areas(a))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [[5.0, 5, 5, 5], [5.0, 5, 5, 9], [5.0, 5, 9, 5], [9.0, 9, 5, 5]])
def test_degenerate_boxes_stay_finite(box, kind):
    a = torch.tensor([box]).requires_grad_()
    value = similarity(a, torch.tensor([[0.0, 0, 10, 10]]), kind)
    value.sum().backward()
    assert value.isfinite().all()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert areas(a) == 0

"""Overlap of boxes, against torchvision."""

import pytest
import torch
from torchvision.ops import box_iou, complete_box_iou_loss

from ddptrain.losses.boxes import areas, complete_iou, intersections, iou


def random_boxes(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 50
    return torch.cat([corner, corner + 0.5 + torch.rand(n, 2, generator=g) * 60], 1)


def test_iou_is_torchvision_s():
    a, b = random_boxes(40, 0), random_boxes(30, 1)
    torch.testing.assert_close(iou(a[:, None], b[None]), box_iou(a, b))


def test_complete_iou_and_its_gradient_are_torchvision_s():
    a, b = random_boxes(200, 2).requires_grad_(), random_boxes(200, 3)
    ours = 1 - complete_iou(a, b)
    theirs = complete_box_iou_loss(a, b)
    torch.testing.assert_close(ours, theirs)
    (g_ours,) = torch.autograd.grad(ours.sum(), a)
    (g_theirs,) = torch.autograd.grad(theirs.sum(), a)
    torch.testing.assert_close(g_ours, g_theirs, atol=1e-6, rtol=1e-4)


def test_a_box_against_itself():
    a = random_boxes(20, 4)
    torch.testing.assert_close(complete_iou(a, a), torch.ones(20))
    torch.testing.assert_close(intersections(a, a), areas(a))


@pytest.mark.parametrize("box", [[5.0, 5, 5, 5], [5.0, 5, 5, 9], [5.0, 5, 9, 5], [9.0, 9, 5, 5]])
def test_degenerate_boxes_stay_finite(box):
    a = torch.tensor([box]).requires_grad_()
    value = complete_iou(a, torch.tensor([[0.0, 0, 10, 10]]))
    value.sum().backward()
    assert value.isfinite().all()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert areas(a) == 0

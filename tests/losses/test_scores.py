"""Losses of scores: against torch's and torchvision's, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from ddptrain.losses.scores import background_loss, change_of_loss, score_loss

KINDS = ("bce", "focal", "quality_focal", "varifocal")


def entries(n: int = 200) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, generator=g) * 4, torch.rand(n, generator=g)


@pytest.mark.parametrize("positive", [1.0, 0.3, 3.0])
def test_binary_cross_entropy_is_torch_s(positive: float) -> None:
    logits, target = entries()
    theirs = F.binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor(positive), reduction="none")
    torch.testing.assert_close(score_loss(logits, target, "bce", 2.0, 0.25, positive), theirs)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
def test_focal_is_torchvision_s_for_targets_of_0_and_1(gamma: float, alpha: float) -> None:
    logits, target = entries()
    target = target.round()
    ours = score_loss(logits, target, "focal", gamma, alpha)
    torch.testing.assert_close(ours, sigmoid_focal_loss(logits, target, alpha, gamma), atol=1e-6, rtol=1e-5)


def test_by_hand() -> None:
    """A score of 0.8 against 0.5 and against 0, gamma 2, alpha 0.75."""
    logit = torch.tensor(math.log(4.0))
    against_half, against_0 = -0.5 * math.log(0.8) - 0.5 * math.log(0.2), -math.log(0.2)
    expected = {
        "bce": (against_half, against_0),
        "focal": (0.5 * 0.3**2 * against_half, 0.25 * 0.8**2 * against_0),
        "quality_focal": (0.3**2 * against_half, 0.8**2 * against_0),
        "varifocal": (0.5 * against_half, 0.75 * 0.8**2 * against_0),
    }
    for kind in KINDS:
        got = [float(score_loss(logit, torch.tensor(t), kind, 2.0, 0.75)) for t in (0.5, 0.0)]
        assert got == pytest.approx(expected[kind], rel=1e-5), kind
    # pos_weight multiplies the term of t alone
    assert float(score_loss(logit, torch.tensor(0.5), "bce", 2.0, 0.75, 3.0)) == pytest.approx(
        -3 * 0.5 * math.log(0.8) - 0.5 * math.log(0.2)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positive", [1.0, 2.0])
def test_background_and_change_are_the_whole(kind: str, positive: float) -> None:
    """The change is 0, and has no gradient, where the target is 0."""
    logits, target = entries()
    target[::2] = 0
    logits.requires_grad_()
    options = (kind, 2.0, 0.25)
    change = change_of_loss(logits, target, *options, positive)  # type: ignore[arg-type]
    whole = score_loss(logits, target, *options, positive)  # type: ignore[arg-type]
    torch.testing.assert_close(background_loss(logits, *options) + change, whole, atol=1e-5, rtol=1e-5)  # type: ignore[arg-type]
    assert (change[::2] == 0).all()
    (gradient,) = torch.autograd.grad(change.sum(), logits)
    assert (gradient[::2] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_certain_scores_have_finite_gradients(kind: str) -> None:
    logits = torch.tensor([-80.0, 80.0, -80.0, 80.0, 0.0]).requires_grad_()
    loss = score_loss(logits, torch.tensor([0.0, 1.0, 1.0, 0.0, 0.5]), kind, 0.5, 0.25)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()

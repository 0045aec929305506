"""Losses of a score against a target in 0..1, entry by entry, as dense detectors learn their classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ddptrain.config.detection_loss import ScoreLoss


def score_loss(
    logits: Tensor,
    target: Tensor,
    kind: ScoreLoss,
    gamma: float,
    alpha: float,
    positive: float = 1.0,
    own: Tensor | None = None,
) -> Tensor:
    """The loss of each entry, float32 `[...]`, >= 0. With p the score and BCE the binary cross entropy:

        bce            BCE
        focal          w |t - p|^gamma BCE, w between 1 - alpha (t = 0) and alpha (t = 1): for targets of 0 and 1 the focal
                       loss of arXiv 1708.02002
        quality_focal  |t - p|^gamma BCE (arXiv 2006.04388, eq. 4)
        varifocal      t BCE for t > 0, alpha p^gamma BCE for t = 0 (arXiv 2008.13367, eq. 2); smoothed labels of other classes
                       count as t = 0 in this choice

    Args:
        logits: float32 `[...]`.
        target: float32 `[...]` in 0..1, t.
        positive: factor on the term of BCE that t multiplies (`pos_weight` of `torch.nn.BCEWithLogitsLoss`).
        own: bool `[...]`: with smoothed labels, the entries of the objects' own classes.
    """
    entropy = F.softplus(logits) + change_of_entropy(logits, target, positive)
    if kind == "bce":
        return entropy
    p = logits.sigmoid()
    if kind == "varifocal":
        own = target > 0 if own is None else own & (target > 0)
        return entropy * torch.where(own, target, alpha * p.clamp_min(1e-6) ** gamma)
    # clamped, since a root of 0 has no gradient; so is p above
    modulated = entropy * (target - p).abs().clamp_min(1e-6) ** gamma
    return modulated if kind == "quality_focal" else modulated * (1 - alpha + (2 * alpha - 1) * target)


def background_loss(logits: Tensor, kind: ScoreLoss, gamma: float, alpha: float) -> Tensor:
    """`score_loss` where all targets are 0."""
    if kind == "bce":
        return F.softplus(logits)
    return score_loss(logits, torch.zeros_like(logits), kind, gamma, alpha)


def change_of_loss(
    logits: Tensor,
    target: Tensor,
    kind: ScoreLoss,
    gamma: float,
    alpha: float,
    positive: float = 1.0,
    own: Tensor | None = None,
) -> Tensor:
    """By how much `score_loss` differs from `background_loss`; 0 where the target is."""
    if kind == "bce":
        return change_of_entropy(logits, target, positive)
    change = score_loss(logits, target, kind, gamma, alpha, positive, own) - background_loss(logits, kind, gamma, alpha)
    return torch.where(target > 0, change, 0)  # exactly 0, and its gradient, too


def change_of_entropy(logits: Tensor, target: Tensor, positive: float = 1.0) -> Tensor:
    """Binary cross entropy less that against 0: `positive * t * softplus(-x) - t * softplus(x)`, which is `-t * x` for 1."""
    if positive == 1:
        return -logits * target
    return target * ((positive - 1) * F.softplus(logits) - positive * logits)

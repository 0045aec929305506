"""Losses of single pixels, as sums over each image with the pixels that they count."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ddptrain.losses.image_labels import Sums
from ddptrain.structures import VOID

NEVER = -1e9
"""Logit of a class that cannot be the answer: its probability and its gradient are exactly 0."""


def known_logits(logits: Tensor, annotated: Tensor) -> Tensor:
    """Logits `[B, C, …]`, float32, without the classes that an image's dataset does not label: there the softmax is over
    the others, so that a pixel teaches nothing about what is unknown.

    Args:
        annotated: bool `[B, C]`.
    """
    shape = (*annotated.shape, *[1] * (logits.ndim - 2))
    return logits.float().masked_fill(~annotated.view(shape), NEVER)


def pixel_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Sums:
    """Cross entropy of the pixels that are not void; all sums over all counts are
    `torch.nn.functional.cross_entropy`'s mean with `ignore_index`.

    Args:
        logits: float32 `[B, C, H, W]`.
        target: uint8 `[B, H, W]`, `VOID` for no class.
        weights: float `[C]` of each class, or None.

    Returns:
        `each` float32 `[B]`: sums; `normalizer` float32 `[B]`: pixels, or the sum of their classes' weights.
    """
    return pixel_likelihood(logits.log_softmax(1), target, weights)


def pixel_likelihood(log_p: Tensor, target: Tensor, weights: Tensor | None = None) -> Sums:
    """The same of logarithms of probabilities."""
    labels = target.long()
    terms = F.nll_loss(log_p, labels, weight=weights, ignore_index=VOID, reduction="none")
    valid = labels != VOID
    counts = valid if weights is None else weights[labels.where(valid, 0)] * valid
    return Sums(terms.sum((1, 2)), counts.sum((1, 2)).float())


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss of each image (V-Net, arXiv 1606.04797), float32 `[B]` in 0..1: the mean over the classes that it shows of
    1 - 2 |p t| / (|p| + |t|), in the pixels that are not void; 0 for an image that is all void.

    Args:
        logits: float32 `[B, C, H, W]`.
        target: uint8 `[B, H, W]`, `VOID` for no class.
    """
    p = logits.softmax(1) * (target != VOID)[:, None]
    truth = target[:, None] == torch.arange(logits.shape[1], device=target.device, dtype=target.dtype)[:, None, None]
    common, predicted, real = (p * truth).sum((2, 3)), p.sum((2, 3)), truth.sum((2, 3))
    shown = real > 0
    loss = (1 - 2 * common / (predicted + real).clamp(min=1e-6)) * shown
    return loss.sum(1) / shown.sum(1).clamp(min=1)

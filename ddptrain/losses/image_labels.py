"""Losses of whole images, as sums with their normalizers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class Sums(NamedTuple):
    """`each`: loss sum of each sample, float32 `[B]`; `normalizer`: scalar, without a graph."""

    each: Tensor
    normalizer: Tensor


def cross_entropy(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0, gamma: float | None = None
) -> Sums:
    """Cross entropy; its sum over its normalizer is `torch.nn.functional.cross_entropy`'s mean.

    Args:
        logits: `[B, C]`.
        target: float `[B, C]`: the probability of each class, summing to 1 (mixed images have several).
        weights: float `[C]` of each class, or None; the normalizer is the sum of the targets' weights.
        smoothing: part of the target that is spread over all classes (arXiv 1512.00567).
        gamma: exponent of 1 - p, the focal loss (arXiv 1708.02002), or None.
    """
    log_p = F.log_softmax(logits.float(), -1)
    smoothed = target * (1 - smoothing) + smoothing / target.shape[1]
    terms = -smoothed * log_p
    if gamma is not None:
        terms = terms * (1 - log_p.exp()).clamp(min=1e-6) ** gamma
    if weights is None:
        return Sums(terms.sum(1), target.sum().detach())
    return Sums((terms * weights).sum(1), (target * weights).sum().detach())


def binary_cross_entropy(logits: Tensor, target: Tensor, annotated: Tensor, pos_weight: Tensor | None = None) -> Sums:
    """Binary cross entropy of each class; the normalizer is the number of known entries.

    Args:
        logits: `[B, C]`.
        target: float `[B, C]` in 0..1.
        annotated: bool `[B, C]`: classes that are known for the image; the others add nothing.
        pos_weight: float `[C]`: weight of each class's positives, or None.
    """
    terms = F.binary_cross_entropy_with_logits(logits.float(), target, pos_weight=pos_weight, reduction="none")
    return Sums((terms * annotated).sum(1), annotated.sum().float())


def mix(
    images: Tensor, classes: Tensor, partner: Tensor, partner_classes: Tensor, part: Tensor, box: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend partners in (mixup, arXiv 1710.09412), or paste a box of them (CutMix, arXiv 1905.04899).

    Args:
        images: float `[B, 3, S, S]`.
        classes: float `[B, C]`.
        partner: uint8 or float `[B, S, S, 3]` in the units of `images`.
        partner_classes: float `[B, C]`.
        part: float `[B]`: the image's own part.
        box: int `[B, 4]`: what is pasted, (x1, y1, x2, y2); empty where the whole is blended.

    Returns:
        The mixed images and their classes.
    """
    other = partner.permute(0, 3, 1, 2).to(images.dtype)
    share = part[:, None, None, None].to(images.dtype)
    place = torch.arange(images.shape[-1], device=images.device)
    x1, y1, x2, y2 = box[:, :, None].unbind(1)
    inside = ((place >= y1) & (place < y2))[:, :, None] & ((place >= x1) & (place < x2))[:, None, :]
    pasted = inside.any(-1).any(-1)[:, None, None, None]
    blended = images * share + other * (1 - share)
    mixed = torch.where(pasted, torch.where(inside[:, None], other, images), blended)
    return mixed, classes * part[:, None] + partner_classes * (1 - part[:, None])


def class_weights(rule: str | tuple[float, ...], counts: NDArray[np.integer]) -> Tensor | None:
    """Weights of the classes for a weighted mean, float32 `[C]`, or None for all alike.

    Only their ratios matter; the smallest is 1, so that no normalizer of a sample falls below it.

    Args:
        rule: "none", "balanced" (one over the count; the largest such weight for a class without any), or numbers.
        counts: of the training samples (or pixels) of each class.
    """
    if rule == "none":
        return None
    if rule == "balanced":
        values = 1.0 / np.maximum(counts, max(1, counts[counts > 0].min(initial=counts.max())))
    else:
        values = np.array(rule, np.float64)
    return torch.from_numpy(values / values[values > 0].min()).float()

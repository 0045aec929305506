"""Binary cross entropy over dense class scores, as sums."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def negative_sums(logits: Tensor, annotated: Tensor, keep: Tensor | None) -> Tensor:
    """Sum of the cross entropy of every score against 0, per image.

    Args:
        logits: float32 `[B, A, C]`.
        annotated: bool `[B, C]`, or `[B, A, C]` where it differs from point to point: classes that are known; the others
            add nothing, not even a gradient.
        keep: bool `[B, A]`: points that count; None for all.

    Returns:
        float32 `[B]`.
    """
    loss = F.softplus(logits)
    if keep is not None:
        loss = loss * keep[:, :, None]
    if annotated.ndim == 3:
        return (loss * annotated).sum((1, 2))
    return (loss.sum(1) * annotated).sum(1)


def positive_terms(logits: Tensor, target: Tensor) -> Tensor:
    """What a target above 0 adds to the cross entropy against 0: softplus(x) - t * x, less softplus(x)."""
    return -logits * target

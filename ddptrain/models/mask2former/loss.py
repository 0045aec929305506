"""The loss of Mask2Former (arXiv 2112.01527): every class that an image shows is matched to one query, and compared with
it at some points; as sums over each image.

It differs from the reference where that would break a promise: the points of an image are drawn by a generator of its own;
its mean over the queries counts as often as it has masks, so that all divide by one number, the masks of the whole step;
points in void count nothing; a class that is not labelled is left out of the softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ddptrain.config import MaskLossConfig
from ddptrain.losses.pixels import NEVER
from ddptrain.structures import VOID


class _Truth(NamedTuple):
    """What one image shows: `labels` int64 `[M]`, `masks` float `[M, 1, H, W]`, `valid` float `[1, 1, H, W]`."""

    labels: Tensor
    masks: Tensor
    valid: Tensor


def mask_sums(
    classes: Sequence[Tensor],
    masks: Sequence[Tensor],
    target: Tensor,
    annotated: Tensor,
    generators: Sequence[torch.Generator],
    config: MaskLossConfig,
) -> tuple[dict[str, Tensor], Tensor]:
    """The loss of all layers' predictions: sums of each image, `cls`, `mask` and `dice`, float32 `[B]`, gains included; and the
    number of its masks, float32 `[B]`.

    Args:
        classes: of each layer, logits `[B, Q, C + 1]`; the last class is none.
        masks: of each layer, logits `[B, Q, h, w]`.
        target: uint8 `[B, H, W]`, `VOID` for no class.
        annotated: bool `[B, C]`: classes that the image's dataset labels.
        generators: of each image, on the device of the predictions; its points are drawn in the order of the layers.

    Raises:
        ImportError: scipy is not installed.
    """
    # in half precision the costs of a matching overflow
    with torch.autocast(target.device.type, enabled=False):
        classes, masks = [c.float() for c in classes], [m.float() for m in masks]
        rows, counts = [], []
        for b in range(len(target)):
            truth = _truth(target[b])
            hidden = torch.cat([~annotated[b], annotated.new_zeros(1)])
            # an image that is all void teaches nothing, not even that no object is in it; its graph must still be whole
            row = torch.stack([c[b].sum() + m[b].sum() for c, m in zip(classes, masks)]).sum() * target.new_zeros(3)
            if len(truth.labels):
                for c, m in zip(classes, masks):
                    row = row + _layer(c[b].masked_fill(hidden, NEVER), m[b][:, None], truth, generators[b], config)
            rows.append(row)
            counts.append(float(len(truth.labels)))
        cls, mask, dice = torch.stack(rows).unbind(1)
        return {"cls": cls, "mask": mask, "dice": dice}, cls.new_tensor(counts)


def _truth(target: Tensor) -> _Truth:
    labels = target.unique()
    labels = labels[labels != VOID]
    return _Truth(labels.long(), (target == labels[:, None, None])[:, None].float(), (target != VOID)[None, None].float())


def _layer(logits: Tensor, masks: Tensor, truth: _Truth, generator: torch.Generator, config: MaskLossConfig) -> Tensor:
    """`[3]`: cross entropy, mask and Dice sums of one image and layer; logits `[Q, C + 1]`, masks `[Q, 1, h, w]`."""
    query, own = match(logits, masks, truth, generator, config)
    targets = torch.full((len(logits),), logits.shape[1] - 1, device=logits.device)
    targets[query] = truth.labels[own]
    weights = logits.new_ones(logits.shape[1])
    weights[-1] = config.no_object
    mean = F.cross_entropy(logits, targets, weight=weights)
    chosen, real = masks[query], truth.masks[own]
    points = uncertain_points(chosen.detach(), truth.valid, generator, config)
    predicted, true = sample(chosen, points), sample(real, points)
    valid = sample(truth.valid.expand(len(points), -1, -1, -1), points, "nearest")
    terms = F.binary_cross_entropy_with_logits(predicted, true, reduction="none") * valid
    cross_entropy = (terms.sum(1) / valid.sum(1).clamp(min=1)).sum()
    p = predicted.sigmoid() * valid
    dice = 1 - (2 * (p * true).sum(1) + 1) / ((p + true * valid).sum(1) + 1)
    return torch.stack([config.cls * mean * len(truth.labels), config.mask * cross_entropy, config.dice * dice.sum()])


@torch.no_grad()
def match(
    logits: Tensor, masks: Tensor, truth: _Truth, generator: torch.Generator, config: MaskLossConfig
) -> tuple[Tensor, Tensor]:
    """Queries and the masks of the truth that they are matched to at the least cost, int64 `[min(Q, M)]` each."""
    from scipy.optimize import linear_sum_assignment

    points = torch.rand(1, config.points, 2, device=masks.device, generator=generator)
    predicted, true = sample(masks, points), sample(truth.masks, points)
    valid = sample(truth.valid, points, "nearest")
    count = valid.sum().clamp(min=1)
    # softplus(-x) is the cross entropy where the truth is 1, softplus(x) where it is 0
    cross_entropy = ((F.softplus(-predicted) * valid) @ true.T + (F.softplus(predicted) * valid) @ (1 - true).T) / count
    p, true = predicted.sigmoid() * valid, true * valid
    dice = 1 - (2 * p @ true.T + 1) / (p.sum(1)[:, None] + true.sum(1) + 1)
    cost = config.mask * cross_entropy + config.dice * dice - config.cls * logits.softmax(-1)[:, truth.labels]
    # a step that is not finite is skipped as such; the matching must only not fail
    query, own = linear_sum_assignment(cost.nan_to_num(1e6, 1e6, -1e6).cpu().numpy())
    return torch.from_numpy(query).to(masks.device), torch.from_numpy(own).to(masks.device)


@torch.no_grad()
def uncertain_points(masks: Tensor, valid: Tensor, generator: torch.Generator, config: MaskLossConfig) -> Tensor:
    """Points of each mask (PointRend, arXiv 1912.08193), float `[M, points, 2]` in 0..1: of many random ones those where
    its logit is nearest to 0 and the truth is not void, and some more anywhere.

    Args:
        masks: logits `[M, 1, h, w]`.
        valid: float `[1, 1, H, W]`, 1 where the truth is not void.
    """
    count = len(masks)
    drawn = torch.rand(count, int(config.points * config.oversample), 2, device=masks.device, generator=generator)
    certainty = sample(masks, drawn).abs()
    void = sample(valid.expand(count, -1, -1, -1), drawn, "nearest") == 0
    kept = int(config.importance * config.points)
    chosen = certainty.masked_fill(void, torch.inf).topk(kept, 1, largest=False).indices
    points = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
    others = torch.rand(count, config.points - kept, 2, device=masks.device, generator=generator)
    return torch.cat([points, others], 1)


def sample(maps: Tensor, points: Tensor, mode: str = "bilinear") -> Tensor:
    """Values `[N, P]` of maps `[N, 1, H, W]` at points `[N or 1, P, 2]`, (x, y) in 0..1."""
    grid = 2 * points.expand(len(maps), -1, -1)[:, :, None] - 1
    border = "border" if mode == "nearest" else "zeros"
    return F.grid_sample(maps, grid, mode=mode, padding_mode=border, align_corners=False)[:, 0, :, 0]

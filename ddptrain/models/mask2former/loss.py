"""The loss of Mask2Former (arXiv 2112.01527): every class that an image shows is matched to one query, and compared with
it at some points; as sums over each image.

It differs from the reference where that would break a promise: the points of an image are drawn by a generator of its own;
its mean over the queries counts as often as it has masks, so that all divide by one number, the masks of the whole step;
points in void count nothing; a class that is not labelled is left out of the softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
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


class _Drawn(NamedTuple):
    """Random points of one image and layer, float in 0..1: `matching` `[1, P, 2]`, to match by; of K matched masks `candidates`
    `[K, oversample P, 2]`, of which the most uncertain are taken, and `others` `[K, (1 - importance) P, 2]`."""

    matching: Tensor
    candidates: Tensor
    others: Tensor


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
        rows = []
        truths, counts = _truths(target)
        for b, truth in enumerate(truths):
            hidden = torch.cat([~annotated[b], annotated.new_zeros(1)])
            # an image that is all void teaches nothing, not even that no object is in it; its graph must still be whole
            row = torch.stack([c[b].sum() + m[b].sum() for c, m in zip(classes, masks)]).sum() * target.new_zeros(3)
            if len(truth.labels):
                layers = [(c[b].masked_fill(hidden, NEVER), m[b][:, None]) for c, m in zip(classes, masks)]
                # drawn at once, so that all layers are matched in one wait for the device
                drawn = [_draw(min(len(m), len(truth.labels)), generators[b], config) for _, m in layers]
                pairs = match([_costs(*layer, truth, d.matching, config) for layer, d in zip(layers, drawn)])
                for layer, d, (query, own) in zip(layers, drawn, pairs):
                    row = row + _layer(*layer, truth, query, own, d, config)
            rows.append(row)
        cls, mask, dice = torch.stack(rows).unbind(1)
        return {"cls": cls, "mask": mask, "dice": dice}, counts


def _truths(target: Tensor) -> tuple[list[_Truth], Tensor]:
    """What each image shows, and the number of its masks, float32 `[B]`; one wait for the device."""
    shown = torch.zeros(len(target), VOID + 1, dtype=torch.bool, device=target.device)
    shown = shown.scatter_(1, target.flatten(1).long(), True)[:, :VOID]
    each = [row.nonzero().flatten() for row in shown.cpu()]
    labels = torch.cat(each).to(target.device).split([len(own) for own in each])
    masks = [(image == own[:, None, None])[:, None].float() for image, own in zip(target, labels)]
    return [_Truth(*of_image) for of_image in zip(labels, masks, (target != VOID)[:, None, None].float())], shown.sum(1).float()


def _draw(count: int, generator: torch.Generator, config: MaskLossConfig) -> _Drawn:
    rand = partial(torch.rand, device=generator.device, generator=generator)
    kept = int(config.importance * config.points)
    matching, candidates = rand(1, config.points, 2), rand(count, int(config.points * config.oversample), 2)
    return _Drawn(matching, candidates, rand(count, config.points - kept, 2))


def _layer(
    logits: Tensor, masks: Tensor, truth: _Truth, query: Tensor, own: Tensor, drawn: _Drawn, config: MaskLossConfig
) -> Tensor:
    """`[3]`: cross entropy, mask and Dice sums of one image and layer; logits `[Q, C + 1]`, masks `[Q, 1, h, w]`; `query` and
    `own` as `match` has them."""
    targets = torch.full((len(logits),), logits.shape[1] - 1, device=logits.device)
    targets[query] = truth.labels[own]
    weights = logits.new_ones(logits.shape[1])
    weights[-1] = config.no_object
    mean = F.cross_entropy(logits, targets, weight=weights)
    chosen, real = masks[query], truth.masks[own]
    points = uncertain_points(chosen.detach(), truth.valid, drawn, config)
    predicted, true = sample(chosen, points), sample(real, points)
    valid = sample(truth.valid.expand(len(points), -1, -1, -1), points, "nearest")
    terms = F.binary_cross_entropy_with_logits(predicted, true, reduction="none") * valid
    cross_entropy = (terms.sum(1) / valid.sum(1).clamp(min=1)).sum()
    p = predicted.sigmoid() * valid
    dice = 1 - (2 * (p * true).sum(1) + 1) / ((p + true * valid).sum(1) + 1)
    return torch.stack([config.cls * mean * len(truth.labels), config.mask * cross_entropy, config.dice * dice.sum()])


@torch.no_grad()
def _costs(logits: Tensor, masks: Tensor, truth: _Truth, points: Tensor, config: MaskLossConfig) -> Tensor:
    """What it costs to match each query to each mask of the truth, `[Q, M]`."""
    predicted, true = sample(masks, points), sample(truth.masks, points)
    valid = sample(truth.valid, points, "nearest")
    count = valid.sum().clamp(min=1)
    # softplus(-x) is the cross entropy where the truth is 1, softplus(x) where it is 0
    cross_entropy = ((F.softplus(-predicted) * valid) @ true.T + (F.softplus(predicted) * valid) @ (1 - true).T) / count
    p, true = predicted.sigmoid() * valid, true * valid
    dice = 1 - (2 * p @ true.T + 1) / (p.sum(1)[:, None] + true.sum(1) + 1)
    return config.mask * cross_entropy + config.dice * dice - config.cls * logits.softmax(-1)[:, truth.labels]


def match(costs: Sequence[Tensor]) -> Tensor:
    """Of each of L costs `[Q, M]` the queries and the masks that are matched at the least cost, int64 `[L, 2, min(Q, M)]`."""
    from scipy.optimize import linear_sum_assignment

    # a step that is not finite is skipped as such; the matching must only not fail
    each = torch.stack(list(costs)).nan_to_num(1e6, 1e6, -1e6).cpu().numpy()
    return torch.from_numpy(np.stack([linear_sum_assignment(cost) for cost in each])).to(costs[0].device)


@torch.no_grad()
def uncertain_points(masks: Tensor, valid: Tensor, drawn: _Drawn, config: MaskLossConfig) -> Tensor:
    """Points of each mask (PointRend, arXiv 1912.08193), float `[M, points, 2]` in 0..1: of many random ones those where
    its logit is nearest to 0 and the truth is not void, and some more anywhere.

    Args:
        masks: logits `[M, 1, h, w]`.
        valid: float `[1, 1, H, W]`, 1 where the truth is not void.
    """
    certainty = sample(masks, drawn.candidates).abs()
    void = sample(valid.expand(len(masks), -1, -1, -1), drawn.candidates, "nearest") == 0
    kept = int(config.importance * config.points)
    chosen = certainty.masked_fill(void, torch.inf).topk(kept, 1, largest=False).indices
    points = drawn.candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([points, drawn.others], 1)


def sample(maps: Tensor, points: Tensor, mode: str = "bilinear") -> Tensor:
    """Values `[N, P]` of maps `[N, 1, H, W]` at points `[N or 1, P, 2]`, (x, y) in 0..1."""
    grid = 2 * points.expand(len(maps), -1, -1)[:, :, None] - 1
    border = "border" if mode == "nearest" else "zeros"
    return F.grid_sample(maps, grid, mode=mode, padding_mode=border, align_corners=False)[:, 0, :, 0]

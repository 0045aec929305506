"""The loss of the dense detector: task-aligned targets, binary cross entropy, complete IoU and distribution focal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ddptrain.config import LossConfig
from ddptrain.losses.boxes import by_size, complete_iou
from ddptrain.models.yolo.assign import assign, in_ignore_regions
from ddptrain.models.yolo.class_loss import negative_sums, positive_terms
from ddptrain.structures import DensePrediction, LossSum


class DetectionTerms(NamedTuple):
    """The loss of each image in terms, and what it is divided by.

    Attributes:
        parts: `box`, `cls` and `dfl`, gains included, float32 `[B]`.
        scores: target scores of the k points of each object, float32 `[N, k]`.
    """

    parts: dict[str, Tensor]
    scores: Tensor

    def normalizers(self, image: Tensor) -> Tensor:
        """float32 `[B]`: the target scores of each image; `image` int64 `[N]` is the row of each object."""
        return self.parts["cls"].new_zeros(len(self.parts["cls"])).index_add(0, image, self.scores.sum(1))


def detection_loss(pred: DensePrediction, *, annotated: Tensor, config: LossConfig, **targets: Tensor) -> LossSum:
    """`detection_terms`, whose targets it takes, as sums over a micro batch; the normalizer is the sum of the scores."""
    parts, scores = detection_terms(pred, annotated=annotated, config=config, **targets)
    every = parts["box"] + parts["cls"] + parts["dfl"]
    return LossSum(
        total=every.sum(),
        normalizer=scores.sum(),
        parts={k: v.detach().sum() for k, v in parts.items()},
        per_sample=every.detach(),
    )


def detection_terms(
    pred: DensePrediction,
    *,
    boxes: Tensor,
    labels: Tensor,
    image: Tensor,
    ignore_boxes: Tensor,
    ignore_image: Tensor,
    annotated: Tensor,
    config: LossConfig,
    tiles: Tensor | None = None,
    tile_annotated: Tensor | None = None,
    tile_image: Tensor | None = None,
) -> DetectionTerms:
    """The loss of each image, which does not depend on the other images.

    Points that no object got, and whose predicted box lies in an ignore region, add nothing. Classes that are not
    annotated in an image, or at a point of it, add nothing there.

    Args:
        pred: the prediction for B images, any float dtype; the loss is computed in float32.
        boxes, labels, image: objects, float32 `[N, 4]` in pixels, int64 `[N]`, int64 `[N]` row of the batch.
        ignore_boxes, ignore_image: ignore regions, float32 `[K, 4]`, int64 `[K]`.
        annotated: bool `[B, C]`.
        config: gains and the assigner's settings.
        tiles, tile_annotated, tile_image: parts of images in which fewer classes are annotated, float32 `[T, 2, 3]` (from
            pixels to the unit square that is the part), bool `[T, C]`, int64 `[T]`.
    """
    with torch.autocast(pred.logits.device.type, enabled=False):
        pred = pred._replace(logits=pred.logits.float(), distances=pred.distances.float())
        decoded = pred.boxes().detach()
        got = assign(pred, decoded, boxes, labels, image, topk=config.topk, alpha=config.alpha, beta=config.beta)
        keep = None
        if len(ignore_boxes):
            taken = torch.zeros_like(pred.logits[..., 0]).view(-1)
            taken.index_add_(0, got.points.flatten(), got.assigned.flatten().float())
            keep = ~in_ignore_regions(decoded, ignore_boxes, ignore_image) | (taken.view(decoded.shape[:2]) > 0)
        if tiles is not None and tile_annotated is not None and tile_image is not None and len(tiles):
            annotated = _known_at_points(pred.points, annotated, tiles, tile_annotated, tile_image)
        gains = config.size_weights
        factor = None
        if not gains.small == gains.medium == gains.large == 1:
            factor = by_size(boxes, gains.small, gains.medium, gains.large)
        cls, box, dfl = _sums(pred, got.points, got.target, boxes, labels, image, annotated, keep, factor)
    return DetectionTerms({"box": config.box * box, "cls": config.cls * cls, "dfl": config.dfl * dfl}, got.target)


def _known_at_points(points: Tensor, annotated: Tensor, tiles: Tensor, tile_annotated: Tensor, tile_image: Tensor) -> Tensor:
    """bool `[B, A, C]`: `annotated` `[B, C]` of the image, less what a tile around the point `[A, 2]` does not know."""
    place = tiles[:, :, :2] @ points.T + tiles[:, :, 2:]
    inside = ((place >= 0) & (place <= 1)).all(1)
    lacking = (inside[:, :, None] & ~tile_annotated[:, None]).to(torch.uint8)
    unknown = lacking.new_zeros(len(annotated), *lacking.shape[1:]).index_add_(0, tile_image, lacking)
    return annotated[:, None] & (unknown == 0)


def _sums(
    pred: DensePrediction,
    points: Tensor,
    target: Tensor,
    boxes: Tensor,
    labels: Tensor,
    image: Tensor,
    annotated: Tensor,
    keep: Tensor | None,
    factor: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums `[B]` of cross entropy, 1 - complete IoU and distribution focal loss, the latter two weighted by `target` and
    by each object's `factor` `[N]`.

    Reads the prediction only at `points` `[N, k]`; with N = 0 these are empty but still part of the graph.
    """
    b, a, _ = pred.logits.shape
    k = points.shape[1]
    rows, weight = points.flatten(), target.flatten()
    owner = image.repeat_interleave(k)
    place = pred.points[rows % a]
    stride = pred.strides[rows % a]
    distances = pred.distances.flatten(0, 1).index_select(0, rows)
    truth = boxes.repeat_interleave(k, 0)

    which = labels.repeat_interleave(k)
    logits = pred.logits.flatten().index_select(0, rows * pred.logits.shape[2] + which)
    # a class that is unknown at a point stays so for an object that reaches over from the next tile
    known = annotated[owner, rows % a, which] if annotated.ndim == 3 else annotated[owner, which]
    zero = pred.logits.new_zeros(b)
    cls = negative_sums(pred.logits, annotated, keep)
    cls = cls + zero.index_add(0, owner, positive_terms(logits, weight * known))

    if factor is not None:
        weight = weight * factor.repeat_interleave(k)
    own = DensePrediction(logits[None], distances[None], place, stride).boxes()[0]
    box = zero.index_add(0, owner, (1 - complete_iou(own, truth)) * weight)
    dfl = zero
    if pred.distances.shape[-1] > 1:
        sides = torch.cat([place - truth[:, :2], truth[:, 2:] - place], 1) / stride[:, None]
        dfl = zero.index_add(0, owner, distribution_focal(distances, sides) * weight)
    return cls, box, dfl


def distribution_focal(logits: Tensor, value: Tensor) -> Tensor:
    """Distribution focal loss (arXiv 2006.04388, eq. 6): cross entropy with the two bins beside the true value.

    Args:
        logits: `[n, 4, bins]`.
        value: `[n, 4]`: true distances in strides; clipped to what the bins can say.

    Returns:
        `[n]`, the mean over the four sides.
    """
    value = value.clamp(0, logits.shape[-1] - 1.01)
    left = value.floor()
    log_p = F.log_softmax(logits, -1)
    low = log_p.gather(-1, left.long()[..., None])[..., 0]
    high = log_p.gather(-1, left.long()[..., None] + 1)[..., 0]
    return -(low * (left + 1 - value) + high * (value - left)).mean(-1)

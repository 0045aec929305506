"""The loss of the dense detector: targets by an assigner, a loss of the scores, one of the boxes, and distribution focal."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ddptrain.config import LossConfig
from ddptrain.config.detection_loss import SizeWeights
from ddptrain.losses.boxes import by_size, similarity
from ddptrain.losses.scores import background_loss, change_of_loss
from ddptrain.models.yolo.assign.base import Objects, in_ignore_regions
from ddptrain.models.yolo.assign.choose import assign
from ddptrain.models.yolo.prediction import AnchorPrediction, DensePrediction, DualPrediction, Prediction
from ddptrain.structures import LossSum


class DetectionTerms(NamedTuple):
    """The loss of each image in terms, and what it is divided by.

    Attributes:
        parts: by the keys of their gains (`box`, `cls`, `dfl`; `obj` in place of the last with an objectness), gains included,
            float32 `[B]`; of a one-to-one branch with `one_` in front.
        weights: of the k points of each object, float32 `[N, k]`.
    """

    parts: dict[str, Tensor]
    weights: Tensor

    def normalizers(self, image: Tensor) -> Tensor:
        """float32 `[B]`: the weights of each image; `image` int64 `[N]` is the row of each object."""
        return self._by_image(image, self.weights.sum(1))

    def without_point(self, image: Tensor) -> Tensor:
        """float32 `[B]`: the objects of each image of which no point learns anything; `image` as above."""
        return self._by_image(image, (self.weights <= 0).all(1).float())

    def _by_image(self, image: Tensor, value: Tensor) -> Tensor:
        return self.parts["cls"].new_zeros(len(self.parts["cls"])).index_add(0, image, value)


class _Pairs(NamedTuple):
    """Objects with their anchor points, n = N * k of them; with N = 0 they are empty but still part of the graph.

    Attributes:
        row: int64 `[n]`: the point's row in `[B * A]`.
        image, label, box: of the object, int64 `[n]`, int64 `[n]`, float32 `[n, 4]`.
        target, weight: float32 `[n]`, see `Assignment`: 0 where the point is not the object's.
    """

    row: Tensor
    image: Tensor
    label: Tensor
    box: Tensor
    target: Tensor
    weight: Tensor


def detection_loss(
    pred: Prediction | DualPrediction,
    *,
    annotated: Tensor,
    config: LossConfig,
    weights: Tensor | None = None,
    **targets: Tensor | None,
) -> LossSum:
    """`every_term`, whose targets it takes, as sums over a micro batch; the normalizer is the sum of the points' weights,
    whatever the `weights` of the images, float32 `[B]`."""
    terms = every_term(pred, annotated=annotated, config=config, **targets)
    return LossSum.of(terms.parts, terms.weights.sum(), weights)


def every_term(pred: Prediction | DualPrediction, *, config: LossConfig, **targets: Any) -> DetectionTerms:
    """`detection_terms`; of a dual head those of both branches, which choose points by the same metric (YOLOv10, arXiv
    2405.14458), the one-to-one branch one for each object. The normalizer is that of the one-to-many branch, so the loss of the
    other, whose points are fewer, is multiplied by topk / 2."""
    if not isinstance(pred, DualPrediction):
        return detection_terms(pred, config=config, **targets)
    many = detection_terms(pred.many, config=config, **targets)
    one = detection_terms(pred.one, config=config.model_copy(update={"topk": 1}), **targets)
    return many._replace(parts=many.parts | {f"one_{name}": part * (config.topk / 2) for name, part in one.parts.items()})


def detection_terms(
    pred: Prediction,
    *,
    boxes: Tensor,
    labels: Tensor,
    image: Tensor,
    ignore_boxes: Tensor,
    ignore_image: Tensor,
    annotated: Tensor,
    config: LossConfig,
    class_weights: Tensor | None = None,
    tiles: Tensor | None = None,
    tile_windows: Tensor | None = None,
    tile_annotated: Tensor | None = None,
    tile_image: Tensor | None = None,
) -> DetectionTerms:
    """The loss of each image, which does not depend on the other images.

    Points that no object got, and whose predicted box lies in an ignore region, add nothing. Classes that are not
    annotated in an image, or at a point of it, add nothing there. The objectness learns the background where all classes are
    annotated; elsewhere there may be an object of another class, so only the scores of the annotated classes learn 0, as much
    as the objectness says that there is something.

    Args:
        pred: the prediction for B images, any float dtype; the loss is computed in float32.
        boxes, labels, image: objects, float32 `[N, 4]` in pixels, int64 `[N]`, int64 `[N]` row of the batch.
        ignore_boxes, ignore_image: ignore regions, float32 `[K, 4]`, int64 `[K]`.
        annotated: bool `[B, C]`.
        config: gains, kinds of losses, and the assigner's settings.
        class_weights: float32 `[C]`: factors on the loss of the scores of each class; None for 1.
        tiles, tile_windows, tile_annotated, tile_image: parts of images in which fewer classes are annotated, float32
            `[T, 3, 3]` (from pixels to the unit square that is the part), float32 `[T, 4]` (beyond which it is not shown), bool
            `[T, C]`, int64 `[T]`.
    """
    with torch.autocast(pred.logits.device.type, enabled=False):
        pred = pred.float()
        decoded = pred.boxes().detach()
        got = assign(pred, decoded, Objects(boxes, labels, image), annotated, config)
        mine = got.places(*decoded.shape[:2]) if len(ignore_boxes) or isinstance(pred, AnchorPrediction) else None
        spared = None if mine is None else in_ignore_regions(decoded, ignore_boxes, ignore_image) & ~mine
        if (
            tiles is not None
            and tile_windows is not None
            and tile_annotated is not None
            and tile_image is not None
            and len(tiles)
        ):
            inside = _in_tiles(pred.points, tiles, tile_windows)
            annotated = _known_at_points(annotated, inside, tile_annotated, tile_image)
        k = got.points.shape[1]
        image, labels, truth = (t.repeat_interleave(k, 0) for t in (image, labels, boxes))
        weight = _sized(got.weight.flatten(), truth, config.size_weights)
        pairs = _Pairs(got.points.flatten(), image, labels, truth, got.target.flatten(), weight)
        if isinstance(pred, AnchorPrediction) and mine is not None:
            parts = _anchor_parts(pred, pairs, annotated, mine, spared, config, class_weights)
        else:
            box, dfl, _ = _box_sums(pred, pairs, config)
            keep = None if spared is None else ~spared
            parts = {"box": box, "cls": _class_sums(pred, pairs, annotated, keep, config, class_weights), "dfl": dfl}
    return DetectionTerms({k: v if isinstance(g := getattr(config, k), tuple) else g * v for k, v in parts.items()}, got.weight)


def _sized(weight: Tensor, boxes: Tensor, gains: SizeWeights) -> Tensor:
    """`weight` `[n]` times the gains by the size of the boxes `[n, 4]`."""
    if gains.small == gains.medium == gains.large == 1:
        return weight
    return weight * by_size(boxes, gains.small, gains.medium, gains.large)


def _anchor_parts(
    pred: AnchorPrediction,
    pairs: _Pairs,
    annotated: Tensor,
    mine: Tensor,
    spared: Tensor | None,
    config: LossConfig,
    class_weights: Tensor | None,
) -> dict[str, Tensor]:
    """The loss of the boxes, the classes and the objectness of each image, `[B]` each.

    Args:
        annotated: bool `[B, C]` or `[B, P, C]`.
        mine: bool `[B, P]`: places that are an object's.
        spared: bool `[B, P]`: places in ignore regions that are not; None for none.
    """
    box, _, alike = _box_sums(pred, pairs, config)
    known = annotated.all(-1)
    known = (known if annotated.ndim == 3 else known[:, None]).expand_as(mine)
    other = ~mine if spared is None else ~mine & ~spared
    kind = config.score_loss()
    background = background_loss(pred.objectness, *kind) * (mine | known & other)
    pairs = pairs._replace(target=(pairs.target > 0).float())
    at = pred.objectness.flatten().index_select(0, pairs.row)
    change = change_of_loss(at, alike.detach().clamp(0, 1) * pairs.target, *kind, config.obj_pw)
    levels = _by_level(config.obj, pred.strides)
    if levels is not None:
        background, change = background * levels, change * levels[pairs.row % len(pred.points)]
    obj = background.sum(1) + box.new_zeros(len(box)).index_add(0, pairs.image, change)
    # an object of a class that is not annotated may be there, but none of those that are
    something = torch.where(mine, 1.0, pred.objectness.detach().sigmoid() * (~known & other))
    return {"box": box, "cls": _class_sums(pred, pairs, annotated, something, config, class_weights), "obj": obj}


def _by_level(gain: float | tuple[float, ...], strides: Tensor) -> Tensor | None:
    """float32 `[A]`: the gain of each point's level, finest first; None for one gain, which the sums are multiplied by."""
    if not isinstance(gain, tuple):
        return None
    level = (strides / strides.amin()).log2().round()  # each level's stride is twice that of the one before
    return sum((g * (level == i) for i, g in enumerate(gain)), start=torch.zeros_like(strides))


def _in_tiles(points: Tensor, tiles: Tensor, windows: Tensor) -> Tensor:
    """bool `[T, A]`: which of the points `[A, 2]` lie in each tile and its window."""
    place = tiles[:, :2, :2] @ points.T + tiles[:, :2, 2:]
    place = place / (tiles[:, 2:, :2] @ points.T + tiles[:, 2:, 2:])
    inside = ((place >= 0) & (place <= 1)).all(1)
    return inside & ((points >= windows[:, None, :2]) & (points < windows[:, None, 2:])).all(2)


def _known_at_points(annotated: Tensor, inside: Tensor, tile_annotated: Tensor, tile_image: Tensor) -> Tensor:
    """bool `[B, A, C]`: `annotated` `[B, C]` of the image, less what the tiles around a point (`inside` `[T, A]`) do not
    know."""
    lacking = (inside[:, :, None] & ~tile_annotated[:, None]).to(torch.uint8)
    unknown = lacking.new_zeros(len(annotated), *lacking.shape[1:]).index_add_(0, tile_image, lacking)
    return annotated[:, None] & (unknown == 0)


def _class_sums(
    pred: Prediction,
    pairs: _Pairs,
    annotated: Tensor,
    keep: Tensor | None,
    config: LossConfig,
    class_weights: Tensor | None,
) -> Tensor:
    """The loss of the scores of each image, `[B]`: of every score against 0, and what the targets of the pairs change in it.

    Args:
        annotated: bool `[B, C]`, or `[B, A, C]` where it differs from point to point: classes that are known; the others
            add nothing, not even a gradient.
        keep: bool or float32 `[B, A]`: how much each point counts; None for all alike.
    """
    logits, kind = pred.logits, config.score_loss()
    levels, classes = _by_level(config.cls, pred.strides), logits.shape[2]
    background = background_loss(logits, *kind)
    if keep is not None:
        background = background * keep[:, :, None]
    if class_weights is not None:
        background = background * class_weights
    if levels is not None:
        background = background * levels[:, None]
    point = pairs.row % logits.shape[1]
    if annotated.ndim == 3:
        sums = (background * annotated).sum((1, 2))
        # a class that is unknown at a point stays so for an object that reaches over from the next tile
        known = annotated[pairs.image, point]
    else:
        sums = (background.sum(1) * annotated).sum(1)
        known = annotated[pairs.image]
    if config.label_smoothing:  # the other classes change, too: all n * C of them
        at, half = logits.flatten(0, 1).index_select(0, pairs.row), config.label_smoothing / 2
        own = torch.arange(classes, device=logits.device) == pairs.label[:, None]
        target = pairs.target[:, None] * torch.where(own, 1 - half, half) * known
        change = change_of_loss(at, target, *kind, config.cls_pw, own)
        change = (change if class_weights is None else change * class_weights).sum(1)
    else:
        at = logits.flatten().index_select(0, pairs.row * classes + pairs.label)
        known = known.gather(1, pairs.label[:, None])[:, 0]
        change = change_of_loss(at, pairs.target * known, *kind, config.cls_pw)
        change = change if class_weights is None else change * class_weights[pairs.label]
    if levels is not None:
        change = change * levels[point]
    return sums + logits.new_zeros(len(logits)).index_add(0, pairs.image, change)


def _box_sums(pred: Prediction, pairs: _Pairs, config: LossConfig) -> tuple[Tensor, Tensor, Tensor]:
    """1 - similarity of the boxes and distribution focal loss of each image, `[B]`, each pair by its weight; and the similarity
    of each pair, `[n]`."""
    zero = pred.logits.new_zeros(len(pred.logits))
    point, weight = pairs.row % len(pred.points), pairs.weight

    def sums(loss: Tensor, levels: Tensor | None) -> Tensor:
        return zero.index_add(0, pairs.image, loss * (weight if levels is None else weight * levels[point]))

    own = pred.at(pairs.row)
    alike = similarity(own.boxes()[0], pairs.box, config.box_loss, config.nwd_scale)
    box = sums(1 - alike, _by_level(config.box, pred.strides))
    if not isinstance(own, DensePrediction) or own.distances.shape[-1] == 1:
        return box, zero, alike
    sides = torch.cat([own.points - pairs.box[:, :2], pairs.box[:, 2:] - own.points], 1) / own.strides[:, None]
    return box, sums(distribution_focal(own.distances[0], sides), _by_level(config.dfl, pred.strides)), alike


def distribution_focal(logits: Tensor, value: Tensor) -> Tensor:
    """Distribution focal loss (arXiv 2006.04388, eq. 6): cross entropy with the two bins beside the true value.

    Args:
        logits: `[n, 4, bins]`.
        value: `[n, 4]`: true distances in strides; clipped to what the bins can express.

    Returns:
        `[n]`, the mean over the four sides.
    """
    value = value.clamp(0, logits.shape[-1] - 1.01)
    left = value.floor()
    log_p = F.log_softmax(logits, -1)
    low = log_p.gather(-1, left.long()[..., None])[..., 0]
    high = log_p.gather(-1, left.long()[..., None] + 1)[..., 0]
    return -(low * (left + 1 - value) + high * (value - left)).mean(-1)

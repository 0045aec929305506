"""Detections of an image that is seen several times: mirrored, and at other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.models.detector import Detector
from ddptrain.models.suppression import suppress
from ddptrain.structures import STRIDE, Batch, Detections


class Look(NamedTuple):
    """One way to see an image: its size as a factor, and whether it is mirrored."""

    scale: float
    mirrored: bool


PLAIN = Look(1.0, False)


def looks(settings: DetectionEval) -> list[Look]:
    """All ways in which an evaluation sees an image."""
    return [Look(scale, mirrored) for scale in settings.scales for mirrored in (False, True)[: 1 + settings.flip]]


def detect(
    detector: Detector, model: nn.Module, batch: Batch, settings: DetectionEval, plain: Sequence[Detections] | None = None
) -> Sequence[Detections]:
    """The detections of each image, best first, in pixels of the batch, joined over all looks by `suppress`.

    Args:
        plain: those of the batch as it is, where they are known.
    """
    wanted = looks(settings)
    found = [plain if plain is not None and look == PLAIN else _at(detector, model, batch, look) for look in wanted]
    if len(found) == 1:
        return found[0]
    return [_join(of_image, settings) for of_image in zip(*found)]


def _at(detector: Detector, model: nn.Module, batch: Batch, look: Look) -> Sequence[Detections]:
    if look == PLAIN:
        return detector.detect(model, batch)
    height, width = batch.images.shape[2:]
    sides = [max(STRIDE, round(side * look.scale / STRIDE) * STRIDE) for side in (height, width)]
    images = batch.images
    if sides != [height, width]:
        images = resized(images, sides)
    if look.mirrored:
        images = images.flip(-1)
    detections = detector.detect(model, replace(batch, images=images))
    factor = torch.tensor([width / sides[1], height / sides[0]] * 2, device=images.device)
    return [replace(d, boxes=_back(d.boxes, sides[1] if look.mirrored else None) * factor) for d in detections]


def resized(images: Tensor, sides: Sequence[int]) -> Tensor:
    """uint8 `[B, C, H, W]` at other sides; depth, which is unknown where it is 0, takes the nearest pixel."""
    shrink = sides[0] < images.shape[2] or sides[1] < images.shape[3]
    colours = nn.functional.interpolate(images[:, :3].float(), size=list(sides), mode="bilinear", antialias=shrink)
    parts = [colours.round().clamp(0, 255).to(torch.uint8)]
    if images.shape[1] > 3:
        parts.append(nn.functional.interpolate(images[:, 3:], size=list(sides), mode="nearest"))
    return torch.cat(parts, 1)


def _back(boxes: Tensor, width: int | None) -> Tensor:
    """Boxes of an image that was mirrored if it has a width here."""
    if width is None:
        return boxes
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([width - right, top, width - left, bottom], 1)


def _join(found: Sequence[Detections], settings: DetectionEval) -> Detections:
    boxes, scores, labels = (torch.cat([getattr(d, name) for d in found]) for name in ("boxes", "scores", "labels"))
    scores, order = scores.sort(descending=True, stable=True)
    return suppress(boxes[order], scores, labels[order], settings)

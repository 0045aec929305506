"""The order of augmentation. Every draw is a function of (seed, position, purpose)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.color import adjust_hsv
from ddptrain.data.augment.geometry import BORDER, letterbox, quarter, random_affine, snap, transform_boxes, warp, warp_nearest
from ddptrain.seeding import rng

MIXUP_BETA = 32.0
"""Both parameters of the beta distribution of mixup's weight: nearly half of each image."""


class Source(NamedTuple):
    """An image as it was read, with what is on it.

    Attributes:
        image: uint8 `[H, W, 3]`, RGB.
        boxes: float32 `[n, 4]` in pixels of `image`.
        labels: int `[n]`.
        ignore_boxes: float32 `[k, 4]` in pixels of `image`.
        annotated: bool `[classes]`: the classes that its dataset labels.
        depth: uint8 `[H, W]`, 0 where nothing is known; None where the model takes none.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore_boxes: np.ndarray
    annotated: np.ndarray
    depth: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


class Augmented(NamedTuple):
    """An image as the network sees it, with what is on it.

    Attributes:
        image: uint8 `[size, size, channels]`, RGB, depth (1 to 255, 0 where nothing is known), 255 where it is known.
        boxes: float32 `[n, 4]` in pixels of `image`.
        labels: int64 `[n]`.
        ignore_boxes: float32 `[k, 4]` in pixels of `image`.
        annotated: bool `[classes]`: the classes that at least one of the sources labels.
        tiles: float32 `[t, 2, 3]`: for each source that labels fewer, the affine map from pixels of `image` to the unit
            square in which the source lies.
        tile_annotated: bool `[t, classes]`: the classes that it labels.
        matrix: float64 `[3, 3]` from pixels of the (first) file to pixels of `image`.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore_boxes: np.ndarray
    annotated: np.ndarray
    tiles: np.ndarray
    tile_annotated: np.ndarray
    matrix: np.ndarray


def fit_detection(source: Source, image_size: int, channels: int = 3) -> Augmented:
    """The centred letterbox, without any draw; every box stays."""
    matrix = snap(letterbox(source.size, image_size), source.size)
    depth = None if source.depth is None else warp_nearest(source.depth, matrix, image_size)
    return Augmented(
        _with_depth(warp(source.image, matrix, image_size).on_square(image_size), depth, channels),
        transform_boxes(source.boxes, matrix, image_size)[0],
        source.labels.astype(np.int64),
        transform_boxes(source.ignore_boxes, matrix, image_size)[0],
        *_known([source], [matrix]),
        matrix,
    )


def augment_detection(
    layers: Sequence[Sequence[Source]],
    config: AugmentConfig,
    image_size: int,
    *,
    seed: int,
    position: int,
    channels: int = 3,
) -> Augmented:
    """Letterbox, or mosaic of four, then random affine and flips, in one warp for each image; then the colour gains; then
    mixup where there are two layers.

    A part of an ignore region that stays visible is kept, however small.

    Args:
        layers: one, or two that are blended (mixup, arXiv 1710.09412; the boxes of both stay); each of one image, or of
            four that meet in a point (mosaic, arXiv 2004.10934).
        image_size: side of the network's input in pixels.
        seed: the run's seed.
        position: the sample's place in the global stream.
        channels: of the result: 3, or with depth 4 or 5.
    """
    done = [_layer(sources, config, image_size, seed, position, "/2" * i) for i, sources in enumerate(layers)]
    image, depth = done[0].image, done[0].depth
    if len(done) > 1:
        weight = rng(seed, position, "mixup").beta(MIXUP_BETA, MIXUP_BETA)
        image = cv2.addWeighted(image, weight, done[1].image, 1 - weight, 0)
        if depth is not None and done[1].depth is not None:
            known = (depth > 0) & (done[1].depth > 0)
            depth = cv2.addWeighted(depth, weight, done[1].depth, 1 - weight, 0) * known
    return Augmented(
        _with_depth(image, depth, channels),
        np.concatenate([d.boxes for d in done]),
        np.concatenate([d.labels for d in done]),
        np.concatenate([d.ignore_boxes for d in done]),
        *_known([s for sources in layers for s in sources], [m for d in done for m in d.matrices]),
        done[0].matrices[0],
    )


class _Layer(NamedTuple):
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore_boxes: np.ndarray
    depth: np.ndarray | None
    matrices: list[np.ndarray]


def _layer(sources: Sequence[Source], config: AugmentConfig, size: int, seed: int, position: int, suffix: str) -> _Layer:
    drawn = random_affine(config, size, rng(seed, position, f"affine{suffix}"))
    gains = 1 + rng(seed, position, f"hsv{suffix}").uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)
    if len(sources) == 1:
        places = [letterbox(sources[0].size, size)]
    else:
        x, y = rng(seed, position, f"mosaic{suffix}").uniform(0, size, 2).tolist()
        places = [quarter(s.size, size, i, x, y) for i, s in enumerate(sources)]
    matrices = [snap(drawn @ place, s.size) for place, s in zip(places, sources)]
    image = np.full((size, size, 3), BORDER, np.uint8)
    boxes, labels, ignored = [], [], []
    for s, matrix in zip(sources, matrices):
        patch = warp(s.image, matrix, size)
        patch = patch._replace(pixels=adjust_hsv(patch.pixels, gains))
        patch.onto(image, None if len(sources) == 1 else matrix, s.size)
        moved, kept = transform_boxes(s.boxes, matrix, size)
        boxes.append(moved[kept])
        labels.append(s.labels[kept].astype(np.int64))
        regions = transform_boxes(s.ignore_boxes, matrix, size)[0]
        ignored.append(regions[(regions[:, 2] > regions[:, 0]) & (regions[:, 3] > regions[:, 1])])
    maps = [warp_nearest(s.depth, matrix, size) for s, matrix in zip(sources, matrices) if s.depth is not None]
    # tiles do not overlap, and around each its map is 0
    depth = np.maximum.reduce(maps) if maps else None
    return _Layer(image, np.concatenate(boxes), np.concatenate(labels), np.concatenate(ignored), depth, matrices)


def _with_depth(image: np.ndarray, depth: np.ndarray | None, channels: int) -> np.ndarray:
    if depth is None:
        return image
    known = np.where(depth > 0, 255, 0).astype(np.uint8)
    return np.dstack([image, depth, known][: channels - 2])


def _known(sources: Sequence[Source], matrices: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`annotated`, `tiles` and `tile_annotated` of `Augmented`."""
    rows = np.stack([s.annotated for s in sources])
    some = np.asarray(rows.any(0))
    fewer = np.flatnonzero((rows != some).any(1)).tolist()
    tiles = [np.diag([1 / sources[i].size[0], 1 / sources[i].size[1], 1]) @ np.linalg.inv(matrices[i]) for i in fewer]
    return some, np.array([t[:2] for t in tiles], np.float32).reshape(-1, 2, 3), rows[fewer]

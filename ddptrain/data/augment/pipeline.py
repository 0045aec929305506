"""The order of augmentation. Every draw is a function of (seed, position, purpose)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.color import adjust_hsv
from ddptrain.data.augment.geometry import letterbox, random_affine, snap, transform_boxes, warp
from ddptrain.seeding import rng


class Augmented(NamedTuple):
    """An image as the network sees it, with what is on it.

    Attributes:
        image: uint8 `[size, size, 3]`, RGB.
        boxes: float32 `[n, 4]` in pixels of `image`.
        labels: int64 `[n]`.
        ignore_boxes: float32 `[k, 4]` in pixels of `image`.
        matrix: float64 `[3, 3]` from pixels of the file to pixels of `image`.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore_boxes: np.ndarray
    matrix: np.ndarray


def fit_detection(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, ignore_boxes: np.ndarray, image_size: int
) -> Augmented:
    """The centred letterbox, without any draw; every box stays."""
    native_size = (image.shape[1], image.shape[0])
    matrix = snap(letterbox(native_size, image_size), native_size)
    return Augmented(
        warp(image, matrix, image_size).on_square(image_size),
        transform_boxes(boxes, matrix, image_size)[0],
        labels.astype(np.int64),
        transform_boxes(ignore_boxes, matrix, image_size)[0],
        matrix,
    )


def augment_detection(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    ignore_boxes: np.ndarray,
    config: AugmentConfig,
    image_size: int,
    *,
    seed: int,
    position: int,
) -> Augmented:
    """Letterbox, random affine and flips in one warp, then the colour gains.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        boxes: float32 `[n, 4]` in pixels of `image`.
        labels: int `[n]`.
        ignore_boxes: float32 `[k, 4]` in pixels of `image`; a part of one that stays visible is kept, however small.
        image_size: side of the network's input in pixels.
        seed: the run's seed.
        position: the sample's place in the global stream.
    """
    native_size = (image.shape[1], image.shape[0])
    drawn = random_affine(config, image_size, rng(seed, position, "affine"))
    matrix = snap(drawn @ letterbox(native_size, image_size), native_size)
    gains = 1 + rng(seed, position, "hsv").uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)
    moved, kept = transform_boxes(np.concatenate([boxes, ignore_boxes]), matrix, image_size)
    moved, ignored, kept = moved[: len(boxes)], moved[len(boxes) :], kept[: len(boxes)]
    visible = (ignored[:, 2] > ignored[:, 0]) & (ignored[:, 3] > ignored[:, 1])
    patch = warp(image, matrix, image_size)
    patch = patch._replace(pixels=adjust_hsv(patch.pixels, gains))
    return Augmented(
        patch.on_square(image_size),
        moved[kept],
        labels[kept].astype(np.int64),
        ignored[visible],
        matrix,
    )

"""How images are shown to the network: one drawn matrix and one drawn tint, the same for all that is seen together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.color import random_gains, tint
from ddptrain.data.augment.geometry import Patch, letterbox, random_affine, warp
from ddptrain.data.images.pixels import Pixels
from ddptrain.seeding import rng


class ImageView(NamedTuple):
    """What is drawn once for all images that are seen together.

    Attributes:
        size: side of the square that the network sees, in pixels.
        affine: float64 `[3, 3]` from that square to itself.
        gains: float64 `[3]`, see `tint`.
    """

    size: int
    affine: np.ndarray
    gains: np.ndarray

    @classmethod
    def still(cls, size: int) -> ImageView:
        """Without any draw: what is seen in evaluation."""
        return cls(size, np.eye(3), np.ones(3))

    @classmethod
    def draw(cls, size: int, augment: AugmentConfig | None, seed: int, position: int, layer: str = "") -> ImageView:
        """A function of its arguments.

        Args:
            augment: the ranges; None for `still`.
            seed: the run's seed.
            position: the sample's place in the global stream.
            layer: names the draws of a second image that is blended in.
        """
        if augment is None:
            return cls.still(size)
        affine = random_affine(augment, size, rng(seed, position, f"affine{layer}"))
        return cls(size, affine, random_gains(augment, rng(seed, position, f"hsv{layer}")))

    def patch(self, image: Pixels, place: np.ndarray) -> Patch:
        """What is seen of an image that `place`, float64 `[3, 3]` from pixels of its file, puts on the square: one warp, then
        the tint."""
        patch = warp(image, self.affine @ place, self.size)
        return patch._replace(pixels=tint(patch.pixels, self.gains))

    def show(self, image: np.ndarray | Pixels, place: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """One image on the square.

        Args:
            image: uint8 `[H, W, 3]`, RGB, in the size of its file or as `Pixels`.
            place: float64 `[3, 3]` from pixels of the file to the square; by default the letterbox.

        Returns:
            uint8 `[size, size, 3]`, and float64 `[3, 3]` from pixels of the file to its pixels.
        """
        image = Pixels.of(image)
        patch = self.patch(image, letterbox(image.size, self.size) if place is None else place)
        return patch.on_square(self.size), patch.matrix

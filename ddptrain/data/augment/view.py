"""How images are shown to the network: one drawn matrix, tint and so on, the same for all that is seen together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.color import random_gains, tint
from ddptrain.data.augment.effects import Effects, random_cut
from ddptrain.data.augment.geometry import BORDER, letterbox, random_affine, random_perspective, random_turn
from ddptrain.data.augment.warp import Patch, warp
from ddptrain.data.images.pixels import Pixels
from ddptrain.seeding import rng


class ImageView(NamedTuple):
    """What is drawn once for all images that are seen together.

    Attributes:
        size: side of the square that the network sees, in pixels.
        matrix: float64 `[3, 3]` from that square to itself.
        gains: float64 `[3]`, see `tint`.
        effects: on the pixels of the whole square.
        cut: int64 `[4]`, the part of the square that is hidden, or None.
        flipped: whether left and right have changed places, before all turns.
    """

    size: int
    matrix: np.ndarray
    gains: np.ndarray
    effects: Effects = Effects()
    cut: np.ndarray | None = None
    flipped: bool = False

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
        matrix, flipped = random_affine(augment, size, rng(seed, position, f"affine{layer}"))
        if augment.rot90:
            matrix = random_turn(augment.rot90, size, rng(seed, position, f"rot90{layer}")) @ matrix
        if augment.perspective:
            matrix = random_perspective(augment.perspective, size, rng(seed, position, f"perspective{layer}")) @ matrix
        gains = random_gains(augment, rng(seed, position, f"hsv{layer}"))
        cut = random_cut(augment.cutout, size, rng(seed, position, f"cutout{layer}")) if augment.cutout else None
        return cls(size, matrix, gains, Effects.draw(augment, seed, position, layer), cut, flipped)

    def patch(self, image: Pixels, place: np.ndarray) -> Patch:
        """What is seen of an image that `place`, float64 `[3, 3]` from pixels of its file, puts on the square: one warp, then
        the tint."""
        patch = warp(image, self.matrix @ place, self.size)
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
        return self.covered(self.effects.on(patch.on_square(self.size)), BORDER), patch.matrix

    def covered(self, values: np.ndarray, fill: int) -> np.ndarray:
        """Values of the square's pixels, `[size, size, …]`, of which those that are hidden become `fill`, in place."""
        if self.cut is not None:
            left, top, right, bottom = self.cut
            values[top:bottom, left:right] = fill
        return values

"""Classification samples: from a key of the stream to an image and its classes, and to what is mixed into it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.data.images.read import BadImage
from ddptrain.data.samples.base import ImageSamples, draw_matrix, to_native, view
from ddptrain.data.samples.detection import Partners
from ddptrain.data.tables.images import ImageTable
from ddptrain.seeding import rng
from ddptrain.structures import Sample, SampleKey

PARTNER = 1 << 63
"""Added to a position, the source of all draws about the image that is mixed into it."""


class ClassificationSamples(ImageSamples):
    """Classification samples of a mixture, see `ImageSamples`.

    Targets: `classes` float32 `[C]`, 1 for each class of the image. With mixup or cutmix also `partner` uint8
    `[S, S, 3]`, another draw of the same epoch, augmented on its own, `partner_classes` float32 `[C]`, `part`
    float32: the image's own part, and `box` int64 `[4]`: what the partner is pasted into, empty for mixup. The partner
    is drawn by position, not taken from the batch, so that it does not depend on how a batch is split.
    """

    def __init__(
        self,
        tables: Sequence[ImageTable],
        annotated: np.ndarray,
        image_size: int,
        augment: AugmentConfig | None,
        seed: int = 0,
        partners: Partners | None = None,
    ) -> None:
        """
        Args:
            tables: one per dataset, in the mixture's order, with labels of the run.
            annotated: bool `[datasets, classes]`: the classes that each dataset labels.
            image_size: side of the network's input in pixels.
            augment: None for evaluation: letterbox only.
            seed: the run's seed; every draw is a function of it and the key's position.
            partners: where mixup and cutmix take their images from; None for neither.
        """
        self.tables = list(tables)
        self.annotated = annotated
        self.image_size = image_size
        self.augment = augment
        self.seed = seed
        self.partners = partners

    def files(self, dataset: int) -> ImageTable:
        """The table of one dataset."""
        return self.tables[dataset]

    def read(self, key: SampleKey) -> np.ndarray:
        """The image of a sample, uint8 `[H, W, 3]` RGB."""
        pixels = self.tables[key.dataset].pixels
        if pixels is None:
            return super().read(key)
        return np.repeat(pixels[key.index][..., None], 3, 2)

    def make(self, key: SampleKey, image: np.ndarray) -> Sample:
        """The sample of a key from its decoded image."""
        pixels, matrix = self._view(image, key.position)
        targets = {"classes": self._classes(key)}
        if self.augment is not None and self.partners is not None:
            targets |= self._partner(key, self.augment, self.partners)
        return Sample(
            key=key,
            image=pixels,
            targets=targets,
            annotated=self.annotated[key.dataset],
            to_native=to_native(matrix),
            native_size=(image.shape[1], image.shape[0]),
        )

    def _view(self, image: np.ndarray, position: int) -> tuple[np.ndarray, np.ndarray]:
        matrix = draw_matrix((image.shape[1], image.shape[0]), self.image_size, self.augment, self.seed, position)
        return view(image, matrix, self.image_size, self.augment, self.seed, position), matrix

    def _classes(self, key: SampleKey) -> np.ndarray:
        table = self.tables[key.dataset]
        out = np.zeros(len(table.names), np.float32)
        out[table.labels[table.offsets[key.index] : table.offsets[key.index + 1]]] = 1
        return out

    def _partner(self, key: SampleKey, augment: AugmentConfig, partners: Partners) -> dict[str, np.ndarray]:
        draws, size = rng(self.seed, key.position, "mix"), self.image_size
        which, centre = draws.random(), draws.random(2) * size
        part = draws.beta(augment.mix_alpha, augment.mix_alpha)
        image, classes, box = np.zeros((size, size, 3), np.uint8), np.zeros_like(self._classes(key)), np.zeros(4, np.int64)
        mixed = which < augment.cutmix + augment.mixup and key.position < partners.until
        if mixed:
            other = partners.draw(key, self.seed, 1)[0]
            try:
                image, classes = self._view(self.read(other), key.position + PARTNER)[0], self._classes(other)
            except BadImage:  # told when its own turn comes
                mixed = False
        if mixed and which < augment.cutmix:
            half = size * (1 - part) ** 0.5 / 2
            box = np.concatenate([centre - half, centre + half]).clip(0, size).round().astype(np.int64)
            part = 1 - (box[2] - box[0]) * (box[3] - box[1]) / size**2
        return {
            "partner": image,
            "partner_classes": classes,
            "part": np.array(part if mixed else 1.0, np.float32),
            "box": box,
        }

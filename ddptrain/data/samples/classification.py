"""Classification samples: from a key of the stream to an image and its classes, and to what is mixed into it."""

from dataclasses import dataclass

import numpy as np

from ddptrain.config.classification import ClassificationAugment
from ddptrain.data.augment.mix import random_mix
from ddptrain.data.augment.partners import Partners
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.images.read import BadImage
from ddptrain.data.samples.base import ImageSamples, to_native
from ddptrain.data.tables.images import ImageTable
from ddptrain.seeding import rng
from ddptrain.structures import Sample, SampleKey

PARTNER = 1 << 63
"""Added to a position, the source of all draws about the image that is mixed into it."""


@dataclass(eq=False)
class ClassificationSamples(ImageSamples[ImageTable]):
    """Classification samples of a mixture, see `ImageSamples`.

    Targets: `classes` float32 `[C]`, 1 for each class of the image. With mixup or cutmix also `partner` uint8
    `[S, S, 3]`, another draw of the same epoch, augmented on its own, `partner_classes` float32 `[C]`, `part`
    float32: the image's own part, and `box` int64 `[4]`: what the partner is pasted into, empty for mixup. The partner
    is drawn by position, not taken from the batch, so that it does not depend on how a batch is split. Of a mixed image,
    only the classes that both datasets label are known.

    Args:
        partners: where mixup and cutmix take their images from; None for neither.
    """

    augment: ClassificationAugment | None
    partners: Partners | None = None

    def load(self, key: SampleKey, grey: bool = False) -> Pixels:
        """The image of a sample."""
        pixels = self.tables[key.dataset].pixels
        return self.pixels(key, grey) if pixels is None else Pixels.of(np.repeat(pixels[key.index][..., None], 3, 2))

    def takes_pixels(self) -> bool:
        return True

    def make(self, key: SampleKey, source: Pixels) -> Sample:
        """The sample of a key from its decoded image."""
        pixels, matrix = self.view(key.position).show(source)
        targets, weight, known = {"classes": self._classes(key)}, self.weight(key), self.annotated[key.dataset]
        if self.augment is not None and self.partners is not None:
            mixed, other = self._partner(key, self.augment, self.partners)
            targets |= mixed
            weight += (1 - float(mixed["part"])) * (self.weight(other) - weight)
            known = known & self.annotated[other.dataset]
        return Sample(key, pixels, targets, known, to_native(matrix), source.size, weight=weight)

    def _classes(self, key: SampleKey) -> np.ndarray:
        table = self.tables[key.dataset]
        classes = np.zeros(len(table.names), np.float32)
        classes[table.labels[table.rows(key.index)]] = 1
        return classes

    def _partner(
        self, key: SampleKey, augment: ClassificationAugment, partners: Partners
    ) -> tuple[dict[str, np.ndarray], SampleKey]:
        """The targets about the partner, and its key; where nothing is mixed in, targets of the same shapes and the own key."""
        mixed_in, size, part, box = key, self.image_size, 1.0, np.zeros(4, np.int64)
        image, classes = np.zeros((size, size, 3), np.uint8), np.zeros_like(self._classes(key))
        mix = random_mix(augment.mixup, augment.cutmix, augment.mix_alpha, size, rng(self.seed, key.position, "mix"))
        if mix is not None and key.position < partners.until:
            other = partners.draw(key, self.seed, 1)[0]
            try:
                image, classes = self.view(key.position + PARTNER).show(self.load(other))[0], self._classes(other)
                (part, box), mixed_in = mix, other
            except BadImage:  # reported when its own turn comes
                pass
        return {"partner": image, "partner_classes": classes, "part": np.array(part, np.float32), "box": box}, mixed_in

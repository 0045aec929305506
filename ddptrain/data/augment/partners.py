"""Which further images a mosaic, mixup or cutmix takes in: other draws of the same stream, from the same epoch or nearer."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.errors import UserError
from ddptrain.seeding import rng
from ddptrain.structures import KeysOf, SampleKey


class Together(NamedTuple):
    """What is mixed into one sample of detection.

    Attributes:
        others: the keys of its partners.
        width: of how many images, with the sample's own, a layer is made: 1, or a mosaic of 4 or 9. There are two layers where
            a second one is blended in or cut in.
        second: how that is joined.
        mixes: whether anything may be mixed at that position.
    """

    others: list[SampleKey]
    width: int
    second: Literal["mixup", "cutmix"]
    mixes: bool


@dataclass(frozen=True)
class Partners:
    """The partners of a key, a function of (seed, position): from each dataset with the probability of its share, by its
    weights.

    Attributes:
        keys_of: the sampler's function.
        samples_per_epoch: length of an epoch.
        until: position from which on nothing is mixed.
        pool: length of the blocks of positions within which partners are drawn, each at most once in a layer; None: from the
            epoch.
    """

    keys_of: KeysOf
    samples_per_epoch: int
    until: float
    pool: int | None = None

    def draw(self, key: SampleKey, seed: int, *counts: int) -> list[SampleKey]:
        """So many partners of a key for each layer, whatever the probabilities; their position is that of the key."""
        generator, length = rng(seed, key.position, "partner positions"), self.pool or self.samples_per_epoch
        place = key.position % length
        if self.pool is None:
            drawn = key.position - place + generator.integers(0, length, sum(counts))
        else:  # all but the key's own
            ahead = np.concatenate([1 + generator.permutation(length - 1)[:count] for count in counts])
            drawn = key.position - place + (place + ahead) % length
        datasets, indices = (column.tolist() for column in self.keys_of(drawn))
        return [SampleKey(key.position, *place) for place in zip(datasets, indices)]

    def draw_tiles(self, key: SampleKey, seed: int, augment: DetectionAugment) -> Together:
        """The partners of a key in detection, by the probabilities of mosaic, mosaic9, mixup and cutmix."""
        by_mosaic, by_second = rng(seed, key.position, "partners").random(2)
        if key.position >= self.until:
            return Together([], 1, "mixup", mixes=False)
        width = 4 if by_mosaic < augment.mosaic else 9 if by_mosaic < augment.mosaic + augment.mosaic9 else 1
        counts = (width - 1, width) if by_second < augment.mixup + augment.cutmix else (width - 1,)
        second: Literal["mixup", "cutmix"] = "mixup" if by_second < augment.mixup else "cutmix"
        return Together(self.draw(key, seed, *counts) if sum(counts) else [], width, second, mixes=True)


def refuse_few(augment: DetectionAugment, images: int) -> None:
    """Raise `UserError` where a mosaic would show an image more than once."""
    if images < augment.together:
        name = "mosaic9" if augment.mosaic9 else "mosaic"
        raise UserError(
            f"data.augment.{name}: a mosaic combines {augment.together} images, but data.train has only {images}; add images, "
            f"or set data.augment.{name}=0"
        )

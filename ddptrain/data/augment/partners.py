"""Which further images a mosaic, mixup or cutmix takes in: other draws of the same epoch of the same stream."""

from dataclasses import dataclass

from ddptrain.seeding import rng
from ddptrain.structures import KeysOf, SampleKey


@dataclass(frozen=True)
class Partners:
    """The partners of a key, a function of (seed, position): from each dataset with the probability of its share, by its
    weights.

    Attributes:
        keys_of: the sampler's function.
        samples_per_epoch: length of an epoch.
        until: position from which on nothing is mixed.
    """

    keys_of: KeysOf
    samples_per_epoch: int
    until: float

    def draw(self, key: SampleKey, seed: int, count: int) -> list[SampleKey]:
        """So many partners of a key, whatever the probabilities; their position is that of the key."""
        first = key.position // self.samples_per_epoch * self.samples_per_epoch
        drawn = first + rng(seed, key.position, "partner positions").integers(0, self.samples_per_epoch, count)
        datasets, indices = (column.tolist() for column in self.keys_of(drawn))
        return [SampleKey(key.position, *place) for place in zip(datasets, indices)]

    def draw_tiles(self, key: SampleKey, seed: int, mosaic: float, mixup: float) -> tuple[list[SampleKey], int]:
        """The partners of a key in detection.

        Args:
            mosaic, mixup: the probability of each.

        Returns:
            Their keys, and of how many images, with that of `key` itself, a layer is made: 1, or a mosaic of 4. There are
            two layers where the second is blended in (mixup).
        """
        by_mosaic, by_mixup = rng(seed, key.position, "partners").random(2)
        if key.position >= self.until:
            return [], 1
        width = 4 if by_mosaic < mosaic else 1
        count = width * (2 if by_mixup < mixup else 1) - 1
        return self.draw(key, seed, count) if count else [], width

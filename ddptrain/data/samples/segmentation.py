"""Segmentation samples: from a key of the stream to an image and the class of each of its pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ddptrain.config.segmentation import SegmentationAugment
from ddptrain.data.augment.geometry import BORDER, random_window
from ddptrain.data.augment.view import ImageView
from ddptrain.data.augment.warp import warp_nearest
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.images.read import BadImage
from ddptrain.data.packed.plan import Plan
from ddptrain.data.samples.base import ImageSamples, to_native
from ddptrain.data.samples.plans import plan_levels
from ddptrain.data.tables.masks import MaskTable
from ddptrain.seeding import rng
from ddptrain.structures import VOID, Batch, Sample, SampleKey

MASKS = "masks"
"""`Plan.kind` of the class of each pixel."""


class Labelled(NamedTuple):
    """An image, its mask, uint8 `[H, W]` in the size of the file, and why that is void, where it could not be read."""

    image: Pixels
    mask: np.ndarray
    fault: str | None = None


@dataclass(eq=False)
class SegmentationSamples(ImageSamples[MaskTable]):
    """Segmentation samples of a mixture, see `ImageSamples`.

    In training the image is warped to a square and the mask with it, by the nearest pixel, void outside the image and in a
    cutout. In evaluation the image is letterboxed, or with `native` as it is in the file; the mask stays as it is in the file,
    since that is where a prediction is judged. A mask that can no longer be read is void there.
    """

    augment: SegmentationAugment | None
    native: bool = False

    def load(self, key: SampleKey, grey: bool = False) -> Labelled:
        """The image and its mask."""
        by_pixels = self.takes_pixels() or self.tiles_of(key.dataset) is not None
        image = self.pixels(key, grey) if by_pixels else Pixels.of(self.image(key, grey))
        file = self.file_of(key)
        try:
            mask = self.packed(MASKS, key.dataset, file)
            return Labelled(image, self.tables[key.dataset].labels(file) if mask is None else mask)
        except BadImage as e:
            if self.augment is not None:
                raise
            return Labelled(image, np.full(image.size[::-1], VOID, np.uint8), f"{e}; all of it counts as void")

    def takes_pixels(self) -> bool:
        """A crop is shown at the file's own scale."""
        return self.augment is None or not self.augment.crop

    def plans(self) -> Iterator[Plan]:
        """Also the masks, with the classes of the run."""
        yield from super().plans()
        for dataset, table in enumerate(self.tables):
            about = (table.exif, table.classes.tolist())
            yield plan_levels(MASKS, dataset, table.masks, table.sizes, self.needs(dataset), table.labels, about)

    def make(self, key: SampleKey, source: Labelled) -> Sample:
        """The sample of a key from its image and mask."""
        image, mask, fault = source
        size, part = image.size, self.window(key)
        if part is not None:
            x1, y1, x2, y2 = part
            image, mask = Pixels.of(image.values[y1:y2, x1:x2]), mask[y1:y2, x1:x2]
        if self.augment is None:
            pixels, back = eval_view(image.values, self.image_size, self.native)
            targets = {"native_mask": mask}
        else:
            window = rng(self.seed, key.position, "crop")
            place = random_window(image.size, self.image_size, window) if self.augment.crop else None
            view = self.view(key.position)
            pixels, matrix = view.show(image, place)
            back = to_native(matrix)
            targets = {"mask": view.covered(warp_nearest(mask, matrix, self.image_size, VOID), VOID)}
        if part is not None:
            back[:, 2] += part[:2]
        return Sample(key, pixels, targets, self.annotated[key.dataset], back, size, fault, self.weight(key))

    @classmethod
    def collate(cls, samples: Sequence[Sample]) -> Batch:
        """Join samples; images and masks of several sizes are padded at the right and bottom to the largest."""
        images = _padded([s.image for s in samples], BORDER)
        return super().collate([replace(s, image=image) for s, image in zip(samples, images)])

    @staticmethod
    def join(targets: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The masks of a batch."""
        return {name: np.stack(_padded([t[name] for t in targets], VOID)) for name in targets[0]}


def eval_view(image: np.ndarray, size: int, native: bool) -> tuple[np.ndarray, np.ndarray]:
    """What the network is shown of an image in evaluation, and float32 `[2, 3]`: the way back to pixels of the file."""
    pixels, matrix = (image, np.eye(3)) if native else ImageView.still(size).show(image)
    return pixels, to_native(matrix)


def _padded(arrays: Sequence[np.ndarray], fill: int) -> list[np.ndarray]:
    height, width = max(a.shape[0] for a in arrays), max(a.shape[1] for a in arrays)
    rest = lambda a: ((0, height - a.shape[0]), (0, width - a.shape[1]))  # noqa: E731
    return [
        a if a.shape[:2] == (height, width) else np.pad(a, (*rest(a), (0, 0))[: a.ndim], constant_values=fill) for a in arrays
    ]

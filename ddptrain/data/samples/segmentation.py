"""Segmentation samples: from a key of the stream to an image and the class of each of its pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.geometry import BORDER, warp_nearest
from ddptrain.data.images.read import BadImage
from ddptrain.data.samples.base import ImageSamples, draw_matrix, stack, to_native, view
from ddptrain.data.tables.masks import MaskTable
from ddptrain.structures import VOID, Batch, Sample, SampleKey


class SegmentationSamples(ImageSamples):
    """Segmentation samples of a mixture, see `ImageSamples`.

    In training the image is warped to a square and the mask with it, by the nearest pixel, void outside the image. In
    evaluation the image is letterboxed, or with `native` as it is in the file; the mask stays as it is in the file, since
    that is where a prediction is judged. A mask that cannot be read any more is void there.
    """

    def __init__(
        self,
        tables: Sequence[MaskTable],
        annotated: np.ndarray,
        image_size: int,
        augment: AugmentConfig | None,
        seed: int = 0,
        native: bool = False,
    ) -> None:
        """
        Args:
            tables: one per dataset, in the mixture's order, with classes of the run.
            annotated: bool `[datasets, classes]`: the classes that each dataset labels.
            image_size: side of the network's input in pixels.
            augment: None for evaluation.
            seed: the run's seed; every draw is a function of it and the key's position.
            native: evaluation: leave the image at its own size.
        """
        self.tables = list(tables)
        self.annotated = annotated
        self.image_size = image_size
        self.augment = augment
        self.seed = seed
        self.native = native

    def files(self, dataset: int) -> MaskTable:
        """The table of one dataset."""
        return self.tables[dataset]

    def make(self, key: SampleKey, image: np.ndarray) -> Sample:
        """The sample of a key from its decoded image."""
        size, replaced = (image.shape[1], image.shape[0]), None
        try:
            labels = self.tables[key.dataset].labels(key.index)
        except BadImage as e:
            if self.augment is not None:
                raise
            labels, replaced = np.full(image.shape[:2], VOID, np.uint8), f"{e}; all of it counts as void"
        if self.augment is None:
            pixels, back = eval_view(image, self.image_size, self.native)
            targets = {"native_mask": labels}
        else:
            matrix = draw_matrix(size, self.image_size, self.augment, self.seed, key.position)
            pixels = view(image, matrix, self.image_size, self.augment, self.seed, key.position)
            back = to_native(matrix)
            targets = {"mask": warp_nearest(labels, matrix, self.image_size, VOID)}
        return Sample(key, pixels, targets, self.annotated[key.dataset], back, size, replaced)

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Stack samples; images and masks of several sizes are padded at the right and bottom to the largest."""
        images = _padded([s.image for s in samples], BORDER)
        for sample, image in zip(samples, images):
            sample.image = image
        return stack(samples, {k: np.stack(_padded([s.targets[k] for s in samples], VOID)) for k in samples[0].targets})


def eval_view(image: np.ndarray, size: int, native: bool) -> tuple[np.ndarray, np.ndarray]:
    """What the network is shown of an image in evaluation, and float32 `[2, 3]`: the way back to pixels of the file."""
    if native:
        return image, to_native(np.eye(3))
    matrix = draw_matrix((image.shape[1], image.shape[0]), size, None, 0, 0)
    return view(image, matrix, size, None, 0, 0), to_native(matrix)


def _padded(arrays: Sequence[np.ndarray], fill: int) -> list[np.ndarray]:
    height, width = max(a.shape[0] for a in arrays), max(a.shape[1] for a in arrays)
    rest = lambda a: ((0, height - a.shape[0]), (0, width - a.shape[1]))  # noqa: E731
    return [
        a if a.shape[:2] == (height, width) else np.pad(a, (*rest(a), (0, 0))[: a.ndim], constant_values=fill) for a in arrays
    ]

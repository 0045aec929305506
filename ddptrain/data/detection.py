"""Detection samples: from a key of the stream to pixels and boxes, and from samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.geometry import BORDER
from ddptrain.data.augment.pipeline import augment_detection, fit_detection
from ddptrain.data.images import BadImage, read_image
from ddptrain.data.table import AnnotationTable
from ddptrain.errors import UserError
from ddptrain.structures import Batch, Sample, SampleKey

MAX_TRIES = 100
"""Unreadable images in a row after which the disk, not an image, is at fault."""


class DetectionSamples:
    """Samples of a mixture by `SampleKey`; a pure function of (tables, config, seed, key).

    An image that cannot be read is told in `Sample.replaced`. In training the next readable one of its dataset takes
    its place; in evaluation a grey one does, so that the images and the truth that the metric counts stay the same.
    """

    def __init__(
        self,
        tables: Sequence[AnnotationTable],
        annotated: np.ndarray,
        image_size: int,
        augment: AugmentConfig | None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            tables: one per dataset, in the mixture's order.
            annotated: bool `[datasets, classes]`: the classes that each dataset labels.
            image_size: side of the network's input in pixels.
            augment: None for evaluation: letterbox only, all boxes kept.
            seed: the run's seed; every draw is a function of it and the key's position.
        """
        self.tables = list(tables)
        self.annotated = annotated
        self.image_size = image_size
        self.augment = augment
        self.seed = seed

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of `key`; its own `key` names the image that was really read.

        Raises:
            UserError: too many images in a row cannot be read.
        """
        try:
            return self._sample(key, self._read(key))
        except BadImage as e:
            if self.augment is None:
                width, height = self.tables[key.dataset].sizes[key.index]
                sample = self._sample(key, np.full((height, width, 3), BORDER, np.uint8))
                sample.replaced = f"{e}; a grey image takes its place"
                return sample
            return self._next_readable(key, str(e))

    def source(self, key: SampleKey) -> str:
        """Path of the image."""
        return self.tables[key.dataset].path(key.index)

    def _next_readable(self, key: SampleKey, why: str) -> Sample:
        size = len(self.tables[key.dataset])
        for step in range(1, min(size, MAX_TRIES)):
            other = key._replace(index=(key.index + step) % size)
            try:
                sample = self._sample(other, self._read(other))
            except BadImage:
                continue
            sample.replaced = f"{why}; {self.tables[key.dataset].path(other.index)} takes its place"
            return sample
        tried = min(size, MAX_TRIES)
        raise UserError(f"{why}; nor can any of {tried} images in a row be read: is the disk still there?")

    def _read(self, key: SampleKey) -> np.ndarray:
        table = self.tables[key.dataset]
        image = read_image(table.path(key.index))
        height, width = image.shape[:2]
        expected = tuple(table.sizes[key.index].tolist())
        if (width, height) != expected:
            raise BadImage(
                f"{table.path(key.index)}: {width} x {height} pixels, but {expected[0]} x {expected[1]} at the start"
            )
        return image

    def _sample(self, key: SampleKey, image: np.ndarray) -> Sample:
        table, size = self.tables[key.dataset], self.image_size
        rows = table.rows(key.index)
        out = table.ignore[rows] | table.crowd[rows]
        boxes, labels, ignored = table.boxes[rows][~out], table.labels[rows][~out], table.boxes[rows][out]
        if self.augment is None:
            seen = fit_detection(image, boxes, labels, ignored, size)
        else:
            seen = augment_detection(image, boxes, labels, ignored, self.augment, size, seed=self.seed, position=key.position)
        return Sample(
            key=key,
            image=seen.image,
            targets={"boxes": seen.boxes, "labels": seen.labels, "ignore_boxes": seen.ignore_boxes},
            annotated=self.annotated[key.dataset],
            to_native=np.linalg.inv(seen.matrix)[:2].astype(np.float32),
            native_size=(image.shape[1], image.shape[0]),
        )

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Stack samples of one size.

        The images lie channels-last in memory (their strides say so): joining is one copy, and it is the layout that
        convolutions like best.
        """
        counts = torch.tensor([len(s.targets["labels"]) for s in samples])
        ignored = torch.tensor([len(s.targets["ignore_boxes"]) for s in samples])
        rows = torch.arange(len(samples))
        return Batch(
            images=torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
            keys=torch.tensor([tuple(s.key) for s in samples], dtype=torch.int64),
            annotated=torch.from_numpy(np.stack([s.annotated for s in samples])),
            targets={
                "boxes": torch.from_numpy(np.concatenate([s.targets["boxes"] for s in samples])),
                "labels": torch.from_numpy(np.concatenate([s.targets["labels"] for s in samples])),
                "image": rows.repeat_interleave(counts),
                "ignore_boxes": torch.from_numpy(np.concatenate([s.targets["ignore_boxes"] for s in samples])),
                "ignore_image": rows.repeat_interleave(ignored),
            },
            to_native=torch.from_numpy(np.stack([s.to_native for s in samples])),
            native_size=torch.tensor([s.native_size for s in samples], dtype=torch.int64),
            replaced=tuple(s.replaced for s in samples if s.replaced is not None),
        )

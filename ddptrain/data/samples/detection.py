"""Detection samples: from a key of the stream to pixels and boxes, and from samples to a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.geometry import BORDER
from ddptrain.data.augment.pipeline import Augmented, Source, augment_detection, fit_detection
from ddptrain.data.images.depth import DepthMaps
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.errors import UserError
from ddptrain.seeding import rng
from ddptrain.structures import Batch, Sample, SampleKey

MAX_TRIES = 100
"""Unreadable images in a row after which the disk, not an image, is at fault."""


class Partners:
    """Which samples a mosaic or mixup at some position takes in: other draws of the same epoch of the same stream.

    So a partner comes from each dataset with the probability of its share, by its weights, and is a function of (seed,
    position).

    Args:
        keys_of: the sampler's function: positions `[n]` → datasets `[n]`, indices `[n]`.
        samples_per_epoch: length of an epoch.
        until: position from which on there is no mosaic and no mixup.
    """

    def __init__(
        self, keys_of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], samples_per_epoch: int, until: float
    ) -> None:
        self.keys_of = keys_of
        self.samples_per_epoch = samples_per_epoch
        self.until = until

    def __call__(self, key: SampleKey, config: AugmentConfig, seed: int) -> list[list[SampleKey]]:
        """The keys of each layer, that of the sample first."""
        mosaic, mixup = rng(seed, key.position, "partners").random(2)
        if key.position >= self.until:
            return [[key]]
        width = 4 if mosaic < config.mosaic else 1
        count = width * (2 if mixup < config.mixup else 1)
        if count == 1:
            return [[key]]
        keys = [key, *self.draw(key, seed, count - 1)]
        return [keys[i : i + width] for i in range(0, count, width)]

    def draw(self, key: SampleKey, seed: int, count: int) -> list[SampleKey]:
        """So many partners of a key, whatever the probabilities; their position is that of the key."""
        first = key.position // self.samples_per_epoch * self.samples_per_epoch
        drawn = first + rng(seed, key.position, "partner positions").integers(0, self.samples_per_epoch, count)
        found = zip(*(part.tolist() for part in self.keys_of(drawn)))
        return [SampleKey(key.position, dataset, index) for dataset, index in found]


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
        partners: Partners | None = None,
        depth: Sequence[DepthMaps | None] = (),
        channels: int = 3,
    ) -> None:
        """
        Args:
            tables: one per dataset, in the mixture's order.
            annotated: bool `[datasets, classes]`: the classes that each dataset labels.
            image_size: side of the network's input in pixels.
            augment: None for evaluation: letterbox only, all boxes kept.
            seed: the run's seed; every draw is a function of it and the key's position.
            partners: where mosaic and mixup take their images from; None for neither.
            depth: the depth maps of each dataset, None for none.
            channels: of the samples: 3, with depth 4, with its validity 5.
        """
        self.tables = list(tables)
        self.annotated = annotated
        self.image_size = image_size
        self.augment = augment
        self.seed = seed
        self.partners = partners
        self.depth = list(depth)
        self.channels = channels

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of `key`; its own `key` names the image that was really read.

        Raises:
            UserError: too many images in a row cannot be read.
        """
        if self.augment is None:
            return self._plain(key)
        layers = [[key]] if self.partners is None else self.partners(key, self.augment, self.seed)
        loaded = [[self._readable(k) for k in layer] for layer in layers]
        sources = [[source for source, _, _ in layer] for layer in loaded]
        seen = augment_detection(
            sources, self.augment, self.image_size, seed=self.seed, position=key.position, channels=self.channels
        )
        faults = [fault for layer in loaded for _, _, fault in layer if fault is not None]
        return make_sample(loaded[0][0][1], seen, sources[0][0].size, "; ".join(faults) or None)

    def source(self, key: SampleKey) -> str:
        """Path of the image."""
        return self.tables[key.dataset].path(key.index)

    def _plain(self, key: SampleKey) -> Sample:
        fault = None
        try:
            source = self._load(key)
        except BadImage as e:
            width, height = self.tables[key.dataset].sizes[key.index]
            source = self._load(key, np.full((height, width, 3), BORDER, np.uint8))
            fault = f"{e}; a grey image takes its place"
        return make_sample(key, fit_detection(source, self.image_size, self.channels), source.size, fault)

    def _readable(self, key: SampleKey) -> tuple[Source, SampleKey, str | None]:
        """The image of `key`, or the next of its dataset that can be read; with its key, and the fault."""
        try:
            return self._load(key), key, None
        except BadImage as e:
            why = str(e)
        size = len(self.tables[key.dataset])
        for step in range(1, min(size, MAX_TRIES)):
            other = key._replace(index=(key.index + step) % size)
            try:
                source = self._load(other)
            except BadImage:
                continue
            return source, other, f"{why}; {self.tables[key.dataset].path(other.index)} takes its place"
        tried = min(size, MAX_TRIES)
        raise UserError(f"{why}; nor can any of {tried} images in a row be read: is the disk still there?")

    def _load(self, key: SampleKey, image: np.ndarray | None = None) -> Source:
        """What the table knows of an image, with its pixels, which are read unless they are given."""
        table, depth = self.tables[key.dataset], None
        maps = self.depth[key.dataset] if self.depth and image is None else None
        image = self._read(key) if image is None else image
        if self.channels > 3:
            path = "" if maps is None else maps.path(key.index)
            height, width = image.shape[:2]
            depth = maps.read(path, (width, height)) if maps and path else np.zeros((height, width), np.uint8)
        rows = table.rows(key.index)
        out = table.ignore[rows] | table.crowd[rows]
        boxes, labels = table.boxes[rows], table.labels[rows]
        return Source(image, boxes[~out], labels[~out], boxes[out], self.annotated[key.dataset], depth)

    def _read(self, key: SampleKey) -> np.ndarray:
        table = self.tables[key.dataset]
        image = read_image(table.path(key.index), table.exif)
        height, width = image.shape[:2]
        expected = tuple(table.sizes[key.index].tolist())
        if (width, height) != expected:
            raise BadImage(
                f"{table.path(key.index)}: {width} x {height} pixels, but {expected[0]} x {expected[1]} at the start"
            )
        return image

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Stack samples of one size.

        The images lie channels-last in memory (their strides say so): joining is one copy, and it is the layout that
        convolutions like best.
        """
        rows = torch.arange(len(samples))

        def joined(name: str) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([s.targets[name] for s in samples]))

        def owners(name: str) -> torch.Tensor:
            return rows.repeat_interleave(torch.tensor([len(s.targets[name]) for s in samples]))

        return Batch(
            images=torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
            keys=torch.tensor([tuple(s.key) for s in samples], dtype=torch.int64),
            annotated=torch.from_numpy(np.stack([s.annotated for s in samples])),
            targets={
                "boxes": joined("boxes"),
                "labels": joined("labels"),
                "image": owners("boxes"),
                "ignore_boxes": joined("ignore_boxes"),
                "ignore_image": owners("ignore_boxes"),
                "tiles": joined("tiles"),
                "tile_annotated": joined("tile_annotated"),
                "tile_image": owners("tiles"),
            },
            to_native=torch.from_numpy(np.stack([s.to_native for s in samples])),
            native_size=torch.tensor([s.native_size for s in samples], dtype=torch.int64),
            replaced=tuple(s.replaced for s in samples if s.replaced is not None),
        )


def make_sample(key: SampleKey, seen: Augmented, native_size: tuple[int, int], replaced: str | None = None) -> Sample:
    """The sample of an augmented image."""
    return Sample(
        key=key,
        image=seen.image,
        targets={
            "boxes": seen.boxes,
            "labels": seen.labels,
            "ignore_boxes": seen.ignore_boxes,
            "tiles": seen.tiles,
            "tile_annotated": seen.tile_annotated,
        },
        annotated=seen.annotated,
        to_native=np.linalg.inv(seen.matrix)[:2].astype(np.float32),
        native_size=native_size,
        replaced=replaced,
    )

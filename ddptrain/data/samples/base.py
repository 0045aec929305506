"""The one path of every task: from a key of the stream to a sample, and from samples to a batch.

    key → load (image, labels) → view (one warp, colours) → mix → Sample → collate → Batch

`load` and `make` are a task's own: what is read beside an image, and what is made of it. All else stands here: what takes the
place of an image that cannot be read, the check of its size, the way back to the file, and the layout of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple

import numpy as np
import torch

from ddptrain.config.data import AugmentConfig, Exif
from ddptrain.data.augment.geometry import BORDER, in_perspective
from ddptrain.data.augment.view import ImageView
from ddptrain.data.images.headers import read_headers
from ddptrain.data.images.pixels import Pixels, halvings
from ddptrain.data.images.read import BadImage, ImageCache
from ddptrain.data.packed.file import Packed
from ddptrain.data.packed.plan import Plan
from ddptrain.data.samples.plans import IMAGES, plan_images, read_sized
from ddptrain.data.tables.base import T
from ddptrain.data.tables.windows import Tiles
from ddptrain.errors import UserError
from ddptrain.structures import Batch, Sample, SampleKey
from ddptrain.system.printable import counted

RECENT_BYTES = 128 << 20
"""Decoded images that each loader process keeps."""
MAX_TRIES = 100
"""Unreadable images in a row after which the disk, not an image, is at fault."""


class Loaded(NamedTuple):
    """What was read for a key.

    Attributes:
        key: of what was really read.
        source: the result of `ImageSamples.load`.
        fault: which image could not be read, why, and what replaces it, in one line; None where all is well.
    """

    key: SampleKey
    source: Any
    fault: str | None = None


@dataclass(frozen=True)
class FileList:
    """Image files and their sizes: the tables of a task of the user's own, see docs/tasks.md.

    Attributes:
        sizes: int32 `[N, 2]`: width, height.
    """

    paths: Sequence[str]
    sizes: np.ndarray
    exif: Exif = "apply"

    @classmethod
    def of(cls, paths: Sequence[str], exif: Exif = "apply") -> "FileList":
        """Look at each file's header; raises `UserError` for one that is missing or not an image."""
        sizes = []
        for path, header in zip(paths, read_headers(paths, exif)):
            if isinstance(header, str):
                raise UserError(f"{path}: {header}")
            sizes.append(header.size)
        return cls(paths, np.array(sizes, np.int32).reshape(-1, 2), exif)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, image: int) -> str:
        """Path of one image."""
        return self.paths[image]


@dataclass(eq=False)
class ImageSamples(ABC, Generic[T]):
    """Samples of a mixture by `SampleKey`; a pure function of (tables, augmentation, seed, key).

    An image that cannot be read is reported in `Sample.replaced`. In training the next readable one of its dataset takes
    its place; in evaluation a grey one does, so that the samples and the truth that the metric counts stay the same.

    Args:
        tables: the images of each dataset, in the mixture's order, with labels of the run.
        annotated: bool `[datasets, classes]`: the classes that each dataset labels.
        image_size: side of the network's input in pixels.
        augment: None for evaluation: nothing is drawn.
        seed: the run's seed; every draw is a function of it and the key's position.
        weights: the factor on the loss of the samples of each dataset; empty where all are 1.
        tiles: the tiles of each dataset, None where a sample is a whole image.
    """

    tables: Sequence[T]
    annotated: np.ndarray
    image_size: int
    augment: AugmentConfig | None
    seed: int = 0
    weights: Sequence[float] = field(default=(), kw_only=True)
    tiles: Sequence[Tiles | None] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        # the images of a few samples, which their neighbours may take in, too
        self._recent = ImageCache(RECENT_BYTES)
        self._packed: dict[tuple[str, int], Packed] = {}

    @abstractmethod
    def make(self, key: SampleKey, source: Any) -> Sample:
        """The sample of a key from what `load` returned; a fault of its own stands in `Sample.replaced`."""

    def load(self, key: SampleKey, grey: bool = False) -> Any:
        """All that is read for a key, here its image; raises `BadImage`.

        Args:
            grey: do not read the image, take a grey one.
        """
        return self.image(key, grey)

    def read(self, key: SampleKey) -> np.ndarray:
        """The image of a sample, uint8 `[H, W, 3]` RGB, not to be written into; raises `BadImage`."""
        file = self.file_of(key)
        packed = self.packed(IMAGES, key.dataset, file)
        return read_sized(self.tables[key.dataset], file) if packed is None else packed

    def file_of(self, key: SampleKey) -> int:
        """The image of a sample: that of its tile, or here the sample's own number."""
        tiles = self.tiles_of(key.dataset)
        return key.index if tiles is None else int(tiles.image[tiles.tile(key.index, key.position, self.seed)])

    def window(self, key: SampleKey) -> tuple[int, int, int, int] | None:
        """The part of its image that a sample shows, (x1, y1, x2, y2) in pixels of the file; None for all of it."""
        tiles = self.tiles_of(key.dataset)
        if tiles is None:
            return None
        x1, y1, x2, y2 = tiles.windows[tiles.tile(key.index, key.position, self.seed)].tolist()
        return x1, y1, x2, y2

    def tiles_of(self, dataset: int) -> Tiles | None:
        """The tiles of a dataset, None where a sample is a whole image."""
        return self.tiles[dataset] if self.tiles else None

    def size(self, dataset: int) -> int:
        """Number of samples of one dataset; here one for each image, or for each tile that a pass draws."""
        return len(self.tiles_of(dataset) or self.tables[dataset])

    def source(self, key: SampleKey) -> str:
        """Path of the image that a sample is made of."""
        return self.tables[key.dataset].path(self.file_of(key))

    def view(self, position: int) -> ImageView:
        """How the image at a position of the stream is shown."""
        return ImageView.draw(self.image_size, self.augment, self.seed, position)

    def image(self, key: SampleKey, grey: bool) -> np.ndarray:
        """The image of a sample, or a grey one of its size."""
        if not grey:
            return self.read(key)
        width, height = self.tables[key.dataset].sizes[self.file_of(key)]
        return np.full((height, width, 3), BORDER, np.uint8)

    def pixels(self, key: SampleKey, grey: bool) -> Pixels:
        """Like `image`; in training decoded at the smallest size, halved and halved again, that no draw would enlarge. Of tiles
        the whole image, not halved."""
        if grey or self.augment is None:
            return Pixels.of(self.image(key, grey))
        table, file = self.tables[key.dataset], self.file_of(key)
        width, height = table.sizes[file].tolist()
        halved = self.halved(key.dataset, width, height)
        values = self.packed(IMAGES, key.dataset, file, halved)
        if values is None:
            values = self._recent.get((table.path(file), table.exif, halved), lambda: read_sized(table, file, halved))
        return Pixels(values, (width, height), halved)

    def takes_pixels(self) -> bool:
        """Whether `load` takes its image by `pixels`, and not whole."""
        return False

    def halved(self, dataset: int, width: int, height: int) -> int:
        """How often `pixels` halves an image of a file of this size."""
        if self.augment is None or self.tiles_of(dataset) is not None:
            return 0
        enlarged = (1 + self.augment.scale) * (1 + 2 * self.augment.perspective) ** 1.5  # at the nearest corner
        return halvings(min(self.image_size / width, self.image_size / height) * enlarged)

    def plans(self) -> Iterator[Plan]:
        """What of these samples can be packed: here the images, as they are read, but for those that are in memory already."""
        for dataset, table in enumerate(self.tables):
            if len(table.paths):
                sizes, which = np.unique(table.sizes, axis=0, return_inverse=True)
                takes = self.takes_pixels()
                times = [self.halved(dataset, *size) if takes else 0 for size in sizes.tolist()]
                halved = np.array(times, np.uint8)[which.reshape(-1)]
                yield plan_images(table, dataset, halved, self.needs(dataset))

    def needs(self, dataset: int) -> np.ndarray:
        """bool `[files]`: the files of a dataset that its samples are made of; here all."""
        return np.ones(len(self.tables[dataset].paths), bool)

    def use(self, packed: Mapping[tuple[str, int], Packed]) -> None:
        """From now on take what is packed from there, by kind and dataset of its plan."""
        self._packed = dict(packed)

    def packed(self, kind: str, dataset: int, file: int, halved: int = 0) -> np.ndarray | None:
        """What is packed of a file; None where it must be read."""
        found = self._packed.get((kind, dataset))
        return None if found is None else found.get(file, halved)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of `key`; its own `key` names the one that was really read.

        Raises:
            UserError: too many images in a row cannot be read.
        """
        key, source, fault = self.load_readable(key)
        sample = self.make(key, source)
        sample.replaced = join_faults([fault, sample.replaced])
        return sample

    def weight(self, *keys: SampleKey) -> float:
        """The mean factor on the loss of samples with these keys."""
        return sum(self.weights[key.dataset] for key in keys) / len(keys) if self.weights else 1.0

    def load_readable(self, key: SampleKey) -> Loaded:
        """What is read for a key, or what replaces it."""
        try:
            return Loaded(key, self.load(key))
        except BadImage as e:
            why = str(e)
        if self.augment is None:
            return Loaded(key, self.load(key, grey=True), f"{why}; replaced by a grey image")
        size, bad = self.size(key.dataset), {self.file_of(key)}
        for step in range(1, size):
            other = key._replace(index=(key.index + step) % size)
            if self.file_of(other) in bad:  # several samples may be of one image
                continue
            try:
                return Loaded(other, self.load(other), f"{why}; replaced by {self.source(other)}")
            except BadImage:
                bad.add(self.file_of(other))
                if len(bad) >= MAX_TRIES:
                    break
        raise UserError(f"{why}; {counted(len(bad), 'image')} in a row cannot be read: check that their disk is still mounted")

    @classmethod
    def collate(cls, samples: Sequence[Sample]) -> Batch:
        """Join samples whose images have one size.

        The images lie channels-last in memory (their strides say so): joining is one copy, and it is the layout that
        convolutions like best.
        """
        return Batch(
            images=torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
            keys=torch.tensor([tuple(s.key) for s in samples], dtype=torch.int64),
            annotated=torch.from_numpy(np.stack([s.annotated for s in samples])),
            targets={name: torch.from_numpy(value) for name, value in cls.join([s.targets for s in samples]).items()},
            to_native=torch.from_numpy(np.stack([s.to_native for s in samples])),
            native_size=torch.tensor([s.native_size for s in samples], dtype=torch.int64),
            weights=torch.tensor([s.weight for s in samples]) if any(s.weight != 1 for s in samples) else None,
            replaced=tuple(s.replaced for s in samples if s.replaced is not None),
            pasted=tuple(s.pasted for s in samples) if any(s.pasted for s in samples) else (),
            windows=tuple(part for s in samples for part in s.windows),
        )

    @staticmethod
    def join(targets: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The targets of a batch from those of its samples; here each is stacked."""
        return {name: np.stack([t[name] for t in targets]) for name in targets[0]}


def to_native(matrix: np.ndarray) -> np.ndarray:
    """Float32 `[2, 3]`: the way back, as `Sample.to_native` has it."""
    if in_perspective(matrix):
        return np.full((2, 3), np.nan, np.float32)
    return np.linalg.inv(matrix)[:2].astype(np.float32)


def join_faults(faults: Sequence[str | None]) -> str | None:
    """One line of several, None where there is none."""
    return "; ".join(fault for fault in faults if fault is not None) or None

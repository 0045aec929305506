"""What the samples of every task share: reading an image by its key, and what takes its place where it cannot be read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ddptrain.config.data import AugmentConfig, Exif
from ddptrain.data.augment.color import adjust_hsv
from ddptrain.data.augment.geometry import BORDER, letterbox, random_affine, random_window, snap, warp
from ddptrain.data.images.headers import inspect_images
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.samples.detection import MAX_TRIES
from ddptrain.errors import UserError
from ddptrain.seeding import rng
from ddptrain.structures import Batch, Sample, SampleKey


class Files(Protocol):
    """The images of one dataset: `sizes` int32 `[N, 2]` (width, height), how they are read, and the path of each."""

    @property
    def sizes(self) -> np.ndarray: ...
    @property
    def exif(self) -> Exif: ...
    def __len__(self) -> int: ...
    def path(self, image: int) -> str:
        """Path of one image."""


@dataclass(frozen=True)
class FileList:
    """Image files and their sizes, see `Files`."""

    paths: Sequence[str]
    sizes: np.ndarray
    exif: Exif = "apply"

    @classmethod
    def of(cls, paths: Sequence[str], exif: Exif = "apply") -> FileList:
        """Look at each file's header; raises `UserError` for one that is missing or no image."""
        sizes = inspect_images(paths, exif)
        for path, found in zip(paths, sizes):
            if isinstance(found, str):
                raise UserError(f"{path}: {found}")
        return cls(paths, np.array(sizes, np.int32).reshape(-1, 2), exif)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, image: int) -> str:
        """Path of one image."""
        return self.paths[image]


class ImageSamples(ABC):
    """Samples of a mixture by `SampleKey`; a pure function of (tables, config, seed, key).

    An image that cannot be read is told in `Sample.replaced`. In training the next readable one of its dataset takes
    its place; in evaluation a grey one does, so that the samples and the truth that the metric counts stay the same.
    """

    augment: AugmentConfig | None

    @abstractmethod
    def files(self, dataset: int) -> Files:
        """The images of one dataset."""

    @abstractmethod
    def make(self, key: SampleKey, image: np.ndarray) -> Sample:
        """The sample of a key from its decoded image, uint8 `[H, W, 3]`; raises `BadImage` where more cannot be read."""

    def file_of(self, key: SampleKey) -> int:
        """The image of a sample; here the sample's own number."""
        return key.index

    def source(self, key: SampleKey) -> str:
        """Path of the image that a sample is made of."""
        return self.files(key.dataset).path(self.file_of(key))

    def size(self, dataset: int) -> int:
        """Number of samples of one dataset; here one an image."""
        return len(self.files(dataset))

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of `key`; its own `key` names the one that was really read.

        Raises:
            UserError: too many images in a row cannot be read.
        """
        try:
            return self.make(key, self.read(key))
        except BadImage as e:
            if self.augment is None:
                width, height = self.files(key.dataset).sizes[self.file_of(key)]
                sample = self.make(key, np.full((height, width, 3), BORDER, np.uint8))
                sample.replaced = f"{e}; a grey image takes its place"
                return sample
            return self._next_readable(key, str(e))

    def _next_readable(self, key: SampleKey, why: str) -> Sample:
        size = self.size(key.dataset)
        tried = min(size, MAX_TRIES)
        for step in range(1, tried):
            other = key._replace(index=(key.index + step) % size)
            try:
                sample = self.make(other, self.read(other))
            except BadImage:
                continue
            sample.replaced = f"{why}; {self.source(other)} takes its place"
            return sample
        raise UserError(f"{why}; nor can any of {tried} images in a row be read: is the disk still there?")

    def read(self, key: SampleKey) -> np.ndarray:
        """The image of a sample, uint8 `[H, W, 3]` RGB; raises `BadImage`."""
        files, image = self.files(key.dataset), self.file_of(key)
        return read_sized(files.path(image), tuple(files.sizes[image].tolist()), files.exif)

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Stack samples whose images and targets have one size each.

        The images lie channels-last in memory (their strides say so): joining is one copy, and it is the layout that
        convolutions like best.
        """
        return stack(samples, {k: np.stack([s.targets[k] for s in samples]) for k in samples[0].targets})


def read_sized(path: str, expected: tuple[int, ...], exif: Exif) -> np.ndarray:
    """Decode an image, uint8 `[H, W, 3]`; raises `BadImage`, also where it has not the (width, height) that is expected."""
    image = read_image(path, exif)
    height, width = image.shape[:2]
    if (width, height) != expected:
        raise BadImage(f"{path}: {width} x {height} pixels, but {expected[0]} x {expected[1]} at the start")
    return image


def stack(samples: Sequence[Sample], targets: dict[str, np.ndarray]) -> Batch:
    """A batch of samples of one size with these targets."""
    return Batch(
        images=torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
        keys=torch.tensor([tuple(s.key) for s in samples], dtype=torch.int64),
        annotated=torch.from_numpy(np.stack([s.annotated for s in samples])),
        targets={name: torch.from_numpy(value) for name, value in targets.items()},
        to_native=torch.from_numpy(np.stack([s.to_native for s in samples])),
        native_size=torch.tensor([s.native_size for s in samples], dtype=torch.int64),
        replaced=tuple(s.replaced for s in samples if s.replaced is not None),
    )


def draw_matrix(native_size: tuple[int, int], size: int, augment: AugmentConfig | None, seed: int, position: int) -> np.ndarray:
    """Float64 `[3, 3]` from pixels of a file to those of the square input: letterbox (or a random window) and, with
    `augment`, a random affine."""
    matrix = letterbox(native_size, size)
    if augment is not None:
        if augment.crop:
            matrix = random_window(native_size, size, rng(seed, position, "crop"))
        matrix = random_affine(augment, size, rng(seed, position, "affine")) @ matrix
    return snap(matrix, native_size)


def view(
    image: np.ndarray, matrix: np.ndarray, size: int, augment: AugmentConfig | None, seed: int, position: int
) -> np.ndarray:
    """The image under `matrix` on a square, uint8 `[size, size, 3]`; with `augment` its colours drawn, too."""
    patch = warp(image, matrix, size)
    if augment is not None:
        gains = 1 + rng(seed, position, "hsv").uniform(-1, 1, 3) * (augment.hsv_h, augment.hsv_s, augment.hsv_v)
        patch = patch._replace(pixels=adjust_hsv(patch.pixels, gains))
    return patch.on_square(size)


def to_native(matrix: np.ndarray) -> np.ndarray:
    """Float32 `[2, 3]`: the way back, as `Sample.to_native` wants it."""
    return np.linalg.inv(matrix)[:2].astype(np.float32)

"""The data that crosses floors: what a sample, a batch, a prediction and a summed loss are. Shapes, dtypes and units.

Boxes are always `(x1, y1, x2, y2)` in pixels with `0 <= x1 < x2` and `0 <= y1 < y2`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

VOID = 255
"""The class of pixels whose class is none, or unknown: neither right nor wrong."""
COCO_AREAS = (32.0**2, 96.0**2)
"""Square pixels at which COCO's small objects end and its large ones begin."""
STRIDE = 32
"""The sides of a detector's input are multiples of this many pixels."""


class SampleKey(NamedTuple):
    """Names one draw of the global stream.

    `position` is its place in the stream (all randomness about the sample comes from it), `dataset` the dataset's
    number in the mixture, `index` the sample's number inside that dataset.
    """

    position: int
    dataset: int
    index: int  # type: ignore[assignment]  # a tuple has a method of that name


KeysOf = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""What the stream holds at some positions: int64 `[n]` → dataset `[n]`, index in the dataset `[n]`."""


@dataclass(slots=True)
class Sample:
    """One decoded, augmented sample on its way into a batch.

    Attributes:
        key: which draw this is.
        image: uint8 `[H, W, C]`, RGB (further channels follow, depth first).
        targets: the task's arrays, by name. Detection: `boxes` float32 `[n, 4]` and `ignore_boxes` float32 `[k, 4]` in
            pixels of `image`, `labels` int64 `[n]`; where images of datasets that label different classes are put
            together, `tiles` float32 `[t, 3, 3]`, `tile_windows` float32 `[t, 4]` and `tile_annotated` bool `[t, classes]`:
            parts of the image (a map from its pixels to the unit square, and the box in which that counts) in which only
            some of the `annotated` classes are known.
            Segmentation: `mask` uint8 `[H, W]`, the class of each pixel of `image`; in evaluation `native_mask` of each
            pixel of the file; `VOID` where there is no class.
        annotated: bool `[classes]`: the classes that the sample's dataset labels; elsewhere nothing is known.
        to_native: float32 `[2, 3]`: affine map from pixels of `image` to pixels of the file; nan where there is none, in
            training images that are seen in perspective.
        native_size: (width, height) of the file in pixels.
        replaced: where the drawn image could not be read: which, why, and what replaces it, in one line.
        weight: factor on its loss.
        pasted: objects that copy-paste has added.
        windows: the windows of an image that is predicted in parts, some in each batch.
    """

    key: SampleKey
    image: np.ndarray
    targets: dict[str, np.ndarray]
    annotated: np.ndarray
    to_native: np.ndarray
    native_size: tuple[int, int]
    replaced: str | None = None
    weight: float = 1.0
    pasted: int = 0
    windows: tuple[Batch, ...] = ()


@dataclass(slots=True)
class Batch:
    """A micro batch, all tensors.

    Attributes:
        images: uint8 `[B, C, H, W]`; see `unit_images`.
        keys: int64 `[B, 3]`: position, dataset, index of each sample; always in host memory.
        annotated: bool `[B, classes]`.
        targets: the task's tensors, by name. Detection: `boxes` float32 `[N, 4]`, `labels` int64 `[N]`, `image` int64
            `[N]` (each box's row of `images`), `ignore_boxes` float32 `[K, 4]`, `ignore_image` int64 `[K]`, `tiles`
            float32 `[T, 3, 3]`, `tile_windows` float32 `[T, 4]`, `tile_annotated` bool `[T, classes]`, `tile_image` int64
            `[T]`.
            Segmentation: uint8 `[B, H, W]`, see `Sample`; images and masks are padded to the largest.
        to_native: float32 `[B, 2, 3]`, see `Sample`.
        native_size: int64 `[B, 2]`: width, height of the files.
        weights: float32 `[B]`, see `Sample`; None where all are 1.
        replaced: a line for each image that could not be read, see `Sample`.
        pasted: of each sample, see there; empty where there are none.
        seconds: (wall, CPU) seconds that its making took, by part, where that was measured; else empty.
        windows: see `Sample`, those of one image after the other.
    """

    images: Tensor
    keys: Tensor
    annotated: Tensor
    targets: dict[str, Tensor]
    to_native: Tensor
    native_size: Tensor
    weights: Tensor | None = None
    replaced: tuple[str, ...] = ()
    pasted: tuple[int, ...] = ()
    seconds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    windows: tuple[Batch, ...] = ()

    def map(self, f: Callable[[Tensor], Any]) -> Batch:
        """The batch with `f` of each of its tensors."""
        own = {name: f(getattr(self, name)) for name in ("images", "keys", "annotated", "to_native", "native_size")}
        own |= {} if self.weights is None else {"weights": f(self.weights)}
        windows = tuple(part.map(f) for part in self.windows)
        return replace(self, **own, targets={name: f(value) for name, value in self.targets.items()}, windows=windows)

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`, all but its keys; asynchronous from pinned memory."""
        if self.images.device == device:
            return self
        moved = replace(self, windows=()).map(lambda t: t.to(device, non_blocking=True))
        return replace(moved, keys=self.keys, windows=tuple(part.to(device) for part in self.windows))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory (called by the DataLoader)."""
        return self.map(lambda t: t.pin_memory())

    def unit_images(self) -> Tensor:
        """The images as networks take them, float32 in 0..1."""
        return self.images.float() / 255

    def __len__(self) -> int:
        return self.images.shape[0]


@dataclass(slots=True)
class LossSum:
    """A loss as sums, to be divided once per step by the normalizer of the whole step (all micro batches and ranks).

    Attributes:
        total: scalar with a graph: the weighted sum that is differentiated.
        normalizer: scalar without a graph, >= 0: what the step divides by (target-score sum, pixels, samples).
        parts: detached scalars by name, for the log: weighted sums whose total is `total` before `scaled`.
        per_sample: detached float32 `[B]`: each sample's own share of `total`, for the loss per dataset; or None.
        parts_per_sample: detached float32 `[B]` by name: each sample's own share of `parts`, for `ddptrain replay`; or empty.
        terms: `parts` with their graph, each to be summed, for the gradient of each (`ddptrain diagnose`).
    """

    total: Tensor
    normalizer: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    per_sample: Tensor | None = None
    parts_per_sample: dict[str, Tensor] = field(default_factory=dict)
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Mapping[str, Tensor], normalizer: Tensor, weights: Tensor | None = None) -> LossSum:
        """The loss of parts `[B]` by name, with a graph; `weights` `[B]` or None: factors on the loss of each sample."""
        if weights is not None:
            parts = {name: part * weights for name, part in parts.items()}
        every = reduce(add, parts.values())
        each = {name: part.detach() for name, part in parts.items()}
        return cls(every.sum(), normalizer, {name: part.sum() for name, part in each.items()}, every.detach(), each, parts)

    def scaled(self, factor: float) -> LossSum:
        """The same loss, its gradient times a constant; what is logged stays as it is."""
        return replace(self, total=self.total * factor)


@dataclass(slots=True)
class Detections:
    """Detections in one image, best first.

    Attributes:
        boxes: float32 `[n, 4]` in pixels (of the network's input, or of the file, as the maker says).
        scores: float32 `[n]` in 0..1.
        labels: int64 `[n]`, index into the run's classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class PlanRow(NamedTuple):
    """What a mixture plans for one dataset.

    Attributes:
        name: the dataset's name.
        size: its number of samples.
        share: its part of all draws, 0..1.
        samples_per_epoch: its expected draws in one epoch.
        passes_per_epoch: visits of each of its samples in one epoch.
        epochs_per_pass: epochs until each of its samples was visited once; inf for a share of 0.
    """

    name: str
    size: int
    share: float
    samples_per_epoch: float
    passes_per_epoch: float
    epochs_per_pass: float

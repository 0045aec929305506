"""Detection samples: from a key of the stream to pixels and boxes, and from samples to a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.data.augment.partners import Partners, Together
from ddptrain.data.formats.depth import DepthMaps
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.packed.plan import Plan
from ddptrain.data.samples.base import ImageSamples, join_faults
from ddptrain.data.samples.compose import Source, compose
from ddptrain.data.samples.paste import paste_small
from ddptrain.data.samples.plans import plan_levels
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.windows import Cutter
from ddptrain.seeding import rng
from ddptrain.structures import STRIDE, Batch, Sample, SampleKey

DEPTH_MAPS = "depth maps"
"""`Plan.kind` of the depth of images."""


@dataclass(eq=False)
class DetectionSamples(ImageSamples[AnnotationTable]):
    """Detection samples of a mixture, see `ImageSamples`; their targets are described in `Sample`.

    Args:
        partners: where mosaic, mixup and cutmix take their images from, and how long, copy-paste, too; None for none.
        depth: the depth maps of each dataset, None for none.
        channels: of the samples: 3, with depth 4, with its validity 5.
        rectangular: cut the border that the letterbox adds off the samples, see `rectangles`.
        cutter: how the samples are cut into windows, see `Sample.windows`; None for not.
        at_once: windows of a batch, at most.
    """

    augment: DetectionAugment | None
    partners: Partners | None = None
    depth: Sequence[DepthMaps | None] = ()
    channels: int = 3
    rectangular: bool = False
    cutter: Cutter | None = None
    at_once: int = 1

    def load(self, key: SampleKey, grey: bool = False) -> Source:
        """The image, its rows of the table, and its depth, of which nothing is known with `grey`."""
        image, depth, file = self.pixels(key, grey), None, self.file_of(key)
        if self.channels > 3:
            depth = np.zeros(image.size[::-1], np.uint8) if grey else self.depth_of(key.dataset, file, image.size)
        source = self.whole(key.dataset, file, image, depth)
        window, tiles = self.window(key), self.tiles_of(key.dataset)
        return source if window is None or tiles is None else source.cut(window, tiles.cutter)

    def whole(self, dataset: int, file: int, image: Pixels, depth: np.ndarray | None = None) -> Source:
        """A whole image with its rows of the table."""
        table = self.tables[dataset]
        rows = table.rows(file)
        out = table.ignore[rows] | table.crowd[rows]
        boxes, labels = table.boxes[rows], table.labels[rows]
        masks = None if table.masks is None else table.masks[rows][~out]
        return Source(image, boxes[~out], labels[~out], boxes[out], self.annotated[dataset], depth, masks)

    def depth_of(self, dataset: int, image: int, size: tuple[int, int]) -> np.ndarray:
        """The depth of an image of this size, see `Source`; of which nothing is known where it has no map."""
        packed = self.packed(DEPTH_MAPS, dataset, image)
        maps = self.depth[dataset] if self.depth else None
        if packed is not None or maps is None or not maps.path(image):
            return np.zeros(size[::-1], np.uint8) if packed is None else packed
        return maps.read(maps.path(image), size)

    def takes_pixels(self) -> bool:
        return True

    def plans(self) -> Iterator[Plan]:
        """Also the depth maps, in the size of their images."""
        yield from super().plans()
        for dataset, (table, maps) in enumerate(zip(self.tables, self.depth)):
            if maps is not None and self.channels > 3:
                read = partial(_read_depth, maps, table)
                yield plan_levels(DEPTH_MAPS, dataset, maps.paths, table.sizes, maps.there(), read, maps.about())

    def make(self, key: SampleKey, source: Source) -> Sample:
        """The sample of a key, with the partners that are mixed with its image, and what is pasted into each."""
        together = Together([], 1, "mixup", mixes=False)
        if self.partners is not None and self.augment is not None:
            together = self.partners.draw_tiles(key, self.seed, self.augment)
        loaded = [self.load_readable(other) for other in together.others]
        sources = [source, *(other.source for other in loaded)]
        if self.augment is not None and self.augment.copy_paste and together.mixes:
            sources = [self._paste(s, key.position, number, self.augment) for number, s in enumerate(sources)]
        layers = [sources[i : i + together.width] for i in range(0, len(sources), together.width)]
        sample = compose(key, layers, self.image_size, self.augment, self.seed, self.channels, together.second)
        sample.replaced = join_faults([other.fault for other in loaded])
        sample.weight = self.weight(key, *(other.key for other in loaded))
        if self.cutter is not None:
            sample.windows = window_batches(key, source, self.cutter, self.at_once, self.channels)
        return cut_border(sample) if self.rectangular else sample

    def _paste(self, source: Source, position: int, number: int, augment: DetectionAugment) -> Source:
        """One of the images of a sample, perhaps with more objects."""
        generator = rng(self.seed, position, f"copy_paste/{number}")
        if generator.random() >= augment.copy_paste:
            return source
        return paste_small(source, augment.copy_paste_objects, self.image_size, generator)

    def shapes(self) -> list[np.ndarray]:
        """int64 `[n, 2]` for each dataset: width and height of each sample, if they are rectangular."""
        return [rectangles(t.sizes, self.image_size) for t in self.tables]

    @staticmethod
    def join(targets: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The targets of a batch, see `Batch`: rows one after the other, and the image of each."""

        def owners(name: str) -> np.ndarray:
            return np.repeat(np.arange(len(targets)), [len(t[name]) for t in targets])

        rows = {name: np.concatenate([t[name] for t in targets]) for name in targets[0]}
        return rows | {"image": owners("boxes"), "ignore_image": owners("ignore_boxes"), "tile_image": owners("tiles")}


def window_batches(key: SampleKey, source: Source, cutter: Cutter, at_once: int, channels: int) -> tuple[Batch, ...]:
    """The windows of an image, each seen like an image of its own, at most `at_once` of them in a batch."""
    windows = [source.cut((x1, y1, x2, y2), cutter) for x1, y1, x2, y2 in cutter.windows(*source.size).tolist()]
    parts = [compose(key, [[window]], cutter.input_size, channels=channels) for window in windows]
    return tuple(DetectionSamples.collate(parts[i : i + at_once]) for i in range(0, len(parts), at_once))


def _read_depth(maps: DepthMaps, table: AnnotationTable, image: int) -> np.ndarray:
    width, height = table.sizes[image].tolist()
    return maps.read(maps.path(image), (width, height))


def rectangles(sizes: np.ndarray, side: int) -> np.ndarray:
    """int64 `[n, 2]`: width and height, multiples of 32 pixels, that images of some sizes `[n, 2]` need of the square of the
    letterbox."""
    scaled = sizes * (side / sizes.max(1, keepdims=True))
    return np.minimum(np.ceil(scaled / STRIDE - 1e-9).astype(np.int64) * STRIDE, side)


def cut_border(sample: Sample) -> Sample:
    """A letterboxed sample without the border beyond its rectangle, which lies in the middle of the square."""
    side = sample.image.shape[0]
    ((width, height),) = rectangles(np.array([sample.native_size]), side).tolist()
    x, y = (side - width) // 2, (side - height) // 2
    to_file = sample.to_native.copy()
    to_file[:, 2] += to_file[:, :2] @ np.array([x, y], np.float32)
    moved = {name: sample.targets[name] - np.array([x, y, x, y], np.float32) for name in ("boxes", "ignore_boxes")}
    image = np.ascontiguousarray(sample.image[y : y + height, x : x + width])
    return replace(sample, image=image, targets=sample.targets | moved, to_native=to_file)

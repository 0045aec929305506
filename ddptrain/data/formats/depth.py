"""Depth maps beside images: where each one is, and its pixels as 8 bits."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ddptrain.config import DetectionDataset
from ddptrain.data.formats.files import files_by_stem
from ddptrain.data.images.read import BadImage, read_levels
from ddptrain.data.tables.base import FileTable, Mask, Paths
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.errors import UserError
from ddptrain.system.printable import counted

SUFFIXES = (".png", ".tif", ".tiff")
COLOUR_WORDS = ("color", "colour", "rgb")
"""Words in an image's name that may be `depth` in its map's: `frame-7.color.jpg` and `frame-7.depth.png`."""


class DepthMaps:
    """The depth maps of one dataset.

    The map of an image has its name, or its name with `depth` for `color`, `colour` or `rgb`, and lies in the depth
    folder at the image's path relative to the dataset's root, or with leading folders of that left out.

    Args:
        config: the dataset; `depth` is given.
        paths: its images.

    Attributes:
        paths: the map of each image; empty where there is none.

    Raises:
        UserError: there is no such folder, or a map would be that of two images.
    """

    def __init__(self, config: DetectionDataset, paths: Sequence[str]) -> None:
        self._name, self._root = config.name, Path(config.root)
        self._folder = self._root / str(config.depth)
        if not self._folder.is_dir():
            raise UserError(f"{config.name}: depth: {self._folder} is not a directory; it is relative to root")
        found = [self.find(path) or "" for path in paths]
        owner: dict[str, str] = {}
        for image, path in zip(paths, found):
            if path and owner.setdefault(path, image) != image:
                raise UserError(
                    f"{config.name}: depth: {path} would be the map of two images, {owner[path]} and {image}; give each its "
                    "own, at its path relative to root"
                )
        self.paths = Paths.pack(found)
        self._exif = config.exif
        self._levels = {bits: _levels(config, bits) for bits in (8, 16)}

    def find(self, image: str) -> str | None:
        """Path of an image's map, or None."""
        path = Path(image)
        if path.is_relative_to(self._root):
            path = path.relative_to(self._root)
        stems = [path.stem.replace(word, "depth") for word in COLOUR_WORDS if word in path.stem] + [path.stem]
        maps = _index(str(self._folder))[0]
        folders = path.parts[:-1]
        for k in range(len(folders) + 1):
            for stem in stems:
                path_of_map = maps.get("/".join([*folders[k:], stem]))
                if path_of_map is not None and path_of_map != image:
                    return path_of_map
        return None

    def path(self, image: int) -> str:
        """Path of one image's map; empty where there is none."""
        return self.paths[image]

    def files(self) -> FileTable:
        """The maps themselves, for `Contents`."""
        return FileTable(name=self._name, root=str(self._root), paths=self.paths.keep(self.there()))

    def left_out(self) -> str:
        """What was not taken for a map in the folder, as the end of a line; empty where there is nothing."""
        faults = _index(str(self._folder))[1]
        return f"; {self._folder}: {faults.text()}" if faults.counts else ""

    def there(self) -> Mask:
        """bool `[N]`: the images that have a map."""
        return np.diff(self.paths.offsets) > 0

    def about(self) -> list[str]:
        """What the levels of a map depend on beside its file."""
        return [self._exif, *(hashlib.sha256(levels.tobytes()).hexdigest() for levels in self._levels.values())]

    def read(self, path: str, size: tuple[int, int]) -> np.ndarray:
        """A map as 8 bits.

        Args:
            path: an 8- or 16-bit file of one channel.
            size: (width, height) of the image; a map of another resolution is resized to it, by the nearest pixel.

        Returns:
            uint8 `[H, W]`: 1 (near end of the range) to 255 (far end), 0 where nothing is known.

        Raises:
            BadImage: the file cannot be read, is not a depth map, or is that of the image turned on its side.
        """
        raw = read_levels(path, self._exif)
        if raw.ndim != 2 or raw.dtype not in (np.uint8, np.uint16):
            raise BadImage(f"{path}: {raw.dtype} with shape {raw.shape}; a depth map has one channel of 8 or 16 bits")
        levels = self._levels[8 * raw.dtype.itemsize][raw]
        height, width = levels.shape
        fits, turned = abs(width * size[1] - height * size[0]), abs(width * size[0] - height * size[1])
        if turned <= max(size) < fits:
            other = "ignore" if self._exif == "apply" else "apply"
            raise BadImage(
                f"{path}: {width} x {height} pixels, its image has {size[0]} x {size[1]}: one of them is rotated by 90°; "
                f"regenerate the map from the image as it is read here (exif: {self._exif}), or set exif: {other} for the"
                " dataset"
            )
        if (width, height) != size:
            levels = cv2.resize(levels, size, interpolation=cv2.INTER_NEAREST)
        return levels


def find_depth(
    datasets: Sequence[DetectionDataset], tables: Sequence[AnnotationTable], channels: int, on_fault: OnFault, part: str
) -> tuple[list[AnnotationTable], list[DepthMaps | None], list[str]]:
    """The depth maps of a run's datasets.

    Args:
        channels: of the model's input: 3 without depth, 4 with it, 5 with its validity besides.
        on_fault: whether images without a map end the run or are left out.
        part: `train` or `val`, for the lines.

    Returns:
        The tables (less the images that are left out), the maps of each (None: unknown everywhere), lines for the log.

    Raises:
        UserError: the datasets and the model do not fit together, or maps are missing.
    """
    if channels not in (3, 4, 5):
        raise UserError(f"model.in_channels: {channels}; must be 3 (RGB), 4 (and depth) or 5 (and whether it is known)")
    kept, maps, notes = [], [], []
    for d, table in zip(datasets, tables):
        own = None
        if d.depth is not None and channels == 3:
            raise UserError(f"{d.name}: `depth` is given, but the model takes 3 channels; set model.in_channels=4 or 5")
        if channels > 3:
            if d.depth_missing == "zeros" and channels == 4:
                raise UserError(
                    f"{d.name}: depth_missing=zeros needs the channel that marks what is known: model.in_channels=5"
                )
            table, own, note = _maps_of(d, table, on_fault, part)
            notes.append(note)
        kept.append(table)
        maps.append(own)
    return kept, maps, notes


def _maps_of(
    d: DetectionDataset, table: AnnotationTable, on_fault: OnFault, part: str
) -> tuple[AnnotationTable, DepthMaps | None, str]:
    if d.depth is None:
        if d.depth_missing == "error":
            raise UserError(
                f"{d.name}: the model needs depth, but the dataset has none; set `depth: FOLDER`, or `depth_missing: zeros`"
            )
        return table, None, f"{part} {d.name}: no depth maps, unknown everywhere"
    maps = DepthMaps(d, [table.path(i) for i in range(len(table))])
    has_map = maps.there()
    missing = int((~has_map).sum())
    if not missing:
        return table, maps, f"{part} {d.name}: {counted(len(table), 'depth map')}{maps.left_out()}"
    first = table.path(int(has_map.argmin()))
    line = f"{part} {d.name}: {missing} of {len(table)} images have no depth map, the first is {first}{maps.left_out()}"
    if d.depth_missing == "zeros":
        return table, maps, f"{line}; unknown there"
    if on_fault == "error" or missing == len(table):
        raise UserError(f"{line}; add them, set depth_missing: zeros, or leave the images out with data.on_fault=drop")
    left = table.keep_images(has_map)
    return left, DepthMaps(d, [left.path(i) for i in range(len(left))]), f"warning: {line}; left out"


def depth_of_file(path: str, size: tuple[int, int], datasets: Sequence[DetectionDataset], channels: int) -> np.ndarray:
    """The depth of any image file, uint8 `[H, W]`, from the depth folder of the first dataset that has a map for it. A folder
    inside a dataset has maps only for its images: elsewhere, another image may have the name of one of them.

    Raises:
        UserError: there is none, and the model has no channel to say so.
        BadImage: it cannot be read.
    """
    for d in datasets:
        if d.depth is None or not (Path(d.root) / d.depth).is_dir():
            continue
        if Path(d.depth).is_absolute() or Path(path).absolute().is_relative_to(Path(d.root).absolute()):
            maps = DepthMaps(d, [])
            own = maps.find(path)
            if own is not None:
                return maps.read(own, size)
    if channels == 4:
        folders = dict.fromkeys(str(Path(d.root) / d.depth) for d in datasets if d.depth is not None)
        where = ", ".join(folders) or "any dataset of the run"
        raise UserError(f"{path}: no depth map in {where}; the model needs one: predict takes their folder as --depth")
    return np.zeros(size[::-1], np.uint8)


def _levels(config: DetectionDataset, bits: int) -> npt.NDArray[np.uint8]:
    """uint8 `[2 ** bits]`: what each value of a file becomes."""
    near, far = config.depth_range or (0.0, 2.0**bits - 1)
    values = np.arange(2**bits)
    levels = np.rint(1 + 254 * ((values - near) / (far - near)).clip(0, 1)).astype(np.uint8)
    levels[[v for v in config.depth_invalid if v < 2**bits]] = 0
    return levels


@lru_cache(maxsize=16)
def _index(folder: str) -> tuple[dict[str, str], Faults]:
    """Path of every map below a folder, by its relative path without suffix, and what was left out."""
    faults = Faults()
    return files_by_stem(Path(folder), SUFFIXES, faults), faults

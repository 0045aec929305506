"""Images with index masks: every mask is decoded once, and its values are counted."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddptrain.config import SegmentationDataset
from ddptrain.config.data import Exif
from ddptrain.data.formats.build import SPLIT_FOLDERS, of_split, whole
from ddptrain.data.formats.cache import cached
from ddptrain.data.formats.files import dataset_root, folders_in
from ddptrain.data.formats.mask_layouts import LAYOUTS, MASK_FOLDERS, Meaning
from ddptrain.data.images.headers import exif_hint, read_header
from ddptrain.data.images.read import BadImage
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.data.tables.masks import MaskTable, read_mask
from ddptrain.structures import VOID
from ddptrain.system.printable import counted, first_few

SHOWN = 5  # unknown values named for a mask


class Scan(NamedTuple):
    """One image and its mask: size of the image or what is wrong with it, its EXIF orientation; the mask's size, its values
    and their pixels, or what is wrong."""

    size: tuple[int, int] | str
    orientation: int
    mask_size: tuple[int, int]
    values: np.ndarray
    counts: np.ndarray
    wrong: str


def read_masks(
    config: SegmentationDataset, on_fault: OnFault = "error", folder: Path | None = None
) -> tuple[MaskTable, Faults]:
    """The table of one dataset and its faults, through the cache in `folder`; every mask is decoded once.

    Raises:
        UserError: as `formats.build.read`.
    """
    return cached(config, on_fault, lambda: _parse(config), MaskTable, folder)


def _parse(config: SegmentationDataset) -> tuple[MaskTable, Faults]:
    faults = Faults()
    layout = LAYOUTS[config.format](config if config.holdout is None else whole(config, _parts(config)), faults)
    images, masks = layout.files(faults)
    faults.looked_in |= set(map(os.path.dirname, (*images.values(), *masks.values())))
    for stem in [s for s in images if s not in masks]:
        faults.add("image without label", images[stem], f"no mask {layout.masks / stem}{layout.suffix}.png")
    for stem in [s for s in masks if s not in images]:
        faults.add("label without image", masks[stem], f"no image {layout.images / stem}.*")
    stems = [s for s in images if s in masks]
    in_split = of_split(config, {images[s]: "" for s in stems}, faults)
    stems = [s for s in stems if in_split(images[s])]
    with ThreadPoolExecutor(8) as pool:
        scans = list(pool.map(lambda s: _scan(images[s], masks[s], config.exif, layout.wide), stems))
    meaning = Meaning.of(config, layout)
    sound = [_is_sound(images[s], masks[s], scan, meaning, faults, config.exif) for s, scan in zip(stems, scans)]
    kept = [(s, scan) for s, scan, good in zip(stems, scans, sound) if good]
    columns = np.where(meaning.classes == VOID, len(meaning.names), meaning.classes)
    pixels = np.zeros((len(kept), len(meaning.names) + 1), np.int64)
    values = np.zeros(len(columns), np.int64)
    for row, (_, scan) in zip(pixels, kept):
        np.add.at(row, columns[scan.values], scan.counts)
        values[scan.values] += scan.counts
    table = MaskTable(
        name=config.name,
        root=str(dataset_root(config)),
        names=meaning.names,
        paths=Paths.pack(images[s] for s, _ in kept),
        masks=Paths.pack(masks[s] for s, _ in kept),
        sizes=np.array([scan.size for _, scan in kept], np.int32).reshape(-1, 2),
        classes=meaning.classes,
        exif=config.exif,
        pixels=pixels,
        values=values,
    )
    return table, faults


def _parts(config: SegmentationDataset) -> list[str]:
    """The splits that have a folder of masks each: `<masks>/<split>` or `<split>/<masks>`."""
    root = dataset_root(config)
    folders = [config.annotations] if config.annotations is not None else MASK_FOLDERS
    inside = {s for folder in folders for s in folders_in(root / folder)}
    around = {s for s in folders_in(root) if any((root / s / folder).is_dir() for folder in folders)}
    return sorted(s for s in inside | around if s.lower() in SPLIT_FOLDERS)


def _scan(image: str, mask: str, exif: Exif, wide: bool) -> Scan:
    header = read_header(image, exif)
    size, orientation = (header, 1) if isinstance(header, str) else header
    none = np.zeros(0, np.int64)
    try:
        pixels = read_mask(mask, exif, wide)
    except BadImage as e:
        return Scan(size, orientation, (0, 0), none, none, str(e).removeprefix(f"{mask}: "))
    counts = np.bincount(pixels.ravel())
    values = np.flatnonzero(counts)
    return Scan(size, orientation, (pixels.shape[1], pixels.shape[0]), values, counts[values], "")


def _is_sound(image: str, mask: str, scan: Scan, meaning: Meaning, faults: Faults, exif: Exif) -> bool:
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
    strange = [(v, n) for v, n in zip(scan.values.tolist(), scan.counts.tolist()) if not meaning.known[v]]
    if strange:
        shown = first_few([f"{v} ({counted(n, 'pixel')})" for v, n in strange], most=SHOWN)
        faults.add("unknown label in a mask", mask, f"{shown}; {meaning.allowed(strange[0][0])}")
    return True

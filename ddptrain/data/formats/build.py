"""Every format of detection data that can be read, by its name in the config.

A new one is a file with its reader, a line in `FORMATS`, and its name in the list of formats of `config/data.py`.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from typing import NamedTuple, TypeVar

import numpy as np

from ddptrain.config.data import DatasetConfig, HoldoutDataset
from ddptrain.data.formats.auair import read_auair
from ddptrain.data.formats.coco import coco_splits, read_coco
from ddptrain.data.formats.csv import csv_splits, read_csv
from ddptrain.data.formats.files import dataset_root
from ddptrain.data.formats.sequences import (
    VID_PREFIX,
    read_uavdt,
    read_uavdt_xml,
    read_visdrone_vid,
    uavdt_splits,
    uavdt_xml_splits,
)
from ddptrain.data.formats.visdrone import PREFIX, read_visdrone, visdrone_splits
from ddptrain.data.formats.voc import read_voc, voc_splits
from ddptrain.data.formats.yolo import read_yolo, yolo_splits
from ddptrain.data.tables.base import R
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.errors import UserError
from ddptrain.system.printable import counted, first_few

TableOf = TypeVar("TableOf", bound=Sized)
Dataset = TypeVar("Dataset", bound=HoldoutDataset)
REMEDY = "set data.on_fault=drop"
"""How a run leaves out what is faulty."""
SPLITS = ("train", "val")
"""Those that `holdout` makes of a dataset without any: a part is held out, drawn by file name."""
SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""Names of folders that stand for splits."""


class Format(NamedTuple):
    """How a format of detection data is read: a split as a table, and which splits there are (none: the root is one set)."""

    read: Callable[[HoldoutDataset, Faults], AnnotationTable]
    splits: Callable[[HoldoutDataset], Iterable[str]]


FORMATS = {
    "auair": Format(read_auair, lambda config: ()),
    "coco": Format(read_coco, coco_splits),
    "csv": Format(read_csv, csv_splits),
    "uavdt": Format(read_uavdt, uavdt_splits),
    "uavdt-xml": Format(read_uavdt_xml, uavdt_xml_splits),
    "visdrone": Format(read_visdrone, lambda config: visdrone_splits(dataset_root(config), PREFIX)),
    "visdrone-vid": Format(read_visdrone_vid, lambda config: visdrone_splits(dataset_root(config), VID_PREFIX)),
    "voc": Format(read_voc, voc_splits),
    "yolo": Format(read_yolo, yolo_splits),
}


def splits_of(config: HoldoutDataset) -> tuple[str | None, ...]:
    """All splits that exist, `trainval` left out beside train and val; `(None,)` for a set without splits, and
    where the config says where annotations or images are."""
    if config.annotations is not None or config.images is not None:
        return (config.split,)
    splits = set(FORMATS[config.format].splits(config))
    if {"train", "val"} <= splits:
        splits.discard("trainval")
    return tuple(sorted(splits)) or (None,)


def read(config: HoldoutDataset, on_fault: OnFault = "error", remedy: str = REMEDY) -> tuple[AnnotationTable, Faults]:
    """The table of one dataset and the faults that were found in it.

    Raises `UserError` in one line where files are missing, where no image remains, and, unless `on_fault` is `drop`,
    where there is a fault of a kind that must not pass unseen (`faults.KINDS`); `remedy` is what it offers.
    """
    return check(config, *parse(config), on_fault, remedy)


def parse(config: HoldoutDataset) -> tuple[AnnotationTable, Faults]:
    """What can be read of a dataset, faulty parts left out or mended, and the faults."""
    faults = Faults()
    if config.holdout is None:
        return FORMATS[config.format].read(config, faults), faults
    parts = splits_of(config.model_copy(update={"split": None}))
    table = FORMATS[config.format].read(whole(config, parts), faults)
    return keep_split(config, table, faults), faults


def check(
    config: DatasetConfig, table: TableOf, faults: Faults, on_fault: OnFault, remedy: str = REMEDY
) -> tuple[TableOf, Faults]:
    """The table and its faults; `UserError` as `read` raises it: the first fault that ends a run, the counts of all such."""
    first = next(faults.errors(), None)
    if first is not None and on_fault == "error":
        harmless = faults.tally(error=False)
        also = f"; also {harmless}" if harmless else ""
        raise UserError(f"{config.name}: {first}; in total: {faults.tally(error=True)}{also}; correct the files, or {remedy}")
    if len(table) == 0:
        after = "" if not faults.counts else f" after its faults were left out: {faults.text()}"
        after += "" if first is None else f"; the first: {first}"
        raise UserError(f"{config.name}: empty dataset: no image in {config.root}{after}; check root, split and images")
    return table, faults


def whole(config: Dataset, parts: Sequence[str | None]) -> Dataset:
    """The dataset of which `holdout` holds a part out; `parts` are the splits that it has, one of which may be None."""
    if len(parts) > 1:
        raise UserError(
            f"{config.name}: holdout is for datasets without splits, but {config.root} has"
            f" {', '.join(map(str, parts))}; remove holdout, and set split to one of them"
        )
    return config.model_copy(update={"split": parts[0] if parts else None})


def of_split(config: HoldoutDataset, groups: Mapping[str, str], faults: Faults) -> Callable[[str], bool]:
    """Which images are of the split: all, or where `holdout` makes the splits, those of them, which a note counts. `groups`:
    the paths of all images and what is held out evenly of, such as the class."""
    if config.holdout is None:
        return lambda path: True
    if config.split not in SPLITS:
        raise UserError(f"{config.name}: holdout makes the splits train and val; set split to one of them")
    held = _held_out(groups, config.holdout, config.root)
    kept = {path for path in groups if (path in held) == (config.split == "val")}
    part = f"holdout {config.holdout:g}"
    if groups and not kept:
        other = "raise" if config.split == "val" else "lower"
        raise UserError(f"{config.name}: {part} of its {len(groups)} images leaves none for {config.split}; {other} it")
    lacking = sorted({*groups.values()} - {groups[path] for path in kept} - {""})
    none = f", none of {first_few(lacking)}" if lacking else ""
    faults.note(f"{part} makes {config.split}: {len(kept)} of {counted(len(groups), 'image')}{none}")
    return kept.__contains__


def _held_out(groups: Mapping[str, str], part: float, root: str) -> Collection[str]:
    """The paths held out: of each group the nearest number to its part, in the order of the names' hashes."""

    def mixed(path: str) -> bytes:
        name = os.path.relpath(path, root).replace(os.sep, "/")
        return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()

    members: dict[str, list[str]] = {}
    for path, group in groups.items():
        members.setdefault(group, []).append(path)
    return {p for paths in members.values() for p in sorted(paths, key=mixed)[: round(part * len(paths))]}


def keep_split(config: HoldoutDataset, table: R, faults: Faults) -> R:
    """The images of the split that `holdout` makes of a whole table."""
    in_split = of_split(config, dict.fromkeys(table.paths, ""), faults)
    return table.keep_images(np.array([in_split(p) for p in table.paths], bool))

"""Every format of detection data that can be read, by its name in the config.

A new one is a file with its reader, a line in `FORMATS`, and its name in the list of formats of `config/data.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import NamedTuple

from ddptrain.config.data import DatasetConfig, HoldoutDataset
from ddptrain.data.formats.auair import read_auair
from ddptrain.data.formats.coco import coco_splits, read_coco
from ddptrain.data.formats.csv import csv_files, read_csv
from ddptrain.data.formats.files import dataset_root
from ddptrain.data.formats.holdout import keep_split, whole
from ddptrain.data.formats.sequences import VID_PREFIX, read_uavdt, read_visdrone_vid, uavdt_splits
from ddptrain.data.formats.uavdt_xml import read_uavdt_xml, uavdt_xml_splits
from ddptrain.data.formats.visdrone import PREFIX, read_visdrone, visdrone_splits
from ddptrain.data.formats.voc import read_voc, voc_splits
from ddptrain.data.formats.yolo import read_yolo, yolo_splits
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults, OnFault
from ddptrain.errors import UserError

REMEDY = "set data.on_fault=drop"
"""How a run leaves out what is faulty."""


class Format(NamedTuple):
    """How a format of detection data is read: a split as a table, and which splits there are (none: the root is one set)."""

    read: Callable[[HoldoutDataset, Faults], AnnotationTable]
    splits: Callable[[HoldoutDataset], Iterable[str]]


FORMATS = {
    "auair": Format(read_auair, lambda config: ()),
    "coco": Format(read_coco, coco_splits),
    "csv": Format(read_csv, csv_files),
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
    table, faults = parse(config)
    check(config, table, faults, on_fault, remedy)
    return table, faults


def parse(config: HoldoutDataset) -> tuple[AnnotationTable, Faults]:
    """What can be read of a dataset, faulty parts left out or mended, and the faults."""
    faults = Faults()
    if config.holdout is None:
        return FORMATS[config.format].read(config, faults), faults
    parts = splits_of(config.model_copy(update={"split": None}))
    table = FORMATS[config.format].read(whole(config, parts), faults)
    return keep_split(config, table, faults), faults


def check(config: DatasetConfig, table: Sized, faults: Faults, on_fault: OnFault, remedy: str = REMEDY) -> None:
    """Raise `UserError` as `read` does; it names the first fault that ends a run and the counts of all such kinds."""
    first = next(faults.errors(), None)
    if first is not None and on_fault == "error":
        harmless = faults.tally(error=False)
        also = f"; also {harmless}" if harmless else ""
        raise UserError(f"{config.name}: {first}; in all: {faults.tally(error=True)}{also}; correct the files, or {remedy}")
    if len(table) == 0:
        after = "" if not faults.counts else f" after its faults were left out: {faults.text()}"
        after += "" if first is None else f"; the first: {first}"
        raise UserError(f"{config.name}: empty dataset: no image in {config.root}{after}; check root, split and images")

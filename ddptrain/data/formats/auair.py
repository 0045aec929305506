"""AU-AIR: one `annotations.json` with an entry per frame, `bbox: [{top, left, height, width, class}]`, and `images`.

The set comes without a split; one is chosen by a list `<split>.txt` of image names in the root.
"""

from collections.abc import Container
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ddptrain.config.data import DatasetConfig
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import Collector
from ddptrain.data.formats.fields import INTEGER, LIST, NUMBER, SIZE, TEXT, Entries
from ddptrain.data.formats.files import dataset_root, image_folders, image_path, no_split, report_unlisted, visible
from ddptrain.data.formats.texts import listed_names, load_json
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError


def auair_lists(root: Path, frames: set[str]) -> dict[str, set[str]]:
    """Image names of each split: of each text file in the root that names at least one of the frames."""
    lists = {p.stem: {entry for entry, _ in listed_names(p)} for p in visible(root, "*.txt")}
    return {split: names for split, names in lists.items() if names & frames}


def read_auair(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read all frames, or those that the split's list names. A frame without boxes is background."""
    root = dataset_root(config)
    file = root / (config.annotations or "annotations.json")
    content = load_json(config.name, file, ("annotations", "categories"))
    if not TEXT.fits(content["categories"]):
        raise UserError(f"{config.name}: {file}: categories must be a list of non-empty strings; correct the file")
    names = class_names(config, content["categories"], str(file), faults)
    entries = Entries(content["annotations"], lambda number: f"{file}: annotations[{number}]", faults)
    frames = entries.column("image_name", TEXT)
    existing = {frame for frame, good in zip(frames, entries.good) if good}
    lists = auair_lists(root, existing)
    if config.split is not None and config.split not in lists:
        raise no_split(config, lists)
    chosen = lists[config.split] if config.split is not None else existing
    folders = image_folders(config, "", file.parent)
    at: list[tuple[int, int]] = []  # frame and place in it of each box

    def place(number: int) -> str:
        return f"{file}: annotations[{at[number][0]}].bbox[{at[number][1]}]"

    collector = Collector(config, faults, place=lambda _, number: place(number), within=(root, *folders))
    images, items = _frames(collector, entries, frames, chosen, folders)
    at += [(frame, k) for frame, boxes in items.items() for k in range(len(boxes))]
    boxes = Entries(list(chain.from_iterable(items.values())), place, faults)
    _add_boxes(collector, collector.source(str(file)), boxes, [images[frame] for frame, _ in at], len(names))
    for name in sorted(chosen - existing):
        faults.add("image without label", name, f"{file} has no entry of it")
    report_unlisted(config, folders[0], config.split is None, collector.paths, faults)
    return collector.table(names)


def _frames(
    collector: Collector, entries: Entries, frames: list[str], chosen: Container[str], folders: list[Path]
) -> tuple[dict[int, int], dict[int, list[Any]]]:
    """Number of the image, and boxes, of each sound entry of a chosen frame."""
    boxes = entries.column("bbox", LIST)
    # the keys of the full set's sizes end in a colon
    given = [[entries.optional(f"image_{k}{end}", SIZE, 0) for end in ("", ":")] for k in ("width", "height")]
    widths, heights = ([int(a or b) for a, b in zip(*pair)] for pair in given)
    for i in np.flatnonzero(~entries.good).tolist():
        for k in range(len(boxes[i] or ())):
            collector.faults.add("box of an image left out", f"{entries.place(i)}.bbox[{k}]", "its frame is malformed")
    images: dict[int, int] = {}
    for i in np.flatnonzero(entries.good).tolist():
        if frames[i] in chosen:
            path = image_path(frames[i], folders)
            known = collector.known(path)
            if known is not None:
                collector.faults.add("repeated entry of an image", entries.place(i), f"{path} was listed before")
            size = (widths[i], heights[i]) if widths[i] and heights[i] else None
            added = collector.image(path, entries.place(i), size) if known is None else known
            images[i] = -1 if added is None else added
    return images, {i: boxes[i] for i in images}


def _add_boxes(collector: Collector, source: int, entries: Entries, images: list[int], classes: int) -> None:
    left, top, width, height = (
        np.array(entries.column(k, NUMBER, 0.0), np.float64) for k in ("left", "top", "width", "height")
    )
    labels = entries.column("class", INTEGER, 0)
    for i, label in enumerate(labels):
        if not 0 <= label < classes:
            labels[i] = 0
            if entries.good[i]:
                entries.bad(i, "unknown class", f"class {label}; must be from 0 to {classes - 1}")
    kept = np.flatnonzero(entries.good)
    columns = (images, np.full(len(images), source), np.arange(len(images)), labels, np.zeros(len(images)))
    floats = np.column_stack([left, top, left + width, top + height, np.full(len(images), np.nan)])
    collector.rows(np.column_stack(columns).astype(np.int64)[kept], floats[kept])

"""AU-AIR: one `annotations.json` with an entry per frame, `bbox: [{top, left, height, width, class}]`, and `images`.

The set comes without a split; one is chosen by a list `<split>.txt` of image names in the root.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddptrain.config.data import DatasetConfig
from ddptrain.data.faults import Faults
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import Box, Collector
from ddptrain.data.formats.files import (
    dataset_root,
    image_folders,
    image_path,
    listed_names,
    load_json,
    no_split,
    visible,
)
from ddptrain.data.table import AnnotationTable
from ddptrain.errors import UserError


def box_place(source: str, number: int) -> str:
    """Place of a row: the number of the frame's entry and of the box in it, both from 0."""
    return f"{source}: annotations[{number // 1000}].bbox[{number % 1000}]"


def auair_lists(root: Path, frames: set[str]) -> dict[str, set[str]]:
    """Image names of each split: of each text file in the root that names at least one of the frames."""
    lists = {p.stem: {entry for entry, _ in listed_names(p)} for p in visible(root, "*.txt")}
    return {split: names for split, names in lists.items() if names & frames}


def read_auair(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read all frames, or those that the split's list names. A frame without boxes is background."""
    root = dataset_root(config)
    file = root / (config.annotations or "annotations.json")
    content = load_json(config.name, file, ("annotations", "categories"))
    names = class_names(config, map(str, content["categories"]), str(file), faults)
    frames = [_frame(f"{config.name}: {file}", i, entry) for i, entry in enumerate(content["annotations"])]
    lists = auair_lists(root, {name for name, _, _ in frames})
    if config.split is not None and config.split not in lists:
        raise no_split(config, lists)
    chosen = lists[config.split] if config.split is not None else None
    folders = image_folders(config, "", file.parent)
    collector = Collector(faults, place=box_place, exif=config.exif)
    source = collector.source(str(file))
    for number, (name, boxes, size) in enumerate(frames):
        if chosen is None or name in chosen:
            image = collector.image(image_path(name, folders), f"{file}: annotations[{number}]", size)
            if image is not None:
                for i, box in enumerate(boxes):
                    _add_box(collector, image, source, number * 1000 + i, box, len(names))
    for name in sorted((chosen or set()) - {name for name, _, _ in frames}):
        faults.add("image without label", name, f"{file} has no entry of it")
    return collector.table(config.name, config.root, names)


def _frame(file: str, number: int, entry: Any) -> tuple[str, list[Any], tuple[int, int] | None]:
    """Name, boxes and claimed (width, height) of one entry; the keys of the full set's sizes end in a colon."""
    try:
        width, height = (entry.get(f"image_{k}", entry.get(f"image_{k}:")) for k in ("width", "height"))
        size = None if width is None or height is None else (int(width), int(height))
        return str(entry["image_name"]), list(entry["bbox"]), size
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as e:
        raise UserError(f"{file}: annotations[{number}] is malformed ({e!r})") from e


def _add_box(collector: Collector, image: int, source: int, number: int, item: Any, classes: int) -> None:
    try:
        left, top, width, height = (float(item[k]) for k in ("left", "top", "width", "height"))
        label = int(item["class"])
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        collector.faults.add("malformed row", box_place(collector.sources[source], number), repr(e))
        return
    if 0 <= label < classes:
        box: Box = (left, top, left + width, top + height)
        collector.row(image, source, number, box, label)
    else:
        what = f"class {label}; allowed are 0 to {classes - 1}"
        collector.faults.add("unknown class", box_place(collector.sources[source], number), what)

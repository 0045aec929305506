"""COCO instances JSON: `annotations/instances_<split>.json`. Category ids may have gaps; own labels number them in
order of id.

`iscrowd` becomes the crowd flag, `ignore` an ignored box with its class. `ignore_region`, as `write.write_coco` marks
what it repeats for each class, becomes one ignore region without a class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddptrain.config.data import DatasetConfig
from ddptrain.data.faults import Faults
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import CROWD, IGNORE, Collector
from ddptrain.data.formats.files import dataset_root, image_folders, image_path, load_json, no_split, visible
from ddptrain.data.table import AnnotationTable
from ddptrain.errors import UserError


def annotation_place(source: str, identity: int) -> str:
    """Place of a row; JSON has no lines worth naming, an annotation has an id."""
    return f"{source}: annotation {identity}"


def coco_files(config: DatasetConfig) -> dict[str, Path]:
    """The JSON file of each split that is at a usual place."""
    root = dataset_root(config)
    found = {p.stem.removeprefix("instances_"): p for p in visible(root / "annotations", "*.json")}
    return found | {p.parent.name: p for p in visible(root, "*/_annotations.coco.json")}


def _annotation_file(config: DatasetConfig) -> Path:
    if config.annotations is not None:
        return dataset_root(config) / config.annotations
    found = coco_files(config)
    if config.split is None and len(found) == 1:
        return next(iter(found.values()))
    if config.split not in found:
        raise no_split(config, found)
    return found[config.split]


def read_coco(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read one file. Images without annotations are background."""
    file = _annotation_file(config)
    folders = image_folders(config, config.split or file.stem.removeprefix("instances_"), file.parent)
    content = load_json(config.name, file, ("images", "annotations", "categories"))
    collector = Collector(faults, place=annotation_place, exif=config.exif)
    try:
        categories = sorted(content["categories"], key=lambda c: c["id"])
        names = class_names(config, [str(c["name"]) for c in categories], str(file), faults)
        labels = {c["id"]: i for i, c in enumerate(categories)}
        images = {}
        for item in content["images"]:
            size = (int(item["width"]), int(item["height"])) if item.get("width") and item.get("height") else None
            told_by = f"{file}: image {item['id']}"
            path = image_path(str(item["file_name"]), folders)
            images[item["id"]] = collector.image(path, told_by, size)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as e:
        raise UserError(f"{config.name}: {file}: an entry of images or categories is malformed ({e!r})") from e
    source = collector.source(str(file))
    for i, item in enumerate(content["annotations"]):
        _add_annotation(collector, source, i, item, images, labels)
    return collector.table(config.name, config.root, names)


def _add_annotation(
    collector: Collector, source: int, number: int, item: Any, images: dict[int, int | None], labels: dict[int, int]
) -> None:
    faults = collector.faults
    identity = item["id"] if isinstance(item, dict) and isinstance(item.get("id"), int) else number
    place = annotation_place(collector.sources[source], identity)
    try:
        x, y, width, height = (float(v) for v in item["bbox"])
        image_id, category = item["image_id"], item["category_id"]
        flags = IGNORE if item.get("ignore", 0) else CROWD if item.get("iscrowd", 0) else 0
        region = bool(item.get("ignore_region", 0))
        area = float(item.get("area", float("nan")))
        known = image_id in images, category in labels
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        faults.add("malformed row", place, repr(e))
        return
    if not known[0]:
        faults.add("label without image", place, f"image_id {image_id} is not among the images")
    elif not known[1]:
        faults.add("unknown class", place, f"category_id {category} is not among the categories")
    elif not (region and labels[category]):  # the repetitions of a region are left out
        image = images[image_id]
        if image is not None:
            box = (x, y, x + width, y + height)
            collector.row(image, source, identity, box, -1 if region else labels[category], flags, area)

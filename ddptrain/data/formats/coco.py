"""COCO instances JSON: `annotations/instances_<split>.json`. Category ids may have gaps; own labels number them in
order of id.

`iscrowd` becomes the crowd flag, `ignore` an ignored box with its class. `ignore_region`, as `write.write_coco` marks
what it repeats for each class, becomes one ignore region without a class. Where `bbox` is missing, empty or all 0, the box is
that of `segmentation`. Every field passes the gate in `fields.py`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddptrain.config.data import HoldoutDataset
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import CROWD, IGNORE, Collector
from ddptrain.data.formats.fields import AREA, BOX, FLAG, ID, SIZE, TEXT, Entries
from ddptrain.data.formats.files import (
    annotation_file,
    dataset_root,
    folders_in,
    image_folders,
    image_path,
    report_unlisted,
    visible,
)
from ddptrain.data.formats.outlines import box_of, mask_of
from ddptrain.data.formats.texts import load_json
from ddptrain.data.tables.base import F64, I64, Mask
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError

OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
ABSENT, AMBIGUOUS, MALFORMED = -1, -2, -3  # in place of an image's number


def coco_files(config: HoldoutDataset) -> list[tuple[str, Path]]:
    """The JSON files that are at usual places with their splits; of several of one split the last one is taken."""
    root = dataset_root(config)
    inside = {s: visible(root / s, "annotations/*.json") for s in folders_in(root)}
    files = [(s, inside_one[0]) for s, inside_one in inside.items() if len(inside_one) == 1]
    files += [(p.stem.removeprefix("instances_"), p) for p in visible(root, "annotations/*.json")]
    return files + [(p.parent.name, p) for p in visible(root, "*/_annotations.coco.json")]


def coco_splits(config: HoldoutDataset) -> list[str]:
    """The splits of a set, without the files of COCO's other tasks that lie beside them."""
    return [split for split in dict(coco_files(config)) if not split.startswith(OTHER_TASKS)]


def read_coco(config: HoldoutDataset, faults: Faults) -> AnnotationTable:
    """Read one file. Images without annotations are background."""
    files = coco_files(config)
    file = annotation_file(config, files, "JSON", faults)
    folders = image_folders(config, config.split or file.stem.removeprefix("instances_"), file.parent)
    content = load_json(config.name, file, ("images", "annotations", "categories"))
    names, labels = _categories(config, file, content["categories"], faults)
    place = _places(file, "annotation", content["annotations"])
    collector = Collector(config, faults, place=lambda _, number: place(number), within=(config.root, *folders))
    images = _images(collector, file, content["images"], folders)
    entries = Entries(content["annotations"], place, faults)
    _add_annotations(collector, collector.source(str(file)), entries, images, labels)
    report_unlisted(config, folders[0], len(dict(files)) == 1, collector.paths, faults)
    return collector.table(names, masks=_masks(content["annotations"]))


def _masks(items: list[Any]) -> Callable[[int, F64], npt.NDArray[np.uint8]] | None:
    """The mask of the object with a number in its box, see `Collector.table`; None where no annotation has one."""
    outlines = [item.get("segmentation") if isinstance(item, dict) else None for item in items]
    return (lambda number, box: mask_of(outlines[number], box)) if any(outlines) else None


def _places(file: Path, noun: str, items: list[Any]) -> Callable[[int], str]:
    """Place of an entry by its number; JSON has no lines worth naming, an entry has an id."""

    def place(number: int) -> str:
        item = items[number]
        identity = item.get("id") if isinstance(item, dict) else None
        return f"{file}: {noun} {identity if ID.fits([identity]) else number}"

    return place


def _categories(
    config: HoldoutDataset, file: Path, items: list[Any], faults: Faults
) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Class names in order of id, and the label of each id. Without one of the classes the others would mislead, so that
    any fault here is a `UserError`."""
    own_faults = Faults()
    entries = Entries(items, lambda number: f"{file}: categories[{number}]", own_faults)
    ids, names = entries.column("id", ID), entries.column("name", TEXT)
    if not own_faults.counts and len(set(map(type, ids))) > 1:
        entries.bad(0, "malformed row", "some ids of categories are numbers and some are strings")
    for number, identity in enumerate(ids if not own_faults.counts else ()):
        if ids.index(identity) < number:
            entries.bad(number, "malformed row", f"id {identity!r} is also that of {names[ids.index(identity)]!r}")
    if own_faults.counts:
        raise UserError(f"{config.name}: {own_faults.kept[0]}; correct the file")
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    stored = class_names(config, [names[i] for i in order], str(file), faults)
    return stored, {ids[i]: label for label, i in enumerate(order)}


def _images(collector: Collector, file: Path, items: list[Any], folders: list[Path]) -> dict[int | str, int]:
    """Number of the image of each id, or `AMBIGUOUS` or `MALFORMED`."""
    entries = Entries(items, _places(file, "image", items), collector.faults)
    ids, names = entries.column("id", ID), entries.column("file_name", TEXT)
    widths, heights = (entries.optional(key, SIZE, 0) for key in ("width", "height"))
    good = np.flatnonzero(entries.good).tolist()
    paths = {i: image_path(names[i], folders) for i in good}
    files: dict[int | str, dict[str, str]] = {}
    for i, path in paths.items():
        files.setdefault(ids[i], {}).setdefault(os.path.abspath(path), path)
    numbers: dict[int | str, int] = {}
    for i, path in paths.items():
        identity, place, known = ids[i], entries.place(i), collector.known(path)
        if len(files[identity]) > 1:
            others = ", ".join(other for key, other in files[identity].items() if key != os.path.abspath(path))
            collector.faults.add("duplicate image id", place, f"{path} has the id of {others}")
            numbers[identity] = AMBIGUOUS
        elif known is not None:
            kind = "duplicate image" if identity in numbers else "repeated entry of an image"
            collector.faults.add(kind, place, f"{path} was listed before")
            numbers[identity] = known
        else:
            added = collector.image(path, place, (int(widths[i]), int(heights[i])) if widths[i] and heights[i] else None)
            numbers[identity] = ABSENT if added is None else added
    for i in np.flatnonzero(~entries.good).tolist():
        if ID.fits([ids[i]]):
            numbers.setdefault(ids[i], MALFORMED)
    return numbers


def _add_annotations(
    collector: Collector, source: int, entries: Entries, images: dict[int | str, int], labels: dict[int | str, int]
) -> None:
    image_ids, categories = entries.column("image_id", ID), entries.column("category_id", ID)
    flags = {key: np.array(entries.optional(key, FLAG, 0), bool) for key in ("iscrowd", "ignore", "ignore_region")}
    area = entries.optional("area", AREA, np.nan)
    numbers = [images.get(i, ABSENT) if good else ABSENT for i, good in zip(image_ids, entries.good.tolist())]
    boxes = _boxes(entries, lambda i: collector.claimed[numbers[i]] if numbers[i] >= 0 else None)
    _report_duplicate_ids(entries)
    own = [labels.get(c, ABSENT) if good else ABSENT for c, good in zip(categories, entries.good.tolist())]
    image, label = np.array(numbers, np.int64), np.array(own, np.int64)
    for i in np.flatnonzero(entries.good & (image == AMBIGUOUS)).tolist():
        entries.bad(i, "box of an image left out", f"image_id {image_ids[i]!r} belongs to several images")
    for i in np.flatnonzero(entries.good & (image == MALFORMED)).tolist():
        entries.bad(i, "box of an image left out", f"the entry of image {image_ids[i]!r} is malformed")
    for i in np.flatnonzero(entries.good & (image == ABSENT)).tolist():
        entries.bad(i, "label without image", f"image_id {image_ids[i]!r} is not among the images")
    for i in np.flatnonzero(entries.good & (label == ABSENT)).tolist():
        entries.bad(i, "unknown class", f"category_id {categories[i]!r} is not among the categories")
    region = flags["ignore_region"]
    kinds = np.where(region | flags["ignore"], IGNORE, np.where(flags["iscrowd"], CROWD, 0))
    kept = np.flatnonzero(entries.good & ~_repeated(region & entries.good, image, boxes))
    ints = np.stack([image, np.full_like(image, source), np.arange(len(image)), np.where(region, -1, label), kinds], 1)
    floats = np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:], area])
    collector.rows(ints[kept], floats[kept])


def _boxes(entries: Entries, size_of: Callable[[int], tuple[int, int] | None]) -> F64:
    """x, y, width, height `[M, 4]` of each annotation, from its segmentation where it has no box of its own. `size_of`: the
    (width, height) of the image of an annotation, where the file gives it."""
    values = [item.get("bbox") for item in entries.items]
    own = [v if v and v != [0, 0, 0, 0] else None for v in values]
    for i in np.flatnonzero(entries.good & np.array([v is None for v in own], bool)).tolist():
        segmentation = entries.items[i].get("segmentation")
        if segmentation and isinstance(segmentation, (list, dict)):
            try:
                own[i] = box_of(segmentation, size_of(i))
                entries.faults.add("segmentation without box", entries.place(i), f"bbox is {values[i]!r}")
            except ValueError as e:
                entries.bad(i, *e.args)
        elif values[i]:
            own[i] = values[i]
        else:
            what = f"bbox is {values[i]!r} and there is no segmentation; must be {BOX.allowed}"
            entries.bad(i, "malformed row", what)
    return np.array(entries.check("bbox", own, BOX, [0.0] * 4), np.float64).reshape(-1, 4)


def _report_duplicate_ids(entries: Entries) -> None:
    ids = entries.optional("id", ID)
    if len(set(ids)) == len(ids):
        return
    first: dict[int | str, int] = {}
    for i in np.flatnonzero(entries.good).tolist():
        if ids[i] is not None and first.setdefault(ids[i], i) != i:
            what = f"entries {first[ids[i]]} and {i} of annotations have this id"
            entries.faults.add("duplicate annotation id", entries.place(i), what)


def _repeated(region: Mask, image: I64, boxes: F64) -> Mask:
    """bool `[M]`: an ignore region that was listed before, for another class."""
    regions = np.flatnonzero(region)
    _, first = np.unique(np.column_stack([image[regions], boxes[regions]]), axis=0, return_index=True)
    repeated = region.copy()
    repeated[regions[first]] = False
    return repeated

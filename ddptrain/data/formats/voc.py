"""Pascal VOC: `Annotations/*.xml`, `JPEGImages`, `ImageSets/Main/<split>.txt`.

Coordinates are taken as they stand (the benchmark's own files count from 1, most tools write from 0; the difference is
one pixel). `difficult` boxes become ignore regions that keep their class.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ddptrain.config.data import DatasetConfig
from ddptrain.data.faults import Faults
from ddptrain.data.formats.classes import class_names
from ddptrain.data.formats.collect import IGNORE, Box, Collector
from ddptrain.data.formats.files import (
    dataset_root,
    files_by_stem,
    find_folder,
    images_by_stem,
    is_image,
    listed_names,
    no_split,
    visible,
)
from ddptrain.data.table import AnnotationTable
from ddptrain.errors import UserError

VocObject = tuple[int, str, tuple[str, ...] | None, bool]


@dataclass(frozen=True)
class VocFile:
    """One parsed file: the image's name and (width, height) as claimed, and `(number, name, corners, difficult)` of
    each object; corners are the texts of xmin, ymin, xmax, ymax, or None where one is missing."""

    filename: str
    size: tuple[int, int] | None
    objects: list[VocObject]


def parse_voc(path: str) -> VocFile:
    """Parse one file; raises `ElementTree.ParseError` or `UnicodeDecodeError` where it is no XML."""
    tree = ElementTree.parse(path).getroot()
    size = None
    try:
        width, height = (int(float(tree.findtext(f"size/{k}") or 0)) for k in ("width", "height"))
        size = (width, height) if width > 0 and height > 0 else None
    except (ValueError, OverflowError):
        pass  # a size that is no number claims nothing; the image's own size is used
    objects: list[VocObject] = []
    for number, item in enumerate(tree.iterfind("object")):
        box = item.find("bndbox")
        texts = {} if box is None else {c.tag: c.text for c in box}
        corners = tuple(texts[k] or "" for k in ("xmin", "ymin", "xmax", "ymax") if k in texts)
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        name = (item.findtext("name") or "").strip()
        objects.append((number, name, corners if len(corners) == 4 else None, difficult))
    return VocFile((tree.findtext("filename") or "").strip(), size, objects)


def object_line(source: str, number: int) -> str:
    """`file:line` of the n-th object; the parser keeps no lines, so the file is read again where a fault is told."""
    text = Path(source).read_text(encoding="utf-8", errors="replace")
    for i, match in enumerate(re.finditer(r"<object[\s>]", text)):
        if i == number:
            return f"{source}:{text.count(chr(10), 0, match.start()) + 1}"
    return source


def voc_lists(config: DatasetConfig) -> dict[str, Path]:
    """The list of each split in `ImageSets/Main`, without those of single classes (`car_train` beside `train`)."""
    lists = {p.stem: p for p in visible(dataset_root(config) / "ImageSets" / "Main", "*.txt")}
    return {s: p for s, p in lists.items() if not any(s.endswith(f"_{other}") for other in lists)}


def _stems(config: DatasetConfig, parsed: Iterable[str], annotations: Path) -> list[tuple[str, str]]:
    """(stem, who named it) of each image of the split; without `ImageSets/Main`, of each annotation file."""
    lists = voc_lists(config)
    if config.split is None and not lists:
        return [(stem, f"{annotations / stem}.xml") for stem in parsed]
    if config.split not in lists:
        raise no_split(config, lists)
    found = []
    for entry, where in listed_names(lists[config.split]):
        # lists per class end in 1, 0 or -1
        stem = re.sub(r"\s+-?[01]$", "", entry)
        found.append((os.path.splitext(stem)[0] if is_image(stem) else stem, where))
    return found


def parse_folder(annotations: Path, faults: Faults) -> dict[str, VocFile | None]:
    """Every XML file below the folder by its path without suffix, sorted; None where it is no XML."""
    parsed: dict[str, VocFile | None] = {}
    for stem, path in files_by_stem(annotations, {".xml"}, faults).items():
        try:
            parsed[stem] = parse_voc(path)
        except (ElementTree.ParseError, UnicodeDecodeError, ValueError) as e:
            parsed[stem] = None
            line = getattr(e, "position", (1, 0))[0]
            faults.add("unreadable label", f"{path}:{line}", " ".join(str(e).split()))
    return parsed


def read_voc(config: DatasetConfig, faults: Faults) -> AnnotationTable:
    """Read one split. Class names: `names` of the config, else all that occur in any annotation file, sorted: a class
    that occurs only in another split is still one that the dataset labels."""
    annotations = find_folder(config, config.annotations, "annotations", ["Annotations"])
    images_folder = find_folder(config, config.images, "images", ["JPEGImages", "images", "Images"])
    parsed = parse_folder(annotations, faults)
    stems = _stems(config, parsed, annotations)
    occurring = sorted({name for f in parsed.values() if f for _, name, _, _ in f.objects if name})
    names = class_names(config, config.names or occurring, str(annotations), faults)
    if not names:
        raise UserError(f"{config.name}: no object in any file of {annotations}; give the right folder as annotations")
    collector = Collector(faults, place=object_line, exif=config.exif)
    add_files(collector, stems, parsed, (annotations, images_folder), names)
    return collector.table(config.name, config.root, names)


def add_files(
    collector: Collector,
    stems: Iterable[tuple[str, str]],
    parsed: dict[str, VocFile | None],
    folders: tuple[Path, Path],
    names: tuple[str, ...],
) -> None:
    """Add the images of `stems` (with who named each) and their objects. `folders`: annotations and images. An image
    has the path of its XML file, or else the name that stands in it."""
    annotations, images_folder = folders
    images = images_by_stem(images_folder, collector.faults, deep=True)
    labels = {name: i for i, name in enumerate(names)}
    for stem, told_by in stems:
        path, file = f"{annotations / stem}.xml", parsed.get(stem)
        if stem not in parsed:
            collector.faults.add("image without label", told_by, f"{path} is not there")
        if file is None:
            continue
        found = images.get(stem) or images.get(os.path.splitext(file.filename)[0], f"{images_folder / stem}.jpg")
        image = collector.image(found, told_by, file.size)
        if image is not None:
            _add_objects(collector, image, path, file, labels)


def _add_objects(collector: Collector, image: int, path: str, file: VocFile, labels: dict[str, int]) -> None:
    source = collector.source(path)
    for number, name, corners, difficult in file.objects:
        if corners is None:
            collector.faults.add("malformed row", object_line(path, number), "no bndbox with four corners")
            continue
        try:
            x1, y1, x2, y2 = map(float, corners)
        except ValueError:
            collector.faults.add("malformed row", object_line(path, number), f"bndbox {' '.join(corners)}")
            continue
        box: Box = (x1, y1, x2, y2)
        if name not in labels:
            collector.faults.add("unknown class", object_line(path, number), repr(name))
            continue
        collector.row(image, source, number, box, labels[name], IGNORE if difficult else 0)

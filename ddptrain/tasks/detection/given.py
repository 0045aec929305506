"""Predictions that anyone's detector wrote: COCO JSON, YOLO or VisDrone text files, or predictions.json of this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddptrain.data.formats.fields import BOX, ID, LIST, NUMBER, TEXT, Entries, to_integer, to_number
from ddptrain.data.formats.files import files_below
from ddptrain.data.formats.texts import parse_json, text_lines
from ddptrain.data.formats.visdrone import NAMES as VISDRONE
from ddptrain.data.tables.base import F64, I64
from ddptrain.data.tables.faults import Faults
from ddptrain.errors import UserError
from ddptrain.system.printable import counted, first_few
from ddptrain.tasks.detection.places import Ids

FORMATS = (
    "a COCO JSON (a list of image_id, category_id, bbox, score, or a dataset whose annotations have scores), the "
    "predictions.json of ddptrain predict, or a folder of YOLO (class x y w h confidence) or VisDrone text files, one for each "
    "image"
)


class Given(NamedTuple):
    """Predictions as they stand in files: n of them, of images and classes by name.

    Attributes:
        images: the images that there are predictions of, also those with none; no name twice.
        classes: the classes that occur.
        image, label: int64 `[n]`: numbers in `images` and `classes`.
        boxes: float64 `[n, 4]`, `(x1, y1, x2, y2)` in pixels of the file, or in parts of its sides where `relative`.
        scores: float64 `[n]`.
        place: file and entry of a prediction, from its number.
        relative: see `boxes`.
    """

    images: Sequence[str]
    classes: Sequence[str]
    image: I64
    label: I64
    boxes: F64
    scores: F64
    place: Callable[[int], str]
    relative: bool = False


def read_given(path: Path, ids: Ids | None, names: Sequence[str]) -> Given:
    """Read a file or a folder, whose format is recognised by its content.

    Args:
        ids: what numbers of images and classes mean in a COCO list.
        names: class names in the order of the numbers in YOLO's text files.

    Raises:
        UserError: it is of no such format, or an entry is faulty; with file and entry.
    """
    if path.is_dir():
        return _read_texts(path, names)
    if not path.is_file():
        raise UserError(f"--predictions: {path} does not exist; give {FORMATS}")
    content = parse_json("--predictions", path)
    if isinstance(content, list):
        return _read_list(path, content, "[{}]", ids)
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        return _read_list(path, content["annotations"], ": annotations[{}]", _own_ids(path, content))
    if isinstance(content, dict) and all(isinstance(v, dict) and "detections" in v for v in content.values()):
        return _read_own(path, content)
    raise UserError(f"--predictions: {path} is in no known format; give {FORMATS}")


def _refuse(faults: Faults) -> None:
    first = next(iter(faults.kept), None)
    if first is not None:
        bad = counted(sum(faults.counts.values()), "such entry", "such entries")
        raise UserError(f"--predictions: {first}; {bad} in total; correct the file")


def _corners(boxes: Sequence[Sequence[float]]) -> F64:
    """From left, top, width and height."""
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)


def _numbered(values: Sequence[Any]) -> tuple[list[Any], I64]:
    """The different values, and which of them each one is."""
    known = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return list(known), np.array([known[v] for v in values], np.int64)


def _own_ids(path: Path, content: dict[str, Any]) -> Ids:
    faults = Faults()
    columns = []
    for key, name in (("images", "file_name"), ("categories", "name")):
        items = content[key] if isinstance(content[key], list) else [None]
        entries = Entries(items, partial("{}: {}[{}]".format, path, key), faults)
        numbers, texts = entries.column("id", ID), entries.column(name, TEXT)
        _refuse(faults)
        for number, identity in enumerate(numbers):
            if len(set(numbers)) < len(numbers) and numbers.index(identity) < number:
                raise UserError(f"--predictions: {path}: {key}[{number}]: id {identity!r} appears twice; correct the file")
        columns.append(dict(zip(numbers, texts)))
    return Ids(*columns)


def _read_list(path: Path, items: Any, entry: str, ids: Ids | None) -> Given:
    """COCO's list of results, or the annotations of a dataset with scores."""

    def place(number: int) -> str:
        return f"{path}{entry.format(number)}"

    faults = Faults()
    entries = Entries(items if isinstance(items, list) else [items], place, faults)
    images, categories = entries.column("image_id", ID), entries.column("category_id", ID)
    boxes, scores = entries.column("bbox", BOX), entries.column("score", NUMBER)
    _refuse(faults)
    if ids is None and any(isinstance(c, int) for c in categories):
        raise UserError(
            f"--predictions: {path}: category_id is a number, which only a --truth of one dataset in COCO format can resolve; "
            "write class names, or add images and categories as in a COCO dataset"
        )
    known, label = _numbered(categories)
    for number, category in enumerate(known):
        if ids is not None and category not in ids.classes and isinstance(category, int):
            allowed = first_few([str(c) for c in ids.classes])
            raise UserError(
                f"--predictions: {place(int((label == number).argmax()))}: category_id {category} is not among the categories, "
                f"{allowed}; correct the file"
            )
    shown, image = _numbered(images)
    of_image, of_class = (ids.images, ids.classes) if ids else ({}, {})
    return Given(
        [of_image.get(i, str(i)) for i in shown],
        [of_class.get(c, str(c)) for c in known],
        image,
        label,
        _corners(boxes),
        np.array(scores, np.float64),
        place,
    )


def _read_own(path: Path, content: dict[str, Any]) -> Given:
    """`predictions.json`: by path the detections of an image, each with class, score and box."""
    counts, items = [], []
    faults = Faults()
    files = Entries(list(content.values()), lambda number: f"{path}: {list(content)[number]}", faults)
    for detections in files.column("detections", LIST, []):
        counts.append(len(detections))
        items += detections
    image = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum([0, *counts])
    names = list(content)

    def place(number: int) -> str:
        return f"{path}: {names[image[number]]}: detections[{number - starts[image[number]]}]"

    entries = Entries(items, place, faults)
    classes, label = _numbered(entries.column("class", TEXT))
    boxes, scores = entries.column("box", BOX), entries.column("score", NUMBER)
    _refuse(faults)
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    return Given(names, classes, image, label, corners, np.array(scores, np.float64), place)


def _read_texts(folder: Path, names: Sequence[str]) -> Given:
    """A text file for each image: VisDrone's where fields stand between commas, else YOLO's."""
    faults = Faults()
    files = files_below(folder, {".txt"}, faults)
    if not files:
        raise UserError(f"--predictions: {folder} has no text file; give {FORMATS}")
    lines = [
        (f, number, line) for f, path in enumerate(files) for number, line in enumerate(text_lines(path), 1) if line.strip()
    ]
    commas = {"," in line for _, _, line in lines}
    if len(commas) > 1:
        raise UserError(f"--predictions: {folder} has files of YOLO and files of VisDrone; keep those of one format")
    rows = []
    read_row = _visdrone_row if commas == {True} else _yolo_row
    for f, number, line in lines:
        try:
            rows.append(read_row(line, names))
        except ValueError as e:
            raise UserError(f"--predictions: {files[f]}:{number}: {line.strip()[:60]}: {e}; correct the file") from None
    columns: Any = zip(*rows) if rows else ((), (), ())
    labels, boxes, scores = columns
    classes, label = _numbered(labels)
    return Given(
        [str(Path(f).relative_to(folder)) for f in files],
        classes,
        np.array([f for f, _, _ in lines], np.int64),
        label,
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(scores, np.float64),
        lambda number: f"{files[lines[number][0]]}:{lines[number][1]}",
        relative=commas != {True},
    )


def _yolo_row(line: str, names: Sequence[str]) -> tuple[str, tuple[float, ...], float]:
    fields = line.split()
    if len(fields) != 6:
        raise ValueError(f"has {len(fields)} fields; must have 6: class, centre x and y, width, height, confidence")
    number, (x, y, w, h, score) = to_integer(fields[0]), _finite(fields[1:])
    if not 0 <= number < len(names):
        raise ValueError(f"class {number} is not among the {len(names)} classes, {first_few(names)} (or give --names)")
    return names[number], (x - w / 2, y - h / 2, x + w / 2, y + h / 2), score


def _visdrone_row(line: str, names: Sequence[str]) -> tuple[str, tuple[float, ...], float]:
    fields = line.strip().rstrip(",").split(",")
    if len(fields) < 6:
        raise ValueError(f"has {len(fields)} fields; must have 6 or more: left, top, width, height, score, category")
    (x, y, w, h, score), category = _finite(fields[:5]), to_integer(fields[5])
    if not 1 <= category <= len(VISDRONE):
        raise ValueError(f"category {category}; must be from 1 to {len(VISDRONE)}")
    return VISDRONE[category - 1], (x, y, x + w, y + h), score


def _finite(fields: Sequence[str]) -> list[float]:
    values = [to_number(field.strip()) for field in fields]
    for field, value in zip(fields, values):
        if not np.isfinite(value):
            raise ValueError(f"{field.strip()} is not a finite number")
    return values

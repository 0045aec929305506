"""Predictions of anyone's detector, put beside the truth: whose they are, and what was wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ddptrain.errors import UserError
from ddptrain.metrics.arrays import DetectionArrays
from ddptrain.system.printable import counted, first_few
from ddptrain.tasks.detection.given import Given, read_given
from ddptrain.tasks.detection.places import Classes, Images, Place, coco_ids
from ddptrain.tasks.inspection.base import DataSet

Tell = Callable[[str], None]


def read_external(
    path: Path, sets: Sequence[DataSet], classes: Sequence[str], names: Sequence[str] | None, tell: Tell
) -> list[DetectionArrays]:
    """The detections of each dataset of the truth.

    Args:
        path: file or folder, see `given.FORMATS`.
        classes: the classes that are scored.
        names: class names in the order of the numbers in YOLO's files; None for those of the truth.
        tell: takes a line about each kind of thing that is left out, or counts as it is.

    Raises:
        UserError: the predictions cannot be read, or none of them is of an image or class of the truth.
    """
    own = sets[0].own.names if len(sets) == 1 and sets[0].config.format == "yolo" else classes
    given = read_given(path, coco_ids(sets), names or own)
    places = _find_images(given, Images(sets), tell)
    dataset = np.array([-1 if p is None else p.dataset for p in places], np.int64)[given.image]
    number = np.array([-1 if p is None else p.image for p in places], np.int64)[given.image]
    label = _labels(given, Classes(sets, classes), len(sets), dataset, tell)
    boxes = given.boxes
    kept = (dataset >= 0) & (label >= 0)
    sizes = np.zeros((len(boxes), 2))
    for n, data in enumerate(sets):
        sizes[dataset == n] = data.table.sizes[number[dataset == n]]
    if given.relative:
        boxes = boxes * np.tile(sizes, 2)
    _note_boxes(given, boxes, sizes, kept, tell)
    return [
        DetectionArrays(number[here], boxes[here], given.scores[here], label[here])
        for here in (kept & (dataset == n) for n in range(len(sets)))
    ]


def _find_images(given: Given, images: Images, tell: Tell) -> list[Place | None]:
    """The image of each name; those that are not in the truth are counted, two names of one image are refused."""
    places = [images.find(name) for name in given.images]
    known: dict[Place, str] = {}
    for name, place in zip(given.images, places):
        if place is not None and known.setdefault(place, name) != name:
            raise UserError(f"--predictions: {name} and {known[place]} are the same image of the truth; keep one of them")
    unknown = [name for name, place in zip(given.images, places) if place is None]
    if unknown and not known:
        raise UserError(
            f"--predictions: none of {counted(len(unknown), 'image')} is in the truth; the first: {unknown[0]}; give the "
            "predictions of the images of the truth, by the names of their files"
        )
    if unknown:
        which = counted(len(unknown), "image")
        tell(f"predictions for {which} not in the truth are left out: {first_few(unknown, most=3)}")
    missing = images.count - len(known)
    if missing:
        tell(f"no predictions for {counted(missing, 'image')} of the truth: the objects there count as missed")
    return places


def _labels(given: Given, classes: Classes, datasets: int, dataset: np.ndarray, tell: Tell) -> np.ndarray:
    """int64 `[n]`: class of the run, or -1 for what is left out, which is counted."""
    table = np.full((max(datasets, 1), len(given.classes)), -1, np.int64)
    unknown, dropped = set(), set()
    for n in range(datasets):
        for c, name in enumerate(given.classes):
            label = classes.label(n, name)
            table[n, c] = -1 if label is None else max(label, -1)
            if label is None:
                unknown.add(name)
            elif label < 0:
                dropped.add(name)
    label = table[dataset, given.label]
    if given.classes and (table < 0).all():
        raise UserError(
            f"--predictions: none of the classes {first_few(list(given.classes))} is a class of the truth, "
            f"{first_few(classes.names)}; give the names of these classes"
        )
    for words, names in (("unknown to the truth", unknown), ("that the truth ignores or drops", dropped)):
        if names:
            rows = int(np.isin(given.label, [given.classes.index(name) for name in names]).sum())
            shown = first_few(sorted(names))
            tell(f"{counted(rows, 'prediction')} of {counted(len(names), 'class', 'classes')} {words} left out: {shown}")
    return label


def _note_boxes(given: Given, boxes: np.ndarray, sizes: np.ndarray, kept: np.ndarray, tell: Tell) -> None:
    """Say which boxes have no area or leave their image, and which scores are not in 0..1; all of them count as they are."""
    flat = kept & (boxes[:, 2:] <= boxes[:, :2]).any(1)
    # half a pixel and less is rounding, or a convention of 1-based pixels
    outside = kept & ~flat & ((boxes[:, :2] < -1) | (boxes[:, 2:] > sizes + 1)).any(1)
    strange = kept & ((given.scores < 0) | (given.scores > 1))
    for rows, noun, what in (
        (flat, "box", "without area: each counts as a false alarm"),
        (outside, "box", "beyond the border of an image: each counts as it is"),
        (
            strange,
            "score",
            "outside 0 to 1: AP uses only the order of scores; precision, recall, F1 and confidence are undefined",
        ),
    ):
        if rows.any():
            first = given.place(int(rows.argmax()))
            tell(f"{counted(int(rows.sum()), noun, f'{noun}es' if noun == 'box' else None)} {what}; the first: {first}")

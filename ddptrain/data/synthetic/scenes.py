"""Two small datasets of synthetic aerial scenes, in two native formats, with different class sets; for demo and tests.

    python -m ddptrain.data.synthetic FOLDER [--images 160] [--seed 0]

    FOLDER/skyview/   VisDrone-DET text: cars, buses and people; crowds that nobody labelled, inside ignored regions
    FOLDER/streets/   Pascal VOC XML: cars and buses only; people are in the pictures, without labels

Cars are blocks with a windscreen, buses long blocks with roof hatches, people small two-coloured discs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ddptrain.data.formats.sequences import UAVDT_NAMES
from ddptrain.data.formats.visdrone import NAMES
from ddptrain.data.formats.write import write_uavdt, write_visdrone, write_voc
from ddptrain.data.formats.writing import Writer
from ddptrain.data.tables.base import Paths, to_offsets
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.seeding import rng

SIZE = 192
CROWD_RADIUS = 5
"""Of each person in a crowd, in pixels, as of the smaller ones outside."""


@dataclass(frozen=True)
class Scene:
    """uint8 `[SIZE, SIZE, 3]` BGR picture, its objects (class, x1, y1, x2, y2) in pixels, its unlabelled crowds, and the
    people in these."""

    image: np.ndarray
    objects: tuple[tuple[str, int, int, int, int], ...]
    crowds: tuple[tuple[int, int, int, int], ...]
    people: tuple[tuple[str, int, int, int, int], ...]


def make_scene(seed: int, number: int, crowds: bool) -> Scene:
    """Scene `number` of a seed; `crowds` adds a patch of people who are not among the objects."""
    r = rng(seed, number, "scene")
    ground = r.integers(70, 150)
    image = np.full((SIZE, SIZE, 3), ground, np.uint8)
    for _ in range(4):
        x, y = r.integers(0, SIZE, 2)
        cv2.rectangle(image, (int(x), int(y)), (int(x) + 70, int(y) + 50), tuple(int(c) for c in r.integers(60, 160, 3)), -1)
    taken: list[tuple[int, int, int, int]] = []
    objects = []
    patches, people = [], []
    if crowds and r.random() < 0.5:
        patch = _place(r, taken, 44, 36)
        if patch:
            patches.append(patch)
            for _ in range(14):
                x, y = int(r.integers(patch[0] + 4, patch[2] - 4)), int(r.integers(patch[1] + 4, patch[3] - 4))
                _person(image, x, y, CROWD_RADIUS, r)
                people.append(("pedestrian", x - CROWD_RADIUS, y - CROWD_RADIUS, x + CROWD_RADIUS, y + CROWD_RADIUS))
    for name in r.permutation(
        ["car"] * int(r.integers(2, 5)) + ["bus"] * int(r.integers(0, 3)) + ["pedestrian"] * int(r.integers(2, 6))
    ):
        box = _object(image, str(name), r, taken)
        if box:
            objects.append((str(name), *box))
    noise = r.normal(0, 7, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return Scene(image, tuple(objects), tuple(patches), tuple(people))


def _place(r: np.random.Generator, taken: list[tuple[int, int, int, int]], w: int, h: int) -> tuple[int, int, int, int] | None:
    for _ in range(20):
        x, y = int(r.integers(2, SIZE - w - 2)), int(r.integers(2, SIZE - h - 2))
        box = (x, y, x + w, y + h)
        if all(box[2] + 2 < t[0] or t[2] + 2 < box[0] or box[3] + 2 < t[1] or t[3] + 2 < box[1] for t in taken):
            taken.append(box)
            return box
    return None


def _person(image: np.ndarray, x: int, y: int, radius: int, r: np.random.Generator) -> None:
    cv2.circle(image, (x, y), radius, tuple(int(c) for c in r.integers(0, 90, 3)), -1)
    cv2.circle(image, (x, y), max(radius // 2, 1), (150, 190, 235), -1)


def _object(
    image: np.ndarray, name: str, r: np.random.Generator, taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    upright = r.random() < 0.5
    if name == "pedestrian":
        side = int(r.integers(10, 15))
        box = _place(r, taken, side, side)
        if box:
            _person(image, (box[0] + box[2]) // 2, (box[1] + box[3]) // 2, side // 2, r)
        return box
    length, width = (int(r.integers(22, 32)), int(r.integers(13, 18))) if name == "car" else (int(r.integers(46, 64)), 20)
    box = _place(r, taken, width, length) if upright else _place(r, taken, length, width)
    if box is None:
        return None
    color = tuple(int(c) for c in (r.integers(120, 255, 3) if name == "car" else (20, r.integers(140, 210), 235)))
    cv2.rectangle(image, box[:2], (box[2] - 1, box[3] - 1), color, -1)
    x1, y1, x2, y2 = box
    marks = (0.25,) if name == "car" else (0.2, 0.5, 0.8)
    for m in marks:
        if upright:
            y = int(y1 + m * length)
            cv2.rectangle(image, (x1 + 2, y), (x2 - 3, y + 3), (30, 30, 30), -1)
        else:
            x = int(x1 + m * length)
            cv2.rectangle(image, (x, y1 + 2), (x + 3, y2 - 3), (30, 30, 30), -1)
    return box


Row = tuple[int, ...]
"""Label (-1: an ignore region without a class) and box of an object."""


def _write(
    writer: Writer, root: Path, split: str, scenes: dict[int, Scene], names: tuple[str, ...], rows: Sequence[Sequence[Row]]
) -> None:
    """Write the pictures of scenes by their numbers, and the rows of each, in the layout of a format."""
    files = {str(root / f"{number:06d}.jpg"): scene.image for number, scene in scenes.items()}
    flat = np.array([row for own in rows for row in own], np.int32).reshape(-1, 5)
    table = AnnotationTable(
        name=root.name,
        root=str(root),
        names=names,
        paths=Paths.pack(files),
        sizes=np.full((len(files), 2), SIZE, np.int32),
        offsets=to_offsets([len(own) for own in rows]),
        boxes=flat[:, 1:].astype(np.float32),
        labels=flat[:, 0],
        ignore=flat[:, 0] < 0,
        crowd=np.zeros(len(flat), bool),
        area=np.prod(flat[:, 3:] - flat[:, 1:3], axis=1).astype(np.float32),
    )

    def place(source: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), files[source], [cv2.IMWRITE_JPEG_QUALITY, 92])

    writer(table, root, split, place)


def write_skyview(
    root: Path, split: str, numbers: Sequence[int], seed: int, crowds: Literal["marked", "unmarked", "labelled"] = "marked"
) -> None:
    """Scenes in VisDrone-DET's layout; `crowds`: marked as ignore regions, not mentioned at all, or every person in them
    labelled."""
    scenes = {n: make_scene(seed, n, crowds=True) for n in numbers}
    rows = []
    for scene in scenes.values():
        labelled = scene.objects + (scene.people if crowds == "labelled" else ())
        regions = scene.crowds if crowds == "marked" else ()
        rows.append([(NAMES.index(c), *box) for c, *box in labelled] + [(-1, *box) for box in regions])
    _write(write_visdrone, root, split, scenes, NAMES, rows)


def write_streets(root: Path, split: str, numbers: Sequence[int], seed: int) -> None:
    """Scenes in Pascal VOC's layout with cars and buses labelled; boxes count from 1 and include their ends, as in VOC."""
    scenes, names = {n: make_scene(seed, n, crowds=False) for n in numbers}, ("car", "bus")
    rows = [
        [(names.index(c), x1 + 1, y1 + 1, x2, y2) for c, x1, y1, x2, y2 in scene.objects if c in names]
        for scene in scenes.values()
    ]
    _write(write_voc, root, split, scenes, names, rows)


def write_flights(root: Path, split: str, numbers: Sequence[int], seed: int) -> None:
    """Scenes in UAVDT's layout, the frames of one sequence of the split's name: cars and buses are labelled, and crowds are
    marked as ignore regions."""
    scenes, names = {n: make_scene(seed, n, crowds=True) for n in numbers}, UAVDT_NAMES
    rows = [
        [(names.index(c), *box) for c, *box in scene.objects if c in names] + [(-1, *box) for box in scene.crowds]
        for scene in scenes.values()
    ]
    _write(write_uavdt, root, split, scenes, names, rows)


def write_demo(folder: Path, images: int = 160, seed: int = 0) -> None:
    """Both datasets below `folder`, each with `images` training and `images // 4` validation pictures."""
    val = images // 4
    write_skyview(folder / "skyview", "train", range(images), seed)
    write_skyview(folder / "skyview", "val", range(images, images + val), seed)
    write_streets(folder / "streets", "train", range(images), seed + 1)
    write_streets(folder / "streets", "val", range(images, images + val), seed + 1)

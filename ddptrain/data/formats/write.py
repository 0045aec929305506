"""Writers: a table in the layout of another format. Each returns what the format cannot hold, and how often.

A writer is called once for each split, with `place(source, target)` that puts an image file where it belongs.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from ddptrain.config.text import dump_yaml, parse_yaml
from ddptrain.data.formats.csv import COLUMNS
from ddptrain.data.formats.sequences import UAVDT_NAMES
from ddptrain.data.formats.visdrone import NAMES, PREFIX
from ddptrain.data.formats.writing import (
    CLASS_LOST,
    CROWD_IGNORED,
    GUARDED,
    Lost,
    Place,
    Writer,
    categories_of,
    flat_names,
    indices,
    ltwh,
    number,
    plain_lost,
    voc_lost,
)
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.errors import UserError
from ddptrain.system.printable import guarded


def write_visdrone(table: AnnotationTable, out: Path, split: str | None, place: Place) -> Lost:
    """VisDrone-DET text. Ignore regions are category 0, ignored and crowd boxes have score 0."""
    folder = out / f"{PREFIX}{split}" if split else out
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    categories = categories_of(table, NAMES, "visdrone")
    for i, name in enumerate(flat_names(table, split)):
        place(table.path(i), folder / "images" / name)
        lines = []
        for r in indices(table, i):
            label = int(table.labels[r])
            category = categories[label] if label >= 0 else 0
            # `others` are never scored
            ignored = table.ignore[r] or table.crowd[r] or category in (0, len(NAMES))
            lines.append(",".join([*ltwh(table.boxes[r]), str(int(not ignored)), str(category), "0", "0"]) + "\n")
        (folder / "annotations" / f"{os.path.splitext(name)[0]}.txt").write_text("".join(lines))
    return Counter({CROWD_IGNORED: int(table.crowd.sum())})


def frame_paths(table: AnnotationTable, split: str | None) -> list[tuple[str, int, str]]:
    """(sequence, frame, suffix) of each image: from its path where that is `<sequence>/img000001.jpg` already, else one
    sequence of the split's name with frames counted from 1."""
    paths = [table.path(i) for i in range(len(table))]
    native = [re.search(r"([^/]+)/img(\d+)(\.\w+)$", p) for p in paths]
    if all(native):
        return [(m[1], int(m[2]), m[3]) for m in native if m]
    return [(split or "all", i, os.path.splitext(p)[1]) for i, p in enumerate(paths, 1)]


def _write_sequence_list(table: AnnotationTable, out: Path, split: str | None, frames: list[tuple[str, int, str]]) -> None:
    """The list of a split's sequences; `UserError` where one of them is in the list of another split."""
    if split:
        sequences = {s for s, _, _ in frames}
        for other in sorted(out.glob("*.txt")):
            if twice := sequences & set(other.read_text(encoding="utf-8").splitlines()):
                raise UserError(
                    f"{table.name}: sequence {min(twice)} has frames in {other.stem} and in {split}, and the format splits by"
                    " sequence; convert one split at a time"
                )
        (out / f"{split}.txt").write_text("".join(f"{s}\n" for s in sorted(sequences)), encoding="utf-8")


def write_uavdt(table: AnnotationTable, out: Path, split: str | None, place: Place) -> Lost:
    """UAVDT text. Ignore regions, ignored and crowd boxes go to `_gt_ignore.txt`, which holds no classes."""
    (out / "GT").mkdir(parents=True, exist_ok=True)
    categories = categories_of(table, UAVDT_NAMES, "uavdt")
    frames = frame_paths(table, split)
    _write_sequence_list(table, out, split, frames)
    rows: dict[str, list[str]] = {}
    target = 0
    for i, (sequence, frame, suffix) in enumerate(frames):
        place(table.path(i), out / sequence / f"img{frame:06d}{suffix}")
        whole, ignored = (rows.setdefault(f"{sequence}_gt_{k}.txt", []) for k in ("whole", "ignore"))
        for r in indices(table, i):
            target += 1
            row = [str(frame), str(target), *ltwh(table.boxes[r])]
            if table.ignore[r] or table.crowd[r]:
                ignored.append(",".join([*row, "1", "-1", "-1"]))
            else:
                whole.append(",".join([*row, "1", "1", str(categories[table.labels[r]])]))
    for name, lines in rows.items():
        (out / "GT" / name).write_text("".join(f"{line}\n" for line in lines))
    return Counter({CLASS_LOST: int(((table.ignore | table.crowd) & (table.labels >= 0)).sum())})


def voc_text(table: AnnotationTable, image: int, filename: str) -> str:
    """The XML of one image; ignored and crowd boxes are `difficult`, ignore regions without a class are left out."""
    width, height = table.sizes[image]
    lines = [
        "<annotation>",
        f"  <filename>{escape(filename)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    for r in indices(table, image):
        if table.labels[r] >= 0:
            corners = zip(("xmin", "ymin", "xmax", "ymax"), table.boxes[r])
            box = "".join(f"<{k}>{number(v)}</{k}>" for k, v in corners)
            difficult = int(table.ignore[r] or table.crowd[r])
            name = escape(table.names[table.labels[r]])
            lines.append(f"  <object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>")
    return "\n".join([*lines, "</annotation>", ""])


def write_voc(table: AnnotationTable, out: Path, split: str | None, place: Place) -> Lost:
    """Pascal VOC."""
    for folder in ("Annotations", "ImageSets/Main"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    stems = []
    for i, name in enumerate(flat_names(table, split)):
        stems.append(os.path.splitext(name)[0])
        place(table.path(i), out / "JPEGImages" / name)
        (out / "Annotations" / f"{stems[-1]}.xml").write_text(voc_text(table, i, name), encoding="utf-8")
    if split:
        (out / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{s}\n" for s in stems), encoding="utf-8")
    return voc_lost(table)


def write_uavdt_xml(table: AnnotationTable, out: Path, split: str | None, place: Place) -> Lost:
    """UAVDT as XML files."""
    categories_of(table, UAVDT_NAMES, "uavdt-xml")
    frames = frame_paths(table, split)
    _write_sequence_list(table, out, split, frames)
    for i, (sequence, frame, suffix) in enumerate(frames):
        stem = f"img{frame:06d}"
        place(table.path(i), out / "images" / sequence / f"{stem}{suffix}")
        (out / "Annotations" / sequence).mkdir(parents=True, exist_ok=True)
        (out / "Annotations" / sequence / f"{stem}.xml").write_text(voc_text(table, i, f"{stem}{suffix}"))
    return voc_lost(table)


def write_coco(table: AnnotationTable, out: Path, split: str | None, place: Place) -> Lost:
    """COCO instances. Crowds have `iscrowd`. What is ignored has `iscrowd` and `ignore`, which pycocotools leaves out of
    the score; an ignore region without a class stands there once for each class, marked `ignore_region`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, name in enumerate(flat_names(table, split)):
        place(table.path(i), out / "images" / (split or ".") / name)
        width, height = table.sizes[i].tolist()
        images.append({"id": i + 1, "file_name": name, "width": width, "height": height})
        for r in indices(table, i):
            for annotation in _coco_annotations(table, r):
                annotations.append({"id": len(annotations) + 1, "image_id": i + 1, **annotation})
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(table.names)]
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (out / "annotations" / f"instances_{split or 'all'}.json").write_text(json.dumps(content))
    return Counter()


def _coco_annotations(table: AnnotationTable, row: int) -> Iterator[dict[str, Any]]:
    x1, y1, x2, y2 = (round(v, 3) for v in table.boxes[row].tolist())
    flags = {"iscrowd": int(table.ignore[row] or table.crowd[row])}
    if table.ignore[row]:
        flags["ignore"] = 1
    if table.labels[row] < 0:
        flags["ignore_region"] = 1
    labels = [int(table.labels[row])] if table.labels[row] >= 0 else range(len(table.names))
    for label in labels:
        box = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
        yield {"category_id": label + 1, "bbox": box, "area": float(table.area[row]), **flags}


def write_yolo(table: AnnotationTable, out: Path, split: str | None, place: Place) -> Lost:
    """YOLO text and data.yaml; it holds plain boxes only."""
    part = split or "."
    (out / "labels" / part).mkdir(parents=True, exist_ok=True)
    _update_data_yaml(out / "data.yaml", table, split)
    plain = ~(table.ignore | table.crowd)
    for i, name in enumerate(flat_names(table, split)):
        place(table.path(i), out / "images" / part / name)
        scale = np.tile(table.sizes[i], 2).astype(np.float64)
        lines = []
        for r in indices(table, i):
            if plain[r]:
                x1, y1, x2, y2 = table.boxes[r] / scale
                values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
                lines.append(f"{table.labels[r]} " + " ".join(f"{v:.8f}" for v in values) + "\n")
        (out / "labels" / part / f"{os.path.splitext(name)[0]}.txt").write_text("".join(lines))
    return plain_lost(table)


def _update_data_yaml(file: Path, table: AnnotationTable, split: str | None) -> None:
    content = parse_yaml(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else {}
    names = content.setdefault("names", list(table.names))
    if names != list(table.names):
        raise UserError(f"{table.name}: split {split} has other classes than those before it; give names")
    if split:
        content[split] = f"images/{split}"
    file.write_text(dump_yaml(content), encoding="utf-8")


def write_csv(table: AnnotationTable, out: Path, split: str | None, place: Place) -> Lost:
    """CSV with a header; it holds plain boxes only. An image without boxes is a row of its name alone."""
    out.mkdir(parents=True, exist_ok=True)
    plain = ~(table.ignore | table.crowd)
    files = flat_names(table, split)
    with open(out / f"{split or 'all'}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for i, name in enumerate(files):
            place(table.path(i), out / "images" / (split or ".") / name)
            rows = [r for r in indices(table, i) if plain[r]]
            for r in rows:
                writer.writerow([guarded(name), *map(number, table.boxes[r]), guarded(table.names[table.labels[r]])])
            if not rows:
                writer.writerow([guarded(name), "", "", "", "", ""])
    named = {table.names[k] for k in np.unique(table.labels[plain]).tolist()}
    return plain_lost(table) + Counter({GUARDED: sum(guarded(n) != n for n in [*files, *named])})


WRITERS: dict[str, Writer] = {
    "coco": write_coco,
    "csv": write_csv,
    "uavdt": write_uavdt,
    "uavdt-xml": write_uavdt_xml,
    "visdrone": write_visdrone,
    "voc": write_voc,
    "yolo": write_yolo,
}
"""Every format that can be written, by its name."""
OWN_CLASSES = {"uavdt": UAVDT_NAMES, "uavdt-xml": UAVDT_NAMES, "visdrone": NAMES}
"""The classes of formats that have their own."""

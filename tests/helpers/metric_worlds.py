"""Truth and detections to evaluate: from a COCO file, or small ones by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth

Row = tuple[int, Sequence[float], int]


def truth(
    rows: Sequence[Row],
    images: int,
    classes: int,
    *,
    name: str = "d",
    ignore: Sequence[int] = (),
    crowd: Sequence[int] = (),
    annotated: Sequence[int] | None = None,
) -> GroundTruth:
    """Truth from (image, box, label) rows in order of image; `ignore` and `crowd` are row numbers."""
    boxes = np.array([r[1] for r in rows], np.float32).reshape(-1, 4)
    number = np.arange(len(rows))
    counts = np.bincount([r[0] for r in rows], minlength=images) if rows else np.zeros(images, np.int64)
    sides = boxes[:, 2:] - boxes[:, :2]
    return GroundTruth(
        name,
        boxes,
        np.array([r[2] for r in rows], np.int64),
        np.isin(number, ignore),
        np.isin(number, crowd),
        sides.prod(1),
        np.concatenate([[0], counts.cumsum()]),
        np.isin(np.arange(classes), range(classes) if annotated is None else annotated),
    )


def found(rows: Sequence[tuple[int, Sequence[float], int, float]]) -> DetectionArrays:
    """Detections from (image, box, label, score) rows."""
    return DetectionArrays(
        np.array([r[0] for r in rows], np.int64),
        np.array([r[1] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[3] for r in rows], np.float32),
        np.array([r[2] for r in rows], np.int64),
    )


def read_coco(path: Path, name: str = "coco") -> tuple[GroundTruth, list[str], dict]:
    """Truth of a COCO file with the images in order of id and classes in order of id; its class names; the JSON."""
    data = json.loads(path.read_text())
    data["images"].sort(key=lambda i: i["id"])
    data["categories"].sort(key=lambda c: c["id"])
    image_of = {image["id"]: i for i, image in enumerate(data["images"])}
    label_of = {category["id"]: i for i, category in enumerate(data["categories"])}
    rows = sorted(data["annotations"], key=lambda a: image_of[a["image_id"]])
    xywh = np.array([a["bbox"] for a in rows])
    counts = np.bincount([image_of[a["image_id"]] for a in rows], minlength=len(image_of))
    made = GroundTruth(
        name,
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
        np.array([label_of[a["category_id"]] for a in rows]),
        np.zeros(len(rows), bool),
        np.array([a["iscrowd"] for a in rows], bool),
        np.array([a["area"] for a in rows]),
        np.concatenate([[0], counts.cumsum()]),
        np.ones(len(label_of), bool),
    )
    return made, [c["name"] for c in data["categories"]], data


def perturbed(world: GroundTruth, seed: int, copies: int = 4) -> DetectionArrays:
    """Detections near the truth: moved, resized, some of another class, some anywhere, with coarse scores (ties)."""
    rng = np.random.default_rng(seed)
    boxes = np.repeat(world.boxes.astype(np.float64), copies, 0)
    image = np.repeat(np.repeat(np.arange(world.images), np.diff(world.offsets)), copies)
    labels = np.repeat(np.maximum(world.labels, 0), copies)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    noise = rng.choice([0.0, 0.02, 0.1, 0.5], (len(boxes), 1), p=[0.2, 0.4, 0.3, 0.1])
    boxes = boxes + rng.normal(size=boxes.shape) * noise * sides
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    wrong = rng.random(len(labels)) < 0.1
    labels = np.where(wrong, rng.integers(0, len(world.annotated), len(labels)), labels)
    order = rng.permutation(len(boxes))
    scores = np.round(rng.random(len(boxes)), 2).astype(np.float32)
    return DetectionArrays(image[order], boxes[order].astype(np.float32), scores[order], labels[order])


def cocoeval(world: GroundTruth, detections: DetectionArrays, max_detections: int) -> dict[str, Any]:
    """`COCOeval.eval` of pycocotools as everybody runs it, with an ignore region as a crowd of each annotated class."""
    image = np.repeat(np.arange(world.images), np.diff(world.offsets))
    annotations = []
    for n, (x1, y1, x2, y2) in enumerate(world.boxes.astype(np.float64).tolist()):
        box = {"image_id": int(image[n]), "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(world.area[n])}
        labels = np.flatnonzero(world.annotated).tolist() if world.ignore[n] else [int(world.labels[n])]
        crowd = int(world.ignore[n] or world.crowd[n])
        annotations += [
            box | {"id": len(annotations) + 1 + i, "category_id": k, "iscrowd": crowd} for i, k in enumerate(labels)
        ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(world.images)],
        "categories": [{"id": k} for k in range(len(world.annotated))],
        "annotations": annotations,
    }
    coco.createIndex()
    columns = (detections.image, detections.boxes.astype(np.float64), detections.scores, detections.labels)
    rows = [
        {"image_id": i, "category_id": k, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": s}
        for i, (x1, y1, x2, y2), s, k in zip(*(c.tolist() for c in columns), strict=True)
    ]
    run = COCOeval(coco, coco.loadRes(rows) if rows else COCO(), "bbox")
    run.params.imgIds, run.params.catIds = list(range(world.images)), list(range(len(world.annotated)))
    run.params.maxDets = [max_detections]
    run.evaluate()
    run.accumulate()
    return run.eval

"""Wrong labels that were put among right ones stand at the head of the list, whatever the detector is usually bad at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from metric_worlds import truth

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth
from ddptrain.metrics.errors import find_overlaps
from ddptrain.metrics.matching import match
from ddptrain.metrics.suspects import ADDED, CLASS, KINDS, NO_OBJECT, PLACE, Suspects, find_suspects

IMAGES, CLASSES, WRONG = 60, 3, 24


def scene(r: np.random.Generator) -> list[tuple[int, tuple[float, ...], int]]:
    """Objects in the cells of a grid."""
    rows = []
    for image in range(IMAGES):
        for cell in r.permutation(25)[: int(r.integers(3, 12))].tolist():
            x, y = cell % 5 * 60 + r.uniform(0, 15), cell // 5 * 60 + r.uniform(0, 15)
            w, h = r.uniform(25, 40, 2)
            rows.append((image, (x, y, x + w, y + h), int(r.integers(CLASSES))))
    return rows


def detect(world: GroundTruth, r: np.random.Generator) -> DetectionArrays:
    """A good detector of the true objects: it is sure of class 0, hardly ever of class 2, and finds much that is not there in
    that class."""
    sure = np.array([0.9, 0.8, 0.45])[world.labels]
    score = np.clip(r.normal(sure, 0.07), 0.05, 0.99)
    boxes = world.boxes + r.normal(0, 1.2, world.boxes.shape)
    image, labels = world.image_of_boxes(), world.labels
    places = r.uniform(0, 260, (120, 2))
    alarms = np.concatenate([places, places + r.uniform(20, 40, (120, 2))], 1)
    return DetectionArrays(
        np.concatenate([image, r.integers(0, IMAGES, 120)]),
        np.concatenate([boxes, alarms]).astype(np.float32),
        np.concatenate([score, r.uniform(0.05, 0.6, 120)]).astype(np.float32),
        np.concatenate([labels, np.full(120, 2)]),
    )


def spoil(
    rows: list[tuple[int, tuple[float, ...], int]], r: np.random.Generator
) -> tuple[GroundTruth, list[tuple[int, int, tuple[float, ...]]]]:
    """Labels of which some of the first two classes are wrong, six of each kind; and (kind, image, box) of these."""
    sure = [i for i, row in enumerate(rows) if row[2] < 2]
    chosen = r.permutation(sure)[:WRONG].tolist()
    out, planted = list(rows), []
    for n, i in enumerate(chosen):
        image, (x1, y1, x2, y2), label = rows[i]
        kind = n % 4
        if kind == CLASS:
            out[i] = (image, (x1, y1, x2, y2), 1 - label)
        elif kind == PLACE:
            out[i] = (image, (x1 + 15, y1 + 12, x2 + 15, y2 + 12), label)
        elif kind == NO_OBJECT:
            out.append((image, (330.0, 330.0, 365.0, 365.0), label))
        else:
            out[i] = (-1, (0, 0, 0, 0), 0)
        box = (330.0, 330.0, 365.0, 365.0) if kind == NO_OBJECT else (x1, y1, x2, y2)
        planted.append((kind, image, box))
    kept = sorted((row for row in out if row[0] >= 0), key=lambda row: row[0])
    return truth(kept, IMAGES, CLASSES), planted


@pytest.mark.parametrize("seed", range(4))
def test_planted_errors_come_first(seed: int) -> None:
    r = np.random.default_rng(seed)
    rows = scene(r)
    detections = detect(truth(rows, IMAGES, CLASSES), r)
    spoilt, planted = spoil(rows, r)
    matches = match(spoilt, detections)
    suspects = find_suspects(matches, find_overlaps(matches))
    head = suspects.select(np.arange(WRONG + 12))
    named = [
        any(
            (kind != CLASS or head.kind[s] == CLASS) and head.image[s] == image and near(head, matches, s, box)
            for s in range(len(head.kind))
        )
        for kind, image, box in planted
    ]
    assert sum(named) >= WRONG - 4, [(KINDS[kind], ok) for (kind, _, _), ok in zip(planted, named)]
    # nothing is named twice
    for column in (suspects.box, suspects.detection):
        told = column[column >= 0]
        assert len(told) == len(np.unique(told))


def near(s: Suspects, matches: object, row: int, box: tuple[float, ...]) -> bool:
    """Whether what is suspected is at a place."""
    m: object = matches
    shown = m.truth_box[s.box[row]] if s.box[row] >= 0 else m.box[s.detection[row]]  # type: ignore[attr-defined]
    return bool(np.abs(np.asarray(shown) - box).max() < 20)


def test_a_detector_that_agrees_suspects_nothing() -> None:
    r = np.random.default_rng(0)
    world = truth(scene(r), IMAGES, CLASSES)
    found = DetectionArrays(world.image_of_boxes(), world.boxes, np.full(len(world.labels), 0.9, np.float32), world.labels)
    matches = match(world, found)
    assert len(find_suspects(matches, find_overlaps(matches)).kind) == 0


def test_what_is_ignored_or_not_annotated_is_not_suspected() -> None:
    world = truth([(0, (0, 0, 20, 20), 0)], 1, 2, ignore=[0], annotated=[0])
    found = DetectionArrays(
        np.zeros(2, int),
        np.array([[2, 2, 18, 18], [50, 50, 70, 70]], np.float32),
        np.full(2, 0.9, np.float32),
        np.array([0, 1]),
    )
    matches = match(world, found)
    assert len(find_suspects(matches, find_overlaps(matches)).kind) == 0
    unlabelled = match(replace(world, annotated=np.array([True, True])), found)
    suspects = find_suspects(unlabelled, find_overlaps(unlabelled))
    assert suspects.kind.tolist() == [ADDED]

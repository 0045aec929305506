"""The metrics of detections, of a run's model or of anyone's, by every protocol that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from math import fsum

import numpy as np

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.metrics import coco, uavdt, visdrone, voc
from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics, mean_known
from ddptrain.metrics.curves import GRID, class_curve, mean_curve
from ddptrain.metrics.matches import Matches
from ddptrain.metrics.matching import match
from ddptrain.tasks.base import Prediction
from ddptrain.tasks.inspection.base import DataSet
from ddptrain.tasks.packed import PackedPredictions


def truth_of(data: DataSet) -> GroundTruth:
    """The truth of a validation dataset."""
    t: AnnotationTable = data.table
    return GroundTruth(data.config.name, t.boxes, t.labels, t.ignore, t.crowd, t.area, t.offsets, data.annotated)


def detections_of(predictions: Mapping[int, Prediction]) -> DetectionArrays:
    """The `boxes`, `scores` and `labels` of the predictions for one dataset, in flat arrays."""
    packed = predictions if isinstance(predictions, PackedPredictions) else PackedPredictions.pack(predictions)
    boxes, scores, labels = (packed.column(name) for name in ("boxes", "scores", "labels"))
    if boxes is None or scores is None or labels is None:
        return DetectionArrays.concatenate([])
    image, flat = boxes.rows()
    return DetectionArrays(image, flat, scores.values, labels.values)


def match_all(truths: Sequence[GroundTruth], detections: Sequence[DetectionArrays], settings: DetectionEval) -> list[Matches]:
    """The matches of each dataset by COCO's rules, as the settings change them."""
    return [match(t, d, settings.coco_max_detections) for t, d in zip(truths, detections, strict=True)]


def score(
    truths: Sequence[GroundTruth], detections: Sequence[DetectionArrays], classes: Sequence[str], settings: DetectionEval
) -> Metrics:
    """COCO's metrics in all, per dataset and per class; precision, recall and F1 at the best confidence; and the metrics of the
    further protocols per dataset with their means."""
    matches = match_all(truths, detections, settings)
    metrics = coco.summarize([t.name for t in truths], matches, classes)
    metrics |= best_f1(Matches.concatenate(matches), classes)
    for protocol, evaluate in PROTOCOLS.items():
        if protocol in settings.protocols:
            scores = [evaluate(t, d, classes, settings) for t, d in zip(truths, detections)]
            metrics |= _by_protocol(protocol, truths, scores)
    return metrics


def best_f1(matches: Matches, classes: Sequence[str]) -> Metrics:
    """`precision`, `recall` and `F1` at IoU 0.5 of the detections from one `confidence` on, the same for all classes: that of
    0, 0.001, …, 1 at which the mean F1 of the classes with truth is greatest (of several the highest). Means over these
    classes, and `class/<class>/precision` …; NaN without truth, and where a score is outside 0..1: then it is no confidence."""
    curves = [class_curve(matches, k) for k in range(len(classes))]
    mean = mean_curve(curves)
    keys = ("precision", "recall", "F1")
    if mean is None or ((matches.score < 0) | (matches.score > 1)).any():
        unknown = float("nan")
        of_none = {f"class/{name}/{key}": unknown for name in classes for key in keys}
        return {**dict.fromkeys((*keys, "confidence"), unknown), **of_none}
    at = int(np.searchsorted(GRID, mean.threshold))
    out = {key: float(column[at]) for key, column in zip(keys, mean[:3])} | {"confidence": mean.threshold}
    for name, curve in zip(classes, curves, strict=True):
        own = curve.at(GRID[at : at + 1])
        for key, column in zip(keys, (own.precision, own.recall, own.f1)):
            out[f"class/{name}/{key}"] = float(column[0]) if curve.truths else float("nan")
    return out


def mean_losses(predictions: Sequence[Mapping[int, Prediction]]) -> dict[str, float]:
    """`loss` and its parts over the images of some datasets, NaN where there was nothing to find, and, of a detector that
    assigns points, the number of `objects_without_point`. The sums are exact, so that the order of images does not matter."""
    packed = [p if isinstance(p, PackedPredictions) else PackedPredictions.pack(p) for p in predictions]
    names = dict.fromkeys(key[0] for p in packed for key in p.columns if key[0].startswith("loss/"))
    total = {name: fsum(chain(*(p.numbers(name).tolist() for p in packed))) for name in (*names, "normalizer")}
    parts = {name: total[name] / total["normalizer"] if total["normalizer"] else float("nan") for name in names}
    counts = [p.numbers("without_point").tolist() for p in packed if p.column("without_point") is not None]
    missed = {"objects_without_point": fsum(chain(*counts))} if counts else {}
    return {"loss": sum(parts.values()) if parts else float("nan"), **parts, **missed}


def _by_protocol(protocol: str, truths: Sequence[GroundTruth], values: Sequence[Metrics]) -> Metrics:
    """`dataset/<name>/<protocol>/<key>`, and `<protocol>/<key>`: the mean of the datasets that have truth."""
    own = {f"dataset/{t.name}/{protocol}/{k}": v for t, m in zip(truths, values) for k, v in m.items()}
    return {f"{protocol}/{k}": mean_known([m[k] for m in values]) for k in values[0]} | own


Protocol = Callable[[GroundTruth, DetectionArrays, Sequence[str], DetectionEval], Metrics]
PROTOCOLS: dict[str, Protocol] = {
    "visdrone": lambda truth, detections, classes, settings: visdrone.evaluate(truth, detections),
    "voc": lambda truth, detections, classes, settings: voc.evaluate(
        truth, detections, classes, settings.voc_iou, settings.voc_points
    ),
    "uavdt": lambda truth, detections, classes, settings: uavdt.evaluate(truth, detections, classes),
}
"""Metrics of one dataset that are offered beside COCO's."""

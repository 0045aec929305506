"""What the page of a run says of a detector's evaluation; the same numbers as the figures of `DetectionReport`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ddptrain.metrics import curves, suspects
from ddptrain.reporting.run_page.parts import Bars, Matrix, Numbers, Part, Picture, Section, Text
from ddptrain.tasks.detection.report import DetectionReport
from ddptrain.tasks.parts import DRAWN, calibration_bars, confidence_charts
from ddptrain.tasks.parts import series as as_lists

LISTED = 50
"""Suspected labels that the page lists; `suspected_labels.csv` has all."""
MEANINGS = {
    "class": "on an object of another class",
    "location": "on an object of its class, IoU below 0.5",
    "both": "on an object of another class, IoU below 0.5",
    "duplicate": "on an object that is already found",
    "background": "on nothing",
    "missed": "an object without a matching detection",
    "false alarms": "any of the first five",
    "misses": "any object that was not found",
}


def detection_sections(found: DetectionReport) -> list[Section]:
    """Sizes, confidence, confusion, errors and labels."""
    return [
        Section("sizes", "Sizes and crowding", list(_sizes(found))),
        Section("confidence", "Precision, recall and confidence", list(_confidence(found))),
        Section("confusion", "Confusion", [_matrix(found)]),
        Section("errors", "Errors", list(_errors(found))),
        Section("labels", "Suspected labels", list(_labels(found))),
    ]


def _sizes(found: DetectionReport) -> Iterator[Part]:
    points, metrics = found.by_size(), found.outcome.metrics
    names = ("below 32² pixels", "32² to 96²", "above 96²")
    rows = [
        [name, area, p.truths, metrics.get(f"AP{name[0]}"), p.precision, p.recall, p.f1]
        for (name, p), area in zip(points.items(), names)
    ]
    columns = ("size", "area", "objects", "AP", "precision", "recall", "F1")
    yield Numbers(columns, rows, f"by size, confidence ≥ {found.threshold:.2f}", bars=("AP",))
    yield _bars("by size", points)
    if len(found.outcome.datasets) > 1:
        yield _bars("by dataset", found.by_dataset())
    crowding = found.by_objects()
    groups, notes = zip(*crowding.groups) if crowding.groups else ((), ())
    yield Bars(crowding.title, groups, as_lists(crowding.series), x="objects in an image", notes=notes)


def _bars(title: str, points: Mapping[str, curves.Point]) -> Bars:
    series = {"precision": "precision", "recall": "recall", "F1": "f1"}
    values = {name: [getattr(p, key) for p in points.values()] for name, key in series.items()}
    return Bars(title, list(points), as_lists(values), notes=[f"{p.truths} objects" for p in points.values()])


def _confidence(found: DetectionReport) -> Iterator[Part]:
    if found.mean is None:
        return
    known = sum(c.truths > 0 for c in found.curves)
    yield Text(
        f"At IoU 0.5. The dashed line is at confidence {found.threshold:.2f}, where the mean F1 is highest: a good threshold."
        + (f" The {DRAWN} classes with the most objects are drawn." if known > DRAWN else "")
    )
    yield from confidence_charts(found.outcome.classes, found.curves, found.mean)
    m = found.matches
    judged = m.result[0, 0] >= 0
    yield calibration_bars(curves.calibration(m.score[judged], m.result[0, 0, judged] == 1))


def _matrix(found: DetectionReport) -> Matrix:
    counts = curves.confusion(found.matches, found.threshold)
    title = f"boxes with confidence ≥ {found.threshold:.2f}, IoU 0.5"
    return Matrix(title, [*found.outcome.classes, "background"], counts.tolist())


def _errors(found: DetectionReport) -> Iterator[Part]:
    e = found.errors
    rows = [[kind, MEANINGS.get(kind, ""), e.count.get(kind), float(cost)] for kind, cost in e.cost.items()]
    columns = ("kind", "what it is", "cases", "gain of AP50 without it")
    yield Numbers(columns, rows, f"what each kind of error costs; AP50 is {found.outcome.metrics['AP50']:.3f}", columns[3:])
    yield Picture("worst_false_alarms.jpg", "the most confident false alarms")
    yield Picture("worst_misses.jpg", "the largest objects that were not found")


def _labels(found: DetectionReport) -> Iterator[Part]:
    s, m, o = found.suspects, found.matches, found.outcome
    yield Text(
        "Where a detector that is usually right contradicts a label, the most suspicious first; suspected_labels.csv has all."
        if len(s.kind)
        else "The detector contradicts no label."
    )
    rows = []
    for r in range(min(len(s.kind), LISTED)):
        g, d, image = int(s.box[r]), int(s.detection[r]), int(s.image[r])
        label = o.classes[m.truth_label[g]] if g >= 0 else ""
        detected = f"{o.classes[m.label[d]]} {m.score[d]:.2f}" if d >= 0 else ""
        dataset = o.datasets[o.dataset[image]]
        rows.append([r + 1, suspects.KINDS[s.kind[r]], dataset, o.images[image], label, detected, float(s.rarity[r])])
    yield Numbers(("rank", "kind", "dataset", "file", "label", "detected", "rarity"), rows)
    yield Picture("suspected_labels.jpg", "labels that are probably wrong")

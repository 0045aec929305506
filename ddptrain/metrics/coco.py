"""COCO's average precision, for several datasets and all of them together.

Precision at 101 recalls, averaged over the IoU thresholds 0.50:0.05:0.95 and over classes (cocodataset.org, "Detection
evaluation"). The numbers are those of pycocotools, with two differences from `COCOeval.summarize`: every value counts the best
`max_detections` of each class and image (there `AP` is tied to 100 in any case), and what has no truth is NaN, not -1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth, Metrics, mean_known
from ddptrain.metrics.matches import Matches
from ddptrain.metrics.matching import match
from ddptrain.metrics.precision import Curves, precision_at_recalls

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
"""Of each scope: AP, at IoU 0.5 and 0.75, of objects below 32², between 32² and 96², and above 96² pixels; recall."""


def evaluate(
    truths: Sequence[GroundTruth],
    detections: Sequence[DetectionArrays],
    classes: Sequence[str],
    max_detections: int = 100,
) -> Metrics:
    """COCO metrics of all datasets together, of each dataset and of each class.

    A class is scored only on the datasets that annotate it; elsewhere its detections are dropped. Ignore regions are
    crowds of every annotated class. The result depends on the order of detections only within one image and score.

    Args:
        truths: one per validation dataset, at least one.
        detections: of each dataset, in the same order; images in any order, all of each image's detections in one part.
        classes: names of the run's classes.
        max_detections: how many of each class count in an image, best first; COCO's own number is 100.

    Returns:
        As `summarize`.

    Raises:
        ValueError: a detection has an image or class out of range or a number that is not finite.
    """
    matches = [match(t, d, max_detections) for t, d in zip(truths, detections, strict=True)]
    return summarize([t.name for t in truths], matches, classes)


def summarize(datasets: Sequence[str], matches: Sequence[Matches], classes: Sequence[str]) -> Metrics:
    """The metrics of the stored matches of each dataset.

    Returns:
        For all datasets together the `KEYS`; `class/<class>/<key>`; `dataset/<dataset>/<key>`; and `AP_datasets`, the
        mean of the datasets' AP. All keys are always given, NaN without truth.
    """
    parts = [precision_at_recalls(m) for m in matches]
    curves = parts[0] if len(parts) == 1 else precision_at_recalls(Matches.concatenate(matches))
    metrics = values(curves)
    for k, name in enumerate(classes):
        metrics |= {f"class/{name}/{key}": v for key, v in values(curves, slice(k, k + 1)).items()}
    for name, part in zip(datasets, parts, strict=True):
        metrics |= {f"dataset/{name}/{key}": v for key, v in values(part).items()}
    return metrics | {"AP_datasets": mean_known([metrics[f"dataset/{name}/AP"] for name in datasets])}


def values(curves: Curves, classes: slice = slice(None)) -> Metrics:
    """Values of `KEYS` over some classes; NaN without truth."""
    precision, recall = curves.precision[:, :, classes], curves.recall[:, classes, 0]
    columns = (precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., a] for a in (1, 2, 3)), recall)
    return {key: mean_known(v) for key, v in zip(KEYS, columns, strict=True)}

"""Ignore regions as VisDrone and UAVDT have them: what lies in them is taken out before anything is matched."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddptrain.metrics.arrays import DetectionArrays, GroundTruth


def without_regions(truth: GroundTruth, detections: DetectionArrays) -> tuple[GroundTruth, DetectionArrays]:
    """The truth without its ignore regions, and both without what lies in them by half or more of its own area; the truth also
    without classes that are not annotated."""
    image = truth.image_of_boxes()
    kept = ~truth.ignore
    kept[kept] = truth.annotated[truth.labels[kept]]
    kept &= ~in_regions(truth, image, truth.boxes)
    return truth.select(kept), detections.select(~in_regions(truth, detections.image, detections.boxes))


def in_regions(truth: GroundTruth, image: NDArray[np.integer], boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """bool `[n]`: which boxes `[n, 4]` lie by half or more in the union of the ignore regions of their image, int `[n]`."""
    out = np.zeros(len(boxes), bool)
    order = np.argsort(image, kind="stable")
    for i in np.unique(truth.image_of_boxes()[truth.ignore]).tolist():
        rows = slice(*truth.offsets[i : i + 2])
        own = order[slice(*np.searchsorted(image[order], [i, i + 1]))]
        out[own] = covered(boxes[own], truth.boxes[rows][truth.ignore[rows]]) >= 0.5
    return out


def covered(boxes: NDArray[np.floating], regions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Fraction of each box `[n, 4]` that lies in the union of regions `[k, 4]`; float64 `[n]`, 0 for an empty box."""
    boxes, regions = boxes.astype(np.float64), regions.astype(np.float64)
    xs, ys = np.unique(regions[:, [0, 2]]), np.unique(regions[:, [1, 3]])
    # the sides of the regions cut the plane into cells, each wholly inside or outside the union
    in_x = (regions[:, :1] <= xs[:-1]) & (xs[:-1] < regions[:, 2:3])
    in_y = (regions[:, 1:2] <= ys[:-1]) & (ys[:-1] < regions[:, 3:])
    cells = (in_y[:, :, None] & in_x[:, None, :]).any(0)
    wide = (np.minimum(boxes[:, 2:3], xs[1:]) - np.maximum(boxes[:, :1], xs[:-1])).clip(0)
    high = (np.minimum(boxes[:, 3:], ys[1:]) - np.maximum(boxes[:, 1:2], ys[:-1])).clip(0)
    area = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    return np.divide((high @ cells * wide).sum(1), area, out=np.zeros(len(boxes)), where=area > 0)

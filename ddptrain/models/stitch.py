"""Detections of several windows of an image become those of the image, in pixels of its file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.models.suppression import suppress
from ddptrain.structures import Detections

BORDER = 0.01
"""A box that is nearer to a border of its window than this part of the window's side is taken as cut by it."""
LESS_SURE = 0.5
"""A whole box takes the place of a cut one if its score is not below this part of the other's."""
_ROWS = 256


class Seen(NamedTuple):
    """What was detected in K windows of an image: n boxes.

    Attributes:
        boxes: float32 `[n, 4]` in pixels of the file.
        scores: float32 `[n]`.
        labels: int64 `[n]`.
        look: int64 `[n]`: the window of each.
        windows: float32 `[K, 4]`: (x1, y1, x2, y2) in pixels of the file.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    look: Tensor
    windows: Tensor

    def keep(self, which: Tensor) -> Seen:
        """Some of them: bool `[n]`, or their numbers."""
        return Seen(self.boxes[which], self.scores[which], self.labels[which], self.look[which], self.windows)


def stitch(seen: Seen, size: tuple[int, int], settings: DetectionEval) -> Detections:
    """The detections of an image, best first, at most `settings.max_detections`.

    A box that an inner border of its window cuts gives way to one that another window shows whole; of an object that no window
    shows whole, the parts become one box. Then `settings.tiles.merge` joins what several windows found, class by class. Of an
    image with one window, all stays as it is.

    Args:
        size: width and height of the file.
    """
    assert settings.tiles is not None
    if len(seen.windows) == 1:
        return Detections(seen.boxes, seen.scores, seen.labels)
    own = seen.windows[seen.look]
    inside = torch.cat([seen.boxes[:, :2].maximum(own[:, :2]), seen.boxes[:, 2:].minimum(own[:, 2:])], 1)
    seen = seen._replace(boxes=inside).keep((inside[:, 2:] > inside[:, :2]).all(1))
    seen = _whole(seen, size, settings.nms_iou)
    seen = seen.keep(seen.scores.argsort(descending=True, stable=True))
    if settings.tiles.merge == "wbf":
        return _fuse(seen, size, settings)
    kind = "soft" if settings.tiles.merge == "soft" else "hard"
    return suppress(seen.boxes, seen.scores, seen.labels, settings.model_copy(update={"nms": kind}))


def _whole(seen: Seen, size: tuple[int, int], iou: float) -> Seen:
    """Without the boxes that a border cuts where others show the same object: two boxes do if they agree, by more than `iou`,
    on the part that both windows show."""
    is_cut = ~_shown_whole(seen.boxes, seen.windows[seen.look], size)
    cut = is_cut.nonzero()[:, 0]
    if not len(cut):
        return seen
    replaced, alike = [], []
    for rows in cut.split(_ROWS):
        agree = _agree(seen, rows, iou)
        replaced.append((agree & ~is_cut & (seen.scores >= LESS_SURE * seen.scores[rows, None])).any(1))
        alike.append(agree[:, cut])
    kept = ~torch.cat(replaced)
    cut, pairs = cut[kept], torch.cat(alike)[kept][:, kept]
    group = torch.arange(len(cut))
    while len(cut):  # the parts of one object, through any number of windows
        joined = torch.where(pairs | pairs.T, group[None], len(cut)).amin(1).minimum(group)
        if (joined == group).all():
            break
        group = joined[joined]
    first = group.unique()
    boxes, scores = seen.boxes.clone(), seen.scores.clone()
    for number in first.tolist():
        parts = cut[group == number]
        boxes[cut[number]] = torch.cat([seen.boxes[parts, :2].amin(0), seen.boxes[parts, 2:].amax(0)])
        scores[cut[number]] = seen.scores[parts].max()
    stays = ~is_cut
    stays[cut[first]] = True
    return seen._replace(boxes=boxes, scores=scores).keep(stays)


def _shown_whole(boxes: Tensor, windows: Tensor, size: tuple[int, int]) -> Tensor:
    """bool `[…]`: whether a window `[…, 4]` shows all of a box `[…, 4]`, so that no inner border is near it."""
    margin = BORDER * (windows[..., 2:] - windows[..., :2]).amax(-1, keepdim=True)
    low = (boxes[..., :2] - windows[..., :2] > margin) | (windows[..., :2] <= 0)
    high = (windows[..., 2:] - boxes[..., 2:] > margin) | (windows[..., 2:] >= torch.tensor(size))
    return (low & high).all(-1)


def _agree(seen: Seen, rows: Tensor, iou: float) -> Tensor:
    """bool `[m, n]`: whether some boxes, int64 `[m]`, and those of other windows agree where both windows show something."""
    windows = seen.windows[seen.look]
    both = _meet(windows[rows, None], windows[None])
    first, second = _meet(seen.boxes[rows, None], both), _meet(seen.boxes[None], both)
    common, areas = _area(_meet(first, second)), _area(first) + _area(second)
    other = (seen.labels[rows, None] == seen.labels) & (seen.look[rows, None] != seen.look)
    return other & (common > iou * (areas - common)) & (common > 0)


def _meet(a: Tensor, b: Tensor) -> Tensor:
    """What two boxes have in common."""
    return torch.cat([a[..., :2].maximum(b[..., :2]), a[..., 2:].minimum(b[..., 2:])], -1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _fuse(seen: Seen, size: tuple[int, int], settings: DetectionEval) -> Detections:
    """Weighted boxes fusion (Solovyev et al., arXiv 1910.13302): boxes of one object become their mean by score. The mean of
    their scores is lowered where fewer windows found it than show all of it."""
    boxes, scores, labels = (t.double().numpy() for t in (seen.boxes, seen.scores, seen.labels))
    found: list[tuple[np.ndarray, float, float]] = []
    for label in np.unique(labels):
        own = labels == label
        mean, weight, count = _clusters(boxes[own], scores[own], settings.nms_iou)
        shows = _shown_whole(torch.from_numpy(mean), seen.windows[:, None].double(), size).sum(0).clamp(min=1).numpy()
        fused = weight / count * np.minimum(count, shows) / shows
        found += [(box, score, label) for box, score in zip(mean, fused.tolist())]
    order = sorted(range(len(found)), key=lambda i: -found[i][1])[: settings.max_detections]
    of_image = [found[i] for i in order if found[i][1] > settings.score_threshold]
    return Detections(
        torch.tensor(np.array([box for box, _, _ in of_image]).reshape(-1, 4), dtype=torch.float32),
        torch.tensor([score for _, score, _ in of_image], dtype=torch.float32),
        torch.tensor([label for *_, label in of_image], dtype=torch.int64),
    )


def _clusters(boxes: np.ndarray, scores: np.ndarray, iou: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of one class, best first, each with the cluster whose mean it overlaps most, if by more than `iou`: of each cluster
    the mean by score, the sum of the scores, and the number of boxes."""
    sums, mean = np.zeros((2, len(boxes), 4))
    weight, count = np.zeros((2, len(boxes)))
    clusters = 0
    for box, score in zip(boxes, scores):
        known = mean[:clusters]
        sides = (np.minimum(known[:, 2:], box[2:]) - np.maximum(known[:, :2], box[:2])).clip(0)
        common = sides.prod(1)
        union = (known[:, 2:] - known[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - common
        place = int((common / union).argmax()) if clusters else 0
        if not clusters or common[place] <= iou * union[place]:
            place, clusters = clusters, clusters + 1
        sums[place] += score * box
        weight[place] += score
        count[place] += 1
        mean[place] = sums[place] / weight[place]
    return mean[:clusters], weight[:clusters], count[:clusters]

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
    cut, other = _agreeing(seen, is_cut, iou)
    gone = cut[~is_cut[other] & (seen.scores[other] >= LESS_SURE * seen.scores[cut])]
    left = is_cut.clone()
    left[gone] = False
    joined = left[cut] & left[other]
    first = _first_joined(len(left), cut[joined], other[joined])[left]
    corners = first[:, None].expand(-1, 2)
    boxes = torch.cat(
        [
            seen.boxes[:, :2].scatter_reduce(0, corners, seen.boxes[left, :2], "amin"),
            seen.boxes[:, 2:].scatter_reduce(0, corners, seen.boxes[left, 2:], "amax"),
        ],
        1,
    )
    scores = seen.scores.scatter_reduce(0, first, seen.scores[left], "amax")
    stays = ~is_cut
    stays[first] = True
    return seen._replace(boxes=boxes, scores=scores).keep(stays)


def _first_joined(n: int, a: Tensor, b: Tensor) -> Tensor:
    """int64 `[n]`: for each of n boxes the first one that it is joined to, through any number of pairs `[m]`."""
    group = torch.arange(n)
    while True:
        low = group.scatter_reduce(0, a, group[b], "amin").scatter_reduce(0, b, group[a], "amin")
        if low.equal(group):
            return group
        group = low[low]


def _shown_whole(boxes: Tensor, windows: Tensor, size: tuple[int, int]) -> Tensor:
    """bool `[…]`: whether a window `[…, 4]` shows all of a box `[…, 4]`, so that no inner border is near it."""
    margin = BORDER * (windows[..., 2:] - windows[..., :2]).amax(-1, keepdim=True)
    low = (boxes[..., :2] - windows[..., :2] > margin) | (windows[..., :2] <= 0)
    high = (windows[..., 2:] - boxes[..., 2:] > margin) | (windows[..., 2:] >= torch.tensor(size))
    return (low & high).all(-1)


def _agreeing(seen: Seen, is_cut: Tensor, iou: float) -> tuple[Tensor, Tensor]:
    """Pairs, int64 `[m]` each: a cut box, and one of its class in another window with which it agrees where both windows show
    something. Only windows that overlap are compared, class by class, so that many windows take time and memory by their
    number, not by its square."""
    pairs = [torch.zeros(2, 0, dtype=torch.int64)]
    for number, window in enumerate(seen.windows):
        meets = _area(_meet(window, seen.windows)) > 0
        meets[number] = False
        near = meets[seen.look]
        own = is_cut & (seen.look == number)
        for label in seen.labels[own].unique():
            others = (near & (seen.labels == label)).nonzero()[:, 0]
            both = _meet(window, seen.windows[seen.look[others]])
            second = _meet(seen.boxes[others], both)
            for rows in (own & (seen.labels == label)).nonzero()[:, 0].split(_ROWS):
                first = _meet(seen.boxes[rows, None], both)
                common, areas = _area(_meet(first, second)), _area(first) + _area(second)
                row, column = ((common > iou * (areas - common)) & (common > 0)).nonzero(as_tuple=True)
                pairs.append(torch.stack([rows[row], others[column]]))
    cut, other = torch.cat(pairs, 1)
    return cut, other


def _meet(a: Tensor, b: Tensor) -> Tensor:
    """What two boxes have in common."""
    return torch.cat([a[..., :2].maximum(b[..., :2]), a[..., 2:].minimum(b[..., 2:])], -1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _fuse(seen: Seen, size: tuple[int, int], settings: DetectionEval) -> Detections:
    """Weighted boxes fusion (Solovyev et al., arXiv 1910.13302): boxes of one object become their mean by score. The mean of
    their scores is lowered where fewer windows found it than show all of it."""
    boxes, scores, labels = (t.double().numpy() for t in (seen.boxes, seen.scores, seen.labels))
    looks = seen.look.numpy()
    found: list[tuple[np.ndarray, float, float]] = []
    for label in np.unique(labels):
        own = labels == label
        mean, weight, count = _clusters(boxes[own], scores[own], looks[own], settings.nms_iou)
        shows = _shown_whole(torch.from_numpy(mean), seen.windows[:, None].double(), size).sum(0).clamp(min=1).numpy()
        means = weight / count * np.minimum(count, shows) / shows
        found += [(box, score, label) for box, score in zip(mean, means.tolist())]
    order = sorted(range(len(found)), key=lambda i: -found[i][1])[: settings.max_detections]
    of_image = [found[i] for i in order if found[i][1] > settings.score_threshold]
    fused = Detections(
        torch.tensor(np.array([box for box, _, _ in of_image]).reshape(-1, 4), dtype=torch.float32),
        torch.tensor([score for _, score, _ in of_image], dtype=torch.float32),
        torch.tensor([label for *_, label in of_image], dtype=torch.int64),
    )
    if not settings.nms_agnostic:
        return fused
    return suppress(fused.boxes, fused.scores, fused.labels, settings.model_copy(update={"nms": "hard"}))


def _clusters(
    boxes: np.ndarray, scores: np.ndarray, looks: np.ndarray, iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of one class, best first, each with the cluster whose mean it overlaps most, if by more than `iou`, but of each
    window only the best one: of each cluster the mean by score, the sum of the scores, and the number of windows."""
    sums, mean = np.zeros((2, len(boxes), 4))
    weight, count = np.zeros((2, len(boxes)))
    clusters, found = 0, set()
    for box, score, look in zip(boxes, scores, looks):
        known = mean[:clusters]
        sides = (np.minimum(known[:, 2:], box[2:]) - np.maximum(known[:, :2], box[:2])).clip(0)
        common = sides.prod(1)
        union = (known[:, 2:] - known[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - common
        place = int((common / union).argmax()) if clusters else 0
        if not clusters or common[place] <= iou * union[place]:
            place, clusters = clusters, clusters + 1
        if (place, look) in found:
            continue
        found.add((place, look))
        sums[place] += score * box
        weight[place] += score
        count[place] += 1
        mean[place] = sums[place] / weight[place]
    return mean[:clusters], weight[:clusters], count[:clusters]

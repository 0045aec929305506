"""Detections of windows become those of the image: one box an object, whole where a border cuts it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.config.tiles import EvalTiles
from ddptrain.data.tables.windows import Cutter
from ddptrain.models.stitch import Seen, stitch
from ddptrain.structures import Detections

SIZE = (300, 100)
WINDOWS = torch.tensor([[0.0, 0, 120, 100], [90, 0, 210, 100], [180, 0, 300, 100]])
"""Three in a row, that share 30 columns."""


def seen(*rows: tuple[tuple[float, ...], float, int, int], windows: torch.Tensor = WINDOWS) -> Seen:
    """Boxes with score, label and window."""
    boxes, scores, labels, look = zip(*rows)
    return Seen(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), torch.tensor(look), windows)


def stitched(found: Seen, merge: str = "nms", **keys: object) -> list[tuple[list[float], float, int]]:
    settings = DetectionEval(tiles=EvalTiles(merge=merge), nms_iou=0.6, **keys)  # type: ignore[arg-type]
    out: Detections = stitch(found, SIZE, settings)
    assert out.scores.tolist() == sorted(out.scores.tolist(), reverse=True)
    return [
        ([round(v, 3) for v in b], round(s, 4), k)
        for b, s, k in zip(*(t.tolist() for t in (out.boxes, out.scores, out.labels)))
    ]


@pytest.mark.parametrize("merge", ["nms", "soft", "wbf"])
def test_a_cut_box_gives_way_to_a_whole_one_whatever_its_score(merge: str) -> None:
    """100 to 140 is whole in the second window; the first one sees it to column 120, and is surer."""
    whole, cut = ((100.0, 10, 140, 30), 0.6, 0, 1), ((100.0, 10, 120, 30), 0.9, 0, 0)
    assert stitched(seen(cut, whole), merge) == [([100, 10, 140, 30], 0.6, 0)]
    # not to another class, nor to one that is hardly believed, nor to one that it does not agree with
    assert len(stitched(seen(cut, (*whole[:2], 1, 1)), merge)) == 2
    assert len(stitched(seen(cut, (whole[0], 0.3, 0, 1)), merge)) == 2
    assert len(stitched(seen(cut, ((100.0, 15, 140, 60), 0.6, 0, 1)), merge)) == 2


def test_the_border_of_the_image_cuts_nothing() -> None:
    found = seen(((0.0, 0, 20, 100), 0.9, 0, 0), ((280.0, 10, 300, 30), 0.8, 0, 2))
    assert [row[0] for row in stitched(found)] == [[0, 0, 20, 100], [280, 10, 300, 30]]


@pytest.mark.parametrize("merge", ["nms", "soft", "wbf"])
def test_parts_of_an_object_that_no_window_shows_whole_become_one(merge: str) -> None:
    """From column 40 to 260: cut in all three."""
    rows = (((40.0, 20, 120, 60), 0.7, 0, 0), ((90.0, 20, 210, 60), 0.9, 0, 1), ((180.0, 20, 260, 60), 0.8, 0, 2))
    for order in (rows, rows[::-1], (rows[1], rows[2], rows[0])):
        assert stitched(seen(*order), merge) == [([40, 20, 260, 60], 0.9, 0)]
    # a box of the whole image takes the place of all of them
    image = torch.cat([WINDOWS, torch.tensor([[0.0, 0, 300, 100]])])
    whole = ((42.0, 20, 258, 60), 0.6, 0, 3)
    assert stitched(seen(*rows, whole, windows=image), merge) == [([42, 20, 258, 60], 0.6, 0)]


def test_what_a_window_does_not_show_is_cut_off() -> None:
    assert stitched(seen(((-5.0, 10, 130, 30), 0.9, 0, 0))) == [([0, 10, 120, 30], 0.9, 0)]


def test_boxes_in_two_windows_on_one_object() -> None:
    """In the 30 columns that two windows share, both see it whole."""
    a, b = ((95.0, 10, 115, 30), 0.8, 0, 0), ((95.0, 10, 115, 32), 0.4, 0, 1)
    assert stitched(seen(b, a)) == [([95, 10, 115, 30], 0.8, 0)]
    iou = 20 / 22
    assert stitched(seen(b, a), "soft", soft_nms_sigma=0.5)[1] == (
        [95, 10, 115, 32],
        round(0.4 * np.exp(-(iou**2) / 0.5), 4),
        0,
    )
    # mean by score of the boxes, mean of the scores: (0.8 x 30 + 0.4 x 32) / 1.2
    assert stitched(seen(b, a), "wbf") == [([95, 10, 115, round(36.8 / 1.2, 3)], 0.6, 0)]
    # found by one of the two windows that show it: half of the score
    assert stitched(seen(a), "wbf") == [([95, 10, 115, 30], 0.4, 0)]
    assert stitched(seen(((20.0, 10, 40, 30), 0.8, 0, 0)), "wbf") == [([20, 10, 40, 30], 0.8, 0)]


def test_fused_boxes_count_the_windows_that_found_them() -> None:
    """Both windows show 95 to 115; a second box of one window on the same object says nothing new."""
    first, again = ((95.0, 10, 115, 30), 0.8, 0, 0), ((96.0, 10, 115, 30), 0.8, 0, 0)
    assert stitched(seen(first), "wbf") == [([95, 10, 115, 30], 0.4, 0)]
    assert stitched(seen(first, again), "wbf") == [([95, 10, 115, 30], 0.4, 0)]
    assert stitched(seen(first, (*first[:3], 1)), "wbf") == [([95, 10, 115, 30], 0.8, 0)]


@pytest.mark.parametrize("merge", ["nms", "soft", "wbf"])
def test_at_most_one_class_in_a_place(merge: str) -> None:
    one, other = ((140.0, 10, 170, 30), 0.9, 0, 1), ((140.0, 10, 170, 30), 0.6, 1, 1)
    apart, together = (stitched(seen(one, other), merge, nms_agnostic=agnostic) for agnostic in (False, True))
    assert [label for *_, label in apart] == [0, 1]
    assert together[0] == apart[0]
    assert sum(score for _, score, _ in together[1:]) < 0.2 * apart[1][1]


def test_an_image_with_one_window_stays_as_it_is() -> None:
    one = seen(((1.0, 1, 50, 50), 0.9, 0, 0), ((2.0, 1, 50, 50), 0.8, 0, 0), windows=torch.tensor([[0.0, 0, 300, 100]]))
    for merge in ("nms", "soft", "wbf"):
        assert [row[1] for row in stitched(one, merge)] == [0.9, 0.8]


@pytest.mark.parametrize("merge", ["nms", "soft", "wbf"])
@pytest.mark.parametrize("seed", range(3))
def test_the_truth_window_by_window_is_the_truth(merge: str, seed: int) -> None:
    """Objects of any size that do not overlap: each is found once, where it is, also if it is larger than a window."""
    r = np.random.default_rng(seed)
    cutter = Cutter((64, 128), 0.4, 64)
    cells = [(x, y, 90 if x == 0 and y == 0 else 45) for x in range(0, 360, 100) for y in range(0, 250, 100)]
    boxes = np.array(
        [[x + r.integers(0, 5), y + r.integers(0, 5), x + r.integers(8, w), y + r.integers(8, w)] for x, y, w in cells]
    )
    boxes = boxes.astype(np.float32)
    labels = r.integers(0, 2, len(boxes))
    windows = cutter.windows(400, 300)
    rows = []
    for look, window in enumerate(windows):
        parts = cutter.parts(boxes, window)
        rows += [(tuple(parts.boxes[i].tolist()), 1.0, int(labels[i]), look) for i in np.flatnonzero(parts.inside)]
    r.shuffle(rows)
    found = seen(*rows, windows=torch.from_numpy(windows).float())
    settings = DetectionEval(tiles=EvalTiles(merge=merge), max_detections=1000)  # type: ignore[arg-type]
    out = stitch(found, (400, 300), settings)
    sure = out.scores > 0.5  # soft-NMS keeps what it suppresses, with less
    got = sorted((*b, k) for b, k in zip(out.boxes[sure].round().tolist(), out.labels[sure].tolist()))
    assert got == sorted((*b, k) for b, k in zip(boxes.tolist(), labels.tolist()))

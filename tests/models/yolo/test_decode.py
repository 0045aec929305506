"""Dense prediction → detections."""

import pytest
import torch
from host_waits import HostWaits
from torchvision.ops import batched_nms, box_iou

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.models.suppression import nms_by_class
from ddptrain.models.yolo import decode
from ddptrain.models.yolo.decode import detections
from ddptrain.models.yolo.prediction import DensePrediction


def random_prediction(b: int = 3, a: int = 200, classes: int = 4, seed: int = 0) -> DensePrediction:
    g = torch.Generator().manual_seed(seed)
    return DensePrediction(
        torch.randn(b, a, classes, generator=g) * 2,
        torch.randn(b, a, 4, 8, generator=g),
        torch.rand(a, 2, generator=g) * 100,
        torch.full((a,), 8.0),
    )


@pytest.mark.parametrize("limit", [5, 300])
def test_what_every_output_keeps(limit):
    pred = random_prediction()
    out = detections(pred, DetectionEval(score_threshold=0.3, nms_iou=0.5, max_detections=limit))
    assert len(out) == 3
    scores, boxes = pred.logits.sigmoid(), pred.boxes()
    for i, d in enumerate(out):
        assert 0 < len(d.boxes) <= limit
        assert d.boxes.dtype == d.scores.dtype == torch.float32
        assert d.labels.dtype == torch.int64
        assert (d.scores.diff() <= 0).all()
        assert (d.scores > 0.3).all()
        # every detection is one of the prediction's (point, class) pairs
        for box, score, label in zip(d.boxes, d.scores, d.labels):
            assert ((boxes[i] == box).all(1) & (scores[i, :, label] == score)).any()
        same = d.labels[:, None] == d.labels
        overlap = box_iou(d.boxes, d.boxes).fill_diagonal_(0)
        assert (overlap[same] <= 0.5 + 1e-6).all()


def test_nothing_is_lost_but_what_a_better_box_covers():
    """Greedy suppression, written out naively, gives the same set."""
    pred = random_prediction(b=1, a=60)
    (d,) = detections(pred, DetectionEval(score_threshold=0.2, nms_iou=0.4, max_detections=1000))
    scores, boxes = pred.logits[0].sigmoid(), pred.boxes()[0]
    expected = []
    for c in range(4):
        kept: list[int] = []
        for i in scores[:, c].argsort(descending=True).tolist():
            if scores[i, c] > 0.2 and all(box_iou(boxes[i : i + 1], boxes[k : k + 1]) <= 0.4 for k in kept):
                kept.append(i)
        expected += [(float(scores[i, c]), c) for i in kept]
    assert sorted(zip(d.scores.tolist(), d.labels.tolist())) == sorted(expected)


def test_one_point_may_report_several_classes():
    pred = random_prediction(b=1, a=1)._replace(logits=torch.tensor([[[3.0, 2.0, -3.0, 1.0]]]))
    (d,) = detections(pred, DetectionEval(score_threshold=0.5, nms_iou=0.5, max_detections=10))
    assert d.labels.tolist() == [0, 1, 3]


def test_equal_scores_keep_their_order():
    a = 50
    pred = DensePrediction(
        torch.zeros(1, a, 2),
        torch.full((1, a, 4, 1), 1.0),
        torch.arange(a)[:, None] * 50.0 + torch.zeros(a, 2),
        torch.ones(a),
    )
    (d,) = detections(pred, DetectionEval(score_threshold=0.1, nms_iou=0.5, max_detections=7))
    assert d.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert d.boxes[:, 0].tolist() == [-1, -1, 49, 49, 99, 99, 149]


def test_no_candidates():
    out = detections(random_prediction(), DetectionEval(score_threshold=0.99999, nms_iou=0.5, max_detections=10))
    assert [d.boxes.shape for d in out] == [(0, 4)] * 3


def test_the_cap_keeps_the_best(monkeypatch):
    monkeypatch.setattr(decode, "MAX_CANDIDATES", 20)
    pred = random_prediction(b=1)
    (d,) = detections(pred, DetectionEval(score_threshold=0.0, nms_iou=1.0, max_detections=1000))
    assert torch.equal(d.scores, pred.logits.sigmoid().flatten().sort(descending=True).values[:20])


def test_boxes_are_decoded_in_float32_under_autocast():
    """In bfloat16 the expectation of a distribution is off by more than a pixel at stride 32."""
    pred = random_prediction()._replace(strides=torch.full((200,), 32.0))
    with torch.autocast("cpu", torch.bfloat16):
        boxes = pred.boxes()
    assert torch.equal(boxes, pred.boxes())


def rounded(pred: DensePrediction) -> DensePrediction:
    """With scores that all differ."""
    order = torch.randperm(pred.logits.numel(), generator=torch.Generator().manual_seed(1)).view_as(pred.logits)
    return pred._replace(logits=(order / pred.logits.numel() - 0.5) * 8)


@pytest.mark.parametrize("a", [40, 3000])
def test_the_way_for_a_gpu_keeps_the_same_boxes_and_waits_less(a):
    """Few boxes, for which torchvision moves the classes apart, and many, for which it loops over them."""
    pred = rounded(random_prediction(b=3, a=a, classes=5))
    scores, boxes = pred.logits.sigmoid(), pred.boxes()
    with HostWaits() as several:
        each = list(decode._each(scores, boxes, 0.3))
    with HostWaits() as waits:
        together = list(decode._together(scores, boxes, 0.3))
        kept = [nms_by_class(*candidates, 0.5) for candidates in together]
    # of torch's own operations; beside them a list of counts for the batch, and what torchvision does in its kernel
    assert several.lines
    assert not waits.lines
    for one, other, rows in zip(each, together, kept, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))
        assert torch.equal(rows, batched_nms(*one, 0.5))


def test_the_way_for_a_gpu_without_candidates():
    pred = random_prediction(b=2)
    out = [nms_by_class(*candidates, 0.5) for candidates in decode._together(pred.logits.sigmoid() * 0, pred.boxes(), 0.3)]
    assert [len(rows) for rows in out] == [0, 0]

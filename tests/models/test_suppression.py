"""Which boxes stay, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.models.suppression import suppress
from ddptrain.structures import Detections

# the second overlaps the first by 0.6, the third neither, the fourth is the first again, of another class
BOXES = torch.tensor([[0.0, 0, 20, 20], [5, 0, 25, 20], [100, 0, 120, 20], [0, 0, 20, 20]])
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6])
LABELS = torch.tensor([0, 0, 0, 1])


def of(**settings: object) -> Detections:
    return suppress(BOXES, SCORES, LABELS, DetectionEval.model_validate(settings))


def test_hard() -> None:
    assert of(nms_iou=0.5).scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert of(nms_iou=0.7).scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert of(nms_iou=0.7, max_detections=2).labels.tolist() == [0, 0]
    assert of(nms_iou=0.7, nms_agnostic=True).scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


@pytest.mark.parametrize("sigma", [0.5, 0.1])
def test_soft_lowers_what_overlaps(sigma: float) -> None:
    got = of(nms="soft", soft_nms_sigma=sigma)
    lowered = 0.8 * math.exp(-(0.6**2) / sigma)
    wanted = sorted([0.9, lowered, 0.7, 0.6], reverse=True)
    assert got.scores.tolist() == pytest.approx(wanted)
    assert got.boxes[wanted.index(lowered)].tolist() == BOXES[1].tolist()


def test_soft_over_all_classes_and_down_to_the_threshold() -> None:
    got = of(nms="soft", soft_nms_sigma=0.5, nms_agnostic=True)
    # first 0.7, then the fourth by exp(-2) and, twice overlapped, by the second once more
    second = 0.8 * math.exp(-0.72)
    fourth = 0.6 * math.exp(-2) * math.exp(-0.72)
    assert got.scores.tolist() == pytest.approx([0.9, 0.7, second, fourth])
    above = of(nms="soft", soft_nms_sigma=0.5, nms_agnostic=True, score_threshold=0.1)
    assert above.scores.tolist() == pytest.approx([0.9, 0.7, second])
    assert len(of(nms="soft", max_detections=1).scores) == 1


def test_of_nothing() -> None:
    none = suppress(BOXES[:0], SCORES[:0], LABELS[:0], DetectionEval(nms="soft"))
    assert none.boxes.shape == (0, 4)
    assert none.labels.dtype == torch.int64

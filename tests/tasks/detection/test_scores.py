"""What an evaluation asks for is what is counted: keys of `eval` and the numbers that they change."""

from __future__ import annotations

import numpy as np
import pytest
from metric_worlds import found, truth

from ddptrain.config.detection_eval import DetectionEval
from ddptrain.tasks.detection.scores import detections_of, mean_losses, score

A, B, C = (10, 10, 30, 30), (50, 10, 70, 30), (90, 10, 110, 30)
AWAY = (200, 200, 220, 220)
WORLD = truth([(0, A, 0), (0, B, 0), (0, C, 0)], 1, 1)
ROWS = [(0, A, 0, 0.9), (0, AWAY, 0, 0.8), (0, B, 0, 0.7), (0, (95, 10, 115, 30), 0, 0.6)]


def by(**settings: object) -> dict[str, float]:
    return score([WORLD], [found(ROWS)], ["a"], DetectionEval.model_validate(settings))


def test_coco_max_detections_count_in_every_number() -> None:
    assert by()["AR"] == pytest.approx((3 * 3 + 2 * 7) / 30)  # the last overlaps by 0.6: three levels
    one = by(coco_max_detections=1)
    assert one["AR"] == pytest.approx(1 / 3)
    assert [one[key] for key in ("AP", "AP50", "AP75", "APs")] == pytest.approx([34 / 101] * 4)


def test_voc_by_points_and_overlap() -> None:
    protocols = ("coco", "voc")
    # precisions 1, 2/3, 3/4 at recalls 1/3, 2/3, 1; the envelope lifts the second
    assert by(protocols=protocols)["voc/AP"] == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    assert by(protocols=protocols, voc_points="11")["voc/AP"] == pytest.approx((4 * 1 + 7 * 3 / 4) / 11)
    assert by(protocols=protocols, voc_iou=0.7)["voc/AP"] == pytest.approx((1 + 2 / 3) / 3)
    assert "voc/AP" not in by()


def test_uavdt_is_in_the_flat_names() -> None:
    got = by(protocols=("coco", "uavdt"))
    assert got["uavdt/AP70"] == got["dataset/d/uavdt/AP70"] == got["dataset/d/uavdt/class/a/AP70"]


def test_precision_recall_and_f1_at_the_best_confidence() -> None:
    """At 0.5: from 0.6 on three of four are right and all three are found; from 0.7 on two of three."""
    got = by()
    assert got["confidence"] == pytest.approx(0.6)
    assert [got[key] for key in ("precision", "recall", "F1")] == pytest.approx([3 / 4, 1, 6 / 7])
    assert got["class/a/F1"] == got["F1"]
    nothing = score([truth([], 1, 1)], [found(ROWS)], ["a"], DetectionEval())
    assert np.isnan([nothing[key] for key in ("precision", "confidence", "class/a/recall")]).all()


@pytest.mark.parametrize(("factor", "shift"), [(100, 0), (1, -1)])
def test_scores_that_are_no_confidences_have_an_order_alone(factor: float, shift: float) -> None:
    strange = found([(image, box, label, factor * value + shift) for image, box, label, value in ROWS])
    got, wanted = score([WORLD], [strange], ["a"], DetectionEval()), by()
    of_confidence = {key for key in wanted if key.rsplit("/", 1)[-1] in ("precision", "recall", "F1", "confidence")}
    assert np.isnan([got[key] for key in of_confidence]).all()
    assert {k: got[k] for k in wanted.keys() - of_confidence} == pytest.approx(
        {k: wanted[k] for k in wanted.keys() - of_confidence}, nan_ok=True
    )


def test_of_predictions_without_any() -> None:
    assert len(detections_of({}).scores) == 0
    assert np.isnan(mean_losses([{}])["loss"])

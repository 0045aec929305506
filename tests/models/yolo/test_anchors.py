"""The anchor-based head: its boxes, its rule, and the anchors that fit a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ddptrain.config import LossConfig, YoloConfig, resolve
from ddptrain.errors import UserError
from ddptrain.models.yolo.anchors import best_possible_recall, default_anchors, fit_anchors
from ddptrain.models.yolo.assign.base import Objects
from ddptrain.models.yolo.assign.choose import assign
from ddptrain.models.yolo.loss import detection_loss
from ddptrain.models.yolo.network import Yolo


def predict(**config: Any) -> Any:
    torch.manual_seed(0)
    model = Yolo(YoloConfig.model_validate({"head": "anchor_based", **config}), 3, 64).eval()
    with torch.no_grad():
        return model(torch.rand(1, 3, 64, 96))


def test_boxes_are_of_their_cell_and_anchor() -> None:
    """Offsets of 0 give the anchor at the centre of the cell; their ends a stride to each side, and sides of 0 to 4 anchors."""
    pred = predict(anchors=(((10, 20), (30, 10)), ((40, 40), (20, 80)), ((99, 50), (7, 9))))
    assert pred.logits.shape == (1, 2 * (8 * 12 + 4 * 6 + 2 * 3), 3)
    row = 2 * (1 * 12 + 3) + 1  # second anchor of the cell in row 1, column 3 of the finest level
    boxes = []
    for offset in ([0.0, 0, 0, 0], [99.0, -99, 99, -99]):
        offsets = torch.zeros_like(pred.offsets)
        offsets[0, row] = torch.tensor(offset)
        boxes.append(pred._replace(offsets=offsets).boxes()[0, row].tolist())
    assert boxes[0] == [28 - 15, 12 - 5, 28 + 15, 12 + 5]
    assert boxes[1] == pytest.approx([36 - 60, 4, 36 + 60, 4])
    assert pred.at(torch.tensor([row])).boxes()[0, 0].tolist() == pred.boxes()[0, row].tolist()


def cells(pred: Any, box: list[float], **config: Any) -> set[tuple[float, ...]]:
    """(x, y, width of the anchor) of the places that learn an object."""
    objects = Objects(torch.tensor([box], dtype=torch.float32), torch.tensor([0]), torch.tensor([0]))
    got = assign(pred, pred.boxes(), objects, torch.ones(1, 3, dtype=torch.bool), LossConfig(**config))
    assert (got.target == got.assigned).all()
    places = got.points[got.assigned].tolist()
    return {(*pred.points[i].tolist(), float(pred.shapes[i, 0])) for i in places}


def test_an_object_is_learned_at_its_cell_and_the_nearest_beside_it() -> None:
    """Centre (30, 21), 8 x 8. Of the finest level the cell around (28, 20) holds it, to the right of and below its centre; the
    anchors of 2 and 33 differ by 4 times or more."""
    pred = predict(anchors=(((8, 8), (2, 2)), ((33, 33), (9, 9)), ((99, 99), (99, 99))))
    found = cells(pred, [26, 17, 34, 25])
    finest = {(28.0, 20.0), (36.0, 20.0), (28.0, 28.0)}
    # on the next level the cell around (24, 24): to the right of and above its centre
    next_one = {(24.0, 24.0), (40.0, 24.0), (24.0, 8.0)}
    assert found == {(*xy, 8.0) for xy in finest} | {(*xy, 9.0) for xy in next_one}


def test_with_iou_t_the_shapes_that_overlap_enough_learn_it() -> None:
    """About one centre with 8 x 8, anchors of 10 x 10 have an IoU of 0.64, of 16 x 4 one of 1/3, of 8 x 33 one of 8/33; the
    second differs by 2 times and the last by more than 4."""
    pred = predict(anchors=(((10, 10), (16, 4)), ((8, 33), (20, 20)), ((99, 99), (98, 98))))
    widths = {
        iou_t: {width for *_, width in cells(pred, [26, 17, 34, 25], iou_t=iou_t)} for iou_t in (None, 0.65, 0.6, 0.3, 0.2)
    }
    assert widths == {None: {10.0, 16.0, 20.0}, 0.65: set(), 0.6: {10.0}, 0.3: {10.0, 16.0}, 0.2: {10.0, 16.0, 8.0}}


def test_cells_beyond_the_image_are_left_out() -> None:
    pred = predict(anchors=(((8, 8),), ((999, 999),), ((999, 999),)))
    assert cells(pred, [-2, -2, 6, 6]) == {(4.0, 4.0, 8.0)}
    assert cells(pred, [90, 58, 98, 66]) == {(92.0, 60.0, 8.0)}


def test_the_objectness_learns_how_well_boxes_fit() -> None:
    """At an object's places the entropy against the similarity, elsewhere against 0; `obj_pw` is a factor on the former."""
    pred = predict()
    objects: dict[str, Any] = {
        "boxes": torch.tensor([[20.0, 10, 50, 40]]), "labels": torch.tensor([1]), "image": torch.tensor([0]),
        "ignore_boxes": torch.zeros(0, 4), "ignore_image": torch.zeros(0, dtype=torch.int64),
        "annotated": torch.ones(1, 3, dtype=torch.bool),
    }  # fmt: skip
    truth = Objects(objects["boxes"], objects["labels"], objects["image"])
    got = assign(pred, pred.boxes(), truth, objects["annotated"], LossConfig())
    mine = got.points[got.assigned]
    loss = detection_loss(pred, **objects, config=LossConfig(box_loss="iou", obj=2.0, obj_pw=3.0))
    inside, target = pred.boxes()[0], torch.zeros_like(pred.objectness[0])
    for i in mine.tolist():
        a, b = inside[i], objects["boxes"][0]
        side = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp_min(0)
        both = side.prod()
        target[i] = both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both)
    score = pred.objectness[0].sigmoid()
    expected = -(3 * target * score.log() + (1 - target) * (1 - score).log()).sum()
    torch.testing.assert_close(loss.parts["obj"], 2 * expected, rtol=1e-4, atol=1e-4)
    assert loss.normalizer == len(mine) > 0

    def obj(gain: Any) -> float:
        return float(detection_loss(pred, **objects, config=LossConfig(obj=gain)).parts["obj"])

    by_level = [obj(tuple(float(i == level) for i in range(3))) for level in range(3)]
    assert min(by_level) > 0
    assert sum(by_level) == pytest.approx(obj(1.0), rel=1e-5)


def test_the_best_possible_recall_by_hand() -> None:
    """Sides of 10 x 10: 39 is within 4 times, 41 is not; one side decides."""
    sizes = np.array([[39.0, 10.0], [41.0, 10.0], [10.0, 2.6], [10.0, 2.4]])
    assert best_possible_recall(sizes, np.array([[10.0, 10.0]]), 4.0) == 0.5
    assert best_possible_recall(sizes, np.array([[10.0, 10.0], [41.0, 9.0]]), 4.0) == 0.75


def test_anchors_that_miss_boxes_are_replaced_by_better_ones_and_good_ones_are_kept() -> None:
    """Boxes of a shape that no square matches; the outcome is a function of boxes and seed."""
    draws = np.random.default_rng(0)
    sizes = np.concatenate([draws.uniform([60, 2], [120, 4], (300, 2)), draws.uniform([2, 20], [4, 60], (200, 2))])
    default = default_anchors((8, 16, 32))
    found, again = (fit_anchors(sizes, default, 4.0, 7) for _ in range(2))
    assert found == again
    flat = np.array(found.anchors).reshape(-1, 2)
    before, after = (best_possible_recall(sizes, np.array(a).reshape(-1, 2), 4.0) for a in (default, flat))
    assert before < 0.7 < 0.99 < after
    assert f"{before:.3f}" in found.line
    assert f"{after:.3f}" in found.line
    assert (flat.prod(1)[1:] >= flat.prod(1)[:-1]).all()
    good = fit_anchors(draws.uniform(20, 60, (50, 2)), default, 4.0, 7)
    assert good.anchors is default
    one = fit_anchors(np.array([[500.0, 3.0]]), default, 4.0, 7)
    assert best_possible_recall(np.array([[500.0, 3.0]]), np.array(one.anchors).reshape(-1, 2), 4.0) == 1


def test_fitted_anchors_go_with_the_weights_and_the_config_s_do_not() -> None:
    fitted = Yolo(YoloConfig(head="anchor_based"), 3, 64, [[[9.0, 4]], [[20, 9]], [[50, 20]]])
    other = Yolo(YoloConfig(head="anchor_based"), 3, 64, [[[1.0, 1]], [[2, 2]], [[3, 3]]])
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other.head.anchors, fitted.head.anchors)
    own = Yolo(YoloConfig(head="anchor_based", anchors=(((9, 4),), ((20, 9),), ((50, 20),))), 3, 64)
    assert not any("anchors" in name for name in own.state_dict())


BASE = {
    "classes": ["a", "b"],
    "data": {part: [{"name": "x", "format": "voc", "root": "r"}] for part in ("train", "val")},
}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.anchors=[[[8, 8]], [[16, 16]], [[32, 32]]]"], "model.head=anchor_based"),
        (["loss.obj=2"], "loss.obj"),
        (["loss.anchor_t=3"], "model.head=anchor_based"),
        (["loss.iou_t=0.3"], "only model.head=anchor_based with loss.assigner=rule uses it"),
        (["model.head=anchor_based", "loss.assigner=simota", "loss.iou_t=0.3"], "loss.iou_t: 0.3 has no effect here"),
        (["model.head=anchor_based", "loss.iou_t=1"], "loss.iou_t: 1: must be a number < 1"),
        (["loss.class_weights=[1, 2, 3]"], "loss.class_weights: 3 numbers for 2 classes; give one number ≥ 0 for each class"),
        (["loss.class_weights=[1, -2]"], "loss.class_weights: -2 is below 0; give one number ≥ 0 for each of the 2"),
        (["loss.class_weights=[0, 0]"], "loss.class_weights: all are 0; give one number ≥ 0 for each of the 2"),
        (["loss.class_weights={a: 1}"], "allowed: none or balanced or a list, such as [a, b]"),
        (["model.head=anchor_based", "loss.dfl=2"], "loss.dfl"),
        (["model.head=anchor_based", "model.reg_max=8"], "model.reg_max"),
        (["model.head=anchor_based", "model.anchors=[[[8, 8]], [[16, 16]]]"], "given for 2 levels, but strides has 3"),
        (["model.head=anchor_based", "model.anchors=[[[8, 8]], [], [[1, 1]]]"], "the same number of [width, height] pairs"),
        (["model.head=anchor_based", "model.anchors=[[[8, 0]], [[8, 8]], [[1, 1]]]"], "numbers > 0"),
        (["model.head=anchor_based", "loss.assigner=task_aligned"], "allowed: rule or simota"),
        (["model.head=dual", "loss.assigner=simota"], "allowed: task_aligned"),
        (["model.head=dual", "eval.nms_iou=0.5"], "eval.nms_iou"),
        (["loss.assigner=rule", "loss.topk=5"], "loss.topk"),
        (["loss.obj=[1, 2]", "model.head=anchor_based"], "2 gains for 3 levels"),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides: list[str], expected: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(BASE, overrides)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)

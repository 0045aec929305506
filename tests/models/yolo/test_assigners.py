"""The assigners by name, each against numbers worked out by hand or a loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddptrain.config import LossConfig
from ddptrain.losses.boxes import iou, similarity
from ddptrain.models.yolo.assign.base import Assignment, Objects
from ddptrain.models.yolo.assign.choose import assign


def assigned_by(pred: Any, targets: dict[str, Tensor], **config: Any) -> Assignment:
    objects = Objects(targets["boxes"], targets["labels"], targets["image"])
    return assign(pred, pred.boxes().detach(), objects, targets["annotated"], LossConfig.model_validate(config))


def points_of(pred: Any, got: Assignment, row: int) -> set[tuple[float, float, float]]:
    """(x, y, stride) of the points of an object."""
    mine = got.points[row][got.assigned[row]] % len(pred.points)
    return {(*pred.points[i].tolist(), float(pred.strides[i])) for i in mine.tolist()}


def one_object(scenes: Any, box: list[float]) -> dict[str, Tensor]:
    targets: dict[str, Tensor] = scenes.targets([1], seed=0)
    return targets | {"boxes": torch.tensor([box], dtype=torch.float32), "labels": torch.tensor([1])}


def test_the_rule_takes_points_near_the_centre_on_the_level_of_the_size(scenes: Any) -> None:
    """A square of 40 around (64, 64): points of stride 8 within 12 pixels of the centre; the farthest side of each is at most
    32 away, below 8 strides. The next level starts at 64."""
    pred = scenes.prediction(1, seed=0)
    got = assigned_by(pred, one_object(scenes, [44, 44, 84, 84]), assigner="rule")
    assert points_of(pred, got, 0) == {(x, y, 8.0) for x in (60.0, 68.0) for y in (60.0, 68.0)}
    # 16 to the nearer side, 24 to the farther, in both directions
    assert got.target[got.assigned].tolist() == pytest.approx([16 / 24] * 4)
    assert torch.equal(got.weight, got.target)


def test_the_rule_s_levels_meet(scenes: Any) -> None:
    """A square of 120: its sides are 60 and more away, within 8 strides of the finest level for the points of which none is
    beyond 64, and from 4 strides of the next on."""
    pred = scenes.prediction(1, seed=0)
    got = assigned_by(pred, one_object(scenes, [4, 4, 124, 124]), assigner="rule")
    expected = {(x, y, 16.0) for x in (56.0, 72.0) for y in (56.0, 72.0)}
    assert points_of(pred, got, 0) == expected  # (60, 60) of stride 8 is 64 from the farther side, which is the next level's


def test_of_two_objects_the_rule_gives_a_point_to_the_smaller(scenes: Any) -> None:
    pred, targets = scenes.prediction(1, seed=0), scenes.targets([2], seed=0)
    targets["boxes"] = torch.tensor([[40.0, 40, 88, 88], [48, 48, 80, 80]])
    got = assigned_by(pred, targets, assigner="rule")
    assert got.assigned.sum(1).tolist() == [0, 4]
    assert got.without_point().tolist() == [True, False]


def by_loop(pred: Any, targets: dict[str, Tensor], topk: int) -> list[set[int]]:
    """SimOTA of one image as its paper says, object by object."""
    boxes, decoded, scores = targets["boxes"], pred.boxes()[0].detach(), pred.logits[0].detach().sigmoid()
    known = targets["annotated"][0]
    chosen: dict[int, tuple[float, int]] = {}
    for row, (box, label) in enumerate(zip(boxes, targets["labels"].tolist())):
        overlap = iou(box, decoded)
        centre = (box[:2] + box[2:]) / 2
        inside = ((pred.points >= box[:2]) & (pred.points <= box[2:])).all(1)
        near = ((pred.points - centre).abs() < 2.5 * pred.strides[:, None]).all(1)
        truth = torch.zeros_like(scores)
        truth[:, label] = 1
        entropy = torch.nn.functional.binary_cross_entropy(scores, truth, reduction="none")[:, known].sum(1)
        cost = entropy - 3 * (overlap + 1e-8).log() + 1e5 * ~(inside & near)
        candidates = (inside | near).nonzero()[:, 0]
        count = max(1, int(overlap[candidates].sort(descending=True).values[:topk].sum()))
        for i in candidates[cost[candidates].argsort()][:count].tolist():
            chosen[i] = min(chosen.get(i, (torch.inf, -1)), (float(cost[i]), row))
    return [{i for i, (_, owner) in chosen.items() if owner == row} for row in range(len(boxes))]


@pytest.mark.parametrize("topk", [3, 10])
def test_simota_is_what_its_paper_says(scenes: Any, topk: int) -> None:
    pred, targets = scenes.prediction(1, seed=1), scenes.targets([12], seed=2)
    targets["annotated"][0, 3] = False
    targets["labels"] = targets["labels"] % 3
    got = assigned_by(pred, targets, assigner="simota", topk=topk)
    assert [set(points[mine].tolist()) for points, mine in zip(got.points, got.assigned)] == by_loop(pred, targets, topk)
    overlap = iou(pred.boxes()[0].detach()[got.points], targets["boxes"][:, None])
    torch.testing.assert_close(got.target, overlap * got.assigned)
    assert torch.equal(got.weight, got.assigned.float())


def test_by_wasserstein_distance_boxes_that_do_not_overlap_have_a_target(scenes: Any) -> None:
    """Objects of 3 pixels, which hardly any predicted box overlaps much."""
    pred, targets = scenes.prediction(1, seed=3, bins=1), scenes.targets([6], seed=4)
    targets["boxes"] = torch.cat([targets["boxes"][:, :2], targets["boxes"][:, :2] + 3], 1)
    plain = assigned_by(pred, targets)
    got = assigned_by(pred, targets, assign_by="nwd", nwd_scale=20)
    distance = similarity(pred.boxes()[0].detach()[got.points], targets["boxes"][:, None], "nwd", 20)
    torch.testing.assert_close(got.target.amax(1), (distance * got.assigned).amax(1))
    assert (got.target.amax(1) > plain.target.amax(1)).all()


@pytest.mark.parametrize("assigner", ["task_aligned", "simota", "rule"])
def test_images_do_not_look_at_each_other(scenes: Any, assigner: str) -> None:
    """So a step does not depend on how it is split: each image has the same points alone and in a batch, and the same loss."""
    pred, targets = scenes.prediction(3, seed=5), scenes.targets([9, 0, 14], seed=6)
    got = assigned_by(pred, targets, assigner=assigner, every_object=True)
    start = 0
    for i, n in enumerate((9, 0, 14)):
        alone = pred._replace(logits=pred.logits[i : i + 1], distances=pred.distances[i : i + 1])
        own = assigned_by(alone, scenes.only(targets, i), assigner=assigner, every_object=True)
        rows = slice(start, start + n)
        assert torch.equal(own.assigned, got.assigned[rows])
        assert torch.equal((own.points + i * len(pred.points))[own.assigned], got.points[rows][own.assigned])
        assert torch.equal(own.target, got.target[rows])
        start += n

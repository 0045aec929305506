"""Who answers for which object."""

import pytest
import torch

from ddptrain.losses.boxes import iou
from ddptrain.models.yolo.assign import base
from ddptrain.models.yolo.assign.base import Objects, in_ignore_regions
from ddptrain.models.yolo.assign.task_aligned import task_aligned

SETTINGS = {"topk": 10, "alpha": 0.5, "beta": 6.0}


def run(pred, targets, **settings):
    with torch.no_grad():
        decoded = pred.boxes()
    objects = Objects(targets["boxes"], targets["labels"], targets["image"])
    return task_aligned(pred, decoded, objects, iou, **{**SETTINGS, **settings}), decoded


def test_no_point_has_two_objects_and_targets_are_scores(scenes):
    pred, targets = scenes.prediction(3, seed=0), scenes.targets([30, 0, 50], seed=1)
    got, _ = run(pred, targets)
    taken = got.points[got.assigned]
    assert len(taken) == len(taken.unique())
    assert (taken // pred.logits.shape[1] == targets["image"][:, None].expand_as(got.points)[got.assigned]).all()
    assert (got.target >= 0).all()
    assert (got.target <= 1).all()
    assert (got.target[~got.assigned] == 0).all()


def test_points_lie_in_their_objects_and_the_best_has_the_best_iou_as_target(scenes):
    pred, targets = scenes.prediction(2, seed=2), scenes.targets([10, 10], seed=3)
    got, decoded = run(pred, targets)
    point = pred.points[got.points % len(pred.points)]
    half = (targets["boxes"][:, 2:] - targets["boxes"][:, :2]).clamp_min(16) / 2
    offset = (point - (targets["boxes"][:, None, :2] + targets["boxes"][:, None, 2:]) / 2).abs()
    assert (offset <= half[:, None] + 1e-4)[got.assigned].all()
    overlap = iou(decoded.flatten(0, 1)[got.points], targets["boxes"][:, None]) * got.assigned
    torch.testing.assert_close(got.target.amax(1), overlap.amax(1))


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 8, 16), (4, 8, 16, 32), (8,)])
@pytest.mark.parametrize("size", [0.5, 3, 7, 15, 31])
def test_every_object_has_a_point_however_small(scenes, strides, size):
    """Objects anywhere, one in each cell of 32 pixels, so that none takes another's points."""
    scenes = type(scenes)(strides=strides)
    g = torch.Generator().manual_seed(int(size))
    cells = torch.cartesian_prod(torch.arange(4), torch.arange(4)).float() * 32
    corner = cells + torch.rand(16, 2, generator=g) * (32 - size)
    targets = scenes.targets([16], seed=0)
    targets["boxes"] = torch.cat([corner, corner + size], 1)
    got, _ = run(scenes.prediction(1, seed=4), targets)
    assert got.assigned.any(1).all()


def test_a_shared_point_goes_to_the_higher_iou(scenes):
    pred, targets = scenes.prediction(1, seed=5), scenes.targets([2], seed=0)
    near = torch.tensor([[20.0, 20, 90, 90], [30, 30, 100, 100]])
    targets["boxes"] = near
    got, decoded = run(pred, targets, topk=400)
    for row in range(2):
        mine = got.points[row][got.assigned[row]]
        shared = ((pred.points[mine] >= 30) & (pred.points[mine] <= 90)).all(1)
        assert shared.any()
        ours, theirs = iou(decoded[0][mine], near[row]), iou(decoded[0][mine], near[1 - row])
        assert (ours >= theirs)[shared].all()
    assert got.assigned.any(1).all()


def test_of_two_equal_objects_the_first_gets_the_points(scenes):
    pred, targets = scenes.prediction(1, seed=6), scenes.targets([2], seed=0)
    targets["boxes"] = torch.tensor([[20.0, 20, 100, 100]]).expand(2, 4)
    targets["labels"] = torch.zeros(2, dtype=torch.long)
    got, _ = run(pred, targets)
    assert got.assigned.sum(1).tolist() == [10, 0]


def test_topk_bounds_the_points_and_prefers_alignment(scenes):
    pred, targets = scenes.prediction(1, seed=7), scenes.targets([1], seed=0)
    targets["boxes"] = torch.tensor([[0.0, 0, 128, 128]])
    got, decoded = run(pred, targets, topk=7)
    align = pred.logits[0, :, targets["labels"][0]].sigmoid() ** 0.5 * iou(decoded[0], targets["boxes"][0]) ** 6
    assert set(got.points[0].tolist()) == set(align.topk(7).indices.tolist())


def test_chunks_change_nothing(scenes, monkeypatch):
    pred, targets = scenes.prediction(2, seed=8), scenes.targets([20, 17], seed=9, ignore=[4, 3])
    targets["ignore_boxes"][0] = torch.tensor([0.0, 0, 128, 90])
    whole, decoded = run(pred, targets)
    regions = in_ignore_regions(decoded, targets["ignore_boxes"], targets["ignore_image"])
    monkeypatch.setattr(base, "PAIRS", 1000)
    parts, _ = run(pred, targets)
    assert torch.equal(whole.target, parts.target)
    assert torch.equal(whole.points[whole.assigned], parts.points[parts.assigned])
    assert torch.equal(regions, in_ignore_regions(decoded, targets["ignore_boxes"], targets["ignore_image"]))
    assert regions.any()


def test_ignore_regions_hold_boxes_with_more_than_half_of_their_area():
    region = torch.tensor([[0.0, 0, 50, 50]])
    inside = torch.tensor([[[10.0, 10, 20, 20], [40, 0, 59, 10], [40, 0, 61, 10], [60, 60, 70, 70], [0, 0, 100, 100]]])
    assert in_ignore_regions(inside, region, torch.tensor([0])).tolist() == [[True, True, False, False, False]]
    two = torch.cat([inside, inside])
    assert not in_ignore_regions(two, region, torch.tensor([0]))[1].any()


def test_many_objects_on_a_fine_grid(scenes):
    """900 objects against the 34 000 points of a 640 px image with strides from 4 on."""
    fine = type(scenes)(side=640, strides=(4, 8, 16, 32), classes=10)
    targets = fine.targets([900], seed=1)
    centre = (targets["boxes"][:, :2] + targets["boxes"][:, 2:]) / 2
    targets["boxes"] = torch.cat([centre - 5, centre + 5], 1)
    got, _ = run(fine.prediction(1, seed=0, bins=1), targets)
    assert got.assigned.any(1).float().mean() > 0.95

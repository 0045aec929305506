"""`loss.every_object`: no object without a point, as long as there are points."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ddptrain.config import LossConfig
from ddptrain.models.yolo.assign.base import Objects
from ddptrain.models.yolo.assign.choose import assign


def assigned_by(pred: Any, targets: dict[str, Any], **config: Any) -> Any:
    objects = Objects(targets["boxes"], targets["labels"], targets["image"])
    return assign(pred, pred.boxes().detach(), objects, targets["annotated"], LossConfig.model_validate(config))


@pytest.mark.parametrize("assigner", ["task_aligned", "simota", "rule"])
def test_every_object_has_a_point_and_the_others_keep_theirs(scenes: Any, assigner: str) -> None:
    """Ten copies of one object, of which an assigner serves the first alone, and objects between the points."""
    pred, targets = scenes.prediction(2, seed=0), scenes.targets([30, 12], seed=1)
    targets["boxes"][:10] = torch.tensor([30.0, 30, 70, 90])
    targets["boxes"][10:20] = torch.cat([targets["boxes"][10:20, :2].floor() + 1, targets["boxes"][10:20, :2].floor() + 2], 1)
    plain, every = (assigned_by(pred, targets, assigner=assigner, every_object=on) for on in (False, True))
    lacking = plain.without_point()
    assert lacking.any()
    assert not every.without_point().any()
    assert torch.equal(every.points[~lacking], plain.points[~lacking])
    assert torch.equal(every.target[~lacking], plain.target[~lacking])
    assert (every.target[lacking].sum(1) == 1).all()
    taken = every.points[every.assigned]
    assert len(taken) == len(taken.unique())


def test_it_is_the_nearest_point_of_the_level_of_its_size(scenes: Any) -> None:
    """The first boxes have sides of 6 strides: 48, 96 and 192."""
    pred, targets = scenes.prediction(1, seed=0), scenes.targets([2], seed=0)
    targets["boxes"] = torch.tensor([[21.0, 21, 22, 22], [21, 21, 22, 22]])
    got = assigned_by(pred, targets, assigner="rule", every_object=True)
    places = [pred.points[p[a]].tolist() for p, a in zip(got.points, got.assigned)]
    assert places == [[[20.0, 20.0]], [[20.0, 28.0]]] or places == [[[20.0, 20.0]], [[28.0, 20.0]]]
    targets["boxes"] = torch.tensor([[-32.0, -32, 160, 160]]).repeat(2, 1)
    got = assigned_by(pred, targets, assigner="rule", every_object=True)
    assert pred.strides[got.points[1][got.assigned[1]]].tolist() == [32]


def test_more_objects_than_points_end(scenes: Any) -> None:
    small = type(scenes)(side=32, strides=(32,))
    pred, targets = small.prediction(1, seed=0), small.targets([3], seed=0)
    got = assigned_by(pred, targets, every_object=True)
    assert got.without_point().tolist().count(False) == 1

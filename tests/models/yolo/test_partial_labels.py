"""What a dataset does not label gets exactly no gradient, image by image and, in a mosaic, point by point."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddptrain.config import LossConfig
from ddptrain.losses.boxes import by_size
from ddptrain.models.yolo.loss import detection_loss

SIDE = 128.0


def tile(x1: float, y1: float, x2: float, y2: float) -> Tensor:
    """The map from pixels to the unit square of an upright rectangle."""
    return torch.tensor([[1 / (x2 - x1), 0, -x1 / (x2 - x1)], [0, 1 / (y2 - y1), -y1 / (y2 - y1)], [0, 0, 1]])


def with_tiles(
    targets: dict[str, Tensor], tiles: list[Tensor], rows: list[list[bool]], image: list[int], windows: Tensor | None = None
) -> dict[str, Tensor]:
    whole = torch.tensor([[0, 0, SIDE, SIDE]]).repeat(len(tiles), 1)
    return targets | {
        "tiles": torch.stack(tiles),
        "tile_windows": whole if windows is None else windows,
        "tile_annotated": torch.tensor(rows),
        "tile_image": torch.tensor(image),
    }


def gradient(pred: Any, targets: dict[str, Tensor], config: LossConfig | None = None) -> Tensor:
    loss = detection_loss(pred, **targets, config=config or LossConfig())
    return torch.autograd.grad(loss.total, pred.logits)[0]


def test_no_gradient_for_a_class_that_the_tile_does_not_label(scenes: Any) -> None:
    pred, targets = scenes.prediction(2, seed=0), scenes.targets([20, 20], seed=1)
    # class 1 is unknown in the right half of image 0, classes 0 and 3 in the upper half of image 1
    full = gradient(pred, targets)
    halves = [tile(SIDE / 2, 0, SIDE, SIDE), tile(0, 0, SIDE, SIDE / 2)]
    rows = [[True, False, True, True], [False, True, True, False]]
    grad = gradient(pred, with_tiles(targets, halves, rows, [0, 1]))
    right, upper = pred.points[:, 0] > SIDE / 2, pred.points[:, 1] < SIDE / 2
    unknown = torch.zeros_like(grad, dtype=torch.bool)
    unknown[0, right, 1] = True
    unknown[1, upper, 0] = unknown[1, upper, 3] = True
    assert (grad[unknown] == 0).all()
    assert (full[unknown] != 0).all()
    torch.testing.assert_close(grad[~unknown], full[~unknown])


def test_a_tile_counts_only_in_its_window_and_in_perspective_where_it_lies(scenes: Any) -> None:
    pred, targets = scenes.prediction(2, seed=0), scenes.targets([20, 20], seed=1)
    # (x, y) is seen at (x, y) / (1 + x / SIDE)
    seen = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1 / SIDE, 0, 1]])
    whole = tile(0, 0, SIDE, SIDE)
    windows = torch.tensor([[0, 0, SIDE, SIDE], [SIDE / 4, 0, SIDE / 2, SIDE]])
    rows = [[True, False, True, True], [False, True, True, True]]
    grad = gradient(pred, with_tiles(targets, [whole @ torch.linalg.inv(seen), whole], rows, [0, 1], windows))
    x, y = pred.points.T
    back = torch.stack([x, y], 1) / (1 - x / SIDE)[:, None]
    inside = (x < SIDE) & (back <= SIDE).all(1)
    assert 20 < inside.sum() < len(x) / 2
    assert (grad[0, inside, 1] == 0).all()
    assert (grad[0, ~inside, 1] != 0).all()
    shown = (x >= SIDE / 4) & (x < SIDE / 2)
    assert (grad[1, shown, 0] == 0).all()
    assert (grad[1, ~shown, 0] != 0).all()


def test_a_tile_over_the_whole_image_is_the_row_of_the_image(scenes: Any) -> None:
    pred, targets = scenes.prediction(2, seed=2), scenes.targets([9, 9], seed=3)
    row = [True, False, True, False]
    tiled = with_tiles(targets, [tile(-1, -1, SIDE + 1, SIDE + 1)], [row], [1])
    targets["annotated"] = torch.tensor([[True] * 4, row])
    torch.testing.assert_close(gradient(pred, tiled), gradient(pred, targets))


def test_where_tiles_lie_on_each_other_only_what_all_label_is_known(scenes: Any) -> None:
    """Mixup: an unlabelled object of either image may be there."""
    pred, targets = scenes.prediction(1, seed=4), scenes.targets([9], seed=5)
    whole = tile(0, 0, SIDE, SIDE)
    grad = gradient(pred, with_tiles(targets, [whole, whole], [[True, True, False, True], [True, False, True, True]], [0, 0]))
    assert (grad[..., 1:3] == 0).all()
    assert (grad[..., 0] != 0).all()


def test_a_turned_tile(scenes: Any) -> None:
    """A square on its corner: inside are the points near the centre by the sum of distances."""
    pred, targets = scenes.prediction(1, seed=6), scenes.targets([9], seed=7)
    turned = torch.tensor([[1.0, 1.0, -SIDE / 2], [1.0, -1.0, SIDE / 2], [0, 0, SIDE]]) / SIDE
    grad = gradient(pred, with_tiles(targets, [turned], [[False, True, True, True]], [0]))
    inside = (pred.points - SIDE / 2).abs().sum(1) <= SIDE / 2
    assert 50 < inside.sum() < len(inside) - 50
    assert torch.equal(grad[0, :, 0] == 0, inside)


@pytest.mark.parametrize("what", ["small", "medium", "large"])
def test_size_weights_act_on_the_boxes_of_their_size_alone(scenes: Any, what: str) -> None:
    pred, targets = scenes.prediction(1, seed=8), scenes.targets([30], seed=9)
    sides = (targets["boxes"][:, 2:] - targets["boxes"][:, :2]).prod(1).sqrt()
    assert sides.min() < 32 < sides.max()
    if what == "large":
        targets["boxes"][0] = torch.tensor([3.0, 3.0, 125.0, 125.0])
        sides[0] = 122
    plain = detection_loss(pred, **targets, config=LossConfig())
    zero = detection_loss(pred, **targets, config=LossConfig.model_validate({"size_weights": {what: 0.0}}))
    double = detection_loss(pred, **targets, config=LossConfig.model_validate({"size_weights": {what: 2.0}}))
    for part in ("box", "dfl"):
        assert zero.parts[part] < plain.parts[part]
        torch.testing.assert_close(
            double.parts[part] - plain.parts[part], plain.parts[part] - zero.parts[part], rtol=1e-3, atol=1e-3
        )
    assert torch.equal(double.parts["cls"], plain.parts["cls"])
    assert torch.equal(double.normalizer, plain.normalizer)
    own = by_size(targets["boxes"], *(float(n == what) for n in ("small", "medium", "large"))).bool()
    low, high = {"small": (0, 32), "medium": (32, 96), "large": (96, 999)}[what]
    assert torch.equal(own, (sides >= low) & (sides < high))

"""The detection loss: what it sums, what it leaves alone."""

import pytest
import torch
from torch.nn import functional as F

from ddptrain.config import LossConfig
from ddptrain.models.yolo.assign.base import Objects, in_ignore_regions
from ddptrain.models.yolo.assign.choose import assign
from ddptrain.models.yolo.loss import detection_loss, distribution_focal
from ddptrain.models.yolo.prediction import DensePrediction


def gradients(pred, targets, config=None):
    loss = detection_loss(pred, **targets, config=config or LossConfig())
    return loss, torch.autograd.grad(loss.total, [pred.logits, pred.distances])


def test_classification_is_binary_cross_entropy_with_the_assigned_targets(scenes):
    pred, targets = scenes.prediction(2, seed=0), scenes.targets([6, 9], seed=1)
    config = LossConfig(box=0, dfl=0, cls=1)
    loss, (grad, _) = gradients(pred, targets, config)
    objects = Objects(targets["boxes"], targets["labels"], targets["image"])
    got = assign(pred, pred.boxes().detach(), objects, targets["annotated"], config)
    dense = torch.zeros(2 * pred.logits.shape[1], 4)
    for points, scores, label in zip(got.points, got.target, targets["labels"]):
        dense[points, label] += scores
    logits = pred.logits.detach().requires_grad_()
    expected = F.binary_cross_entropy_with_logits(logits, dense.view_as(logits), reduction="sum")
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, logits)[0])
    torch.testing.assert_close(loss.normalizer, dense.sum())


@pytest.mark.parametrize("bins", [1, 16])
def test_a_batch_is_the_sum_of_its_images(scenes, bins):
    pred = scenes.prediction(4, seed=2, bins=bins)
    targets = scenes.targets([12, 0, 40, 1], seed=3, ignore=[2, 3, 0, 0])
    targets["annotated"][1, 2] = targets["annotated"][2, 0] = False
    loss, (g_logits, g_distances) = gradients(pred, targets)
    for i in range(4):
        one = pred._replace(
            logits=pred.logits[i : i + 1].detach().requires_grad_(),
            distances=pred.distances[i : i + 1].detach().requires_grad_(),
        )
        alone, (a, b) = gradients(one, scenes.only(targets, i))
        torch.testing.assert_close(alone.total, loss.per_sample[i])
        torch.testing.assert_close(a[0], g_logits[i])
        torch.testing.assert_close(b[0], g_distances[i])
        loss.normalizer = loss.normalizer - alone.normalizer
        for k, v in alone.parts.items():
            loss.parts[k] = loss.parts[k] - v
    torch.testing.assert_close(loss.normalizer, torch.tensor(0.0), atol=1e-4, rtol=0)
    for v in loss.parts.values():
        torch.testing.assert_close(v, torch.tensor(0.0), atol=2e-3, rtol=0)
    torch.testing.assert_close(loss.per_sample.sum(), loss.total.detach())


def test_parts_sum_up_and_follow_their_gains(scenes):
    pred, targets = scenes.prediction(2, seed=4), scenes.targets([5, 5], seed=5)
    base, _ = gradients(pred, targets)
    assert set(base.parts) == {"box", "cls", "dfl"}
    torch.testing.assert_close(sum(base.parts.values()), base.total.detach())
    twice, _ = gradients(pred, targets, LossConfig(box=15.0, cls=0.5, dfl=1.5))
    torch.testing.assert_close(twice.parts["box"], base.parts["box"] * 2)
    torch.testing.assert_close(twice.parts["cls"], base.parts["cls"])


def test_an_unannotated_class_gets_no_gradient_at_all(scenes):
    pred, targets = scenes.prediction(2, seed=6), scenes.targets([8, 8], seed=7)
    targets["labels"][targets["image"] == 0] %= 3  # the dataset of image 0 does not label class 3
    targets["annotated"][0, 3] = False
    _, (grad, _) = gradients(pred, targets)
    assert (grad[0, :, 3] == 0).all()
    assert (grad[0, :, :3] != 0).all()
    assert (grad[1] != 0).all()


def test_points_in_ignore_regions_get_no_gradient_unless_assigned(scenes):
    pred, targets = scenes.prediction(2, seed=8), scenes.targets([3, 3], seed=9)
    targets["ignore_boxes"] = torch.tensor([[0.0, 0, 128, 80]])
    targets["ignore_image"] = torch.tensor([0])
    _, (grad, _) = gradients(pred, targets)
    decoded = pred.boxes().detach()
    objects = Objects(targets["boxes"], targets["labels"], targets["image"])
    got = assign(pred, decoded, objects, targets["annotated"], LossConfig())
    inside = in_ignore_regions(decoded, targets["ignore_boxes"], targets["ignore_image"])
    taken = torch.zeros_like(inside).view(-1)
    taken[got.points[got.assigned]] = True
    spared = inside & ~taken.view_as(inside)
    assert spared[0].any()
    assert (inside & taken.view_as(inside)).any()
    assert (grad[spared] == 0).all()
    assert (grad[~spared] != 0).all()


def test_distribution_focal_is_cross_entropy_on_whole_strides_and_a_mix_between():
    logits = torch.randn(5, 4, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([0.0, 3, 7, 14]).expand(5, 4)
    expected = F.cross_entropy(logits.flatten(0, 1), whole.flatten().long(), reduction="none").view(5, 4).mean(1)
    torch.testing.assert_close(distribution_focal(logits, whole), expected)
    between = distribution_focal(logits, whole.clamp_max(13) + 0.25)
    mix = 0.75 * distribution_focal(logits, whole.clamp_max(13)) + 0.25 * distribution_focal(logits, whole.clamp_max(13) + 1)
    torch.testing.assert_close(between, mix, atol=1e-5, rtol=1e-5)
    assert distribution_focal(logits, torch.full((5, 4), 99.0)).isfinite().all()
    assert distribution_focal(logits, torch.full((5, 4), -9.0)).isfinite().all()


def test_the_distribution_s_minimum_is_the_true_distance():
    value = torch.tensor([[2.3, 0.0, 9.75, 13.5]])
    logits = torch.zeros(1, 4, 16, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        distribution_focal(logits, value).sum().backward()
        optimizer.step()
    mean = logits.softmax(-1) @ torch.arange(16.0)
    torch.testing.assert_close(mean, value, atol=0.05, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_are_summed_in_float32(scenes, dtype):
    pred, targets = scenes.prediction(2, seed=10), scenes.targets([9, 9], seed=11, ignore=[1, 0])
    half = pred._replace(logits=pred.logits.to(dtype), distances=pred.distances.to(dtype))
    full = half._replace(logits=half.logits.float(), distances=half.distances.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a = detection_loss(half, **targets, config=LossConfig())
    b = detection_loss(full, **targets, config=LossConfig())
    assert a.total.dtype == torch.float32
    assert torch.equal(a.total, b.total)
    a.total.backward()


def test_a_perfect_prediction_costs_almost_nothing_and_a_worse_one_more(scenes):
    targets = scenes.targets([1], seed=0)
    targets["boxes"], targets["labels"] = torch.tensor([[24.0, 24, 88, 88]]), torch.tensor([1])
    empty = scenes.prediction(1, seed=0, bins=1)
    inside = ((empty.points >= 24) & (empty.points <= 88)).all(1) & (empty.strides == 32)
    sides = torch.cat([empty.points - 24, 88 - empty.points], 1) / empty.strides[:, None]
    logits = torch.full_like(empty.logits, -12.0)
    logits[0, inside, 1] = 12.0
    perfect = DensePrediction(logits, sides.clamp_min(0)[None, ..., None], empty.points, empty.strides)
    good = detection_loss(perfect, **targets, config=LossConfig())
    assert good.total / good.normalizer < 0.05
    worse = perfect._replace(distances=perfect.distances * 1.3)
    bad = detection_loss(worse, **targets, config=LossConfig())
    assert bad.total / bad.normalizer > 1


def test_the_weight_of_an_image_multiplies_its_loss_and_not_the_normalizer(scenes):
    pred, targets = scenes.prediction(2, 5), scenes.targets([3, 2], 6)
    plain = detection_loss(pred, **targets, config=LossConfig())
    weighted = detection_loss(pred, **targets, config=LossConfig(), weights=torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(weighted.per_sample, plain.per_sample * torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(weighted.total.detach(), weighted.per_sample.sum())
    assert weighted.normalizer == plain.normalizer

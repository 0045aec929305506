"""Losses of whole images against torch's own means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddptrain.losses.image_labels import binary_cross_entropy, class_weights, cross_entropy, mix

LOGITS = torch.randn(9, 5, generator=torch.Generator().manual_seed(1)) * 3
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 0, 1, 2])


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 5.0, 1.5, 3.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sums_over_normalizer_are_torchs_mean(weights: torch.Tensor | None, smoothing: float) -> None:
    each, normalizer = cross_entropy(LOGITS, F.one_hot(LABELS, 5).float(), weights, smoothing)
    expected = F.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(each.sum() / normalizer, expected)


def test_focal_is_less_for_what_is_easy() -> None:
    target = F.one_hot(LABELS, 5).float()
    plain, focal = cross_entropy(LOGITS, target)[0], cross_entropy(LOGITS, target, gamma=2.0)[0]
    p = LOGITS.softmax(1)[torch.arange(9), LABELS]
    torch.testing.assert_close(focal, plain * (1 - p) ** 2)


def test_unknown_classes_add_nothing() -> None:
    target, known = F.one_hot(LABELS, 5).float(), torch.ones(9, 5, dtype=torch.bool)
    pos = torch.arange(1.0, 6.0)
    each, normalizer = binary_cross_entropy(LOGITS, target, known, pos)
    torch.testing.assert_close(each.sum() / normalizer, F.binary_cross_entropy_with_logits(LOGITS, target, pos_weight=pos))
    known[:, 3] = False
    logits = LOGITS.clone().requires_grad_()
    each, normalizer = binary_cross_entropy(logits, target, known)
    each.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[:, 3].any()
    assert normalizer == 36


def test_mixing() -> None:
    images, partner = torch.zeros(3, 3, 8, 8), torch.ones(3, 8, 8, 3)
    own, other = torch.eye(3), torch.eye(3).roll(1, 1)
    box = torch.tensor([[0, 0, 0, 0], [2, 1, 6, 5], [0, 0, 0, 0]])
    mixed, classes = mix(images, own, partner, other, torch.tensor([0.25, 0.75, 1.0]), box)
    assert (mixed[0] == 0.75).all()
    assert mixed[1, 0].sum() == 16
    assert mixed[1, :, 1:5, 2:6].min() == 1
    assert not mixed[2].any()
    torch.testing.assert_close(classes.sum(1), torch.ones(3))
    assert classes[1].tolist() == [0.0, 0.75, 0.25]


def test_class_weights() -> None:
    counts = np.array([10, 5, 0, 20])
    assert class_weights("none", counts) is None
    balanced = class_weights("balanced", counts)
    assert balanced is not None
    assert balanced.tolist() == [2.0, 4.0, 4.0, 1.0]
    given = class_weights((0.5, 0.0, 1.0, 2.0), counts)
    assert given is not None
    assert given.tolist() == [1.0, 0.0, 2.0, 4.0]


def test_balanced_weights_without_any_sample_are_equal() -> None:
    """A dataset of empty images is reported by its own check, not by a traceback here."""
    weights = class_weights("balanced", np.zeros(3, np.int64))
    assert weights is not None
    assert weights.tolist() == [1.0, 1.0, 1.0]

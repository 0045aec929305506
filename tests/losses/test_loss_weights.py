"""The factors on the loss of samples: what they multiply, what they leave, and that no split of a batch changes them."""

from __future__ import annotations

import torch

from ddptrain.losses.image_labels import binary_cross_entropy
from ddptrain.structures import LossSum

WEIGHTS = torch.tensor([3.0, 1.0])


def logits_of(losses: list[list[float]]) -> torch.Tensor:
    """Logits whose binary cross entropy against 0, log(1 + e^x), is that."""
    return (torch.tensor(losses, dtype=torch.float64).exp() - 1).log().float()


def test_a_weighted_loss_is_averaged_over_entries_and_not_over_weights() -> None:
    """Two samples of four classes; the two entries without a loss count in the mean, the sum of the weights does not."""
    logits = logits_of([[0.20, 0.15, 0, 0], [0.30, 0.25, 0, 0]]).clamp(min=-100)
    each, normalizer = binary_cross_entropy(logits, torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool))
    loss = LossSum.of({"bce": each}, normalizer, WEIGHTS)
    torch.testing.assert_close(loss.total, torch.tensor(1.6))  # 3 (.20 + .15) + 1 (.30 + .25)
    torch.testing.assert_close(loss.total / loss.normalizer, torch.tensor(0.20))  # 1.6 / 8; over the weights it were 0.40
    assert loss.per_sample is not None
    torch.testing.assert_close(loss.per_sample, torch.tensor([1.05, 0.55]))


def test_the_weight_of_positives_multiplies_the_term_of_y_1_only() -> None:
    logits, target = logits_of([[0.2, 0.2]]), torch.tensor([[1.0, 0.0]])
    known = torch.ones(1, 2, dtype=torch.bool)
    p = 1 - torch.tensor(-0.2).exp()
    plain, weighted = (binary_cross_entropy(logits, target, known, w).each for w in (None, torch.tensor([5.0, 5.0])))
    torch.testing.assert_close(plain, (-p.log() + 0.2)[None])
    torch.testing.assert_close(weighted, (-5 * p.log() + 0.2)[None])


def test_micro_batches_add_up_to_the_batch() -> None:
    g = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(6, 3, generator=g, requires_grad=True), torch.rand(6, generator=g)
    known = torch.ones(6, 3, dtype=torch.bool)

    def loss(rows: slice) -> LossSum:
        each, normalizer = binary_cross_entropy(logits[rows], torch.zeros(6, 3)[rows], known[rows])
        return LossSum.of({"bce": each}, normalizer, weights[rows])

    whole, parts = loss(slice(6)), [loss(slice(i, i + 2)) for i in (0, 2, 4)]
    (gradient,) = torch.autograd.grad(whole.total / whole.normalizer, logits)
    total, normalizer = sum(p.total for p in parts), sum(p.normalizer for p in parts)
    torch.testing.assert_close(gradient, torch.autograd.grad(total / normalizer, logits)[0])

"""The loss of Mask2Former, against transformers' own."""

from __future__ import annotations

import pytest
import torch

from ddptrain.config import MaskLossConfig
from ddptrain.structures import VOID

transformers = pytest.importorskip("transformers", reason="pip install 'ddptrain[transformers]'")
pytest.importorskip("scipy", reason="pip install 'ddptrain[transformers]'")

from ddptrain.models.mask2former.loss import mask_sums  # noqa: E402

POINTS = 60
CONFIG = MaskLossConfig(points=POINTS)


def world(images: int = 1, void: bool = False) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Predictions of two layers, 7 queries, 4 classes; and masks."""
    torch.manual_seed(1)
    classes = [torch.randn(images, 7, 5, requires_grad=True) for _ in range(2)]
    masks = [torch.randn(images, 7, 8, 8, requires_grad=True) for _ in range(2)]
    target = torch.randint(0, 3, (images, 4, 4), dtype=torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    if void:
        target[:, :9] = VOID
    return classes, masks, target


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_one_image_costs_what_transformers_says(monkeypatch: pytest.MonkeyPatch) -> None:
    classes, masks, target = world()
    config = transformers.Mask2FormerConfig(train_num_points=POINTS, num_labels=4)
    theirs = transformers.models.mask2former.modeling_mask2former.Mask2FormerLoss(config, {})
    theirs.matcher.cost_class = 2.0  # older versions match with a weight of 1 and learn with 2
    own, rand = torch.Generator().manual_seed(0), torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: rand(*size, generator=own))
    labels = target.unique().long()
    auxiliary = [{"class_queries_logits": classes[1], "masks_queries_logits": masks[1]}]
    truth = (target == labels[:, None, None]).float()
    expected = theirs(masks[0], classes[0], [truth], [labels], auxiliary)
    monkeypatch.undo()
    parts, counts = mask_sums(classes, masks, target, torch.ones(1, 4, dtype=torch.bool), generators(1), CONFIG)
    assert counts.tolist() == [len(labels)]
    for key, name, gain in (("cls", "cross_entropy", 2), ("mask", "mask", 5), ("dice", "dice", 5)):
        both = gain * (expected[f"loss_{name}"] + expected[f"loss_{name}_0"])
        torch.testing.assert_close(parts[key][0] / len(labels), both)


def test_images_are_summed_one_by_one() -> None:
    classes, masks, target = world(3)
    target[1] = 2  # another number of masks
    known = torch.ones(3, 4, dtype=torch.bool)
    together, together_counts = mask_sums(classes, masks, target, known, generators(3), CONFIG)
    for b, g in enumerate(generators(3)):
        alone, counts = mask_sums(
            [c[b : b + 1] for c in classes], [m[b : b + 1] for m in masks], target[b : b + 1], known[b : b + 1], [g], CONFIG
        )
        for a, t in zip([*alone.values(), counts], [*together.values(), together_counts]):
            torch.testing.assert_close(a[0], t[b])


def test_void_and_unknown_classes_add_no_gradient() -> None:
    classes, masks, target = world(2, void=True)
    target[1] = VOID
    known = torch.tensor([[True, True, True, False]] * 2)
    parts, counts = mask_sums(classes, masks, target, known, generators(2), CONFIG)
    assert counts[1] == parts["cls"][1] == parts["mask"][1] == parts["dice"][1] == 0
    sum(s.sum() for s in parts.values()).backward()
    for c, m in zip(classes, masks):
        assert (c.grad[..., 3] == 0).all()
        assert (c.grad[0, :, :3] != 0).any()
        assert (c.grad[1] == 0).all()
        assert (m.grad[1] == 0).all()
        # void covers rows 0 to 8 of 32, so no point above row 8 counts; bilinear sampling of 8 rows reaches 3 rows down
        assert (m.grad[0, :, 0] == 0).all()
        assert (m.grad[0, :, 4:] != 0).any()


def test_half_precision_overflows_nowhere() -> None:
    """Logits of a network that is sure of itself, as autocast gives them: the loss, and its matching, are those of float32."""
    classes, masks, target = world(2)
    halves = [(c.detach().half(), (m.detach() * 1000).half()) for c, m in zip(classes, masks)]
    known, config = torch.ones(2, 4, dtype=torch.bool), CONFIG.model_copy(update={"points": 4000})
    of_half, of_float = ([list(t) for t in zip(*layers)] for layers in (halves, [(c.float(), m.float()) for c, m in halves]))
    expected, _ = mask_sums(*of_float, target, known, generators(2), config)
    with torch.autocast("cpu", torch.float16):
        parts, _ = mask_sums(*of_half, target, known, generators(2), config)
    for name, value in expected.items():
        assert value.isfinite().all()
        assert torch.equal(parts[name], value), name


def test_a_segmenter_in_half_precision_has_finite_scores() -> None:
    """1e-12, the least probability, is 0 there, and its logarithm is not finite."""
    from ddptrain.config import Mask2FormerConfig
    from ddptrain.models.mask2former.network import build_mask2former

    small = Mask2FormerConfig(
        embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=4, hidden=32, feedforward=32,
        attention_heads=2, encoder_layers=1, decoder_layers=2, queries=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_mask2former(small, 3).eval()
    predictor = model.net.class_predictor
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        predictor.bias[-1] = 60.0  # whatever the query, it is no object
        out = model(torch.rand(1, 3, 64, 64))["out"]
    assert out.dtype == torch.float32
    assert out.isfinite().all()

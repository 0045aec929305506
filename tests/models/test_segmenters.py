"""Segmenters: every kind gives logits for every pixel; windows and letterboxes lead back to the file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ddptrain.config import Mask2FormerConfig, PixelLossConfig, SegmenterConfig
from ddptrain.data.augment.geometry import letterbox
from ddptrain.data.augment.warp import warp
from ddptrain.data.samples.base import to_native
from ddptrain.data.tables.windows import window_starts
from ddptrain.errors import UserError
from ddptrain.models.build import SEGMENTERS
from ddptrain.models.segmenter import SegmenterSettings
from ddptrain.models.windows import native_logits, slide

TINY = Mask2FormerConfig(
    embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=4, drop_path=0.0, hidden=32, feedforward=32,
    attention_heads=2, encoder_layers=1, decoder_layers=3, queries=6,
)  # fmt: skip


def build_segmenter(config: SegmenterConfig | Mask2FormerConfig, classes: int) -> nn.Module:
    return SEGMENTERS[config.name](config, SegmenterSettings(classes, PixelLossConfig(), 0)).build()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("lraspp_mobilenet_v3_large", {}),
        ("deeplabv3_mobilenet_v3_large", {"aux": True, "norm": "group", "dropout": 0.0}),
        ("fcn_resnet50", {"norm": "frozen"}),
    ],
)
def test_torchvision(name: str, keys: dict[str, object]) -> None:
    model = build_segmenter(SegmenterConfig.model_validate({"name": name, **keys}), 5)
    said = model(torch.rand(2, 3, 64, 64))
    assert set(said) == ({"out", "aux"} if "aux" in keys else {"out"})
    assert all(v.shape == (2, 5, 64, 64) for v in said.values())
    kinds = {type(m).__name__ for m in model.modules()}
    assert ("BatchNorm2d" in kinds) == ("norm" not in keys)
    if "dropout" in keys:
        assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))
    said["out"].sum().backward()
    with torch.no_grad():
        assert set(model.eval()(torch.rand(1, 3, 64, 96))) == {"out"}


def test_deeplab_cannot_learn_from_one_image_with_batch_norm() -> None:
    config = SegmenterConfig(name="deeplabv3_mobilenet_v3_large")
    for norm in ("batch", "sync"):
        with pytest.raises(UserError, match=r"train\.micro_batch: DeepLab pools each image to one pixel"):
            build_segmenter(config.model_copy(update={"norm": norm}), 2)(torch.rand(1, 3, 64, 64))
    build_segmenter(config.model_copy(update={"norm": "group"}), 2)(torch.rand(1, 3, 64, 64))


def test_published_weights_get_class_layers_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torchvision's own network of 21 classes in the place of the file."""
    from torchvision.models import get_model

    from ddptrain.models import pretrained

    made = []

    def stored(name: str, weights: object, weights_backbone: object) -> nn.Module:
        assert weights is not None
        assert weights_backbone is None
        made.append(get_model(name, weights=None, weights_backbone=None, num_classes=21, **aux))
        return made[-1]

    monkeypatch.setattr(pretrained, "get_model", stored)
    for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"):
        aux = {} if name.startswith("lraspp") else {"aux_loss": True}
        model = build_segmenter(SegmenterConfig(name=name, pretrained=True), 3)
        assert {k: v.shape[1] for k, v in model(torch.rand(2, 3, 32, 32)).items()} == {"out": 3}


def test_mask2former_from_a_config_and_from_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="pip install 'ddptrain[transformers]'")
    torch.manual_seed(0)
    model = build_segmenter(TINY, 3)
    said = model(torch.rand(2, 3, 64, 64))
    assert [len(said[k]) for k in ("classes", "masks")] == [3, 3]
    assert said["classes"][0].shape == (2, 6, 4)
    assert said["masks"][0].shape == (2, 6, 16, 16)
    # every parameter learns: DDP waits for all of them
    sum(v.sum() for part in said.values() for v in part).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None and p.requires_grad]
    net = model.model.net
    net.config.id2label = {i: f"c{i}" for i in range(3)}
    net.save_pretrained(tmp_path)
    again = build_segmenter(Mask2FormerConfig(weights=str(tmp_path)), 3)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        out = model.eval()(x)["out"]
        assert torch.equal(out, again.eval()(x)["out"])
    assert out.shape == (1, 3, 64, 64)
    other = build_segmenter(Mask2FormerConfig(weights=str(tmp_path)), 7)
    assert other(x)["classes"][0].shape == (1, 6, 8)
    queries = "model.net.model.transformer_module.queries_embedder.weight"
    assert torch.equal(other.state_dict()[queries], model.state_dict()[queries])


def test_mask2former_folders_that_are_none(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="pip install 'ddptrain[transformers]'")
    with pytest.raises(UserError, match=r"model.weights: .* holds no config.json; give a folder that save_pretrained wrote"):
        build_segmenter(Mask2FormerConfig(weights=str(tmp_path)), 3)
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    with pytest.raises(UserError, match="is of a swin, not of a mask2former"):
        build_segmenter(Mask2FormerConfig(weights=str(tmp_path)), 3)
    (tmp_path / "config.json").write_text('{"model_type": "mask2former"}')
    with pytest.raises(UserError, match=r"model.weights: [^\n]*$"):
        build_segmenter(Mask2FormerConfig(weights=str(tmp_path)), 3)


@given(st.integers(1, 300), st.integers(8, 64), st.floats(0, 0.9))
def test_windows_cover_a_side(length: int, size: int, overlap: float) -> None:
    starts = window_starts(length, size, overlap)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, length - size)
    assert all(b - a <= max(1, round(size * (1 - overlap))) for a, b in pairwise(starts))


class _Position(nn.Module):
    """Gives back what it sees, and the place of each pixel in the window."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        rows = torch.arange(images.shape[-2]).float()[:, None].expand(len(images), 1, *images.shape[-2:])
        return {"out": torch.cat([images, rows], 1)}


@pytest.mark.parametrize(("height", "width"), [(40, 90), (16, 20), (32, 32)])
@pytest.mark.parametrize("batch", [1, 4])
def test_windows_are_averaged_where_they_overlap(height: int, width: int, batch: int) -> None:
    image = torch.rand(3, height, width)
    out = slide(_Position(), image, 32, 0.5, batch, 0.0)
    torch.testing.assert_close(out[:3], image)
    starts = window_starts(height, 32, 0.5)
    for row in range(height):
        seen = [row - s for s in starts if s <= row < s + 32]
        assert out[3, row].tolist() == pytest.approx([np.mean(seen)] * width)


@pytest.mark.parametrize("size", [(480, 360), (90, 200), (64, 64), (33, 50)])
def test_a_letterbox_leads_back_to_the_file(size: tuple[int, int]) -> None:
    """Logits that are linear in the input's coordinates are linear in the file's."""
    matrix = warp(np.zeros((size[1], size[0], 3), np.uint8), letterbox(size, 128), 128).matrix
    y, x = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    (found,) = native_logits(torch.stack([x, y])[None], torch.from_numpy(to_native(matrix))[None], torch.tensor([size]))
    assert found.shape == (2, size[1], size[0])
    for axis, coordinate in enumerate((found[0, 0], found[1, :, 0])):
        native = torch.arange(size[axis]) + 0.5
        expected = native * matrix[axis, axis] + matrix[axis, 2]
        inner = (expected > 1) & (expected < 127)
        torch.testing.assert_close(coordinate[inner], expected[inner].float(), atol=2e-3, rtol=0)

"""torchvision's classification models as backbones."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model_weights
from torchvision.ops import FrozenBatchNorm2d

from ddptrain.config import YoloConfig
from ddptrain.errors import UserError
from ddptrain.models.norms import SYNC_BATCH_NORMS, replace_batch_norms
from ddptrain.models.torchvision_backbone import TorchvisionBackbone
from ddptrain.models.yolo.network import Yolo


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet18", (4, 8, 16)),
        ("mobilenet_v3_small", (8, 16, 32)),
        ("convnext_tiny", (8, 16, 32)),
        ("efficientnet_b0", (4, 8, 16, 32)),
        ("regnet_y_400mf", (4, 8, 16)),
    ],
)
def test_maps_have_the_strides_and_channels_they_say(name, strides):
    body = TorchvisionBackbone(name, strides, 3, "batch", pretrained=False)
    assert all(m.training for m in body.modules())
    maps = body(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, c, 64 // s, 96 // s) for c, s in zip(body.channels, strides)]
    sum(m.sum() for m in maps).backward()
    assert [n for n, p in body.named_parameters() if p.grad is None] == []


def test_stages_end_where_the_published_networks_end_them():
    assert TorchvisionBackbone("resnet18", (4, 8, 16, 32), 3, "batch", False).channels == (64, 128, 256, 512)
    assert TorchvisionBackbone("convnext_tiny", (4, 8, 16, 32), 3, "batch", False).channels == (96, 192, 384, 768)


def test_a_detector_on_a_foreign_backbone():
    model = Yolo(YoloConfig(strides=(4, 8, 16), in_channels=4, backbone="resnet18"), 3)
    pred = model(torch.rand(2, 4, 64, 64))
    assert pred.logits.shape == (2, 16**2 + 8**2 + 4**2, 3)
    assert "layer4" not in " ".join(n for n, _ in model.named_parameters())


@pytest.mark.parametrize(("norm", "kind"), [("sync", SYNC_BATCH_NORMS), ("frozen", FrozenBatchNorm2d)])
def test_norms_are_converted(norm, kind):
    body = TorchvisionBackbone("resnet18", (8, 16, 32), 3, norm, False)
    assert any(isinstance(m, kind) for m in body.modules())
    assert not any(type(m) is nn.BatchNorm2d for m in body.modules())


def test_freezing_keeps_what_the_network_says():
    torch.manual_seed(0)
    body = TorchvisionBackbone("resnet18", (8,), 3, "batch", False)
    x = torch.rand(2, 3, 64, 64)
    body(x)  # running statistics that differ from the start
    before = body.eval()(x)[0]
    replace_batch_norms(body, "frozen")
    torch.testing.assert_close(body.train()(x)[0], before)


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_channel_counts_keep_the_stem_s_answer(channels):
    """An image with the same value in all channels gets the same answer from the inflated stem."""
    torch.manual_seed(0)
    body = TorchvisionBackbone("resnet18", (8,), 3, "batch", False).eval()
    torch.manual_seed(0)
    wide = TorchvisionBackbone("resnet18", (8,), channels, "batch", False).eval()
    stem = next(m for m in body.modules() if isinstance(m, nn.Conv2d))
    grown = next(m for m in wide.modules() if isinstance(m, nn.Conv2d))
    assert grown.in_channels == channels
    if channels % 3 == 0:
        grey = torch.rand(1, 1, 32, 32)
        torch.testing.assert_close(
            grown(grey.expand(1, channels, 32, 32)), stem(grey.expand(1, 3, 32, 32)), atol=1e-5, rtol=1e-4
        )
    assert len(wide(torch.rand(1, channels, 64, 64))) == 1


def test_mistakes_are_reported_in_one_line():
    with pytest.raises(UserError, match=r"model\.backbone: resnet_18"):
        TorchvisionBackbone("resnet_18", (8,), 3, "batch", False)
    with pytest.raises(UserError, match=r"swin_t has no feature map of stride 8"):
        TorchvisionBackbone("swin_t", (8,), 3, "batch", False)
    with pytest.raises(UserError, match=r"vit_b_32 cannot be cut"):
        TorchvisionBackbone("vit_b_32", (8,), 3, "batch", False)
    with pytest.raises(UserError, match=r"model\.norm: group .*resnet18"):
        TorchvisionBackbone("resnet18", (8,), 3, "group", False)


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    """A cache whose place is a file: neither cache nor download can work, whatever the network."""
    (tmp_path / "hub").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = get_model_weights("resnet18").DEFAULT.url.rsplit("/", 1)[1]
    with pytest.raises(UserError, match=name) as e:
        TorchvisionBackbone("resnet18", (8,), 3, "batch", True)
    assert "\n" not in str(e.value)
    assert str(tmp_path) in str(e.value)


def test_weights_from_the_cache(tmp_path, monkeypatch):
    """A file in torch's cache is used, without a network. Its hash is checked by torch on download only."""
    from torchvision.models import resnet18

    torch.manual_seed(3)
    source = resnet18()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(source.state_dict(), folder / get_model_weights("resnet18").DEFAULT.url.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    body = TorchvisionBackbone("resnet18", (8,), 3, "batch", True)
    assert torch.equal(next(body.parameters()), source.conv1.weight)

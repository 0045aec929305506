"""Networks for whole images: torchvision's by name, files of weights, and the two for small images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import get_model, list_models

from ddptrain.config import ClassifierConfig, LeNetConfig, SmallResNetConfig
from ddptrain.config.labels import TORCHVISION_CLASSIFIERS
from ddptrain.errors import UserError
from ddptrain.models.classifiers import build_classifier
from ddptrain.models.norms import batch_norms
from ddptrain.models.torchvision_backbone import TorchvisionBackbone


def test_every_name_is_torchvisions() -> None:
    assert set(TORCHVISION_CLASSIFIERS) <= set(list_models())


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "mobilenet_v3_small", "squeezenet1_1", "swin_t", "vit_b_32"])
def test_torchvision_models_have_the_runs_classes(name: str) -> None:
    model = build_classifier(ClassifierConfig(name=name), 3, 64).eval()
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", "regnet_x_400mf"])
def test_32_pixels_are_enough_for_others_than_alexnet(name: str) -> None:
    assert build_classifier(ClassifierConfig(name=name), 3, 32)(torch.rand(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("config", [LeNetConfig(), SmallResNetConfig(norm="group", width=8), SmallResNetConfig(width=8)])
def test_small_models(config: LeNetConfig | SmallResNetConfig) -> None:
    model = build_classifier(config, 4, 32)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    out = model(images)
    assert out.shape == (2, 4)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_file_of_weights_is_taken_all_but_a_last_layer_of_other_classes(tmp_path: Path) -> None:
    state = get_model("mobilenet_v3_small", num_classes=7).state_dict()
    path = tmp_path / "w.pt"
    torch.save({"model": state}, path)
    config = ClassifierConfig(name="mobilenet_v3_small", weights=str(path))
    for classes in (7, 3):
        loaded = build_classifier(config, classes, 64).state_dict()
        same = {k for k, v in state.items() if v.shape == loaded[f"model.{k}"].shape and torch.equal(v, loaded[f"model.{k}"])}
        assert set(state) - same == (set() if classes == 7 else {"classifier.3.weight", "classifier.3.bias"})


def test_the_class_layer_in_a_file_is_found_by_its_name(tmp_path: Path) -> None:
    """Whatever comes last in the file; where it is missing, that is said."""
    state = get_model("resnet18", num_classes=7).state_dict()
    turned, headless = tmp_path / "turned.pt", tmp_path / "headless.pt"
    torch.save(dict(reversed(state.items())), turned)
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, headless)
    loaded = build_classifier(ClassifierConfig(name="resnet18", weights=str(turned)), 7, 64).state_dict()
    assert torch.equal(loaded["model.fc.bias"], state["fc.bias"])
    with pytest.raises(UserError, match=r'does not fit resnet18: .*Missing key.*"fc\.bias"'):
        build_classifier(ClassifierConfig(name="resnet18", weights=str(headless)), 3, 64)


def test_fresh_weights_have_statistics_that_follow_them(tmp_path: Path) -> None:
    """Weights that were learned keep the momentum of the network."""
    path = tmp_path / "w.pt"
    torch.save(get_model("mnasnet0_5", num_classes=3).state_dict(), path)
    momenta = []
    for weights in (None, str(path)):
        model = build_classifier(ClassifierConfig(name="mnasnet0_5", weights=weights), 3, 64)
        momenta.append({norm.momentum for norm in batch_norms(model)})
    fresh, learned = momenta
    assert fresh == {0.1}
    assert max(learned) < 0.001
    backbone = TorchvisionBackbone("mnasnet0_5", (8, 16, 32), 3, "batch", pretrained=False)
    assert {norm.momentum for norm in batch_norms(backbone)} == {0.1}


@pytest.mark.parametrize(
    ("config", "size", "line"),
    [
        (LeNetConfig(), 64, "lenet takes images of 32 pixels"),
        (
            ClassifierConfig(name="alexnet"),
            32,
            "alexnet takes images of 64 pixels or more, data.image_size is 32; set data.image_size=64, or",
        ),
        (
            ClassifierConfig(name="vit_b_16", pretrained=True),
            256,
            "of vit_b_16 are for images of exactly 224 pixels, .*set data.image_size=224, or",
        ),
        (ClassifierConfig(name="resnet18", weights="gone.pt"), 64, "model.weights: gone.pt: No such file"),
        (ClassifierConfig(name="resnet18", weights="w.pt"), 64, "does not fit resnet18: .*Missing key"),
        (ClassifierConfig(name="resnet18", weights="text.pt"), 64, "not a file of plain tensors"),
    ],
)
def test_mistakes(
    config: ClassifierConfig | LeNetConfig, size: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(get_model("squeezenet1_1").state_dict(), "w.pt")
    Path("text.pt").write_text("hello")
    with pytest.raises(UserError, match=line) as e:
        build_classifier(config, 3, size)
    assert "\n" not in str(e.value)

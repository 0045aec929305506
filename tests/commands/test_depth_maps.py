"""`ddptrain depth`: 16-bit maps with the images' names, by a tiny model of transformers made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ddptrain.cli import main
from ddptrain.commands.depth import to_levels
from ddptrain.config.detection import DetectionDataset
from ddptrain.data.formats.depth import DepthMaps


def test_levels_of_metric_and_of_relative_depth() -> None:
    metres = np.array([[0.0, 0.5, 2.0, np.nan, np.inf, 99.0]], np.float32)
    assert to_levels(metres, 1000).tolist() == [[0, 500, 2000, 0, 0, 65535]]
    assert to_levels(np.array([[-1.0, 0.0, 1.0]], np.float32), None).tolist() == [[1, 32768, 65535]]
    assert (to_levels(np.full((2, 2), 3.0, np.float32), None) == 1).all()


def depth_anything(transformers: Any, folder: Path) -> None:
    """A Depth Anything of some 50 k random weights."""
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=56,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    transformers.DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14
    ).save_pretrained(folder)


def zoe_depth(transformers: Any, folder: Path) -> None:
    """A ZoeDepth of the same size, which tells metres from 0.001 to 10."""
    stages = [f"stage{i}" for i in range(1, 5)]
    backbone = transformers.BeitConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        out_features=stages,
        reshape_hidden_states=False,
        use_relative_position_bias=True,
    )
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_relative_features=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
        num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=8,
        num_patch_transformer_layers=1,
        patch_transformer_hidden_size=8,
        patch_transformer_intermediate_size=16,
        patch_transformer_num_attention_heads=2,
    )
    transformers.ZoeDepthForDepthEstimation(config).save_pretrained(folder)
    transformers.ZoeDepthImageProcessor(size={"height": 32, "width": 32}, ensure_multiple_of=8).save_pretrained(folder)


@pytest.fixture(scope="module", params=[depth_anything, zoe_depth])
def tiny_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers", reason="the extra [depth] is not installed")
    folder = tmp_path_factory.mktemp("model")
    request.param(transformers, folder)
    return folder


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_maps_have_the_size_and_the_place_of_their_images(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in/a").mkdir(parents=True)
    for i, name in enumerate(("a/1.jpg", "2.png")):
        cv2.imwrite(str(tmp_path / "in" / name), np.random.default_rng(i).integers(0, 255, (60, 80 + i, 3)).astype(np.uint8))
    assert main(["depth", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(tiny_model)]) == 0
    maps = [cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED) for name in ("a/1.png", "2.png")]
    assert [m.shape for m in maps] == [(60, 80), (60, 81)]
    assert all(m.dtype == np.uint16 and m.min() == 1 for m in maps)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tiny_model", [zoe_depth], indirect=True)
def test_a_metric_model_keeps_its_metres_as_millimetres(tiny_model: Path, data_root: Path, tmp_path: Path) -> None:
    image = next((data_root / "rgbd_7scenes17").rglob("*.color.jpg"))
    assert main(["depth", str(image), str(tmp_path), "--model", str(tiny_model), "--scale", "1000"]) == 0
    (file,) = tmp_path.glob("*.png")
    levels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert levels.shape == (480, 640)
    assert levels.max() <= 10_000
    # and it is found as the image's map
    config = DetectionDataset(name="d", format="csv", root=str(image.parent), depth=str(tmp_path))
    assert DepthMaps(config, [str(image)]).path(0) == str(file)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["depth", str(tmp_path), str(tmp_path / "out"), "--model", "x"]) == 2
    assert "no image in it" in capsys.readouterr().err
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert main(["depth", str(tmp_path), str(tmp_path / "out"), "--model", str(tmp_path / "nowhere")]) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert "ddptrain[depth]" in err or "nowhere" in err

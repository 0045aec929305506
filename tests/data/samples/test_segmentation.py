"""Image and mask move together, and both are a function of seed and position."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ddptrain.config.segmentation import SegmentationAugment, SegmentationDataset
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.samples.segmentation import SegmentationSamples
from ddptrain.structures import VOID, SampleKey

SIZES = [(90, 70), (64, 100), (300, 200)]
STILL = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


@pytest.fixture
def make(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Samples of images in which a pixel's brightness tells its class: 60 per class; void is white."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i, (width, height) in enumerate(SIZES):
        mask = np.zeros((height, width), np.uint8)
        cv2.circle(mask, (width // 3, height // 2), height // 4, 1, -1)
        cv2.rectangle(mask, (width // 2, 5), (width - 8, height // 3), 2, -1)
        mask[-9:] = VOID
        grey = np.where(mask == VOID, 250, mask * 60 + 20).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
        Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(tmp_path / "images" / f"{i}.png")
    config = SegmentationDataset(name="d", format="masks", root=str(tmp_path), names=("a", "b", "c"))

    def build(augment: SegmentationAugment | None, seed: int = 1, native: bool = False) -> SegmentationSamples:
        table, _ = read_masks(config)
        return SegmentationSamples([table], np.ones((1, 3), bool), 64, augment, seed, native)

    return build


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("turn", [0.0, 20.0])
def test_image_and_mask_stay_on_each_other(make, crop: bool, turn: float) -> None:  # type: ignore[no-untyped-def]
    samples = make(SegmentationAugment(rotate=turn, shear=turn / 4, vflip=0.5, crop=crop, **STILL))
    seen = set()
    for position in range(60):
        sample = samples[SampleKey(position, 0, position % 3)]
        mask, image = sample.targets["mask"], sample.image[..., 0].astype(int)
        assert mask.shape == (64, 64)
        expected = np.where(mask == VOID, 250, mask.astype(int) * 60 + 20)
        # away from edges; the ground around the image is void, too
        same = cv2.erode(mask, np.ones((5, 5))) == cv2.dilate(mask, np.ones((5, 5)))
        same &= np.pad(np.ones((58, 58), bool), 3)
        outside = (mask == VOID) & (image == 114)
        inner = same & ~outside & ~cv2.dilate(outside.astype(np.uint8), np.ones((5, 5))).astype(bool)
        assert np.abs(image - expected)[inner].max(initial=0) <= 12, position
        seen |= set(np.unique(mask[inner]).tolist())
    assert seen == {0, 1, 2, VOID}


def test_a_crop_keeps_the_scale(make) -> None:  # type: ignore[no-untyped-def]
    samples = make(SegmentationAugment(crop=True, scale=0, translate=0, hflip=0, **STILL))
    corners = set()
    for position in range(30):
        sample = samples[SampleKey(position, 0, 2)]
        matrix = sample.to_native
        assert np.allclose(matrix[:, :2], np.eye(2))
        x, y = matrix[:, 2].astype(int).tolist()
        assert 0 <= x <= 300 - 64
        assert 0 <= y <= 200 - 64
        corners.add((x, y))
        np.testing.assert_array_equal(sample.targets["mask"], samples.tables[0].labels(2)[y : y + 64, x : x + 64])
    assert len(corners) > 20


def test_a_sample_is_a_function_of_seed_and_position(make) -> None:  # type: ignore[no-untyped-def]
    one, other = make(SegmentationAugment()), make(SegmentationAugment())
    for key in (SampleKey(5, 0, 1), SampleKey(6, 0, 1)):
        np.testing.assert_array_equal(one[key].image, other[key].image)
        np.testing.assert_array_equal(one[key].targets["mask"], other[key].targets["mask"])
    assert not np.array_equal(one[SampleKey(5, 0, 1)].image, one[SampleKey(6, 0, 1)].image)
    assert not np.array_equal(one[SampleKey(5, 0, 1)].image, make(SegmentationAugment(), seed=2)[SampleKey(5, 0, 1)].image)


@pytest.mark.parametrize("native", [False, True])
def test_evaluation_keeps_the_truth_of_the_file(make, native: bool) -> None:  # type: ignore[no-untyped-def]
    samples = make(None, native=native)
    batch = samples.collate([samples[SampleKey(0, 0, i)] for i in range(3)])
    assert batch.targets["native_mask"].shape == (3, 200, 300)
    for i, (width, height) in enumerate(SIZES):
        assert batch.native_size[i].tolist() == [width, height]
        own = batch.targets["native_mask"][i].numpy()
        np.testing.assert_array_equal(own[:height, :width], samples.tables[0].labels(i))
        assert (own[height:] == VOID).all()
        assert (own[:, width:] == VOID).all()
    assert batch.images.shape == ((3, 3, 200, 300) if native else (3, 3, 64, 64))


def test_a_mask_that_vanishes_is_replaced_in_training_and_void_in_evaluation(make) -> None:  # type: ignore[no-untyped-def]
    train, val = make(SegmentationAugment()), make(None)
    Path(train.tables[0].masks[1]).unlink()
    sample = train[SampleKey(0, 0, 1)]
    assert sample.key.index == 2
    assert "no such file" in str(sample.replaced)
    assert str(sample.replaced).endswith("/2.png")
    assert "; replaced by " in str(sample.replaced)
    sample = val[SampleKey(0, 0, 1)]
    assert (sample.targets["native_mask"] == VOID).all()
    assert "counts as void" in str(sample.replaced)
    Path(train.tables[0].path(1)).unlink()
    sample = val[SampleKey(0, 0, 1)]
    assert "replaced by a grey image" in str(sample.replaced)
    assert "counts as void" in str(sample.replaced)

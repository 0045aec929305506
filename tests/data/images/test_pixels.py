"""Halved images: what a decoder makes smaller is what the mean of its pixels would be, and lies where it would lie."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ddptrain.data.augment.geometry import letterbox
from ddptrain.data.augment.warp import warp
from ddptrain.data.images.pixels import Pixels, halve, halvings
from ddptrain.data.images.read import read_image


@pytest.fixture
def picture(tmp_path: Path) -> tuple[np.ndarray, Path]:
    """A smooth image of odd sides, and a folder with it as JPEG and PNG."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    image = cv2.resize(noise, (389, 261), interpolation=cv2.INTER_CUBIC)
    for name in ("a.jpg", "a.png"):
        cv2.imwrite(str(tmp_path / name), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return image[..., ::-1], tmp_path


def test_a_scale_is_halved_until_the_rest_would_enlarge() -> None:
    assert [halvings(s) for s in (2.0, 1.0, 0.51, 0.5, 0.26, 0.25, 0.1)] == [0, 0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_halved_image_is_the_mean_of_its_pixels(picture: tuple[np.ndarray, Path], times: int) -> None:
    image, folder = picture
    height, width = (-(-side // 2**times) for side in image.shape[:2])
    mean = halve(image, times)
    assert mean.shape == (height, width, 3)
    np.testing.assert_array_equal(read_image(folder / "a.png", halved=times), mean)
    decoded = read_image(folder / "a.jpg", halved=times)
    assert decoded.shape == mean.shape
    # without the last row and column, which cover less than the others
    assert np.abs(decoded.astype(float) - mean)[:-1, :-1].mean() < 2


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_halved_photograph_is_upright(tmp_path: Path, orientation: int) -> None:
    pixels = cv2.resize(np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8), (96, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=exif)
    for way in ("apply", "ignore"):
        whole, half = read_image(tmp_path / "a.jpg", way), read_image(tmp_path / "a.jpg", way, 1)
        assert np.abs(half.astype(float) - halve(whole, 1)).mean() < 2


@pytest.mark.parametrize("size", [100, 64, 33])
def test_what_is_seen_does_not_depend_on_who_halves(picture: tuple[np.ndarray, Path], size: int) -> None:
    image, _ = picture
    native = (image.shape[1], image.shape[0])
    whole = warp(image, letterbox(native, size), size)
    for halved in range(halvings(size / native[0]) + 1):
        patch = warp(Pixels(halve(image, halved), native, halved), letterbox(native, size), size)
        np.testing.assert_array_equal(patch.matrix, whole.matrix)
        np.testing.assert_array_equal(patch.pixels, whole.pixels)

"""Sizes as a decoder gives them, and files that no decoder would give back whole."""

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from PIL import Image

from ddptrain.data.images.headers import read_header, read_headers

Save = Callable[..., Path]


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
def test_size(tmp_path: Path, save_image: Save, suffix: str) -> None:
    assert read_header(str(save_image(tmp_path / f"a.{suffix}", (100, 80))))[0] == (100, 80)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_as_the_decoder_applies_it(tmp_path: Path, save_image: Save, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(save_image(tmp_path / f"a.{suffix}", (100, 80), exif=exif))
    height, width = cv2.imread(path).shape[:2]
    assert read_header(path)[0] == (width, height)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.97])
def test_truncated(tmp_path: Path, save_image: Save, suffix: str, keep: float) -> None:
    path = save_image(tmp_path / f"a.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert isinstance(read_header(str(path)), str)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_trailer_is_not_a_fault(tmp_path: Path, save_image: Save, suffix: str) -> None:
    path = save_image(tmp_path / f"a.{suffix}")
    path.write_bytes(path.read_bytes() + b"maker's notes" * 1000)
    assert read_header(str(path))[0] == (100, 80)


def test_what_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "folder.jpg").mkdir()
    found = read_headers([str(tmp_path / f"{n}.jpg") for n in ("none", "empty", "text", "folder")])
    assert found[:3] == ["missing", "empty file", "not an image"]
    assert isinstance(found[3], str)


def test_every_real_image_is_sound(data_root: Path) -> None:
    paths = sorted(str(p) for p in data_root.glob("*/**/*.jpg"))
    assert [(p, f) for p, f in zip(paths, read_headers(paths)) if isinstance(f, str)] == []

"""Reading images: what comes out, and how every fault is told."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ddptrain.data.images.headers import read_header
from ddptrain.data.images.read import BadImage, read_image


@pytest.fixture
def picture() -> np.ndarray:
    """uint8 [40, 60, 3] RGB: red left, green right, blue below."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30, 0] = 250
    image[:, 30:, 1] = 250
    image[20:, :, 2] = 250
    return image


def write(path: Path, image: np.ndarray) -> Path:
    order = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[image.ndim if image.ndim == 2 else image.shape[2]]
    ok, data = cv2.imencode(path.suffix, image if order is None else cv2.cvtColor(image, order))
    assert ok
    data.tofile(path)
    return path


def with_exif(path: Path, orientation: int, thumbnail: bytes = b"") -> bytes:
    """The JPEG's bytes with an EXIF header that holds an orientation (and a thumbnail after it)."""
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff + thumbnail
    data = path.read_bytes()
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_files_come_back_as_rgb(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    image = read_image(write(tmp_path / f"a{suffix}", picture))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, picture)


def test_names_beyond_ascii(tmp_path: Path, picture: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(write(tmp_path / "Bäume 木.png", picture)), picture)


def test_grey_becomes_three_equal_channels(tmp_path: Path, picture: np.ndarray) -> None:
    image = read_image(write(tmp_path / "a.png", picture[..., 0]))
    np.testing.assert_array_equal(image, np.repeat(picture[..., :1], 3, 2))


def test_alpha_is_dropped(tmp_path: Path, picture: np.ndarray) -> None:
    rgba = np.dstack([picture, np.full((40, 60), 7, np.uint8)])
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", rgba)), picture)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def tiff(rgba: np.ndarray, extra: int, compressed: bool = False) -> bytes:
    """A TIFF of 8 bits a channel whose alpha is of the kind `extra`: 0 unspecified, 1 multiplied in, 2 not."""
    height, width, _ = rgba.shape
    data = zlib.compress(rgba.tobytes()) if compressed else rgba.tobytes()
    bits = 8 + len(data)
    tags = [
        (256, width), (257, height), (258, bits), (259, 8 if compressed else 1), (262, 2),
        (273, 8), (277, 4), (278, height), (279, len(data)), (338, extra),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", t, 4 if t in (258, 273, 279) else 3, 1, v) for t, v in tags)
    entries = entries.replace(struct.pack("<HHII", 258, 4, 1, bits), struct.pack("<HHII", 258, 3, 4, bits))
    return (
        b"II*\0"
        + struct.pack("<I", bits + 8)
        + data
        + struct.pack("<4H", 8, 8, 8, 8)
        + struct.pack("<H", 10)
        + entries
        + bytes(4)
    )


def test_every_kind_of_file_gives_the_colours_that_are_in_it(tmp_path: Path, picture: np.ndarray) -> None:
    """Transparent pixels keep their colours, whatever the format; files that know no more than a palette keep that."""
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :20], alpha[:10] = 100, 0
    rgba, grey = np.dstack([picture, alpha]), np.repeat(picture[..., :1], 3, 2)
    multiplied = np.dstack([np.rint(picture * (alpha[..., None] / 255)).astype(np.uint8), alpha])
    palette = Image.fromarray(picture).quantize(8)
    coloured, cmyk = np.array(palette.convert("RGB")), Image.fromarray(picture).convert("CMYK")
    whole = {
        "rgba.png": (saved(Image.fromarray(rgba), "PNG"), picture, 0),
        "rgba.webp": (saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True), picture, 0),
        "rgba.tif": (saved(Image.fromarray(rgba), "TIFF"), picture, 0),
        "rgba_lzw.tif": (saved(Image.fromarray(rgba), "TIFF", compression="tiff_lzw"), picture, 0),
        "unspecified.tif": (tiff(rgba, 0), picture, 0),
        "la.png": (saved(Image.fromarray(np.dstack([picture[..., 0], alpha]), "LA"), "PNG"), grey, 0),
        "la.tif": (saved(Image.fromarray(np.dstack([picture[..., 0], alpha]), "LA"), "TIFF"), grey, 0),
        "palette.png": (saved(palette, "PNG", transparency=bytes(range(0, 256, 32))), coloured, 0),
        "palette.tif": (saved(palette, "TIFF"), coloured, 0),
        "key.png": (saved(Image.fromarray(picture), "PNG", transparency=(250, 0, 0)), picture, 0),
        "one_bit.tif": (saved(Image.fromarray(picture[..., 0] > 9), "TIFF"), (grey > 9) * 255, 0),
        "cmyk.jpg": (saved(cmyk, "JPEG", quality=100, subsampling=0), picture, 2),
        "cmyk.tif": (saved(cmyk, "TIFF"), picture, 0),
    }  # fmt: skip
    for name, (data, expected, tolerance) in whole.items():
        (tmp_path / name).write_bytes(data)
        np.testing.assert_allclose(read_image(tmp_path / name).astype(int), expected, atol=tolerance, err_msg=name)
    for compressed in (False, True):
        (tmp_path / "multiplied.tif").write_bytes(tiff(multiplied, 1, compressed))
        found = read_image(tmp_path / "multiplied.tif")
        np.testing.assert_allclose(found[alpha > 0].astype(int), picture[alpha > 0], atol=3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_16_bits_with_alpha(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    wide = np.dstack([picture.astype(np.uint16) * 257, np.full((40, 60), 25700, np.uint16)])
    assert np.abs(read_image(write(tmp_path / f"a{suffix}", wide)).astype(int) - picture).max() <= 1


def test_a_broken_tiff_is_described_in_words(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((4, 6, 3), np.float32))  # three channels of floats
    with pytest.raises(BadImage, match=r"a\.tif: not an image that Pillow can decode$"):
        read_image(tmp_path / "a.tif")


def test_a_tiff_of_wide_samples_is_not_an_image_from_the_start(tmp_path: Path) -> None:
    """Else it would be found out only while training."""
    Image.fromarray(np.zeros((4, 6), np.float32)).save(tmp_path / "a.tif")
    assert str(read_header(str(tmp_path / "a.tif"))).startswith("not an image that OpenCV can decode")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled_to_8(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    image = read_image(write(tmp_path / f"a{suffix}", picture.astype(np.uint16) * 257))
    assert np.abs(image.astype(int) - picture).max() <= 1


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))],
)
def test_exif_orientation_is_applied(tmp_path: Path, picture: np.ndarray, orientation: int, turn) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path / "a.jpg", picture)
    straight = read_image(path)
    path.write_bytes(with_exif(path, orientation))
    np.testing.assert_array_equal(read_image(path), turn(straight))


def test_every_cut_of_a_jpeg_is_found(tmp_path: Path, picture: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = write(tmp_path / "a.jpg", noise)
    # the thumbnail's own end marker must not pass for the picture's
    whole = with_exif(path, 1, thumbnail=write(tmp_path / "thumb.jpg", picture).read_bytes())
    path.write_bytes(whole)
    assert read_image(path).shape == (64, 64, 3)
    for length in [*range(1, len(whole) - 2, 97), len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(BadImage, match=r"a\.jpg: .*(cut short|not an image)"):
            read_image(path)


def test_a_jpeg_cut_and_filled_with_zeros_is_found(tmp_path: Path, picture: np.ndarray) -> None:
    path = write(tmp_path / "a.jpg", picture)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4] + bytes(len(data) // 4))
    with pytest.raises(BadImage, match="cut short"):
        read_image(path)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path, picture: np.ndarray) -> None:
    path = write(tmp_path / "a.jpg", picture)
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + b"\0" * 100 + b"\xff\xdapreview")
    np.testing.assert_array_equal(read_image(path), expected)


def test_a_cut_png_is_found(tmp_path: Path, picture: np.ndarray) -> None:
    path = write(tmp_path / "a.png", picture)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadImage, match=r"a\.png: .*cut short"):
        read_image(path)


def test_files_that_are_not_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    for name, why in [
        ("empty.jpg", "is empty"),
        ("text.jpg", "not an image"),
        ("gone.jpg", "No such file"),
        (".", "directory"),
    ]:
        with pytest.raises(BadImage, match=why) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_all_real_jpegs_are_whole(data_root: Path) -> None:
    for path in sorted((data_root / "bccd" / "JPEGImages").iterdir())[:40]:
        assert read_image(path).shape == (480, 640, 3)


def test_older_opencv_reads_the_same(tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jpg", picture)
    expected = read_image(path)
    monkeypatch.setattr("ddptrain.data.images.read._RGB", None)
    np.testing.assert_array_equal(read_image(path), expected)

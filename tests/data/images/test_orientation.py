"""Which way up pictures are read: headers, images, masks, depth maps and annotations agree on it, for every orientation."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ddptrain.cli import main
from ddptrain.config.data import Exif
from ddptrain.config.own import OwnDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.cache import read_cached
from ddptrain.data.formats.collect import ImageCollector
from ddptrain.data.formats.depth import DepthMaps
from ddptrain.data.formats.labelled import read_labelled
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.images.headers import read_header
from ddptrain.data.images.read import BadImage, read_image
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.data.samples.segmentation import SegmentationSamples
from ddptrain.data.tables.faults import Faults
from ddptrain.data.tables.masks import read_mask
from ddptrain.errors import UserError
from ddptrain.structures import SampleKey

KINDS = {
    "jpg": {"quality": 100, "subsampling": 0},
    "png": {},
    "webp": {"lossless": True},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
}
EXIFS: tuple[Exif, ...] = ("apply", "ignore")
STORED = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8), 8, 0), 8, 1)
"""uint8 [32, 48, 3] of flat squares, which survive a JPEG."""


def header(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def save(path: Path, pixels: np.ndarray, orientation: int, **options: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=header(orientation), **options)
    return str(path)


def as_read(pixels: np.ndarray, orientation: int, exif: Exif) -> np.ndarray:
    """What Pillow makes of stored pixels."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.array(ImageOps.exif_transpose(image)) if exif == "apply" else pixels


@pytest.mark.parametrize("exif", EXIFS)
@pytest.mark.parametrize("suffix", KINDS)
def test_pixels_and_headers_agree(tmp_path: Path, suffix: str, exif: Exif) -> None:
    for orientation in range(1, 9):
        for pixels in (STORED, np.dstack([STORED, np.full((32, 48), 90, np.uint8)]), STORED[..., 0]):
            if suffix == "jpg" and pixels.shape[2:] == (4,):
                continue
            path = save(tmp_path / f"a.{suffix}", pixels, orientation, **KINDS[suffix])
            colours = pixels[..., :3] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
            found = read_image(path, exif)
            assert found.shape[1::-1] == read_header(path, exif)[0]
            np.testing.assert_allclose(found, as_read(colours, orientation, exif), atol=3 if suffix == "jpg" else 0)


@pytest.mark.parametrize("exif", EXIFS)
@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
def test_masks_and_depth_maps_agree_with_them(tmp_path: Path, suffix: str, exif: Exif) -> None:
    grey = STORED[..., 0]
    for orientation in range(1, 9):
        expected = as_read(grey, orientation, exif)
        path = save(tmp_path / f"depth/a.{suffix}", grey, orientation, **KINDS[suffix])
        np.testing.assert_array_equal(read_mask(path, exif), expected)
        palette = Image.fromarray(grey).convert("P")
        palette.save(path, exif=header(orientation), **KINDS[suffix])
        np.testing.assert_array_equal(read_mask(path, exif), as_read(np.array(palette), orientation, exif))
        save(tmp_path / f"depth/a.{suffix}", grey, orientation, **KINDS[suffix])
        d = OwnDataset(name="d", format="yolo", root=str(tmp_path), depth="depth", exif=exif, depth_invalid=())
        levels = DepthMaps(d, []).read(path, (expected.shape[1], expected.shape[0]))
        np.testing.assert_allclose(levels, expected, atol=1)


def test_a_depth_map_on_its_side_is_not_a_depth_map(tmp_path: Path) -> None:
    path = save(tmp_path / "depth/a.png", STORED[::2, ::2, 0], 1)
    maps = DepthMaps(OwnDataset(name="d", format="yolo", root=str(tmp_path), depth="depth"), [])
    assert maps.read(path, (48, 32)).shape == (32, 48)
    assert maps.read(path, (50, 32)).shape == (32, 50)  # another resolution is not yet another side
    with pytest.raises(BadImage, match=r"24 x 16 pixels, its image has 32 x 48: one of them is rotated by 90°.*exif: ignore"):
        maps.read(path, (32, 48))


def exif_bytes(order: str, *entries: bytes) -> bytes:
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    return b"Exif\0\0" + start + b"".join(entries) + bytes(4)


XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(
    "segments",
    [
        [exif_bytes(">", struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0))],
        [exif_bytes("<", struct.pack("<HHII", 0x0112, 4, 1, 6))],
        [exif_bytes("<", struct.pack("<HHIHH", 0x0112, 3, 1, 0, 0))],
        [exif_bytes("<", struct.pack("<HHIHH", 0x0112, 3, 1, 9, 0))],
        [exif_bytes("<", struct.pack("<HHIHH", 0x0100, 3, 1, 6, 0)), XMP],
        [XMP],
        [b"Exif\0\0II*\0\x08\0\0\0\x09\0"],
        [b"Exif\0\0rubbish"],
        [exif_bytes("<", struct.pack("<HHIHH", 0x0112, 3, 1, o, 0)) for o in (1, 6)],
    ],
    ids=["big-endian", "long", "zero", "nine", "xmp beside exif", "xmp", "cut", "rubbish", "two headers"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_odd_headers_turn_a_jpeg_as_the_decoder_does(tmp_path: Path, segments: list[bytes]) -> None:
    path = Path(save(tmp_path / "a.jpg", STORED, 1, quality=90))
    plain = io.BytesIO()
    Image.fromarray(STORED).save(plain, "JPEG")
    data = plain.getvalue()
    parts = [b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments]
    path.write_bytes(data[:2] + b"".join(parts) + data[2:])
    assert read_header(str(path))[0] == cv2.imread(str(path)).shape[1::-1]


def test_an_exif_chunk_behind_the_pixels_of_a_png_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(STORED).save(path)
    body = b"eXIf" + exif_bytes("<", struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0))[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(path.read_bytes()[:-12] + chunk + path.read_bytes()[-12:])
    assert read_header(str(path))[0] == cv2.imread(str(path)).shape[1::-1] == (32, 48)
    np.testing.assert_array_equal(read_image(path), as_read(STORED, 6, "apply"))
    np.testing.assert_array_equal(read_image(path, "ignore"), STORED)
    Image.fromarray(STORED[..., 0]).save(path)
    path.write_bytes(path.read_bytes()[:-12] + chunk + path.read_bytes()[-12:])
    np.testing.assert_array_equal(read_mask(path), as_read(STORED[..., 0], 6, "apply"))


def collected(paths: list[str], faults: Faults, exif: Exif) -> np.ndarray:
    images = ImageCollector(OwnDataset(name="d", root=".", format="yolo", exif=exif), faults)
    for path in paths:
        images.add(path, path)
    return images.sizes()


def test_turned_images_are_counted(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{o}.jpg", STORED, o) for o in range(1, 9)]
    faults = Faults()
    assert (collected(paths, faults, "apply") > 0).all()
    assert faults.counts["image turned by EXIF"] == 7
    assert "7 images turned by EXIF (read upright" in faults.text()
    faults = Faults()
    assert (collected(paths, faults, "ignore") == (48, 32)).all()
    assert not faults.counts


def yolo(root: Path, suffix: str, orientation: int, exif: Exif) -> OwnDataset:
    """One image; a box over its upper left quarter, in fractions."""
    save(root / f"images/train/a.{suffix}", STORED, orientation, **KINDS[suffix])
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/train/a.txt").write_text("0 0.25 0.25 0.5 0.5\n")
    return OwnDataset(name="y", format="yolo", root=str(root), split="train", names=("car",), exif=exif)


@pytest.mark.parametrize("suffix", KINDS)
def test_boxes_and_samples_of_every_orientation(tmp_path: Path, suffix: str) -> None:
    for orientation in range(1, 9):
        for exif in EXIFS:
            d = yolo(tmp_path / f"{orientation}{exif}", suffix, orientation, exif)
            table, _ = read(d)
            expected = as_read(STORED, orientation, exif)
            height, width = expected.shape[:2]
            assert table.boxes.tolist() == [[0, 0, width / 2, height / 2]]
            sample = DetectionSamples([table], np.ones((1, 1), bool), 64, None)[SampleKey(0, 0, 0)]
            assert sample.replaced is None
            assert sample.native_size == (width, height)


def test_the_cache_knows_both_ways(tmp_path: Path) -> None:
    d = yolo(tmp_path / "set", "jpg", 6, "apply")
    for config in (d, d.model_copy(update={"exif": "ignore"})) * 2:
        table, _ = read_cached(config, folder=tmp_path / "cache", settle=-10)
        assert table.sizes.tolist() == [[32, 48] if config.exif == "apply" else [48, 32]]
        assert table.exif == config.exif


def test_a_size_given_for_the_stored_pixels_names_exif(tmp_path: Path) -> None:
    save(tmp_path / "JPEGImages/a.jpg", STORED, 6)
    (tmp_path / "Annotations").mkdir()
    box = "<xmin>1</xmin><ymin>1</ymin><xmax>47</xmax><ymax>20</ymax>"
    (tmp_path / "Annotations/a.xml").write_text(
        "<annotation><size><width>48</width><height>32</height></size>"
        f"<object><name>car</name><bndbox>{box}</bndbox></object></annotation>"
    )
    d = OwnDataset(name="v", format="voc", root=str(tmp_path))
    with pytest.raises(UserError, match=r"48×32 where .*a.jpg has 32×48 pixels; its EXIF orientation is 6 .* set exif: ignore"):
        read(d)
    table, _ = read(d.model_copy(update={"exif": "ignore"}))
    assert table.boxes.tolist() == [[1, 1, 47, 20]]


@pytest.mark.parametrize(("orientation", "said"), [(6, True), (3, False), (1, False)])
def test_a_box_that_fits_the_stored_pixels_only_names_exif(tmp_path: Path, orientation: int, said: bool) -> None:
    pixels = STORED if orientation == 6 else STORED.swapaxes(0, 1)
    save(tmp_path / "a.jpg", np.ascontiguousarray(pixels), orientation)
    (tmp_path / "train.csv").write_text("path,x1,y1,x2,y2,class\na.jpg,1,1,47,20,car\n")
    d = OwnDataset(name="c", format="csv", root=str(tmp_path), split="train")
    with pytest.raises(UserError, match="box outside image: 1 1 47 20 in 32×48 pixels") as caught:
        read(d)
    assert ("set exif: ignore" in str(caught.value)) == said


def test_masks_of_turned_images(tmp_path: Path) -> None:
    """A mask of the stored pixels: refused with the way out, and read by it; one that carries the orientation itself fits."""
    for name, orientation in (("stored", 1), ("own", 6)):
        root = tmp_path / name
        save(root / "images/train/a.jpg", STORED, 6)
        save(root / "masks/train/a.png", STORED[..., 0] // 128, orientation)
        d = OwnDataset(name="m", format="masks", root=str(root), split="train", names=("a", "b"))
        if name == "stored":
            with pytest.raises(UserError, match="48 x 32 pixels, its image has 32 x 48; its EXIF orientation is 6"):
                read_masks(d)
            d = d.model_copy(update={"exif": "ignore"})
        table, _ = read_masks(d)
        sample = SegmentationSamples([table], np.ones((1, 2), bool), 64, None, native=True)[SampleKey(0, 0, 0)]
        assert sample.image.shape[:2] == sample.targets["native_mask"].shape
        np.testing.assert_array_equal(sample.targets["native_mask"], as_read(STORED[..., 0] // 128, 6, d.exif))


def test_classification_reads_either_way(tmp_path: Path) -> None:
    save(tmp_path / "train/cat/a.jpg", STORED, 6)
    for exif, size in (("apply", [32, 48]), ("ignore", [48, 32])):
        d = OwnDataset(name="f", format="folder", root=str(tmp_path), split="train", exif=exif)
        table, _ = read_labelled(d)
        assert table.sizes.tolist() == [size]
        assert table.exif == exif


def test_a_conversion_reads_either_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yolo(tmp_path / "y", "tif", 6, "apply")
    names = ["--split", "train", "--names", "car"]
    for exif, box in (("apply", "a.tif,0,0,16,24,car"), ("ignore", "a.tif,0,0,24,16,car")):
        out = tmp_path / exif
        assert main(["convert", "--from", "yolo", "--to", "csv", str(tmp_path / "y"), str(out), *names, "--exif", exif]) == 0
        assert (out / "train.csv").read_text().splitlines()[1] == box
        assert (f"read {out} with exif: ignore as well" in capsys.readouterr().out) == (exif == "ignore")

"""Readers of index masks: what they find in real and made-up layouts, and one clear line for every fault."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ddptrain.config.segmentation import SegmentationDataset
from ddptrain.data.formats.mask_layouts import CAMVID
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.images.read import BadImage
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.data.tables.masks import MaskTable, read_mask
from ddptrain.errors import UserError

VALUES = np.array([[0, 1, 2, 2], [0, 1, 255, 2], [0, 0, 0, 1]], np.uint8)


def dataset(root: Path, **keys: object) -> SegmentationDataset:
    return SegmentationDataset.model_validate({"name": "d", "root": str(root), **keys})


def put(folder: Path, stem: str, values: np.ndarray, mode: str = "L") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(folder / f"{stem}.png")
    return folder / f"{stem}.png"


def pair(root: Path, stem: str = "a", values: np.ndarray = VALUES, mode: str = "L", split: str = "train") -> None:
    (root / "images" / split).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "images" / split / f"{stem}.jpg"), np.zeros((*values.shape, 3), np.uint8))
    put(root / "masks" / split, stem, values, mode)


MASKS = {"format": "masks", "split": "train", "names": ("sky", "road", "car")}


def same(a: MaskTable, b: MaskTable) -> None:
    for name in ("sizes", "pixels", "classes", "paths", "masks"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.names, a.name, a.root) == (b.names, b.name, b.root)


def test_real_camvid(data_root: Path) -> None:
    tables = {}
    for split, count in (("train", 24), ("val", 12)):
        tables[split], faults = read_masks(dataset(data_root / "camvid36", format="camvid", split=split))
        table = tables[split]
        assert not faults.counts
        assert len(table) == count
        assert table.names == CAMVID
        assert (table.sizes == (480, 360)).all()
        assert (table.pixels.sum(1) == 480 * 360).all()
        assert all(Path(table.path(i)).name == Path(table.masks[i]).name for i in range(count))
    total = tables["train"].pixels.sum(0)
    assert total[CAMVID.index("Road")] == total.max()
    assert total[-1] > 0  # void
    labels = tables["train"].labels(3)
    np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=12)[:11], tables["train"].pixels[3, :11])


@pytest.mark.parametrize("mode", ["L", "P"])
def test_palette_and_raw_masks_are_read_alike_and_cached(tmp_path: Path, mode: str) -> None:
    pair(tmp_path, mode=mode)
    pair(tmp_path, "b", VALUES[:2])
    config = dataset(tmp_path, **MASKS)
    table, faults = read_masks(config, folder=tmp_path / "cache")
    assert not faults.counts
    assert table.pixels.tolist() == [[5, 3, 3, 1], [2, 2, 3, 1]]
    np.testing.assert_array_equal(table.labels(0), VALUES)
    same(table, read_masks(config, folder=tmp_path / "cache")[0])
    # another void value is another reading
    other = read_masks(config.model_copy(update={"void": 1}), "drop", tmp_path / "cache")[0]
    assert other.names == ("sky", "car")
    assert other.pixels[0].tolist() == [5, 3, 4]


def test_ade20k_ids_are_shifted_and_0_is_void(tmp_path: Path) -> None:
    pair(tmp_path, values=np.array([[0, 1, 3]], np.uint8), split="training")
    (tmp_path / "masks").rename(tmp_path / "annotations")
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.15\t1\t1\twall\n2\t0.1\t1\t1\tbuilding, edifice\n3\t0.1\t1\t1\tsky\n"
    )
    table, _ = read_masks(dataset(tmp_path, format="ade20k", split="train"))
    assert table.names == ("wall", "building", "sky")
    assert table.labels(0).tolist() == [[255, 0, 2]]
    assert table.pixels.tolist() == [[1, 0, 1, 1]]


def test_classes_are_renamed_and_ignored_ones_are_void(tmp_path: Path) -> None:
    pair(tmp_path)
    config = dataset(tmp_path, **MASKS, rename={"sky": "above"}, drop=("car",))
    table, _ = read_masks(config)
    space = LabelSpace.build(["road", "above", "tree"], [config], [table])
    mapped = space.apply(table)
    expected = np.choose(np.where(VALUES == 255, 3, VALUES), [1, 0, 255, 255])
    np.testing.assert_array_equal(mapped.labels(0), expected)
    assert mapped.pixels.tolist() == [[3, 5, 0, 4]]
    assert space.annotated.tolist() == [[True, True, False]]
    with pytest.raises(UserError, match="its classes sky, car are not among"):
        LabelSpace.build(["road"], [dataset(tmp_path, **MASKS)], [table])


@pytest.mark.parametrize("split", ["train", None])
def test_folders_can_lie_anywhere(tmp_path: Path, split: str | None) -> None:
    pair(tmp_path / "old", split="x")
    for part, folder in (("images", "pictures"), ("masks", "truth")):
        target = tmp_path / folder / (split or "")
        target.mkdir(parents=True)
        for file in (tmp_path / "old" / part / "x").iterdir():
            file.rename(target / file.name)
    found = read_masks(dataset(tmp_path, **{**MASKS, "split": split}, images="pictures", annotations="truth"))[0]
    assert found.pixels.tolist() == [[5, 3, 3, 1]]


BINARY = np.where(VALUES == 0, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "keys", "names", "classes"),
    [
        (BINARY, {"values": {255: 1}}, ("sky", "road", "car"), BINARY // 255),
        (BINARY, {"values": {255: 0}, "void": 0}, ("sky", "road", "car"), np.where(BINARY == 0, 255, 0)),
        # a class keeps no second value, and null is void
        (BINARY, {"names": ("sky", "road"), "values": {255: 0, 0: 1}}, ("sky", "road"), 1 - BINARY // 255),
        (BINARY, {"names": ("sky", "road"), "values": {255: 1, 0: None}}, ("road",), np.where(BINARY == 0, 255, 0)),
        (VALUES, {"values": {0: 2, 2: 0}}, ("sky", "road", "car"), np.choose(VALUES % 3, [2, 1, 0])),
    ],
)
def test_values_get_the_meaning_that_the_config_gives_them(
    tmp_path: Path, values: np.ndarray, keys: dict[str, object], names: tuple[str, ...], classes: np.ndarray
) -> None:
    pair(tmp_path, values=values)
    table, faults = read_masks(dataset(tmp_path, **(MASKS | keys)))
    assert not faults.counts
    assert table.names == names
    expected = np.where(values == 255, 255, classes) if values is VALUES else classes
    np.testing.assert_array_equal(table.labels(0), expected)
    assert table.values[[0, 255]].tolist() == [(values == 0).sum(), (values == 255).sum()]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"values": {255: 1}}, r"unknown label in a mask: 1 \(3 pixels\); allowed: 0, 2, 255; values: {1: N} makes it class"),
        ({"values": {255: 3}}, "its names have no number 3; they go to 2"),
        ({"values": {300: 1}}, "values: 300 cannot occur in its masks"),
        ({"values": {7: 1}, "void": 7}, "7 is void and in values class number 1; keep one of them"),
    ],
)
def test_values_that_contradict_the_masks_or_the_config(tmp_path: Path, keys: dict[str, object], line: str) -> None:
    pair(tmp_path)
    with pytest.raises(UserError, match=line):
        read_masks(dataset(tmp_path, **(MASKS | keys)))


def test_a_mask_of_fewer_bits_holds_the_indices_that_were_written(tmp_path: Path) -> None:
    """PIL spreads grey of 2 and 4 bits over 8: index 1 would be 85 or 17. A 4 x 1 grey PNG of 4 bits holds 0, 1, 2, 15."""
    raw = zlib.compress(bytes([0, 0x01, 0x2F]))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 4, 0, 0, 0, 0)), (b"IDAT", raw), (b"IEND", b"")]
    png = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2, 15]]


def unknown_value(root: Path) -> None:
    pair(root, "b", np.where(VALUES == 1, 7, VALUES).astype(np.uint8))


def other_size(root: Path) -> None:
    pair(root, "b")
    put(root / "masks/train", "b", VALUES.T.copy())


def no_mask(root: Path) -> None:
    pair(root, "b")
    (root / "masks/train/b.png").unlink()


def no_image(root: Path) -> None:
    put(root / "masks/train", "b", VALUES)


def sixteen_bits(root: Path) -> None:
    pair(root, "b")
    put(root / "masks/train", "b", VALUES.astype(np.uint16))


def colours(root: Path) -> None:
    pair(root, "b")
    put(root / "masks/train", "b", np.zeros((3, 4, 3), np.uint8))


def lossy(root: Path) -> None:
    pair(root, "b")
    (root / "masks/train/b.png").unlink()
    Image.fromarray(VALUES).save(root / "masks/train/b.jpg")


def cut_short(root: Path) -> None:
    pair(root, "b")
    file = root / "masks/train/b.png"
    file.write_bytes(file.read_bytes()[:40])


def broken_image(root: Path) -> None:
    pair(root, "b")
    (root / "images/train/b.jpg").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("spoil", "line", "left"),
    [
        (unknown_value, r"masks/train/b.png: unknown label in a mask: 7 \(3 pixels\); allowed: 0 to 2, and 255 for void", 2),
        (other_size, "masks/train/b.png: size mismatch: 3 x 4 pixels, its image has 4 x 3", 1),
        (no_mask, "images/train/b.jpg: image without label: no mask .*masks/train/b.png", 1),
        (no_image, "masks/train/b.png: label without image: no image", 1),
        (sixteen_bits, r"masks/train/b.png: unreadable label: 16-bit or wider .*one 8-bit class index per pixel", 1),
        (colours, r"masks/train/b.png: unreadable label: a colour image \(RGB\)", 1),
        (colours, "whose channels are equal: save one of them", 1),
        (lossy, "masks/train/b.jpg: unreadable label: a JPEG, which does not keep the values", 1),
        (cut_short, "masks/train/b.png: unreadable label: not a mask that can be read", 1),
        (broken_image, "images/train/b.jpg: unreadable image", 1),
    ],
)
def test_faults_are_reported_in_one_line_or_left_out(tmp_path: Path, spoil: object, line: str, left: int) -> None:
    pair(tmp_path)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError, match=line) as e:
        read_masks(dataset(tmp_path, **MASKS))
    assert "\n" not in str(e.value)
    assert "data.on_fault=drop" in str(e.value)
    table, faults = read_masks(dataset(tmp_path, **MASKS), "drop")
    assert len(table) == left
    assert sum(faults.counts.values()) == 1


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"format": "masks"}, r"masks hold no class names; give names: \[...\]"),
        (
            {**MASKS, "split": "test"},
            "no folder of images; looked for .*images/test, .*test/images; give the right one as images",
        ),
        ({"format": "camvid", "split": "test"}, "split test does not exist; splits in .*: none"),
        ({"format": "ade20k", "split": "train"}, "split train does not exist; splits in"),
    ],
)
def test_what_is_not_there_is_reported(tmp_path: Path, keys: dict[str, object], line: str) -> None:
    pair(tmp_path)
    with pytest.raises(UserError, match=line):
        read_masks(dataset(tmp_path, **keys))


def test_a_mask_that_changed_since_the_start_is_a_bad_image(tmp_path: Path) -> None:
    pair(tmp_path)
    table, _ = read_masks(dataset(tmp_path, **MASKS))
    put(tmp_path / "masks/train", "a", VALUES[:2])
    with pytest.raises(BadImage, match="4 x 2 pixels, but 4 x 3 when the dataset was read"):
        table.labels(0)
    with pytest.raises(BadImage, match="no such file"):
        read_mask(tmp_path / "none.png")

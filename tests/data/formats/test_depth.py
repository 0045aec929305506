"""Depth maps are found by name, become 8 bits, and travel with the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ddptrain.config.detection import DetectionAugment, DetectionDataset
from ddptrain.data.augment.partners import Partners
from ddptrain.data.formats.depth import DepthMaps, _index, depth_of_file, find_depth
from ddptrain.data.images.read import BadImage
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.contents import Contents, differences
from ddptrain.errors import UserError
from ddptrain.structures import SampleKey

SIZE = 96


def dataset(root: Path, **changes: object) -> DetectionDataset:
    return DetectionDataset.model_validate({"name": "d", "format": "csv", "root": str(root), "depth": "depth"} | changes)


def make_table(root: Path, images: int = 4) -> AnnotationTable:
    """Images of random blobs whose red channel is a depth of 1 to 255; the map, 16 bits, holds 100 times that, and 65535
    where red is 0."""
    paths, sizes, boxes = [], [], []
    for i in range(images):
        r = np.random.default_rng(i)
        width, height = (int(v) for v in r.integers(100, 220, 2))
        red = np.zeros((height, width), np.uint8)
        for _ in range(5):
            x, y = int(r.integers(0, width - 40)), int(r.integers(0, height - 40))
            red[y : y + 40, x : x + 40] = r.integers(60, 256)
        boxes.append((x, y, x + 40, y + 40))
        paths.append(str(root / "seq" / f"{i}.png"))
        sizes.append((width, height))
        for folder in ("seq", "depth/seq"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(paths[-1], np.dstack([np.zeros_like(red), np.zeros_like(red), red]))
        values = np.where(red > 0, red.astype(np.uint16) * 100, 65535).astype(np.uint16)
        cv2.imwrite(str(root / "depth" / "seq" / f"{i}.png"), values)
    return AnnotationTable(
        name="d",
        root=str(root),
        names=("thing",),
        paths=Paths.pack(paths),
        sizes=np.array(sizes, np.int32),
        offsets=np.arange(images + 1),
        boxes=np.array(boxes, np.float32),
        labels=np.zeros(images, np.int32),
        ignore=np.zeros(images, bool),
        crowd=np.zeros(images, bool),
        area=np.ones(images, np.float32),
    )


RANGE = {"depth_range": (100.0, 25500.0), "depth_invalid": (65535,)}


@pytest.mark.parametrize(
    "augment",
    [None, *(DetectionAugment(hsv_h=0, hsv_s=0, hsv_v=0, **keys) for keys in ({"rotate": 20}, {"mosaic": 1}))],
)
def test_depth_travels_with_the_image(tmp_path: Path, augment: DetectionAugment | None) -> None:
    table = make_table(tmp_path)
    config = dataset(tmp_path, **RANGE)
    tables, maps, _ = find_depth([config], [table], 5, "error", "train")
    partners = Partners(lambda p: (np.zeros_like(p), p % 4), 100, until=1e9)
    samples = DetectionSamples(tables, np.ones((1, 1), bool), SIZE, augment, 0, partners, maps, 5)
    for position in range(12):
        sample = samples[SampleKey(position, 0, position % 4)]
        assert sample.image.shape == (SIZE, SIZE, 5)
        red, depth, known = sample.image[..., 0].astype(int), sample.image[..., 3].astype(int), sample.image[..., 4]
        assert set(np.unique(known)) <= {0, 255}
        assert ((depth > 0) == (known == 255)).all()
        # depth is never mixed: where red is flat it is red, and elsewhere one of its neighbours
        flat = (cv2.erode(red.astype(np.uint8), np.ones((5, 5))) == red) & (
            cv2.dilate(red.astype(np.uint8), np.ones((5, 5))) == red
        )
        inside = flat & (sample.image[..., 1] < 20)
        assert inside.sum() > 500
        assert np.abs(red[inside] - depth[inside]).max() <= 1
    batch = samples.collate([samples[SampleKey(0, 0, 0)], samples[SampleKey(1, 0, 1)]])
    assert batch.images.shape == (2, 5, SIZE, SIZE)
    four = DetectionSamples(tables, np.ones((1, 1), bool), SIZE, None, 0, None, maps, 4)[SampleKey(0, 0, 0)]
    assert four.image.shape == (SIZE, SIZE, 4)


def test_levels(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    values = np.array([[0, 499, 500, 5250, 10000, 12000, 65535, 7]], np.uint16)
    cv2.imwrite(str(tmp_path / "depth/a.png"), values)
    config = dataset(tmp_path, depth_range=(500.0, 10000.0), depth_invalid=(0, 65535))
    maps = DepthMaps(config, ["a.jpg"])
    assert maps.read(maps.path(0), (8, 1)).tolist() == [[0, 1, 1, 128, 255, 255, 0, 1]]
    # of another size, by the nearest pixel; 8 bits, the whole range, nearest last
    assert maps.read(maps.path(0), (16, 2)).shape == (2, 16)
    cv2.imwrite(str(tmp_path / "depth/b.png"), np.array([[0, 1, 255]], np.uint8))
    assert DepthMaps(dataset(tmp_path), []).read(str(tmp_path / "depth/b.png"), (3, 1)).tolist() == [[0, 2, 255]]
    turned = DepthMaps(dataset(tmp_path, depth_range=(255.0, 0.0)), [])
    assert turned.read(str(tmp_path / "depth/b.png"), (3, 1)).tolist() == [[0, 254, 1]]


def test_bad_maps_are_reported(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    cv2.imwrite(str(tmp_path / "depth/rgb.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "depth/cut.png").write_bytes(b"\x89PNG")
    maps = DepthMaps(dataset(tmp_path), [])
    for name, word in (("rgb.png", "one channel"), ("cut.png", "decode"), ("none.png", "No such file")):
        with pytest.raises(BadImage, match=word):
            maps.read(str(tmp_path / "depth" / name), (4, 4))


def test_missing_maps(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    # the listing of a folder is kept, so each case has a folder of its own
    for name in ("some", "none"):
        (tmp_path / name / "seq").mkdir(parents=True)
    for i in (0, 2, 3):
        (tmp_path / "some/seq" / f"{i}.png").write_bytes((tmp_path / "depth/seq" / f"{i}.png").read_bytes())
    some = dataset(tmp_path, depth="some")
    with pytest.raises(UserError, match=r"1 of 4 images have no depth map, the first is .*1\.png"):
        find_depth([some], [table], 4, "error", "train")
    tables, _, notes = find_depth([some], [table], 4, "drop", "train")
    assert len(tables[0]) == 3
    assert "left out" in notes[0]
    with pytest.raises(UserError, match="4 of 4"):
        find_depth([dataset(tmp_path, depth="none")], [table], 4, "drop", "train")
    with pytest.raises(UserError, match="in_channels=5"):
        find_depth([dataset(tmp_path, depth="some", depth_missing="zeros")], [table], 4, "error", "train")
    tables, maps, _ = find_depth([dataset(tmp_path, depth="some", depth_missing="zeros")], [table], 5, "error", "train")
    samples = DetectionSamples(tables, np.ones((1, 1), bool), SIZE, None, 0, None, maps, 5)
    assert (samples[SampleKey(0, 0, 1)].image[..., 3:] == 0).all()
    assert (samples[SampleKey(0, 0, 2)].image[..., 4] == 255).any()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    for config, channels, word in (
        (dataset(tmp_path), 3, "in_channels=4 or 5"),
        (dataset(tmp_path, depth=None), 4, "depth: FOLDER"),
        (dataset(tmp_path), 7, "must be 3"),
        (dataset(tmp_path, depth="nowhere"), 4, "nowhere is not a directory"),
    ):
        with pytest.raises(UserError, match=word):
            find_depth([config], [table], channels, "error", "train")
    tables, maps, _ = find_depth([dataset(tmp_path, depth=None, depth_missing="zeros")], [table], 5, "error", "train")
    samples = DetectionSamples(tables, np.ones((1, 1), bool), SIZE, None, 0, None, maps, 5)
    assert (samples[SampleKey(0, 0, 1)].image[..., 3:] == 0).all()


def test_real_pairs(data_root: Path) -> None:
    """7-Scenes: `.color.jpg` beside `.depth.png`, millimetres, 65535 where nothing was measured."""
    root = data_root / "rgbd_7scenes17"
    images = sorted(str(p) for p in root.glob("*.color.jpg"))
    config = dataset(root, depth=".", depth_range=(300.0, 4000.0), depth_invalid=(0, 65535))
    maps = DepthMaps(config, images)
    assert len(images) == maps.there().sum() == 17
    for i in (0, 16):
        assert maps.path(i) == images[i].replace(".color.jpg", ".depth.png")
        levels = maps.read(maps.path(i), (640, 480))
        raw = cv2.imread(maps.path(i), cv2.IMREAD_UNCHANGED)
        assert ((levels == 0) == ((raw == 65535) | (raw == 0))).all()
        near = raw < 1500
        assert levels[near & (levels > 0)].max() < levels[~near & (levels > 0)].min() + 1
    found = depth_of_file(images[3], (640, 480), [config], 4)
    np.testing.assert_array_equal(found, maps.read(maps.path(3), (640, 480)))
    with pytest.raises(UserError, match="no depth map"):
        depth_of_file("elsewhere.jpg", (640, 480), [config], 4)
    assert (depth_of_file("elsewhere.jpg", (64, 48), [config], 5) == 0).all()


def test_a_map_is_that_of_one_image_of_its_dataset(tmp_path: Path) -> None:
    """Not of two images of one name in two folders, nor of any image elsewhere that has the name."""
    (tmp_path / "set/depth").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "set/depth/1.png"), np.full((48, 64), 9, np.uint8))
    config = dataset(tmp_path / "set")
    first, second = (str(tmp_path / "set/images" / folder / "1.jpg") for folder in ("s1", "s2"))
    assert DepthMaps(config, [first]).there().all()
    with pytest.raises(UserError, match=r"1\.png would be the map of two images, .*s1/1\.jpg and .*s2/1\.jpg"):
        DepthMaps(config, [first, second])
    elsewhere = str(tmp_path / "1.jpg")
    with pytest.raises(UserError, match="no depth map"):
        depth_of_file(elsewhere, (64, 48), [config], 4)
    given = config.model_copy(update={"depth": str(tmp_path / "set/depth")})
    assert (depth_of_file(elsewhere, (64, 48), [given], 4) > 0).all()


def test_maps_that_are_replaced_are_reported(tmp_path: Path) -> None:
    table = make_table(tmp_path)

    def state() -> dict[str, Any]:
        (maps,) = find_depth([dataset(tmp_path, depth_missing="zeros")], [table], 5, "error", "train")[1]
        assert maps is not None
        return Contents("train", maps.files(), "depth maps").state()

    before = state()
    cv2.imwrite(str(tmp_path / "depth/seq/2.png"), np.ones((100, 100), np.uint16))
    changed = "train d: 1 of 4 depth maps changed (depth/seq/2.png)"
    assert differences([before], [state()]) == {"train": [changed], "val": []}
    assert differences([{k: v for k, v in before.items() if k != "kind"}], [state()])["train"] == []  # of the images
    (tmp_path / "depth/seq/3.png").unlink()
    _index.cache_clear()
    assert differences([before], [state()])["train"] == [f"{changed}, 1 of 4 depth maps removed (depth/seq/3.png)"]

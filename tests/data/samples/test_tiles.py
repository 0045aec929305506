"""Tiles as samples: what a window shows of an image, its boxes, its depth and its mask, the same however it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree

import cv2
import numpy as np
import pytest
from key_probes import digest
from PIL import Image
from small_runs import write_config

from ddptrain.config import load_config
from ddptrain.config.detection import DetectionAugment
from ddptrain.config.segmentation import SegmentationAugment, SegmentationDataset
from ddptrain.config.tiles import WindowsConfig
from ddptrain.data.formats.masks import read_masks
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.images.read import BadImage, ImageCache
from ddptrain.data.loading.batches import train_loader
from ddptrain.data.packed.build import Talk
from ddptrain.data.samples import base
from ddptrain.data.samples.compose import Source, compose
from ddptrain.data.samples.plans import read_sized
from ddptrain.data.samples.segmentation import SegmentationSamples
from ddptrain.data.tables.windows import Cutter, cut_images
from ddptrain.errors import UserError
from ddptrain.structures import VOID, SampleKey
from ddptrain.tasks.base import Task
from ddptrain.tasks.build import build_task, new_task
from ddptrain.tasks.pixels import cache_pixels

STILL = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "scale": 0.0, "translate": 0.0, "hflip": 0.0}
CUTTER = Cutter((96,), 0.0, 96, 0.5)
WINDOW = (96, 96, 192, 192)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def source() -> Source:
    """200 x 200 pixels: objects inside, cut by half, cut by more, and outside of the window; a region that reaches in."""
    boxes = [(100, 100, 120, 130), (86, 150, 106, 160), (80, 170, 100, 180), (10, 10, 20, 20)]
    regions = [(180, 180, 200, 200), (0, 0, 50, 50)]
    return Source(
        Pixels.of(noise(0, 200, 200, 3)),
        np.array(boxes, np.float32),
        np.arange(4, dtype=np.int32),
        np.array(regions, np.float32),
        np.ones(4, bool),
        noise(1, 200, 200),
    )


def test_a_tile_is_the_window_of_its_image() -> None:
    part = source().cut(WINDOW, CUTTER)
    sample = compose(SampleKey(0, 0, 0), [[part]], 96, DetectionAugment(**STILL), channels=5)
    whole = source()
    np.testing.assert_array_equal(sample.image[..., :3], whole.image.values[96:192, 96:192])
    assert whole.depth is not None
    np.testing.assert_array_equal(sample.image[..., 3], whole.depth[96:192, 96:192])
    assert sample.targets["boxes"].tolist() == [[4, 4, 24, 34], [0, 54, 10, 64]]
    assert sample.targets["labels"].tolist() == [0, 1]
    # of an object that is cut by more than half, and of the ignore region, the parts inside
    assert sample.targets["ignore_boxes"].tolist() == [[0, 74, 4, 84], [84, 84, 96, 96]]
    assert sample.to_native.tolist() == [[1, 0, 96], [0, 1, 96]]
    assert sample.native_size == (200, 200)


@pytest.mark.parametrize(("width", "learned"), [(1.5, False), (2.0, False), (2.5, True)])
def test_no_object_that_a_tile_cuts_is_background(width: float, learned: bool) -> None:
    """What samples would drop as too small is ignored, also where more than `keep` of it is inside; else it is an object."""
    boxes = np.array([[96 - 2.5, 110, 96 + width, 130]], np.float32)
    cut = (
        source()
        ._replace(boxes=boxes, labels=np.zeros(1, np.int32), ignore_boxes=boxes[:0])
        .cut(WINDOW, CUTTER._replace(keep=0.3))
    )
    targets = compose(SampleKey(0, 0, 0), [[cut]], 96, DetectionAugment(**STILL), channels=5).targets
    assert (len(targets["boxes"]), len(targets["ignore_boxes"])) == ((1, 0) if learned else (0, 1))


def test_the_way_back_leads_to_the_file_whatever_is_drawn() -> None:
    for position in range(20):
        part = source().cut(WINDOW, CUTTER)
        sample = compose(SampleKey(position, 0, 0), [[part]], 64, DetectionAugment(rotate=0, vflip=0.5), seed=3)
        for box, label in zip(sample.targets["boxes"], sample.targets["labels"]):
            if box.min() > 0 and box.max() < 64:
                ends = box.reshape(2, 2) @ sample.to_native[:, :2].T + sample.to_native[:, 2]
                real = [(100, 100, 120, 130), (96, 150, 106, 160)][label]
                assert [*ends.min(0), *ends.max(0)] == pytest.approx(real, abs=0.01)


def test_mosaic_puts_tiles_together_as_it_does_images() -> None:
    """A tile in a mosaic is what an image file of its window would be."""
    tile = source().cut(WINDOW, CUTTER)
    file = tile._replace(image=Pixels.of(np.ascontiguousarray(tile.image.values)), window=None)
    for position in range(5):
        key = SampleKey(position, 0, 0)
        a, b = (compose(key, [[one, tile, one, tile]], 96, DetectionAugment(), 2, 5) for one in (tile, file))
        assert digest([a.image, a.targets]) == digest([b.image, b.targets])


@pytest.mark.parametrize("crop", [False, True])
def test_a_mask_is_cut_like_its_image(tmp_path: Path, crop: bool) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    values = noise(2, 100, 160) % 3
    Image.fromarray(values).save(tmp_path / "masks" / "0.png")
    Image.fromarray(np.repeat((values * 60 + 20)[..., None], 3, 2)).save(tmp_path / "images" / "0.png")
    table, _ = read_masks(SegmentationDataset(name="d", format="masks", root=str(tmp_path), names=("a", "b", "c")))
    tiles = cut_images(table, WindowsConfig(size=64, overlap=0.25), 64)
    augment = SegmentationAugment(crop=crop, **STILL)
    samples = SegmentationSamples([table], np.ones((1, 3), bool), 64, augment, 1, tiles=[tiles])
    assert samples.size(0) == len(tiles) == 3 * 2
    for index, (x1, y1, x2, y2) in enumerate(tiles.windows.tolist()):
        sample = samples[SampleKey(index, 0, index)]
        np.testing.assert_array_equal(sample.targets["mask"], values[y1:y2, x1:x2])
        np.testing.assert_array_equal(sample.image[..., 0], values[y1:y2, x1:x2] * 60 + 20)
        assert sample.to_native.tolist() == [[1, 0, x1], [0, 1, y1]]
        assert sample.native_size == (160, 100)
    assert VOID not in samples[SampleKey(0, 0, 0)].targets["mask"]


TILES = ("data.train.0.tiles={size: 96, scales: [1.0, 0.75], empty: 0.4}", "data.augment={mosaic: 0.5, close_epochs: 0}")


@pytest.fixture
def task(config: Path) -> Task:
    """The small run in detection, of which the first dataset is cut into tiles."""
    return build_task(load_config(config, TILES))


def batches(task: Task, workers: int, steps: int = 4) -> list[str]:
    with train_loader(
        task.train, task.sampler.keys, position=24, steps=steps, global_batch=8, micro_batch=4, rank=0, world_size=1,
        workers=workers,
    ) as loader:  # fmt: skip
        return [digest([b.images, b.keys, b.targets, b.to_native, b.native_size]) for b in loader]


def test_tiles_are_the_same_for_any_number_of_workers(task: Task) -> None:
    alone = batches(task, 0)
    assert len(set(alone)) == 8
    assert batches(task, 1) == batches(task, 3) == alone


def test_whole_images_and_tiles_of_the_same_files_do_not_share_pixels(config: Path, tmp_path: Path) -> None:
    """Of large files, which whole images are read from at half the size, and tiles are not."""
    save_large_images(tmp_path / "large")
    dataset = f"format: yolo, root: {tmp_path / 'large'}, names: [car], rename: {{car: car}}"
    train = f"data.train=[{{name: whole, {dataset}}}, {{name: tiled, {dataset}, tiles: {{size: 96}}}}]"
    built = build_task(load_config(config, [train, "data.augment.mosaic=0", "data.augment.hflip=0"]))
    samples = built.train
    keys = [SampleKey(i, d, i) for i in range(2) for d in range(2)]

    def shown(order: Sequence[SampleKey]) -> dict[SampleKey, str]:
        samples._recent = ImageCache(samples._recent.size)  # as in a new process
        return {key: digest([samples[key].image, samples[key].targets]) for key in order}

    assert samples.halved(0, 640, 480) > samples.halved(1, 640, 480) == 0
    alone = {key: shown([key])[key] for key in keys}
    assert shown(keys) == shown(keys[::-1]) == alone


def test_check_goes_on_where_a_tiled_image_cannot_be_decoded(config: Path, tmp_path: Path) -> None:
    save_large_images(tmp_path / "large")
    for path in (tmp_path / "large/images").iterdir():
        data = path.read_bytes()
        path.write_bytes(data[:90_000] + bytes(500) + data[90_500:])
    dataset = f"format: yolo, root: {tmp_path / 'large'}, names: [car], tiles: {{size: 96}}"
    built = build_task(load_config(config, [f"data.train=[{{name: tiled, {dataset}}}]"]))
    with pytest.raises(BadImage):
        read_sized(built.train.tables[0], 0)
    assert list(built.view.figures()) == []


def test_sizes_of_boxes_are_those_in_tiles(config: Path, tmp_path: Path) -> None:
    """64 x 48 pixels of the file are as many in tiles as large as the input, and a tenth of that in whole images."""
    save_large_images(tmp_path / "large")
    sizes = {}
    for name, tiles in {"whole": "", "tiles": ", tiles: {size: 64, keep: 0}"}.items():
        dataset = f"{{name: a, format: yolo, root: {tmp_path / 'large'}, names: [car]{tiles}}}"
        out = new_task(load_config(config, [f"data.train=[{dataset}]", "data.val.0.drop=[]"])).inspect(2)
        (sizes[name],) = (found for found in out.facts["sizes"] if found["part"] == "train")
    assert sizes["whole"]["below_8px"] == 2
    assert sizes["tiles"]["below_8px"] < sum(sizes["tiles"]["network"].values())
    assert sizes["whole"]["longest_side"] == pytest.approx(6.4)
    assert sizes["tiles"]["longest_side"] > 32
    assert sizes["whole"]["native"] == sizes["tiles"]["native"]


def save_large_images(root: Path) -> None:
    """Two images of 640 x 480 pixels in YOLO's layout, each with an object that some of its tiles show."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for i in range(2):
        Image.fromarray(noise(i, 480, 640, 3)).save(root / "images" / f"{i}.png")
        (root / "labels" / f"{i}.txt").write_text("0 0.3 0.4 0.1 0.1\n")


def test_packed_pixels_give_the_same_tiles(task: Task, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path / "cache"))
    plain = batches(task, 0)
    said: list[str] = []
    cache_pixels(task, "disk", Talk(said.append, said.append))
    monkeypatch.setattr(cv2, "imdecode", None)
    assert batches(task, 0) == plain


def test_a_tile_whose_image_is_gone_is_replaced_by_one_of_another(
    small_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    copytree(small_data("detection"), data)
    task, other = (build_task(load_config(write_config("detection", data, tmp_path), TILES[:1])) for _ in range(2))
    first = Path(task.train.source(SampleKey(0, 0, 0)))
    first.unlink()
    monkeypatch.setattr(base, "MAX_TRIES", 2)  # of images, not of their tiles
    sample = task.train[SampleKey(0, 0, 0)]
    assert sample.replaced is not None
    assert str(first) in sample.replaced
    second = Path(task.train.source(sample.key))
    assert second.exists()
    second.unlink()
    with pytest.raises(UserError, match="2 images in a row cannot be read"):
        other.train[SampleKey(0, 0, 0)]

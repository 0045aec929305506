"""From a key to a sample: pixels and boxes travel together, what cannot be read is replaced and reported."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.data.augment.partners import Partners
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.samples.compose import Source, compose
from ddptrain.data.samples.detection import DetectionSamples
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.errors import UserError
from ddptrain.structures import SampleKey

TRUTH, IGNORED, CROWD = (255, 255, 0), (0, 255, 255), (255, 0, 255)
AUGMENT = DetectionAugment(rotate=0, vflip=0.3, hsv_h=0, hsv_s=0, hsv_v=0)


def make_table(folder: Path, images: int = 6) -> AnnotationTable:
    """PNGs of different sizes with a yellow object, a cyan ignore region and a magenta crowd, all somewhere else."""
    folder.mkdir(exist_ok=True)
    paths, sizes, boxes = [], [], []
    for i in range(images):
        r = np.random.default_rng(i)
        width, height = (int(v) for v in r.integers(180, 420, 2))
        image = np.full((height, width, 3), 30, np.uint8)
        for n, colour in enumerate((TRUTH, IGNORED, CROWD)):
            x, y = n * width // 3 + 5, int(r.integers(5, height - 50))
            box = (x, y, x + int(r.integers(25, 45)), y + int(r.integers(25, 45)))
            image[box[1] : box[3], box[0] : box[2]] = colour
            boxes.append(box)
        paths.append(str(folder / f"{i}.png"))
        sizes.append((width, height))
        assert cv2.imwrite(paths[-1], image[..., ::-1])
    return AnnotationTable(
        name=folder.name,
        root=str(folder),
        names=("thing",),
        paths=Paths.pack(paths),
        sizes=np.array(sizes, np.int32),
        offsets=np.arange(images + 1, dtype=np.int64) * 3,
        boxes=np.array(boxes, np.float32),
        labels=np.tile(np.array([0, -1, 0], np.int32), images),
        ignore=np.tile([False, True, False], images),
        crowd=np.tile([False, False, True], images),
        area=np.ones(3 * images, np.float32),
    )


@pytest.fixture
def table(tmp_path: Path) -> AnnotationTable:
    return make_table(tmp_path / "a")


def samples(table: AnnotationTable, augment: DetectionAugment | None = AUGMENT, seed: int = 0) -> DetectionSamples:
    return DetectionSamples([table], np.ones((1, 1), bool), 160, augment, seed)


def painted(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray | None:
    """Box around the pixels nearest to a colour."""
    ys, xs = np.nonzero(np.abs(image.astype(int) - colour).max(-1) < 110)
    return None if len(xs) == 0 else np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_pixels_and_boxes_travel_together(table: AnnotationTable, augment: DetectionAugment | None) -> None:
    seen = 0
    for position in range(60):
        sample = samples(table, augment)[SampleKey(position, 0, position % 6)]
        assert sample.image.shape == (160, 160, 3)
        assert sample.image.dtype == np.uint8
        assert sample.targets["labels"].dtype == np.int64
        assert len(sample.targets["labels"]) == len(sample.targets["boxes"]) <= 1
        for box in sample.targets["boxes"]:
            assert np.abs(painted(sample.image, TRUTH) - box).max() <= 1
            seen += 1
        # the ignore region and the crowd, in the order of the file
        for box in sample.targets["ignore_boxes"]:
            if min(box[2] - box[0], box[3] - box[1]) > 3:
                errors = [
                    np.abs(found - box).max() for c in (IGNORED, CROWD) if (found := painted(sample.image, c)) is not None
                ]
                assert min(errors) <= 1
                seen += 1
    assert seen > 100


def test_to_native_leads_back_to_the_file(table: AnnotationTable) -> None:
    for position in range(20):
        sample = samples(table, None)[SampleKey(position, 0, position % 6)]
        box = np.concatenate([sample.targets["boxes"].reshape(2, 2), np.ones((2, 1))], 1) @ sample.to_native.T
        np.testing.assert_allclose(box.reshape(4), table.boxes[position % 6 * 3], atol=0.01)
        assert sample.native_size == tuple(table.sizes[position % 6])


def test_without_ranges_augmentation_is_the_letterbox(table: AnnotationTable) -> None:
    still = DetectionAugment(scale=0, translate=0, hflip=0, hsv_h=0, hsv_s=0, hsv_v=0)
    for index in range(6):
        key = SampleKey(100 + index, 0, index)
        plain, augmented = samples(table, None)[key], samples(table, still)[key]
        np.testing.assert_array_equal(plain.image, augmented.image)
        np.testing.assert_array_equal(plain.targets["boxes"], augmented.targets["boxes"])


def test_a_sample_is_a_function_of_seed_and_position(table: AnnotationTable) -> None:
    colourful = DetectionAugment(rotate=10)
    key = SampleKey(5, 0, 1)
    first = samples(table, colourful, seed=1)[key]
    np.random.seed(3)
    again = samples(table, colourful, seed=1)
    again[SampleKey(17, 0, 3)]
    np.testing.assert_array_equal(again[key].image, first.image)
    assert not np.array_equal(again[key._replace(position=6)].image, first.image)
    assert not np.array_equal(samples(table, colourful, seed=2)[key].image, first.image)


def test_one_option_does_not_change_the_draws_of_another(table: AnnotationTable) -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    nothing = np.zeros((0, 4), np.float32)
    shifts = []
    for config in (DetectionAugment(hflip=0, scale=0), DetectionAugment(hflip=0, scale=0, hsv_v=0, vflip=0, shear=0)):
        source = Source(Pixels.of(image), nothing, np.zeros(0, np.int32), nothing, np.ones(1, bool))
        shifts.append(compose(SampleKey(9, 0, 0), [[source]], 64, config).to_native[:, 2].tolist())
    assert shifts[0] == shifts[1]


def test_collate(table: AnnotationTable) -> None:
    data = DetectionSamples([table, table], np.array([[True], [False]]), 160, None)
    batch = data.collate([data[SampleKey(7, 0, 2)], data[SampleKey(9, 1, 4)]])
    assert batch.images.shape == (2, 3, 160, 160)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch.images[1].permute(1, 2, 0).numpy(), data[SampleKey(9, 1, 4)].image)
    assert batch.keys.tolist() == [[7, 0, 2], [9, 1, 4]]
    assert batch.annotated.tolist() == [[True], [False]]
    assert batch.targets["boxes"].shape == (2, 4)
    assert batch.targets["image"].tolist() == [0, 1]
    assert batch.targets["ignore_image"].tolist() == [0, 0, 1, 1]
    assert batch.to_native.shape == (2, 2, 3)
    assert batch.native_size.tolist() == table.sizes[[2, 4]].tolist()
    assert batch.replaced == ()


def test_images_without_boxes_collate(table: AnnotationTable) -> None:
    bare = samples(table.keep_rows(np.zeros(18, bool)))
    batch = bare.collate([bare[SampleKey(i, 0, i)] for i in range(2)])
    assert batch.targets["boxes"].shape == (0, 4)
    assert batch.targets["image"].shape == (0,)
    assert batch.targets["ignore_boxes"].dtype == torch.float32


def test_a_bad_image_is_replaced_by_the_next_good_one(table: AnnotationTable) -> None:
    Path(table.path(4)).write_bytes(b"no image")
    Path(table.path(5)).unlink()
    data = samples(table)
    key = SampleKey(11, 0, 4)
    sample = data[key]
    assert sample.key == SampleKey(11, 0, 0)
    np.testing.assert_array_equal(sample.image, data[SampleKey(11, 0, 0)].image)
    assert sample.replaced is not None
    assert "4.png: not an image" in sample.replaced
    assert sample.replaced.endswith("/0.png")
    assert "; replaced by " in sample.replaced
    batch = data.collate([data[SampleKey(0, 0, 1)], sample])
    assert batch.replaced == (sample.replaced,)
    assert batch.to(torch.device("cpu")).replaced == batch.replaced


def test_an_image_that_changed_its_size_is_bad(table: AnnotationTable) -> None:
    assert cv2.imwrite(table.path(2), np.zeros((50, 60, 3), np.uint8))
    assert "60 x 50 pixels, but" in str(samples(table)[SampleKey(0, 0, 2)].replaced)


def test_in_evaluation_a_bad_image_is_grey_and_its_truth_stays(table: AnnotationTable) -> None:
    expected = samples(table, None)[SampleKey(3, 0, 3)]
    Path(table.path(3)).unlink()
    sample = samples(table, None)[SampleKey(3, 0, 3)]
    assert (sample.image == 114).all()
    assert sample.key == expected.key
    np.testing.assert_array_equal(sample.targets["boxes"], expected.targets["boxes"])
    assert "3.png: No such file" in str(sample.replaced)


def test_when_nothing_can_be_read_the_run_ends(table: AnnotationTable) -> None:
    for i in range(6):
        Path(table.path(i)).unlink()
    with pytest.raises(UserError, match=r"1\.png: No such file.*6 images in a row"):
        samples(table)[SampleKey(0, 0, 1)]


def test_a_sample_of_several_images_has_the_mean_of_their_weights(tmp_path: Path) -> None:
    tables = [make_table(tmp_path / name, images=2) for name in "ab"]
    augment = DetectionAugment(mosaic=1)
    stream = np.array([0, 0, 1, 0, 1, 1, 0, 1])
    partners = Partners(lambda positions: (stream[positions], positions % 2), len(stream), len(stream))
    made = DetectionSamples(tables, np.ones((2, 1), bool), 64, augment, 0, partners, weights=(3.0, 1.0))
    plain = DetectionSamples(tables, np.ones((2, 1), bool), 64, augment, 0, weights=(3.0, 1.0))
    keys = [SampleKey(i, int(d), i % 2) for i, d in enumerate(stream)]
    assert [plain[key].weight for key in keys] == [3.0, 3.0, 1.0, 3.0, 1.0, 1.0, 3.0, 1.0]
    for key in keys:
        others = partners.draw_tiles(key, 0, augment)[0]
        assert made[key].weight == sum(3.0 if k.dataset == 0 else 1.0 for k in (key, *others)) / 4
    batch = plain.collate([plain[key] for key in keys[:3]])
    assert batch.weights is not None
    assert batch.weights.tolist() == [3.0, 3.0, 1.0]
    assert batch.to(torch.device("cpu")).map(lambda t: t[:1]).weights.tolist() == [3.0]
    assert samples(tables[0]).collate([samples(tables[0])[keys[0]]]).weights is None

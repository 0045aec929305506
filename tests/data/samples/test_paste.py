"""Copy-paste: what is pasted is the object with its pixels and its depth, in a free place, and it is counted."""

from __future__ import annotations

import numpy as np
import pytest

from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.data.images.pixels import Pixels, halve
from ddptrain.data.samples.compose import Source, compose
from ddptrain.data.samples.paste import paste_small
from ddptrain.data.tables.box_masks import GRID, pack, unpack
from ddptrain.data.tables.windows import Cutter
from ddptrain.structures import SampleKey


def source(halved: int = 0) -> Source:
    """Noise, in which two small objects, a large one, two that lie on each other, and an ignore region are."""
    image = np.random.default_rng(0).integers(0, 256, (301, 403, 3), np.uint8)
    boxes = np.array([[20, 20, 33.5, 41], [200, 100, 220, 120], [10, 150, 190, 290], [300, 20, 320, 40], [305, 20, 325, 40]])
    return Source(
        Pixels(halve(image, halved), (403, 301), halved),
        boxes.astype(np.float32),
        np.array([3, 1, 2, 0, 0]),
        np.array([[350, 200, 390, 280]], np.float32),
        np.ones(4, bool),
        image[..., 0].copy(),
    )


@pytest.mark.parametrize("halved", [0, 1, 2])
def test_copies_lie_free_and_look_like_their_objects(halved: int) -> None:
    step, seen = 2**halved, 0
    for seed in range(30):
        one = source(halved)
        before = one.image.values.copy()
        out = paste_small(one, 8, 320, np.random.default_rng(seed))
        assert (one.image.values == before).all()
        assert len(out.boxes) == len(out.labels) == 5 + out.pasted
        for number in range(5, len(out.boxes)):
            box, label = out.boxes[number], out.labels[number]
            model = one.boxes[0] if label == 3 else one.boxes[1]
            assert label in (1, 3)
            moved = box - model
            assert (moved[:2] == moved[2:]).all()
            assert (moved % step == 0).all()
            assert box.min() >= 0
            assert (box[2:] <= [403, 301]).all()
            others = np.concatenate([np.delete(out.boxes, number, 0), out.ignore_boxes])
            assert not ((others[:, :2] < box[2:]) & (others[:, 2:] > box[:2])).all(1).any()
            (x1, y1), (x2, y2) = np.floor(box[:2] / step).astype(int), np.ceil(box[2:] / step).astype(int)
            left, top = (moved[:2] / step).astype(int)
            part = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
            np.testing.assert_array_equal(out.image.values[y1:y2, x1:x2], before[part])
            native = np.s_[y1 * step : y2 * step, x1 * step : x2 * step]
            dx, dy = moved[:2].astype(int)
            assert out.depth is not None
            assert one.depth is not None
            from_depth = np.s_[y1 * step - dy : y2 * step - dy, x1 * step - dx : x2 * step - dx]
            np.testing.assert_array_equal(out.depth[native], one.depth[from_depth])
            seen += 1
    assert seen > 60


def test_what_the_sample_shows_of_them_is_counted() -> None:
    pasted = paste_small(source(), 8, 320, np.random.default_rng(2))
    still = DetectionAugment(scale=0, translate=0, hflip=0, hsv_h=0, hsv_s=0, hsv_v=0)
    assert pasted.pasted > 1
    sample = compose(SampleKey(0, 0, 0), [[pasted]], 320, still, channels=4)
    assert sample.pasted == pasted.pasted
    assert len(sample.targets["boxes"]) == 5 + pasted.pasted
    # four times the same in a mosaic, of which the square shows a part
    shown = [compose(SampleKey(p, 0, 0), [[pasted] * 4], 320, still, channels=4) for p in range(10)]
    assert all(0 < s.pasted < 4 * pasted.pasted for s in shown)
    with_none = compose(SampleKey(0, 0, 0), [[source()]], 320, still, channels=4)
    assert with_none.pasted == 0


def test_where_nothing_is_small_nothing_is_pasted() -> None:
    one = source()
    large = one._replace(boxes=one.boxes[2:3], labels=one.labels[2:3])
    assert paste_small(large, 8, 320, np.random.default_rng(0)) is large
    full = one._replace(ignore_boxes=np.array([[0, 0, 403, 301]], np.float32))
    assert paste_small(full, 8, 320, np.random.default_rng(0)) is full


@pytest.mark.parametrize("halved", [0, 1])
def test_of_an_object_with_a_mask_only_its_pixels_are_pasted(halved: int) -> None:
    """Left halves: the right ones of the places where copies lie stay as they are, in colour and in depth."""
    half = np.zeros((5, GRID, GRID), bool)
    half[:, :, : GRID // 2] = True
    one = source(halved)._replace(masks=pack(half))
    step, seen = 2**halved, 0
    for seed in range(10):
        out = paste_small(one, 8, 320, np.random.default_rng(seed))
        assert out.masks is not None
        assert len(out.masks) == len(out.boxes)
        for number in range(5, len(out.boxes)):
            model = one.boxes[0] if out.labels[number] == 3 else one.boxes[1]
            (x1, y1, x2, y2), (dx, dy) = out.boxes[number].tolist(), (out.boxes[number] - model)[:2].astype(int).tolist()
            middle = (x1 + x2) / 2
            for new, old, side in ((out.image.values, one.image.values, step), (out.depth, one.depth, 1)):
                assert new is not None
                assert old is not None
                rows = np.s_[int(np.ceil(y1 / side)) + 1 : int(y2 / side) - 1]
                left = np.arange(int(np.ceil(x1 / side)) + 1, int(middle / side) - 1)
                right = np.arange(int(np.ceil(middle / side)) + 1, int(np.ceil(x2 / side)))
                assert len(left)
                assert len(right)
                np.testing.assert_array_equal(new[rows, right], old[rows, right])
                up = np.s_[rows.start - dy // side : rows.stop - dy // side]
                np.testing.assert_array_equal(new[rows, left], old[up, left - dx // side])
            seen += 1
    assert seen > 20
    nothing = one._replace(masks=pack(np.zeros((5, GRID, GRID), bool)))
    assert paste_small(nothing, 8, 320, np.random.default_rng(0)) is nothing


def test_a_window_keeps_the_part_of_a_mask_that_it_shows() -> None:
    """Of the first object, 14 x 21 pixels, all but the three columns on the left; of the large one too little."""
    cells = np.zeros((5, GRID, GRID), bool)
    cells[0, :, GRID // 2 :] = True
    cut = source()._replace(masks=pack(cells)).cut((23, 0, 123, 100), Cutter((100,), 0.0, 100, 0.5))
    assert cut.masks is not None
    assert len(cut.boxes) == len(cut.masks) == 1
    # the covered half begins at 26.75, a part of 3.75 / 10.5 from the left
    assert (unpack(cut.masks)[0].sum(1) == [10] * GRID).all()

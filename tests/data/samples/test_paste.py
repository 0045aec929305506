"""Copy-paste: what is pasted is the object with its pixels and its depth, in a free place, and it is counted."""

from __future__ import annotations

import numpy as np
import pytest

from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.data.images.pixels import Pixels, halve
from ddptrain.data.samples.compose import Source, compose
from ddptrain.data.samples.paste import paste_small
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

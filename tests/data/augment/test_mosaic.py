"""Mosaic and mixup: boxes, pixels, ignore regions and what is labelled travel together; partners are a formula."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.data.augment.partners import Partners
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.samples.compose import Source, compose
from ddptrain.data.stream.sampler import DistributedWeightedSampler
from ddptrain.structures import Sample, SampleKey

SIZE = 128
COLOURS = np.array([[250, 30, 30], [30, 250, 30], [30, 30, 250], [240, 240, 40]], np.uint8)
STILL = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


def source(number: int, annotated: tuple[bool, ...] = (True, True)) -> Source:
    """A dark image of a size of its own, with a box in one of four colours and an ignore region in white."""
    r = np.random.default_rng(number)
    width, height = (int(v) for v in r.integers(150, 400, 2))
    image = np.full((height, width, 3), 5, np.uint8)
    x, y = int(r.integers(5, width // 2 - 45)), int(r.integers(5, height - 50))
    box, region = (x, y, x + 40, y + 40), (width // 2 + 5, y, width // 2 + 45, y + 40)
    image[box[1] : box[3], box[0] : box[2]] = COLOURS[number % 4]
    image[region[1] : region[3], region[0] : region[2]] = 255
    return Source(
        Pixels.of(image),
        np.array([box], np.float32),
        np.array([number % 4], np.int32),
        np.array([region], np.float32),
        np.array(annotated),
    )


def mosaic(position: int, sources: list[Source], **config: float) -> Sample:
    return compose(SampleKey(position, 0, 0), [sources], SIZE, DetectionAugment(**STILL | config), seed=1)


@pytest.mark.parametrize("turn", [0.0, 30.0])
def test_pixels_and_boxes_travel_together(turn: float) -> None:
    seen = ignored = 0
    for position in range(40):
        out = mosaic(position, [source(i) for i in range(4)], rotate=turn, vflip=0.3)
        for box, label in zip(out.targets["boxes"], out.targets["labels"]):
            ys, xs = np.nonzero(np.abs(out.image.astype(int) - COLOURS[label]).max(-1) < 90)
            found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            # the box around a turned box is larger than what is seen of it where the edge cuts it
            inside = box.min() > 0 and box.max() < SIZE
            if inside or not turn:
                assert np.abs(found - box).max() <= 2, (position, label)
                seen += 1
        white = (out.image > 230).all(-1)
        for x1, y1, x2, y2 in out.targets["ignore_boxes"].round().astype(int):
            if not turn and min(x2 - x1, y2 - y1) > 4:
                assert white[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
                ignored += 1
    assert seen > 45
    assert turn or ignored > 60


@pytest.mark.parametrize("turn", [0.0, 30.0])
def test_tiles_say_where_each_image_lies(turn: float) -> None:
    """Every image is flat in a colour of its own; a pixel shows it exactly where its tile is."""
    sources = []
    for i in range(4):
        plain = source(i, annotated=(True, i == 0))
        sources.append(plain._replace(image=Pixels.of(np.broadcast_to(COLOURS[i], plain.image.values.shape).copy())))
    ys, xs = np.mgrid[:SIZE, :SIZE] + 0.5
    for position in range(10):
        out = mosaic(position, sources, rotate=turn)
        assert out.annotated.tolist() == [True, True]
        assert out.targets["tile_annotated"].tolist() == [[True, False]] * 3
        wrong = 0
        for number, m in enumerate(out.targets["tiles"], start=1):
            u, v, w = np.einsum("ij,jyx->iyx", m, np.stack([xs, ys, np.ones_like(xs)]))
            u, v = u / w, v / w
            inside = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
            shown = np.abs(out.image.astype(int) - COLOURS[number]).max(-1) < 60
            wrong += int((inside != shown).sum())
        # along an edge a pixel may go to either side
        assert wrong < 4 * SIZE


def test_images_that_label_the_same_need_no_tiles() -> None:
    out = mosaic(3, [source(i, annotated=(True, False)) for i in range(4)])
    assert out.annotated.tolist() == [True, False]
    assert out.targets["tiles"].shape == (0, 3, 3)
    assert out.targets["tile_annotated"].shape == (0, 2)


def test_mixup_keeps_the_first_image_where_it_is_and_all_boxes() -> None:
    config = DetectionAugment(**STILL)
    a, b = source(0, (True, False)), source(1, (False, True))
    alone = compose(SampleKey(5, 0, 0), [[a]], SIZE, config, seed=2)
    both = compose(SampleKey(5, 0, 0), [[a], [b]], SIZE, config, seed=2)
    n = len(alone.targets["boxes"])
    np.testing.assert_array_equal(both.targets["boxes"][:n], alone.targets["boxes"])
    assert both.targets["labels"].tolist()[n:] == [1] * (len(both.targets["boxes"]) - n)
    assert len(both.targets["ignore_boxes"]) >= len(alone.targets["ignore_boxes"])
    assert (both.annotated.tolist(), both.targets["tile_annotated"].tolist()) == ([True, True], [[True, False], [False, True]])
    # near one half of each
    x1, y1, x2, y2 = alone.targets["boxes"][0].round().astype(int)
    red = both.image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2, 0].mean()
    assert 70 < red < 200


HALF, MOSAIC = DetectionAugment(mosaic=0.5, mixup=0.5), DetectionAugment(mosaic=1)
SAMPLER = DistributedWeightedSampler([1000, 50], [3, 1], samples_per_epoch=400, num_replicas=1, rank=0, seed=3)


def test_partners_are_a_formula_and_keep_the_shares() -> None:
    partners = Partners(SAMPLER.keys, 400, until=1e9)
    drawn = []
    kinds: dict[tuple[int, ...], int] = {}
    for position in range(1000):
        key = SampleKey(position, 0, 7)
        together = partners.draw_tiles(key, 4, HALF)
        assert together == partners.draw_tiles(key, 4, HALF)
        others = together.others
        kind = (1 + len(others), together.width)
        kinds[kind] = kinds.get(kind, 0) + 1
        drawn += others
    assert kinds.keys() == {(1, 1), (4, 4), (2, 1), (8, 4)}
    assert all(0.2 < n / 1000 < 0.3 for n in kinds.values())
    assert abs(np.mean([k.dataset for k in drawn]) - 0.25) < 0.02
    assert len({k.index for k in drawn if k.dataset == 0}) > 700
    assert partners.draw_tiles(SampleKey(9, 0, 1), 5, MOSAIC) != partners.draw_tiles(SampleKey(9, 0, 1), 6, MOSAIC)


def test_partners_from_a_pool_are_neighbours_and_different() -> None:
    pool = 16
    partners = Partners(SAMPLER.keys, 400, until=1e9, pool=pool)
    drawn = np.zeros(pool, int)
    for position in range(30 * pool):
        first = position // pool * pool
        if position == first:
            block = list(zip(*(column.tolist() for column in SAMPLER.keys(np.arange(first, first + pool)))))
        own = SampleKey(position, *block[position - first])
        others = [(k.dataset, k.index) for k in partners.draw(own, 4, 8, 9)]
        rest = block[: position - first] + block[position - first + 1 :]
        assert len(others) == 17
        for layer in (others[:8], others[8:]):
            assert not Counter(layer) - Counter(rest)  # each place of the block but the sample's own, at most once
        for other in others:
            drawn[block.index(other)] += 1
    assert drawn.min() > 0.7 * drawn.mean()


def test_the_last_epochs_are_without() -> None:
    partners = Partners(SAMPLER.keys, 400, until=800)
    last = partners.draw_tiles(SampleKey(799, 0, 1), 0, MOSAIC)
    assert (len(last.others), last.width, last.mixes) == (3, 4, True)
    after = partners.draw_tiles(SampleKey(800, 0, 1), 0, MOSAIC)
    assert (after.others, after.width, after.mixes) == ([], 1, False)

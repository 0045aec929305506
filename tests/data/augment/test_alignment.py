"""Pixels, masks, depth, boxes, ignore regions and tiles go one way, whatever is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.config.detection_augment import DetectionAugment
from ddptrain.data.augment.effects import COVERED, random_cut
from ddptrain.data.augment.geometry import (
    BORDER,
    covered,
    enclose,
    left_of,
    letterbox,
    outline,
    random_perspective,
    random_turn,
    transform_boxes,
)
from ddptrain.data.augment.mix import random_mosaic
from ddptrain.data.augment.view import ImageView
from ddptrain.data.augment.warp import warp, warp_nearest
from ddptrain.data.images.pixels import Pixels
from ddptrain.data.samples.compose import Second, Source, compose
from ddptrain.structures import VOID, Sample, SampleKey

SIZE = 96
PLAIN = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
ALL = {"scale": 0.5, "translate": 0.2, "rotate": 40.0, "shear": 10.0, "vflip": 0.5, "rot90": 0.75, "perspective": 0.4}
SEEDS = st.integers(0, 2**32)


def drawn(seed: int, sides: tuple[int, int], **config: float) -> np.ndarray:
    """From the file to the square, by all that moves pixels."""
    view = ImageView.draw(SIZE, DetectionAugment(**PLAIN | ALL | config), seed, 5)
    return view.matrix @ letterbox(sides, SIZE)


def project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """float64 `[n, 3]`: points `[n, 2]` under a matrix, and how near to the eye each is."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([moved[:, :2] / moved[:, 2:], moved[:, 2:]], 1)


@settings(deadline=None)
@given(SEEDS, st.integers(40, 900), st.integers(40, 900))
def test_a_box_encloses_its_points_and_no_more(seed: int, width: int, height: int) -> None:
    pick = np.random.default_rng(seed)
    low = pick.uniform(0, 0.8, (6, 2))
    boxes = np.concatenate([low, low + pick.uniform(0.01, 0.2, (6, 2))], 1) * [width, height, width, height]
    matrix = drawn(seed, (width, height))
    moved, _ = transform_boxes(boxes, matrix, SIZE)
    for box, whole, result in zip(boxes, enclose(boxes, matrix), moved):
        inner = box[:2] + pick.random((50, 2)) * (box[2:] - box[:2])
        x, y, near = project(inner, matrix).T
        seen = (near > 0) & (x > 0) & (x < SIZE) & (y > 0) & (y < SIZE)
        assert (x[seen] >= result[0] - 1e-3).all()
        assert (x[seen] <= result[2] + 1e-3).all()
        assert (y[seen] >= result[1] - 1e-3).all()
        assert (y[seen] <= result[3] + 1e-3).all()
        corners = project(box[[[0, 1], [2, 1], [2, 3], [0, 3]]], matrix)
        if (corners[:, 2] > 0.1).all():  # else a part of it lies behind the eye
            np.testing.assert_allclose(whole, [*corners[:, :2].min(0), *corners[:, :2].max(0)], rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(40, 400), st.integers(40, 400))
def test_masks_and_depth_go_where_the_pixels_go(seed: int, width: int, height: int) -> None:
    """Of an image of coarse chequers the warped grey values and the warped classes tell the same."""
    y, x = np.mgrid[:height, :width]
    mask = ((x * 4 // width + y * 4 // height) % 2).astype(np.uint8)
    image = np.repeat(mask[..., None] * 255, 3, 2)
    patch = warp(image, drawn(seed, (width, height)), SIZE)
    pixels = patch.on_square(SIZE)[..., 0]
    classes = warp_nearest(mask, patch.matrix, SIZE, VOID)
    clear = (pixels < 20) | (pixels > 235)
    wrong = clear & (classes != (pixels > 128))
    # along an edge that lies between the centres of two pixels each rounds its own way
    assert wrong.sum() <= 0.02 * SIZE * SIZE
    if clear.sum() > SIZE:
        assert wrong.sum() < 0.1 * clear.sum()


@settings(deadline=None)
@given(SEEDS)
def test_all_of_the_square_stays_in_front_of_the_eye(seed: int) -> None:
    matrix = random_perspective(0.4, SIZE, np.random.default_rng(seed))
    corners = np.array([[0, 0], [SIZE, 0], [SIZE, SIZE], [0, SIZE]], float)
    back = project(corners, np.linalg.inv(matrix))
    assert (back[:, 2] > 0.19).all()
    np.testing.assert_allclose(project(np.full((1, 2), SIZE / 2), matrix)[0, :2], SIZE / 2, atol=1e-9)


def test_perspective_scales_the_ends_of_an_axis_by_what_is_drawn() -> None:
    """Lengths across the axis at its two ends, of a square with sides of 2."""
    matrix = random_perspective(0.4, 2, np.random.default_rng(0))
    k = matrix[2, 0]
    step = 1e-6
    for end, expected in ((2.0, 1 - k), (0.0, 1 + k)):
        a, b = project(np.array([[end, 1 - step], [end, 1 + step]]), np.linalg.inv(matrix))[:, :2]
        np.testing.assert_allclose(2 * step / (b - a)[1], expected, rtol=1e-4)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_exact(turns: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    made = (random_turn(1, 64, np.random.default_rng(seed)) for seed in range(50))
    corners = {1: [64, 0], 2: [64, 64], 3: [0, 64]}
    matrix = next(m for m in made if m[:2, 2].tolist() == corners[turns])
    np.testing.assert_array_equal(warp(image, matrix, 64).on_square(64), np.rot90(image, -turns))
    np.testing.assert_array_equal(warp_nearest(image[..., 0], matrix, 64), np.rot90(image[..., 0], -turns))


def test_what_lies_behind_the_eye_is_cut_off() -> None:
    """By hand: w = 1 - x / 10; the box from 0 to 20 is cut at w = 0.1, which is x = 9, and seen at 9 / 0.1 = 90."""
    matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]])
    np.testing.assert_allclose(enclose(np.array([[0.0, 0, 20, 1], [5.0, 0, 6, 1], [30.0, 0, 40, 1]]), matrix)[:2],
                               [[0, 0, 90, 10], [10, 0, 15, 2.5]])  # fmt: skip
    assert np.isnan(outline(np.array([[30.0, 0, 40, 1]]), matrix)).all()
    moved, kept = transform_boxes(np.array([[30.0, 0, 40, 1]]), matrix, 64)
    assert not kept.any()
    assert (moved == 0).all()


def test_a_cutout_has_the_area_that_is_promised() -> None:
    cuts = [random_cut(0.5, 200, np.random.default_rng(seed)) for seed in range(1000)]
    boxes = np.array([cut for cut in cuts if cut is not None])
    assert 0.45 < len(boxes) / 1000 < 0.55
    assert boxes.min() >= 0
    assert boxes.max() <= 200
    sides = boxes[:, 2:] - boxes[:, :2]
    assert 0.019 < (sides.prod(1) / 200**2).min() < 0.03
    assert 0.19 < (sides.prod(1) / 200**2).max() < 0.205
    assert (sides[:, 0] / sides[:, 1]).max() < 3.1


def source(number: int, annotated: tuple[bool, ...] = (True, True), depth: int | None = None) -> Source:
    """A flat image in a grey of its own, 40 pixels and more from that of others, with nine boxes."""
    image = np.full((80, 100, 3), 10 + 40 * number, np.uint8)
    grid = np.array([[x, y, x + 20, y + 16] for x in (5, 40, 75) for y in (4, 30, 60)], np.float32)
    maps = None if depth is None else np.full((80, 100), depth, np.uint8)
    return Source(Pixels.of(image), grid, np.full(9, number % 2), grid[:1] + 1, np.array(annotated), maps)


def made(position: int, layers: list[list[Source]], second: Second = "cutmix", **config: float) -> Sample:
    channels = 3 if layers[0][0].depth is None else 4
    augment = DetectionAugment(**PLAIN | config)
    return compose(SampleKey(position, 0, 0), layers, SIZE, augment, seed=3, channels=channels, second=second)


def test_what_cutmix_shows_of_each_image_is_what_it_says_of_it() -> None:
    """Two flat images that label different classes: their greys tell to whom each pixel belongs."""
    first, second = source(0, (True, False), depth=50), source(4, (False, True), depth=200)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    points = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
    hidden = 0
    for position in range(30):
        out = made(position, [[first], [second]], scale=0.1, translate=0.0, rotate=5)
        shown = out.image[..., 0]
        depth = out.image[..., 3]
        for grey, distance, row in ((10, 50, [True, False]), (170, 200, [False, True])):
            inside = np.zeros(SIZE * SIZE, bool)
            windows = out.targets["tile_windows"]
            for tile, window, known in zip(out.targets["tiles"], windows, out.targets["tile_annotated"]):
                if known.tolist() == row:
                    u, v, w = tile @ points.T
                    on = (u >= 0) & (v >= 0) & (u <= w) & (v <= w)
                    inside |= on & ((points[:, :2] >= window[:2]) & (points[:, :2] < window[2:])).all(1)
            assert (inside.reshape(SIZE, SIZE) != (shown == grey)).sum() < 4 * SIZE  # along edges
            assert ((depth == distance) != (shown == grey)).sum() < 4 * SIZE
        # objects that are hidden for the most part became ignore regions, each image has one of its own
        hidden += len(out.targets["ignore_boxes"]) > 2
        for box, label in zip(out.targets["boxes"], out.targets["labels"]):
            x1, y1, x2, y2 = box.round().astype(int)
            part = shown[y1:y2, x1:x2]
            own = part == (170 if label == 0 and (part == 170).mean() > 0.5 else 10)
            assert own.mean() > 1 - COVERED - 0.15
    assert hidden > 5


def test_an_object_that_a_cutout_hides_is_neither_object_nor_background() -> None:
    plain = {"scale": 0.0, "translate": 0.0, "hflip": 0.0}
    gone = 0
    for position in range(40):
        before, after = (
            made(position, [[source(0, depth=9)]], **plain),
            made(position, [[source(0, depth=9)]], cutout=1, **plain),
        )
        cut = np.argwhere((after.image != before.image).any(-1))
        (top, left), (bottom, right) = cut.min(0), cut.max(0) + 1
        assert (after.image[top:bottom, left:right, 3] == 0).all()
        part = covered(before.targets["boxes"], np.array([left, top, right, bottom]))
        np.testing.assert_array_equal(after.targets["boxes"], before.targets["boxes"][part <= COVERED])
        rest = left_of(before.targets["boxes"][part > COVERED], np.array([left, top, right, bottom]))
        ignored = np.concatenate([rest[(rest[:, 2:] > rest[:, :2]).all(1)], before.targets["ignore_boxes"]])
        np.testing.assert_array_equal(after.targets["ignore_boxes"], ignored)
        gone += (part > COVERED).sum()
    assert gone > 5


def test_what_cutmix_and_a_cutout_hide_together_is_neither_object_nor_background() -> None:
    """Of an object that is kept, at least 40 % of the pixels are seen."""
    second = source(4)._replace(labels=np.full(9, 1))
    both = 0
    for position in range(60):
        out = made(position, [[source(0)], [second]], cutout=1, **{"scale": 0.0, "translate": 0.0, "hflip": 0.0})
        shown = out.image[..., 0]
        for box, label in zip(out.targets["boxes"], out.targets["labels"]):
            x1, y1, x2, y2 = box.round().astype(int)
            seen = (shown[y1:y2, x1:x2] == 10 + 160 * label).mean()
            assert seen > 1 - COVERED - 0.1
            both += len(np.unique(shown[y1:y2, x1:x2])) == 3
    assert both > 5


def test_an_ignore_region_ends_where_cutmix_hides_it() -> None:
    first, second = source(0)._replace(ignore_boxes=np.array([[20, 16, 80, 64]], np.float32)), source(4)
    first, second = (s._replace(boxes=s.boxes[:0], labels=s.labels[:0]) for s in (first, second))
    second = second._replace(ignore_boxes=second.ignore_boxes[:0])
    found = []
    for position in range(60):
        out = made(position, [[first], [second]], **{"scale": 0.0, "translate": 0.0, "hflip": 0.0})
        own = out.image[..., 0] == 10
        for x1, y1, x2, y2 in out.targets["ignore_boxes"].round().astype(int):
            assert own[y1:y2, x1:x2].any()
            found.append(own[y1:y2, x1:x2].all())
    assert 10 < sum(found) < len(found) < 60


def test_what_is_left_of_a_box() -> None:
    """By hand: hidden from the left, from below, in the middle, as a corner, and all of it."""
    parts = {(0, 0, 6, 20): (6, 5, 10, 15), (0, 10, 20, 20): (5, 5, 10, 10), (6, 0, 8, 20): (5, 5, 10, 15),
             (0, 0, 8, 8): (5, 5, 10, 15), (8, 0, 20, 20): (5, 5, 8, 15), (30, 0, 40, 20): (5, 5, 10, 15)}  # fmt: skip
    for part, rest in parts.items():
        assert tuple(left_of(np.array([[5.0, 5, 10, 15]]), np.array(part))[0]) == rest
    whole = left_of(np.array([[5.0, 5, 10, 15]]), np.array([0, 0, 20, 20]))
    assert (whole[:, 2:] - whole[:, :2]).prod() == 0


def test_nine_images_touch_around_the_first_one() -> None:
    sizes = [(100, 80), (50, 90), (70, 70), (300, 100), (64, 64), (10, 90), (90, 10), (33, 66), (120, 119)]
    for seed in range(20):
        places = random_mosaic(sizes, SIZE, np.random.default_rng(seed))
        boxes = np.array([enclose(np.array([[0.0, 0, *size]]), place)[0] for size, place in zip(sizes, places)])
        sides = boxes[:, 2:] - boxes[:, :2]
        low, high = boxes[0, :2], boxes[0, 2:]
        centre, cell = (low + high) / 2, high - low
        np.testing.assert_allclose(cell, [SIZE / 2, SIZE / 2 * 0.8])
        np.testing.assert_allclose((sides / cell).max(1), 1)
        assert (low >= 0).all()
        assert (high <= SIZE).all()
        for number, box in zip((0, 1, 2, 3, 5, 6, 7, 8), boxes[1:]):
            for axis, place in enumerate((number % 3, number // 3)):
                if place == 0:
                    np.testing.assert_allclose(box[2 + axis], low[axis])
                elif place == 2:
                    np.testing.assert_allclose(box[axis], high[axis])
                else:
                    np.testing.assert_allclose((box[axis] + box[2 + axis]) / 2, centre[axis])


def test_grey_blur_and_jpeg_leave_boxes_and_their_places_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    one = source(0)._replace(image=Pixels.of(image))
    before = made(1, [[one]])
    for config in ({"grey": 1}, {"blur": 1}, {"jpeg": 1}):
        after = made(1, [[one]], **config)
        np.testing.assert_array_equal(after.targets["boxes"], before.targets["boxes"])
        assert (after.image != before.image).any()
        assert (after.image[0, 0] == BORDER).all() == (before.image[0, 0] == BORDER).all() or "jpeg" in config
    grey = made(1, [[one]], grey=1).image
    assert (grey == grey[..., :1]).all()

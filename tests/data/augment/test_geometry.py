"""One matrix moves pixels and boxes alike."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.config.data import AugmentConfig
from ddptrain.data.augment.geometry import BORDER, letterbox, random_affine, transform_boxes
from ddptrain.data.augment.warp import warp

SIDES = st.integers(1, 3000)
STILL = AugmentConfig(scale=0, translate=0, hflip=0)
WILD = AugmentConfig(scale=0.5, translate=0.1, rotate=25, shear=8, hflip=0.5, vflip=0.5)


def draw(config: AugmentConfig, size: int, seed: int) -> np.ndarray:
    return random_affine(config, size, np.random.default_rng(seed))[0]


def painted(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def painted_box(image: np.ndarray) -> np.ndarray:
    """Box around what was painted, to a fraction of a pixel: a border pixel counts as far as it is covered."""
    bright = image[..., 0].astype(float) / 255
    spans = []
    for axis in (0, 1):
        profile = bright.max(axis)
        inside = np.flatnonzero(profile > 0.5)
        low, high = inside[0], inside[-1]
        spans.append((low, high + 1))
    return np.array([spans[0][0], spans[1][0], spans[0][1], spans[1][1]], float)


@settings(deadline=None)
@given(SIDES, SIDES, st.sampled_from([320, 640, 1024]))
def test_letterbox_fits_and_is_centred(width: int, height: int, size: int) -> None:
    matrix = warp(np.zeros((height, width, 1), np.uint8), letterbox((width, height), size), size).matrix
    left, top, _ = matrix @ [0, 0, 1]
    right, bottom, _ = matrix @ [width, height, 1]
    # whole edges move by half a pixel; an image that is halved n times may be padded by 2**n - 1 native pixels
    assert min(left, top) >= 0
    assert max(right, bottom) <= size + 0.5
    assert abs(left - (size - right)) <= 3
    assert abs(top - (size - bottom)) <= 3
    assert max(right - left, bottom - top) >= size - 2


def test_no_ranges_no_movement() -> None:
    np.testing.assert_array_equal(draw(STILL, 320, 3), np.eye(3))


@pytest.mark.parametrize("size", [320, 640])
@pytest.mark.parametrize("config", [STILL, AugmentConfig(), WILD, AugmentConfig(rotate=180, hflip=0)])
def test_a_painted_box_is_found_where_its_box_went(size: int, config: AugmentConfig) -> None:
    seen = 0
    for seed in range(40):
        pick = np.random.default_rng(seed)
        width, height = (int(v) for v in pick.integers(200, 1500, 2))
        x, y = int(pick.integers(0, width - 100)), int(pick.integers(0, height - 100))
        box = (x, y, x + int(pick.integers(60, 101)), y + int(pick.integers(60, 101)))
        patch = warp(painted(width, height, box), draw(config, size, seed) @ letterbox((width, height), size), size)
        image, matrix = patch.on_square(size), patch.matrix
        boxes, kept = transform_boxes(np.array([box], np.float32), matrix, size)
        corners = (np.array([[box[0], box[1], 1], [box[2], box[3], 1]]) @ matrix.T)[:, :2]
        if not kept[0] or corners.min() < 0 or corners.max() > size:
            continue
        seen += 1
        turned = 1.0 if matrix[0, 1] == 0 else 1.6  # a sharp corner covers little of the outermost pixels
        assert np.abs(painted_box(image) - boxes[0]).max() <= turned
    assert seen >= 8


def test_the_pixel_centre_is_right_to_a_fraction() -> None:
    """Warped by a turn of 90 degrees and back, an image is itself: half a pixel amiss would blur or shift it."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    turn = np.array([[0.0, -1, 64], [1, 0, 0], [0, 0, 1]])
    once = warp(image, turn, 64).on_square(64)
    np.testing.assert_array_equal(once, np.rot90(image, -1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(100, 700), st.integers(100, 700))
def test_resize_and_affine_paths_agree(seed: int, width: int, height: int) -> None:
    """The quick path for upright matrices draws the same picture as OpenCV's affine warp of a hardly turned one."""
    ramp = np.add.outer(np.linspace(0, 100, height), np.linspace(0, 100, width)).astype(np.uint8)
    image = np.repeat(ramp[..., None], 3, 2)
    quick = warp(image, draw(AugmentConfig(vflip=0.5), 96, seed) @ letterbox((width, height), 96), 96)
    turned = quick.matrix.copy()
    turned[0, 1] += 1e-7
    quick, slow = (p.on_square(96)[2:-2, 2:-2].astype(int) for p in (quick, warp(image, turned, 96)))
    # edges may differ: the slow path mixes the border in
    assert np.mean(np.abs(quick - slow) > 4) < 0.06


def test_small_objects_survive_a_strong_reduction() -> None:
    """Every native pixel counts when an image shrinks: no dot vanishes, wherever it is."""
    size, dots = 80, []
    for x in range(320, 340):
        image = painted(640, 640, (x, 300, x + 2, 302))
        dots.append(int(warp(image, letterbox((640, 640), size), size).on_square(size)[..., 0].astype(int).sum()))
    expected = 255 * 4 / 64
    assert min(dots) > 0.8 * expected
    assert max(dots) < 1.2 * expected


def test_the_border_is_grey() -> None:
    image = warp(np.zeros((100, 200, 3), np.uint8), letterbox((200, 100), 64), 64).on_square(64)
    assert (image[:16] == BORDER).all()
    assert (image[48:] == BORDER).all()
    assert (image[16:48] == 0).all()


def test_an_image_moved_out_of_sight_leaves_only_border() -> None:
    matrix = np.array([[1.0, 0, 200], [0, 1, 0], [0, 0, 1]])
    assert (warp(np.zeros((64, 64, 3), np.uint8), matrix, 64).on_square(64) == BORDER).all()


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_boxes_stay_inside_and_enclose_their_content(seed: int) -> None:
    pick = np.random.default_rng(seed)
    low = pick.uniform(0, 500, (20, 2))
    boxes = np.concatenate([low, low + pick.uniform(1, 140, (20, 2))], 1).astype(np.float32)
    matrix = draw(WILD, 320, seed) @ letterbox((640, 640), 320)
    moved, kept = transform_boxes(boxes, matrix, 320)
    assert moved.dtype == np.float32
    assert moved.shape == (20, 4)
    assert ((moved >= 0) & (moved <= 320)).all()
    inside = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, np.ones((20, 1))], 1) @ matrix[:2].T
    for centre, box, keep in zip(inside, moved, kept):
        if keep and (centre > 0).all() and (centre < 320).all():
            assert (box[:2] < centre).all()
            assert (centre < box[2:]).all()


@pytest.mark.parametrize(
    ("box", "keep"),
    [
        ((10, 10, 13, 13), True),
        ((10, 10, 12, 30), False),  # a side of 2 px
        ((-80, 10, 20, 30), True),  # 20 % in sight
        ((-95, 10, 5, 30), False),  # 5 % in sight
        ((0, 10, 300, 12.9), False),  # 103 times as long as high
        ((0, 10, 280, 12.9), True),
        ((-50, -50, -10, -10), False),
    ],
)
def test_which_boxes_are_kept(box: tuple[float, ...], keep: bool) -> None:
    _, kept = transform_boxes(np.array([box], np.float32), np.eye(3), 320)
    assert kept.tolist() == [keep]


def test_no_boxes() -> None:
    boxes, kept = transform_boxes(np.zeros((0, 4), np.float32), np.eye(3), 320)
    assert boxes.shape == (0, 4)
    assert kept.shape == (0,)


def test_ranges_are_those_of_the_config() -> None:
    config = AugmentConfig(scale=0.3, translate=0.2, hflip=0.25, vflip=0)
    matrices = np.stack([draw(config, 100, s) for s in range(2000)])
    zoom = matrices[:, 1, 1]
    assert 0.7 <= zoom.min() < 0.71
    assert 1.29 < zoom.max() <= 1.3
    shift = matrices[:, 1, 2] + zoom * 50 - 50
    assert math.isclose(np.abs(shift).max(), 20, rel_tol=0.01)
    assert 0.2 < (matrices[:, 0, 0] < 0).mean() < 0.3


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 900), st.integers(1, 900))
def test_an_upright_image_has_sharp_edges(seed: int, width: int, height: int) -> None:
    """Snapped to whole pixels, no pixel mixes image and border, also where odd sizes are halved."""
    matrix = draw(AugmentConfig(vflip=0.5), 64, seed) @ letterbox((width, height), 64)
    image = warp(np.full((height, width, 3), 255, np.uint8), matrix, 64).on_square(64)
    assert set(np.unique(image)) <= {BORDER, 255}


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 900), st.integers(20, 900), st.floats(0.2, 4))
def test_every_pixel_shows_what_its_matrix_says(seed: int, width: int, height: int, zoom: float) -> None:
    """Of an image whose values tell the place, also where the square shows only a part of it."""
    image = np.zeros((height, width, 2), np.uint8)
    image[..., 0], image[..., 1] = np.linspace(0, 255, width).round(), np.linspace(0, 255, height).round()[:, None]
    pick = np.random.default_rng(seed)
    asked = np.diag([*(zoom * pick.choice([-1, 1], 2)), 1.0])
    asked[:2, 2] = 48 - asked[:2, :2] @ (pick.random(2) * [width, height])
    patch = warp(image, asked, 96)
    corners = np.array([[patch.left, patch.top], np.array([patch.left, patch.top]) + patch.pixels.shape[1::-1]])
    back = (corners - patch.matrix[:2, 2]) / np.diag(patch.matrix)[:2]
    # in sight nothing has moved by more than half a pixel, a pixel where a side is rounded up to be halved
    assert np.abs(back * np.diag(asked)[:2] + asked[:2, 2] - corners).max() <= (0.5 if zoom > 0.5 else 1.5) + 1e-6
    y, x = np.mgrid[: patch.pixels.shape[0], : patch.pixels.shape[1]]
    for channel, (at, first, side) in enumerate([(x, patch.left, width), (y, patch.top, height)]):
        native = (at + first + 0.5 - patch.matrix[channel, 2]) / patch.matrix[channel, channel] - 0.5
        inner = (native > 2 / zoom) & (native < side - 2 / zoom - 1)
        expected = native * 255 / (side - 1)
        assert (np.abs(patch.pixels[..., channel] - expected)[inner] <= 1.6 + 0.1 * 255 / side).all()

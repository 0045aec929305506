"""Gains on hue, saturation and brightness."""

import colorsys

import numpy as np
import pytest

from ddptrain.data.augment.color import tint


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)


def test_gains_of_one_change_no_bit() -> None:
    image = colours()
    np.testing.assert_array_equal(tint(image, np.ones(3)), image)


def test_saturation_and_brightness_are_those_of_the_colour_model() -> None:
    image = colours()
    out = tint(image, np.array([1, 0.6, 0.8])).astype(int)
    for before, after in zip(image.reshape(-1, 3), out.reshape(-1, 3)):
        h, s, v = colorsys.rgb_to_hsv(*(before / 255))
        expected = np.array(colorsys.hsv_to_rgb(h, s * 0.6, v * 0.8)) * 255
        assert np.abs(expected - after).max() <= 0.51


@pytest.mark.parametrize("turn", [-0.3, -0.02, 0.02, 1 / 3])
def test_the_hue_turns_all_colours_alike(turn: float) -> None:
    """Greys stay; near them the hue is that of the colour model, turned by the same angle for every colour."""
    hues = np.arange(0, 1, 1 / 48)
    soft = np.array([[colorsys.hsv_to_rgb(h, 0.4, 0.6) for h in hues]]) * 255
    out = tint(soft.round().astype(np.uint8), np.array([1 + turn, 1, 1]))[0] / 255
    moved = np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in out]) - hues - turn
    # the colour model's hue is an angle along a hexagon, this one's along a circle
    assert np.abs((moved + 0.5) % 1 - 0.5).max() < 0.02


def test_brightness_is_clipped_and_grey_stays_grey() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    out = tint(grey, np.array([1.3, 1.7, 1.5]))
    assert np.abs(out[..., 0] - np.minimum(np.arange(256) * 1.5, 255)[None]).max() <= 0.51
    assert (out == out[..., :1]).all()


def test_the_input_is_left_alone() -> None:
    image = colours()
    tint(image, np.array([1.1, 1.2, 0.9]))
    np.testing.assert_array_equal(image, colours())

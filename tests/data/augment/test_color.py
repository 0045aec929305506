"""Gains on hue, saturation and brightness."""

import colorsys

import numpy as np

from ddptrain.data.augment.color import adjust_hsv


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)


def test_gains_of_one_change_no_bit() -> None:
    image = colours()
    np.testing.assert_array_equal(adjust_hsv(image, np.ones(3)), image)


def test_gains_are_those_of_the_colour_model() -> None:
    image = colours()
    gains = np.array([1.1, 0.6, 0.8])
    out = adjust_hsv(image, gains).astype(int)
    errors = []
    for before, after in zip(image.reshape(-1, 3), out.reshape(-1, 3)):
        h, s, v = colorsys.rgb_to_hsv(*(before / 255))
        expected = colorsys.hsv_to_rgb((h * gains[0]) % 1, min(s * gains[1], 1), min(v * gains[2], 1))
        errors.append(np.abs(np.array(expected) * 255 - after).max())
    # 8-bit hue counts in steps of 2 degrees
    assert np.median(errors) < 3
    assert np.mean(np.array(errors) < 10) > 0.98


def test_brightness_is_clipped_and_grey_stays_grey() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    out = adjust_hsv(grey, np.array([1.3, 1.7, 1.5]))
    np.testing.assert_array_equal(out[..., 0], np.minimum(np.floor(np.arange(256) * 1.5), 255)[None])
    assert (out == out[..., :1]).all()


def test_the_input_is_left_alone() -> None:
    image = colours()
    adjust_hsv(image, np.array([1.1, 1.2, 0.9]))
    np.testing.assert_array_equal(image, colours())

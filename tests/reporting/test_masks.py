"""Classes of pixels as pictures: what is void stays visible, and the labels come back from their PNG."""

from __future__ import annotations

import numpy as np

from ddptrain.reporting.masks import ROW, decode_labels, encode_labels, overlay, palette
from ddptrain.reporting.pictures import GRAY, colour
from ddptrain.structures import VOID


def test_labels_come_back_from_their_png() -> None:
    labels = np.random.default_rng(0).choice([0, 1, 149, VOID], (7, 9)).astype(np.uint8)
    data = encode_labels(labels, 150)
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decode_labels(data), labels)
    assert palette(150)[149].tolist() == list(colour(149))
    assert palette(150)[VOID].tolist() == list(GRAY)


def test_an_overlay_tints_classes_hatches_void_and_names_what_it_shows() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    labels = np.full((120, 160), VOID, np.uint8)
    labels[60:, 80:] = 2
    out = overlay(image, labels, ["a", "b", "c"], min_side=300)
    assert out.shape == (240, 320, 3)
    tinted = out[200, 300].astype(int)
    assert np.abs(tinted - (0.55 * np.array(colour(2)) + 0.45 * 90)).max() <= 1
    void = out[60:110, 40:150].reshape(-1, 3)
    assert {tuple(v) for v in void.tolist()} == {(90, 90, 90), GRAY}
    # one line of legend, in the colour of the only class
    assert (out[:ROW, :6] == colour(2)).all(-1).any()
    assert not (out[ROW : 2 * ROW, :6] == colour(0)).all(-1).any()
    assert (image == 90).all()

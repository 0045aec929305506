"""Twins are found byte by byte and by their look, within a set and between sets, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddptrain.data.inspect.duplicates import Images, _bits, _pairs, find_twins, look_hash


def picture(seed: int) -> np.ndarray:
    """Smooth random texture, 120 x 160."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[list[str], list[str]]:
    """Ten different pictures each, PNG."""
    out = []
    for part in range(2):
        paths = [str(tmp_path / f"{part}-{i}.png") for i in range(10)]
        for i, path in enumerate(paths):
            cv2.imwrite(path, picture(100 * part + i))
        out.append(paths)
    return out[0], out[1]


def test_different_images_are_not_twins(sets: tuple[list[str], list[str]]) -> None:
    assert find_twins([Images("train", sets[0]), Images("val", sets[1])]) == []


def test_leaks_between_sets_and_duplicates_within(sets: tuple[list[str], list[str]], tmp_path: Path) -> None:
    train, val = sets
    shutil.copy(train[3], val[5])
    smaller = cv2.resize(cv2.imread(train[4]), (120, 90), interpolation=cv2.INTER_AREA)
    cv2.imwrite(val[6].replace(".png", ".jpg"), smaller, [cv2.IMWRITE_JPEG_QUALITY, 80])
    val[6] = val[6].replace(".png", ".jpg")
    shutil.copy(train[0], train[9])
    within, leak = find_twins([Images("train", train), Images("val", val)])
    assert within[:5] == ("train", "train", 1, 0, 10)
    assert within.examples == ((train[0], train[9]),)
    assert leak[:5] == ("train", "val", 1, 1, 10)
    assert leak.examples == ((train[3], val[5]), (train[4], val[6]))


def test_images_without_contrast_are_twins_only_byte_by_byte(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for path, level in zip(paths, (20, 200, 200)):
        cv2.imwrite(path, np.full((64, 64, 3), level, np.uint8))
    assert [t[:4] for t in find_twins([Images("a", paths)])] == [("a", "a", 1, 0)]


def test_images_without_files_and_with_little_in_them(sets: tuple[list[str], list[str]]) -> None:
    """Strokes on black: their hashes are alike, the images are not."""
    strokes = np.zeros((40, 28, 28), np.uint8)
    for i, image in enumerate(strokes):
        x, tilt = 10 + i % 8, 3 * (i // 8) - 6
        cv2.line(image, (x, 4), (x + tilt, 22), 255, 2)
    assert len(_pairs(np.arange(1, 41, dtype=np.uint64), np.array([look_hash(i) for i in strokes], np.uint64))) > 20
    strokes[20] = strokes[3]
    names = [str(i) for i in range(20)]
    found = find_twins([Images("train", names, strokes[:20]), Images("val", names, strokes[20:])])
    leak = [t for t in found if t.first != t.second]
    assert [t.examples[0] for t in leak] == [("3", "0")]
    assert leak[0].equal == 1
    assert sum(t.alike for t in found) == 0


def test_unreadable_files_are_left_out(sets: tuple[list[str], list[str]], tmp_path: Path) -> None:
    train, _ = sets
    for path in train[:2]:
        Path(path).write_bytes(b"no image")
    Path(train[2]).write_bytes(b"")
    Path(train[3]).unlink()
    shutil.copy(train[4], train[5])
    undecoded: list[str] = []
    assert [t[2:5] for t in find_twins([Images("train", train), Images("none", [])], undecoded=undecoded)] == [(1, 0, 6)]
    assert undecoded == train[:4]
    assert find_twins([]) == []


def test_the_hash_does_not_change_with_size_or_brightness() -> None:
    image = cv2.cvtColor(picture(1), cv2.COLOR_BGR2GRAY)
    large = cv2.resize(image, (640, 480), interpolation=cv2.INTER_CUBIC)
    bits = np.array([look_hash(image) ^ look_hash(large), look_hash(image) ^ look_hash(image // 2 + 20)], np.uint64)
    assert (_bits(bits) <= 3).all()
    assert look_hash(np.full((50, 50), 77, np.uint8)) == 0


def test_all_pairs_within_three_bits_are_found() -> None:
    """Against the comparison of every two."""
    r = np.random.default_rng(0)
    look = r.integers(1, 2**63, 60).astype(np.uint64)
    for i in range(0, 60, 2):
        flips = np.bitwise_or.reduce(np.uint64(1) << r.choice(64, r.integers(1, 7), replace=False).astype(np.uint64))
        look[i + 1] = look[i] ^ flips
    expected = {(i, j) for i in range(60) for j in range(i + 1, 60) if bin(int(look[i] ^ look[j])).count("1") <= 3}
    assert 5 < len(expected) < 30
    assert set(map(tuple, _pairs(np.arange(1, 61, dtype=np.uint64), look).tolist())) == expected

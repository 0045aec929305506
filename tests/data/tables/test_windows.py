"""Tiles: they cover the images, show every object, and leave nothing out in silence."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ddptrain.config import resolve
from ddptrain.config.detection import DetectionDataset
from ddptrain.config.text import parse_yaml
from ddptrain.config.tiles import TrainTiles
from ddptrain.data.formats.build import read
from ddptrain.data.tables.base import Paths
from ddptrain.data.tables.boxes import AnnotationTable
from ddptrain.data.tables.windows import Cutter, Tiles, cut_boxes
from ddptrain.errors import UserError


def table_of(sizes: list[tuple[int, int]], boxes: list[list[tuple[float, float, float, float]]]) -> AnnotationTable:
    """Images of these sizes with objects of one class."""
    counts = [len(own) for own in boxes]
    flat = np.array([box for own in boxes for box in own], np.float32).reshape(-1, 4)
    return AnnotationTable(
        name="drone",
        root="",
        names=("thing",),
        paths=Paths.pack([f"{i}.png" for i in range(len(sizes))]),
        sizes=np.array(sizes, np.int32),
        offsets=np.cumsum([0, *counts]),
        boxes=flat,
        labels=np.zeros(len(flat), np.int32),
        ignore=np.zeros(len(flat), bool),
        crowd=np.zeros(len(flat), bool),
        area=(flat[:, 2:] - flat[:, :2]).prod(1),
    )


def config(**keys: object) -> TrainTiles:
    return TrainTiles.model_validate_json(json.dumps(keys))


def random_table(seed: int, largest: int) -> AnnotationTable:
    r = np.random.default_rng(seed)
    sizes = [(int(w), int(h)) for w, h in r.integers(40, 400, (12, 2))]
    boxes = []
    for width, height in sizes:
        corner = r.integers(0, (width - 3, height - 3), (9, 2))
        ends = np.minimum(corner + r.integers(3, largest, (9, 2)), (width, height))
        boxes.append([tuple(map(float, row)) for row in np.concatenate([corner, ends], 1).tolist()])
    return table_of(sizes, boxes)


@pytest.mark.parametrize("seed", range(5))
def test_tiles_cover_every_pixel_and_are_all_different(seed: int) -> None:
    r = np.random.default_rng(seed)
    width, height = (int(v) for v in r.integers(1, 300, 2))
    cutter = Cutter((int(r.integers(32, 200)), 64), float(r.uniform(0, 0.9)), 64)
    for side in cutter.sides:
        windows = cutter._replace(sides=(side,)).windows(width, height)
        seen = np.zeros((height, width), int)
        for x1, y1, x2, y2 in windows.tolist():
            assert (x2 - x1, y2 - y1) == (min(side, width), min(side, height))
            seen[y1:y2, x1:x2] += 1
        assert seen.shape == (height, width)
        assert seen.min() > 0
    both = [tuple(w) for w in cutter.windows(width, height).tolist()]
    assert len(set(both)) == len(both)


def kept_in(tiles: Tiles, table: AnnotationTable) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """In how many tiles each object is learned, and of each the pixels that are learned, and those that are learned or
    ignored, in some tile; bool `[h, w]` of its box."""
    count = np.zeros(len(table.boxes), int)
    learned = [np.zeros(np.rint(b[[3, 2]] - b[[1, 0]]).astype(int), bool) for b in table.boxes]
    shown = [pixels.copy() for pixels in learned]
    for image, window in zip(tiles.image.tolist(), tiles.windows):
        rows = np.arange(table.offsets[image], table.offsets[image + 1])
        parts = tiles.cutter.parts(table.boxes[rows], window)
        for row, part, inside, own in zip(rows, parts.boxes, parts.inside, parts.learned):
            x1, y1, x2, y2 = np.rint(part - np.tile(table.boxes[row, :2], 2)).astype(int)
            assert own <= inside
            if inside:
                shown[row][y1:y2, x1:x2] = True
            if own:
                learned[row][y1:y2, x1:x2] = True
                count[row] += 1
    return count, learned, shown


@pytest.mark.parametrize("seed", range(4))
def test_the_kept_objects_of_all_tiles_cover_each_object(seed: int) -> None:
    """Whole, where it is not larger than the overlap of two tiles; the rest of a larger one is ignored, not background."""
    table = random_table(seed, largest=80)
    tiles = cut_boxes(table, config(size=100, overlap=0.4, keep=0.9, empty=0), 100)
    count, learned, shown = kept_in(tiles, table)
    small = (table.boxes[:, 2:] - table.boxes[:, :2]).max(1) <= 40
    assert small.sum() > 20
    assert (~small).sum() > 20
    for row, pixels in enumerate(learned):
        assert shown[row].all()
        assert count[row] == 0 or pixels.any()
        assert pixels.all() or not small[row], table.boxes[row]
    lost = int((count == 0).sum())
    assert lost > 0
    assert [line.split()[0] for line in tiles.warnings] == [str(lost)]
    tall = cut_boxes(table, config(size=100, overlap=0.4, keep=0.9, empty=0, scales=[1.0, 0.5]), 100)
    assert (kept_in(tall, table)[0] > 0).all()
    assert tall.warnings == []


def test_it_holds_for_visdrone_as_it_is(data_root: Path) -> None:
    visdrone = DetectionDataset(name="v", format="visdrone", root=str(data_root / "visdrone_native"), split="train")
    table, _ = read(visdrone, "drop")
    own = table.keep_rows(table.learned() & ~np.isin(table.labels, [table.names.index(n) for n in table.ignored_names]))
    tiles = cut_boxes(own, config(size=320, overlap=0.3, empty=0), 320)
    count, learned, shown = kept_in(tiles, own)
    assert len(own.boxes) > 300
    assert all(pixels.all() for pixels in shown)
    small = (own.boxes[:, 2:] - own.boxes[:, :2]).max(1) <= 96
    assert all(pixels.all() for pixels, s in zip(learned, small) if s)
    assert (count == 0).any() == bool(tiles.warnings)


def test_what_is_kept_of_a_cut_object() -> None:
    """Of 10 x 10 pixels, of which 3 columns are inside: 0.3 of the area."""
    box, window = np.array([[93, 10, 103, 20]], np.float32), np.array([0, 0, 96, 96])
    for keep, learned in ((0.3, True), (0.31, False), (1.0, False), (0.0, True)):
        parts = Cutter((96,), 0.2, 96, keep).parts(box, window)
        assert parts.boxes.tolist() == [[93, 10, 96, 20]]
        assert (parts.inside[0], parts.learned[0]) == (True, learned)
    whole = Cutter((96,), 0.2, 96, 1.0).parts(box, np.array([10, 0, 106, 96]))
    assert whole.learned[0]
    # 3 columns are less than a pixel where the window is shown at a quarter of its size
    assert not Cutter((96,), 0.2, 24, 0.3).parts(box, window).learned[0]
    # and 2 pixels where it is shown at two thirds: samples drop what is not larger
    assert not Cutter((96,), 0.2, 64, 0.3).parts(box, window).learned[0]
    assert Cutter((96,), 0.2, 65, 0.3).parts(box, window).learned[0]
    beside = Cutter((96,), 0.2, 96, 0.0).parts(box, np.array([103, 0, 199, 96]))
    assert not beside.inside[0]
    assert not beside.learned[0]


def test_the_share_of_tiles_without_objects_is_exact() -> None:
    """900 x 100 pixels, objects in the first two of nine tiles: 6 of 8 draws show none, of 7 such tiles, each once at most."""
    table = table_of([(900, 100)], [[(10, 10, 30, 30), (110, 10, 130, 30)]])
    tiles = cut_boxes(table, config(size=100, overlap=0, empty=0.75), 100)
    assert (tiles.shown, tiles.empty, len(tiles), len(tiles.image)) == (2, 6, 8, 9)
    seen: Counter[int] = Counter()
    for one_pass in range(40):
        drawn = [tiles.tile(index, 8 * one_pass + index, seed=5) for index in range(8)]
        assert drawn == [tiles.tile(index, 8 * one_pass + index, seed=5) for index in range(8)]
        assert drawn[:2] == [0, 1]
        assert len(set(drawn)) == 8
        seen.update(drawn)
    assert set(seen) == set(range(9))
    assert "6 of" not in tiles.notes[0]
    assert "which are 75 % of those drawn (each 0.857 times a pass)" in tiles.notes[0]


@pytest.mark.parametrize("empty", [0.0, 0.1, 0.5, 0.9])
def test_few_tiles_without_objects_come_more_often(empty: float) -> None:
    table = table_of([(400, 100)], [[(10, 10, 30, 30), (110, 10, 130, 30), (210, 10, 230, 30)]])
    tiles = cut_boxes(table, config(size=100, overlap=0, empty=empty), 100)
    assert tiles.shown == 3
    assert tiles.empty == round(3 * empty / (1 - empty))
    assert {tiles.tile(3 + i, i, 0) for i in range(tiles.empty)} == ({3} if tiles.empty else set())


def test_background_alone_and_images_without_tiles_that_show_none() -> None:
    nothing = cut_boxes(table_of([(200, 100)], [[]]), config(size=100, overlap=0), 100)
    assert (nothing.shown, len(nothing)) == (0, 2)
    assert [nothing.tile(i, i, 0) for i in range(2)] == [0, 1]
    full = cut_boxes(table_of([(80, 80)], [[(1, 1, 9, 9)]]), config(size=100, empty=0.5), 100)
    assert len(full) == full.shown == 1


def test_images_that_are_not_larger_than_a_tile_are_taken_whole_and_counted() -> None:
    table = table_of([(100, 100), (101, 50), (300, 300)], [[(1, 1, 9, 9)]] * 3)
    tiles = cut_boxes(table, config(size=100, overlap=0, empty=0, scales=[1.0, 0.5, 0.2]), 100)
    assert tiles.windows[tiles.image == 0].tolist() == [[0, 0, 100, 100]]
    assert tiles.notes[1:] == [
        "1 of 3 images is not larger than a tile of 100 at scale 1: taken whole",
        "2 of 3 images are not larger than a tile of 100 at scale 0.5: taken whole",
        "3 of 3 images are not larger than a tile of 100 at scale 0.2: taken whole",
    ]


def test_objects_that_are_too_small_are_ignored_and_counted() -> None:
    """At scale 0.05 a pixel of the input is 20 of the file."""
    table = table_of([(4000, 2000), (4000, 2000)], [[(0, 0, 19, 40)], [(0, 0, 40, 60), (100, 100, 141, 141)]])
    tiles = cut_boxes(table, config(size=100, scales=[0.05], empty=0), 100)
    assert tiles.warnings == [
        "2 objects, in 1 image all there are, at most 2 pixels wide or high at every scale of the tiles: ignored, not learned; "
        "larger tiles.scales show more of them"
    ]
    assert tiles.image[: tiles.shown].tolist() == [1]
    none = table_of([(4000, 2000)], [[(0, 0, 19, 40), (100, 100, 118, 140)]])
    with pytest.raises(UserError, match="none of the 3 tiles shows one of its 2 objects; 2 of them are at most 2 pixels wide"):
        cut_boxes(none, config(size=100, scales=[0.05]), 100)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("overlap: 1", "tiles.overlap: 1: must be a number ≤ 0.9"),
        ("keep: 1.5", "tiles.keep: 1.5: must be a number ≤ 1"),
        ("keep: -0.1", "tiles.keep: -0.1: must be a number ≥ 0"),
        ("empty: 1", "tiles.empty: 1: must be a number < 1"),
        ("size: 16", "tiles.size: 16: must be an integer ≥ 32"),
        ("scales: [1, 1]", "must be one or more different numbers from 0.05 to 4"),
        ("scales: [0.01]", "must be one or more different numbers from 0.05 to 4"),
    ],
)
def test_bad_keys_are_one_line(keys: str, said: str) -> None:
    dataset = "{name: a, format: voc, root: x, split: train}"
    text = f"classes: [a]\ndata: {{train: [{dataset}], val: [{dataset}]}}"
    with pytest.raises(UserError) as caught:
        resolve(parse_yaml(text, "c.yaml"), [f"data.train.0.tiles={{{keys}}}"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_validation_dataset_has_no_tiles_of_its_own() -> None:
    dataset = "{name: a, format: voc, root: x, split: train}"
    text = f"classes: [a]\ndata: {{train: [{dataset}], val: [{dataset}]}}"
    with pytest.raises(UserError, match=r"data.val.0.tiles: .* has no effect here, only data.train \(in evaluation eval.tiles"):
        resolve(parse_yaml(text, "c.yaml"), ["data.val.0.tiles={size: 320}"])

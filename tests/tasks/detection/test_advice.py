"""What `check` says about the size of the input, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddptrain.config import YoloConfig, load_config
from ddptrain.models.yolo.cost import Cost, cost_of_a_pixel
from ddptrain.tasks.build import new_task
from ddptrain.tasks.detection.advice import Choice, Drawn, advise, below, choices, median, tiles_of

SIZES = np.array([[2000, 1000]])
CPU = torch.device("cpu")
COST = Cost(1000.0, 400.0, 1e-6)


def drawn(*sides: float) -> Drawn:
    """Boxes on an image of 2000 pixels, all as often."""
    n = len(sides)
    return Drawn(np.array(sides, float), np.full(n, 2000.0), np.full(n, 1 / n))


def test_tiles_of_an_image() -> None:
    # a step of 512: 1 + ceil((2000 - 640) / 512) = 4 across, 1 + ceil(360 / 512) = 2 down
    assert tiles_of(SIZES, 640, 1.0) == 8
    # at half the scale 1000 x 500: 1 + ceil(360 / 512) = 2 across, 1 down
    assert tiles_of(SIZES, 640, 0.5) == 2


def test_choices_are_sizes_up_to_that_of_the_files_and_tiles() -> None:
    found = choices(drawn(16, 64), SIZES, 640, COST)
    assert [(c.size, c.scale) for c in found] == [(640, None), (960, None), (1280, None), (1920, None), (640, 0.5), (640, 1.0)]
    assert found[0].sides.tolist() == [16 * 640 / 2000, 64 * 640 / 2000]
    assert found[4].sides.tolist() == [8, 32]
    assert found[2].operations() == 1000 * 1280**2 / 1e9
    assert found[2].memory(halved=True) == 200 * 1280**2 / 2**20
    assert [c.size for c in choices(drawn(64), np.array([[400, 300]]), 640, COST)] == [640]


def test_the_smallest_size_that_shows_nearly_all_is_advised() -> None:
    boxes = drawn(16, 64)
    lines = advise(choices(boxes, SIZES, 640, COST), boxes, 8)
    # 16 pixels become 5.1 at 640, 7.7 at 960 and 10.2 at 1280
    assert lines[0].startswith("data.image_size=1280 leaves 0 % of the boxes of whole images below 8 px (50 % at 640)")
    assert "4.0 times the operations and activations" in lines[0]
    assert lines[1].startswith("Tiles of 640 px (tiles: {scales: [0.5]} of a dataset) leave 0 %")
    assert "makes 2.0 of them" in lines[1]
    assert advise(choices(drawn(64), SIZES, 640, COST), drawn(64), 8) == [
        "0 % of the boxes are below 8 px at data.image_size=640; no larger input is needed."
    ]


def test_finer_levels_are_advised_where_boxes_have_too_few_points() -> None:
    boxes = drawn(30, 30, 64)
    offered = choices(boxes, SIZES, 640, COST)
    offered.append(offered[0]._replace(cost=Cost(1500.0, 800.0, 2e-6), strides=(4, 8, 16, 32)))
    lines = advise(offered, boxes, 8)
    assert lines[-1].startswith("model.strides=[4, 8, 16, 32]: 67 % of the boxes are below 16 px at data.image_size=640")
    assert lines[-1].endswith("1.5 times the operations and 2.0 times the activations.")


def test_boxes_count_as_often_as_they_are_drawn() -> None:
    weighted = Drawn(np.array([4.0, 20.0, 40.0]), np.full(3, 640.0), np.array([0.6, 0.2, 0.2]))
    choice = Choice(640, weighted.side, 1.0, COST)
    assert below(choice, weighted, 8) == pytest.approx(0.6)
    assert median(weighted.side, weighted.weight) == 4.0


@pytest.mark.parametrize("head", ["anchor_free", "anchor_based", "dual"])
def test_the_time_of_a_pixel_is_that_of_the_network(head: str) -> None:
    """A network of eight times the operations takes longer, by far more than noise."""
    small, large = (cost_of_a_pixel(YoloConfig.model_validate({"head": head, "size": size}), 3, CPU) for size in "nm")
    assert large.operations > 8 * small.operations
    assert large.seconds > 2 * small.seconds > 0


def test_the_cost_of_a_pixel_is_that_of_the_network() -> None:
    plain, fine = (cost_of_a_pixel(YoloConfig(strides=s), 3, CPU) for s in ((8, 16, 32), (4, 8, 16, 32)))
    assert plain.operations * 320**2 / 1e9 == pytest.approx(1.705, abs=0.001)  # what `ddptrain model` says of BCCD's config
    assert fine.operations > 1.1 * plain.operations
    assert fine.bytes > plain.bytes > 100


def test_a_run_on_tiles_is_advised_by_what_its_tiles_show(config: Path, tmp_path: Path) -> None:
    """A box of 64 x 36 pixels (48 by area) on 640 x 480: 4.8 pixels of the whole image at 64, 32 in tiles of 96 pixels."""
    for folder in ("images", "labels"):
        (tmp_path / "large" / folder).mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(tmp_path / "large/images/0.png")
    (tmp_path / "large/labels/0.txt").write_text("0 0.3 0.4 0.1 0.075\n")
    found = {}
    for name, tiles in {"whole": "", "tiles": ", tiles: {size: 96, overlap: 0.5, scales: [1.0, 0.5]}"}.items():
        dataset = f"{{name: a, format: yolo, root: {tmp_path / 'large'}, names: [car]{tiles}}}"
        keys = [f"data.train=[{dataset}]", "data.val.0.drop=[]", "model.strides=[8, 16]"]
        found[name] = new_task(load_config(config, keys)).inspect(0).facts["advice"]
        assert all(choice.pop("seconds") > 0 for choice in found[name]["choices"])
    whole, own = (found[name]["choices"][0] for name in ("whole", "tiles"))
    assert (whole["input"], round(whole["median"], 2), whole["below_8px"]) == ("whole, 64 px", 4.8, 1)
    assert (own["input"], round(own["median"], 2), own["below_8px"]) == ("tiles of data.train, 64 px", 32.0, 0)
    # steps of 48 and 96 pixels: 13 x 9 windows of 96, and 6 x 4 (5 + 1 and 3 + 1) of 192
    assert own["inputs_per_image"] == 13 * 9 + 6 * 4
    assert found["tiles"]["choices"][1] == whole
    assert found["whole"]["lines"][0].startswith(
        "data.image_size=128 leaves 0 % of the boxes of whole images below 8 px (100 % at 64)"
    )
    assert found["tiles"]["lines"] == ["0 % of the boxes are below 8 px in the tiles of data.train; no larger input is needed."]

"""An evaluation gives the same numbers, to the last digit, on any number of ranks, whatever it is asked to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import RUNS, write_config
from support import in_turn

from ddptrain.cli import main

CASES = (
    ("eval.protocols=[coco, visdrone, voc, uavdt]", "eval.batch=3"),
    ("eval.flip=true", "eval.scales=[0.5, 1]", "eval.rectangular=true", "eval.batch=2"),
    ("eval.nms=soft", "eval.nms_agnostic=true", "eval.batch=5"),
    ("eval.tiles={size: 96, overlap: 0.4, scales: [1.0, 0.6], whole: true, merge: wbf}", "eval.batch=3"),
    ("eval.tiles.size=128", "eval.tiles.merge=soft", "eval.flip=true"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that was trained for a moment, and sees something everywhere."""
    folder = tmp_path_factory.mktemp("evaluation")
    RUNS["detection"].write(folder)
    assert main(["train", str(write_config("detection", folder, folder)), "train.steps=2"]) == 0
    return folder / "run"


def numbers(said: str) -> dict[str, float]:
    """The JSON that rank 0 printed."""
    return json.loads(said[said.index("{") : said.rindex("}") + 1])


def test_one_two_and_three_ranks(run: Path) -> None:
    commands = [["eval", str(run), *case, "--json"] for case in CASES]
    one, two, three = ([numbers(text) for text in in_turn(size, commands)] for size in (1, 2, 3))
    assert one == two == three
    for case, found in zip(CASES, one):
        assert found["AP"] is not None, case
    assert len({json.dumps(found) for found in one}) == len(CASES)
    assert {"visdrone/AR500", "voc/AP", "uavdt/AP70", "dataset/streets/uavdt/AP70"} <= one[0].keys()

"""Masks whose values do not mean what the config takes them for: reported with the values, their shares and the ways out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from ddptrain.cli import main
from ddptrain.config import resolve
from ddptrain.errors import UserError
from ddptrain.tasks.build import build_task

Config = dict[str, Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Two training and one validation image, the masks with 3/4 of 0 and 1/4 of 255, and two names."""
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path / "cache"))
    r = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            for folder in ("images", "masks"):
                (tmp_path / folder / split).mkdir(parents=True, exist_ok=True)
            coarse = r.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            cv2.imwrite(str(tmp_path / f"images/{split}/{i}.jpg"), cv2.resize(coarse, (32, 32)))
            put(tmp_path, split, i, [0, 0, 0, 255])
    sets = [{"name": "d", "format": "masks", "root": str(tmp_path), "split": s, "names": ["ground", "crack"]} for s in SPLITS]
    data = {"train": sets[:1], "val": sets[1:], "image_size": 32, "workers": 0}
    model = {"name": "lraspp_mobilenet_v3_large"}
    return {"task": "segmentation", "classes": ["ground", "crack"], "data": data, "model": model}


SPLITS = ("train", "val")


def put(root: Path, split: str, number: int, quarters: list[int]) -> None:
    values = np.repeat(np.array(quarters, np.uint8), 8)[:, None].repeat(32, 1)
    Image.fromarray(values).save(root / f"masks/{split}/{number}.png")


def told(run: Config) -> list[str]:
    return [n.removeprefix("warning: ") for n in build_task(resolve(run)).notes if "its masks hold" in n]


def changed(run: Config, way: str) -> Config:
    """With the keys that a message proposes, in both datasets."""
    out: Config = json.loads(json.dumps(run))
    for part in SPLITS:
        for key in way.split(" and "):
            out["data"][part][0] |= yaml.safe_load(key)
    return out


def test_a_class_that_never_occurs_and_both_ways_out(run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(run)
    assert lines == [
        f"{part} d: no pixel of crack; its masks hold 0 (75.0 %, ground), 255 (25.0 %, void); if 255 is crack, write "
        f"values: {{255: 1}}; if that is intended, write annotated: all (in data.{part}.0)"
        for part in SPLITS
    ]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert main(["check", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "check.html")]) == 0
    out = capsys.readouterr().out
    assert all(out.count(f"warning: {line}") == 1 for line in lines)
    for way in [part.split(";")[0].split(" (in")[0] for part in lines[0].split("write ")[1:]]:
        assert told(changed(run, way)) == []
    task = build_task(resolve(changed(run, "values: {255: 1}")))
    assert not [n for n in task.notes if n.startswith("warning")]


def test_void_over_more_than_half(run: Config, tmp_path: Path) -> None:
    for split, number in (("train", 0), ("train", 1), ("val", 0)):
        put(tmp_path, split, number, [0, 1, 255, 255] if split == "val" else [1, 255, 255, 0 if number else 255])
    (line,) = told(run)
    assert line == (
        "train d: void covers 62.5 % of the pixels; its masks hold 255 (62.5 %, void), 1 (25.0 %, crack), 0 (12.5 %, ground); "
        "if 255 is a class, write values: {255: N} with its number in names, from 0 on; if that is intended, write void: 255 "
        "(in data.train.0)"
    )
    assert told(changed(run, "void: 255")) == []


def test_both_at_once_in_one_line(run: Config, tmp_path: Path) -> None:
    put(tmp_path, "val", 0, [255, 0, 255, 255])
    line = told(run)[1]
    assert line.startswith("val d: no pixel of crack and void covers 75.0 % of the pixels; its masks hold 255 (75.0 %, void)")
    assert "write annotated: all and void: 255 (in" in line
    put(tmp_path, "val", 0, [255] * 4)
    with pytest.raises(UserError, match=r"no pixels are left .*; its masks hold 255 \(100.0 %, void\); check values"):
        told(run)


def test_one_class_alone_is_nothing_to_learn(run: Config) -> None:
    alone = changed(run, "names: [crack]") | {"classes": ["crack"]}
    notes = build_task(resolve(alone)).notes
    assert [n for n in notes if n.startswith("warning: class crack: the only class, so every answer is right")]


def test_a_dataset_with_one_class_alone_is_nothing_to_learn(run: Config) -> None:
    run["data"]["train"].append(run["data"]["train"][0] | {"name": "e", "names": ["crack"], "values": {255: 0, 0: None}})
    warning = (
        "warning: train e: labels only crack, so every answer is right there; name its background as a class, or write "
        "annotated: all (in data.train.1)"
    )
    assert warning in build_task(resolve(run)).notes
    run["data"]["train"][1]["annotated"] = "all"
    assert not [n for n in build_task(resolve(run)).notes if "labels only" in n]


def test_a_class_that_another_dataset_shows_is_one_line_with_three_ways(run: Config, tmp_path: Path) -> None:
    for part in SPLITS:
        run["data"][part].append(run["data"][part][0] | {"name": "e", "values": {255: 1}})
    train, val = [n for n in build_task(resolve(run)).notes if n.startswith("warning: ")]
    assert train == (
        "warning: train d: no pixel of crack; its masks hold 0 (75.0 %, ground), 255 (25.0 %, void); if 255 is crack, write "
        "values: {255: 1}; if it shows some without a label, they are learned as other classes: write annotated: [ground]; if "
        "that is intended, write annotated: all (in data.train.0)"
    )
    assert "they are scored as other classes: write annotated: [ground]; if that is intended" in val


def test_several_classes_that_never_occur(run: Config) -> None:
    more = changed(run, "names: [ground, crack, rust]") | {"classes": ["ground", "crack", "rust"]}
    line = told(more)[0]
    assert "no pixel of crack, rust; its masks hold" in line
    assert "if 255 is a class, write values: {255: N} with its number in names, from 0 on; if that is intended" in line

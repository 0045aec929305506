"""A class that a dataset of a mixture lists but never shows: reported with both ways out, which work as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from ddptrain.cli import main
from ddptrain.config import RunConfig, resolve
from ddptrain.config.data import DatasetConfig
from ddptrain.data.tables.faults import Faults
from ddptrain.data.tables.labels import LabelSpace
from ddptrain.data.tables.pairs import PairTable
from ddptrain.structures import SampleKey
from ddptrain.tasks.build import build_task
from ddptrain.tasks.inspection.base import DataSet
from ddptrain.tasks.inspection.classes import class_warnings

CLASSES = ["car", "person", "bus"]
WAY = "data.train.1"


def pairs(*classes: list[int]) -> PairTable:
    """A table whose samples have these classes."""
    truth = np.array([[c in own for c in range(len(CLASSES))] for own in classes], bool)
    return PairTable(np.arange(len(truth), dtype=np.int32), np.zeros((len(truth), 2), np.int32), truth.any(1), truth)


def run(*datasets: dict[str, Any], val: int = 1) -> RunConfig:
    given = [{"name": f"d{i}", "format": "yolo", "root": "."} | d for i, d in enumerate(datasets)]
    return resolve({"classes": CLASSES, "data": {"train": given[: len(given) - val], "val": given[len(given) - val :]}})


def warnings_of(config: RunConfig, *tables: PairTable, known: list[list[bool]] | None = None, **keys: Any) -> list[str]:
    configs = [*config.data.train, *config.data.val]
    parts = ["train"] * len(config.data.train) + ["val"] * len(config.data.val)
    rows = np.array(known or [[True] * len(CLASSES)] * len(tables))
    numbers = [*range(len(config.data.train)), *range(len(config.data.val))]
    sets = [DataSet(*values, None, Faults()) for values in zip(parts, numbers, configs, tables, rows)]
    return class_warnings(config.classes, sets, "box", **keys)


ALL = pairs(*[[0, 1, 2]] * 4)
CARS = pairs(*[[0]] * 4)


def test_the_class_the_dataset_and_both_ways_out_are_named() -> None:
    config = run({}, {}, {})
    (line,) = warnings_of(config, ALL, CARS, ALL)
    assert line == (
        "train d1: no box of person (8 of 8 images elsewhere show it), bus (8 of 8 images elsewhere show it); if it shows some "
        "without a label, they are learned as background: write annotated: [car]; if it really has none, write annotated: all "
        f"(in {WAY})"
    )
    (line,) = warnings_of(config, ALL, CARS, ALL, masked=False)
    assert "if it has them under other names, correct names, rename or the labels; if it really has none" in line


def test_a_validation_dataset_is_held_against_the_others_too() -> None:
    lines = warnings_of(run({}, {}, {}, val=2), ALL, ALL, CARS)
    assert len(lines) == 1
    assert lines[0].startswith("val d2: no box of person")
    assert "scored as background" in lines[0]
    assert "(in data.val.1)" in lines[0]


@pytest.mark.parametrize("annotated", ["all", ["car"], ["car", "person", "bus"]])
def test_what_the_user_has_answered_is_not_asked_again(annotated: Any) -> None:
    assert warnings_of(run({}, {"annotated": annotated}, {}), ALL, CARS, ALL) == []


def test_a_class_that_one_of_few_samples_lacks_is_no_reason_to_warn() -> None:
    rare = pairs(*[[0, 1, 2]], *[[0]] * 5)  # one sample in six shows a person
    assert warnings_of(run({}, {}, {}), rare, pairs(*[[0]] * 5), ALL)[0].startswith("train d1: no box of person")
    assert warnings_of(run({}, {}, {}), rare, pairs(*[[0]] * 3), pairs(*[[0, 1, 2]], *[[0]] * 5)) == []


def test_a_class_that_is_unknown_there_is_no_reason_to_warn() -> None:
    assert warnings_of(run({}, {}, {}), ALL, CARS, ALL, known=[[True] * 3, [True, False, False], [True] * 3]) == []
    # and is left out of the list that says that there is none
    (line,) = warnings_of(run({}, {}, {}), ALL, CARS, ALL, known=[[True] * 3, [True, True, False], [True] * 3])
    assert "write annotated: [car, person] (in" in line


def test_what_no_dataset_shows_is_reported_once() -> None:
    lines = warnings_of(run({}, {}, {}), CARS, CARS, ALL)
    assert lines == [
        "classes person, bus: no box of them in any training dataset, they cannot be learned",
    ]
    assert warnings_of(run({}, {}), ALL, CARS) == [
        "classes person, bus: no box of them in any validation dataset, they cannot be scored",
    ]
    assert warnings_of(run({}, {}), ALL, pairs(*[[0, 1]] * 4)) == [
        "class bus: no box of it in any validation dataset, it cannot be scored",
    ]
    assert warnings_of(run({}, {}), CARS, ALL, known=[[True, False, False], [True] * 3]) == [
        "classes person, bus: no training dataset labels them, they cannot be learned; check rename, or drop them",
    ]


def test_many_classes_and_datasets_are_few_lines() -> None:
    names = [f"c{i}" for i in range(80)]
    truth = np.zeros((20, 80), bool)
    truth[:, :40] = True
    table = PairTable(np.arange(20, dtype=np.int32), np.zeros((20, 2), np.int32), truth.any(1), truth)
    other = PairTable(table.frame, table.people, table.interacting, truth[:, ::-1])
    given = [{"name": f"d{i}", "format": "yolo", "root": "."} for i in range(6)]
    config = resolve({"classes": names, "data": {"train": given[:5], "val": given[5:]}})
    lines = warnings_of(config, table, table, table, table, other, table, known=[[True] * 80] * 6)
    assert len(lines) == 6
    assert lines[0].startswith("classes c40, c41, c42, c43, c44, c45, c46, c47 and 32 more: no box of them in any validation")
    assert all("c47 (20 of 100 images elsewhere show it) and 32 more classes; if" in line for line in lines[1:5])


def test_a_dataset_of_background_alone_and_long_lists() -> None:
    (line,) = warnings_of(run({}, {}, {}), ALL, pairs(*[[]] * 4), ALL)
    assert "write annotated: []" in line
    assert "\n" not in line


@pytest.fixture
def joint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two YOLO folders of one data.yaml with three classes; the labels of the second hold cars alone."""
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    r = np.random.default_rng(0)
    for name, classes in (("a", (0, 1, 2)), ("b", (0,))):
        for i in range(3):
            (tmp_path / name / "images").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "labels").mkdir(parents=True, exist_ok=True)
            coarse = r.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            cv2.imwrite(str(tmp_path / name / f"images/{i}.png"), cv2.resize(coarse, (64, 64)))
            rows = "".join(f"{c} 0.5 0.5 0.{c + 2} 0.4\n" for c in classes)
            (tmp_path / name / f"labels/{i}.txt").write_text(rows)
    (tmp_path / "data.yaml").write_text(
        yaml.safe_dump({"train": ["a/images", "b/images"], "val": "a/images", "names": CLASSES})
    )
    sets = [{"name": n, "format": "yolo", "root": ".", "annotations": "data.yaml", "images": f"{n}/images"} for n in "ab"]
    content = {"classes": CLASSES, "data": {"train": sets, "val": sets[:1], "image_size": 64, "workers": 0}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "run.yaml"


def test_check_and_the_task_say_the_same_and_both_ways_out_work(joint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(joint.read_text())
    notes = [n for n in build_task(resolve(content)).notes if n.startswith("warning: ")]
    assert len(notes) == 1
    assert main(["check", str(joint)]) == 0
    out = capsys.readouterr().out
    assert out.count(notes[0]) == 1
    ways = [part.split(": ", 1)[1] for part in notes[0].split(" (in ")[0].split("write ")[1:]]
    for way, known in zip([w.split(";")[0] for w in ways], ([True, False, False], [True, True, True])):
        content["data"]["train"][1]["annotated"] = yaml.safe_load(way)
        task = build_task(resolve(content))
        assert not [n for n in task.notes if n.startswith("warning: train b")]
        assert task.train[SampleKey(0, 1, 0)].annotated.tolist() == known


def test_a_name_without_a_label_may_be_left_out_of_annotated() -> None:
    space = LabelSpace.build(CLASSES, [DatasetConfig(name="d", format="jrdb", root=".", annotated=("car",))], [_Named(CARS)])
    assert space.annotated.tolist() == [[True, False, False]]


class _Named:
    names, ignored_names = tuple(CLASSES), ()

    def __init__(self, table: PairTable) -> None:
        self.samples_by_class = table.samples_by_class


def test_a_class_named_like_an_ignore_region() -> None:
    dataset = {"format": "yolo", "root": "."}
    train = [{"name": "d0", **dataset, "rename": {"zone": "Ignored regions"}}]
    classes = ["car", "Ignored regions", "bus"]
    config = resolve({"classes": classes, "data": {"train": train, "val": [{"name": "d1", **dataset}]}})
    (line,) = warnings_of(config, ALL, ALL)
    assert line == (
        "class Ignored regions is named like an ignore region, but is learned and scored as a class; remove it from classes "
        "and out of rename, and write ignore: [zone] in its datasets"
    )

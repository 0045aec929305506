"""Every task is inspected: classes by dataset, leaks between train and val whatever their names, and every fault at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_runs import RUNS, write_config

from ddptrain.cli import main
from ddptrain.config import DatasetConfig, load_config
from ddptrain.data.inspect.duplicates import Twins
from ddptrain.data.tables.faults import OnFault
from ddptrain.tasks import build as tasks
from ddptrain.tasks.build import new_task
from ddptrain.tasks.inspection.base import Inspection
from ddptrain.tasks.inspection.twins import report_twins

Check = Callable[..., Inspection]
TASKS = ("classification", "interaction", "segmentation")
IMAGES = {
    "classification": ("train/disc/*.png", "val/square/*.png"),
    "interaction": ("images/image_stitched/hall-000/*.jpg", "images/image_stitched/hall-003/*.jpg"),
    "segmentation": ("all/images/train/*.png", "all/images/val/*.png"),
}
"""Images of the small run of each task, in train and in val."""
UNITS = {"classification": "images", "interaction": "pairs", "segmentation": "pixels"}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def data(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Datasets that may be damaged, with a cache of their own."""
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    RUNS[task].write(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def check(task: str, data: Path, tmp_path: Path) -> Check:
    config = write_config(task, data, tmp_path)
    return lambda images=0, *overrides: new_task(load_config(config, overrides)).inspect(images)


def files(data: Path, task: str) -> tuple[list[Path], list[Path]]:
    train, val = (sorted(data.glob(pattern)) for pattern in IMAGES[task])
    return train, val


def leaks(found: Inspection) -> list[str]:
    return [w for w in found.warnings if w.startswith("leak")]


def test_a_good_run_has_a_table_of_its_classes_and_no_leak(task: str, check: Check) -> None:
    found = check()
    facts = found.facts
    assert (found.errors, leaks(found)) == ([], [])
    assert {d["part"] for d in facts["classes"]} == {"train", "val"}
    assert all(sum(n or 0 for n in d[UNITS[task]].values()) for d in facts["classes"])
    assert all(d["images"] for d in facts["datasets"])


@pytest.mark.parametrize("how", ["copy", "link", "compression"])
def test_an_image_of_train_under_another_name_in_val(task: str, data: Path, check: Check, how: str) -> None:
    train, val = files(data, task)
    val[-1].unlink()
    if how == "copy":
        shutil.copy(train[0], val[-1])
    elif how == "link":
        val[-1].symlink_to(train[0])
    else:
        image = cv2.imread(str(train[0]))
        cv2.imwrite(str(val[-1]), image + (image < 100).astype(np.uint8))
    # where few are opened, those come first whose file or size is that of one on the other side
    for opened in (0, 4) if how != "compression" else (0,):
        (line,) = leaks(check(opened))
        assert str(train[0]) in line
        assert str(val[-1]) in line


def test_every_fault_is_reported_and_the_rest_is_inspected(task: str, data: Path, check: Check) -> None:
    train, val = files(data, task)
    val[0].write_bytes(val[0].read_bytes()[:60])
    train[0].write_bytes(b"none")
    errors = check().errors
    assert len(errors) == 2
    for path in (train[0], val[0]):
        assert any(path.name in e and "unreadable image" in e for e in errors)
    assert check(0, "data.val.0.root=nowhere").errors[-1].startswith("val: ")
    found = check(0, "data.on_fault=drop")
    assert found.errors == []
    assert sum("unreadable image" in w for w in found.warnings) == 2


def test_check_reads_each_dataset_once(task: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it looks for the classes, inspects, and does all that training does before its first step."""
    read, names = vars(tasks.TASKS[task])["read_table"].__func__, []

    def counting(config: DatasetConfig, on_fault: OnFault) -> Any:
        names.append((config.name, config.split))
        return read(config, on_fault)

    monkeypatch.setattr(tasks.TASKS[task], "read_table", staticmethod(counting))
    auto = ["classes=auto", "data.pairs.max_negatives_per_frame=12"] if task == "interaction" else ["classes=auto"]
    config = write_config(task, data, tmp_path)
    assert main(["check", str(config), *auto, "--out", str(tmp_path / "c.html")]) == 0
    assert (
        len(names)
        == len(set(names))
        == sum(len(part) for part in (load_config(config).data.train, load_config(config).data.val))
    )


def test_the_same_set_as_train_and_val(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RUNS["classification"].write(tmp_path)
    config = write_config("classification", tmp_path, tmp_path)
    assert main(["check", str(config), "data.val.0.split=train", "--out", str(tmp_path / "c.html")]) == 0
    assert "leak: of 27 images of val shapes, 27 are also in train shapes: 27 equal" in capsys.readouterr().out


def test_a_task_of_the_users_own_says_that_it_is_not_inspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_unread.py").write_text(
        "from ddptrain.errors import UserError\nfrom ddptrain.tasks.base import OwnTask\n"
        "class Mine(OwnTask):\n    build_model = loss = predict = metrics = None\n"
        "    def read(self):\n        raise UserError('nothing to read')\n"
    )
    entry = "[{name: a, format: own, root: .}]"
    text = f"task: own_unread:Mine\nclasses: [a]\ndata: {{train: {entry}, val: {entry}}}\n"
    (tmp_path / "run.yaml").write_text(text)
    assert main(["check", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "c.html")]) == 1
    out = capsys.readouterr().out
    assert "warning: own_unread:Mine: a task of your own has no inspection" in out
    assert "error: nothing to read" in out
    assert main(["check", str(tmp_path / "run.yaml"), "classes=auto", "--out", str(tmp_path / "c.html")]) == 1
    assert (
        "error: classes: auto is not supported by own_unread:Mine, a task of your own; list the classes"
        in capsys.readouterr().out
    )


def test_one_image_and_several_are_reported_in_sentences() -> None:
    out = Inspection()
    for first, second, count in (
        ("train a", "train a", 1),
        ("train a", "train b", 2),
        ("train a", "val a", 1),
        ("train a", "val b", 2),
    ):
        report_twins(Twins(first, second, count, 0, 3, (("x.png", "y.png"),)), out)
    assert out.warnings == [
        "duplicates: of 3 images of train a, 1 is a copy of others in it, such as y.png = x.png",
        "duplicates: of 3 images of train b, 2 are copies of images of train a, such as y.png = x.png",
        "leak: of 3 images of val a, 1 is also in train a: 1 equal and 0 that look the same, such as y.png = x.png",
        "leak: of 3 images of val b, 2 are also in train a: 2 equal and 0 that look the same, such as y.png = x.png",
    ]


def test_images_that_cannot_be_decoded_are_counted(task: str, data: Path, check: Check) -> None:
    """Their headers are sound, so that no reader finds them."""
    path = files(data, task)[1][0]
    image = cv2.imread(str(path))
    noise = np.random.default_rng(0).integers(0, 255, image.shape, np.uint8)
    content = bytearray(cv2.imencode(".png", noise)[1].tobytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    path.write_bytes(content)
    told = [w for w in check().warnings if "decoded" in w]
    assert [w.partition(";")[0] for w in told] == [
        "1 image cannot be decoded, and would be replaced (data.max_bad_samples and eval.max_bad_images say how many may be)"
    ]
    assert str(path) in told[0]

"""A data.yaml of a mixture as a run's config, and its contradictions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddptrain.cli import main
from ddptrain.config import load_config
from ddptrain.config.detection import DetectionData, DetectionDataset
from ddptrain.data.formats.build import read
from ddptrain.data.formats.ultralytics import data_section
from ddptrain.errors import UserError

Make = Callable[..., Path]
BASE = {"path": ".", "train": ["visdrone/images/train", "uavdt/images/train"], "val": "visdrone/images/val"}


@pytest.fixture
def mixture(tmp_path: Path, save_image: Callable[..., Path]) -> Make:
    """Folders of 3 and 1 training images, one validation image, and a data.yaml with the given keys."""
    for folder, count in (("visdrone/images/train", 3), ("uavdt/images/train", 1), ("visdrone/images/val", 1)):
        for i in range(count):
            save_image(tmp_path / folder / f"{i}.jpg")
            label = tmp_path / folder.replace("images", "labels") / f"{i}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("1 0.5 0.5 0.2 0.2\n")

    def make(**keys: Any) -> Path:
        content = {**BASE, "names": {0: "car", 1: "bus"}, **keys}
        (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "data.yaml"

    return make


def datasets(section: dict[str, Any], part: str) -> list[DetectionDataset]:
    return list(getattr(DetectionData.model_validate(section["data"], strict=False), part))


def refused(file: Path, weights: Any = None) -> str:
    with pytest.raises(UserError) as caught:
        data_section(file, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_folder_becomes_a_dataset_that_can_be_read(mixture: Make) -> None:
    section = data_section(mixture())
    assert section["classes"] == ["car", "bus"]
    train = datasets(section, "train")
    assert [(d.name, d.share) for d in train] == [("visdrone", None), ("uavdt", None)]
    tables = [read(d)[0] for d in (*train, *datasets(section, "val"))]
    assert [len(t) for t in tables] == [3, 1, 1]
    assert all(t.names == ("car", "bus") and set(t.labels.tolist()) == {1} for t in tables)


def test_what_each_dataset_labels_is_written_and_reported(
    mixture: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`visdrone` has a bus in val and nothing but cars in train; `uavdt` has buses alone."""
    for label in (tmp_path / "visdrone/labels/train").glob("*.txt"):
        label.write_text("0 0.5 0.5 0.2 0.2\n")
    mixture()
    monkeypatch.chdir(tmp_path)
    assert main(["config", "--data", "data.yaml"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "ddptrain: note: train uavdt: its label files hold no car: unknown there, not background; where it really has none, "
        "add them to annotated"
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("run.yaml").write_text(out)
    run = load_config("run.yaml")
    assert [d.annotated for d in (*run.data.train, *run.data.val)] == [("car", "bus"), ("bus",), ("car", "bus")]
    assert [len(read(d)[0]) for d in (*run.data.train, *run.data.val)] == [3, 1, 1]


def test_names_differ_where_paths_do_not(mixture: Make) -> None:
    section = data_section(mixture(train=["visdrone/images/train", "visdrone/images/val"]))
    assert [d.name for d in datasets(section, "train")] == ["visdrone", "visdrone_1"]


@pytest.mark.parametrize(("meaning", "shares"), [("share", [2, 1]), ("multiplier", [6, 1])])
def test_weights_mean_what_is_said(mixture: Make, meaning: Any, shares: list[float]) -> None:
    train = datasets(data_section(mixture(train_weights=[2, 1]), meaning), "train")
    assert [d.share for d in train] == shares


def test_open_weights_are_refused_with_the_numbers_of_both_readings(mixture: Make) -> None:
    message = refused(mixture(train_weights=[2, 1]))
    assert "66.7 % : 33.3 %" in message
    assert "85.7 % : 14.3 %" in message
    assert "share or multiplier" in message


def test_a_class_that_looks_like_a_number_is_a_name_in_the_config(
    mixture: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "--data", str(mixture(names=["car", "1e3"]))]) == 0
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    assert load_config(tmp_path / "run.yaml").classes == ("car", "1e3")


def test_the_command_line_writes_the_config(mixture: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = mixture(train_weights=[2, 1])
    assert main(["config", "--data", str(file)]) == 2
    assert "(--weights)" in capsys.readouterr().err
    assert main(["config", "--data", str(file), "--weights", "multiplier"]) == 0
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    run = load_config(tmp_path / "run.yaml")
    assert run.classes == ("car", "bus")
    assert [d.share for d in run.data.train] == [6, 1]
    assert main(["config", "--data", str(tmp_path / "gone.yaml")]) == 2
    assert "gone.yaml: cannot be read" in capsys.readouterr().err


def test_weights_that_mean_the_same_either_way_are_taken(mixture: Make) -> None:
    train = datasets(data_section(mixture(train="uavdt/images/train", train_weights=[3])), "train")
    assert [d.share for d in train] == [3]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"nc": 3}, "nc is 3 and names has 2 classes"),
        ({"train_weights": [1, 2, 3]}, "train_weights has 3 numbers and train has 2 folders"),
        ({"train_weights": 2}, "train_weights has 1 number and train has 2 folders"),
        ({"train_weights": [1, -1]}, "numbers that are 0 or above"),
        ({"train_weights": [1, "2"]}, "numbers that are 0 or above"),
        ({"train_weights": [0, 0.0]}, "all train_weights are 0"),
        ({"train_depth": "uavdt"}, "train_depth has 1 folder and train has 2"),
        ({"val_depth": ["uavdt", "visdrone"]}, "val_depth has 2 folders and val has 1"),
        ({"train_depth": [1, 2]}, "train_depth must be a path or a list of paths"),
        ({"val_depth": "gone"}, "val_depth: "),
        ({"val": None}, "has no val"),
        ({"names": None}, "has no names"),
    ],
)
def test_contradictions(mixture: Make, keys: dict[str, Any], words: str) -> None:
    assert words in refused(mixture(**keys))


def test_depth_folders_go_with_their_images(mixture: Make) -> None:
    section = data_section(mixture(train_depth=["visdrone/labels", "uavdt/labels"]))
    assert [d["depth"] for d in section["data"]["train"]] == ["visdrone/labels", "uavdt/labels"]
    assert "depth" not in section["data"]["val"][0]


def test_one_dataset_cannot_hold_weights(mixture: Make) -> None:
    root = str(mixture(train_weights=[2, 1]).parent)
    with pytest.raises(UserError, match="train_weights, which belong to a mixture"):
        read(DetectionDataset(name="m", format="yolo", root=root, split="train"))
    assert len(read(DetectionDataset(name="m", format="yolo", root=root, split="val"))[0]) == 1

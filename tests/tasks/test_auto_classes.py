"""`classes: auto`: the classes of the training datasets in a defined order, as a list wherever the run is used again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.cli import main
from ddptrain.config import load_config, resolve
from ddptrain.config.docs import to_yaml
from ddptrain.config.own import OwnDataset
from ddptrain.data.tables.labels import classes_of
from ddptrain.errors import UserError
from ddptrain.tasks.build import build_task, new_task


class Names:
    def __init__(self, *names: str, ignored: tuple[str, ...] = ()) -> None:
        self.names, self.ignored_names = names, ignored

    def samples_by_class(self) -> np.ndarray:
        return np.ones(len(self.names), np.int64)


def dataset(name: str = "d", **keys: Any) -> OwnDataset:
    return OwnDataset(name=name, format="voc", root=".", **keys)


@pytest.mark.parametrize(
    ("keys", "classes"),
    [
        ({}, ("Car", "tram", "dog", "van")),
        ({"rename": {"dog": "Car", "tram": "bus"}}, ("Car", "bus", "van")),
        ({"drop": ("Car",), "ignore": ("van",)}, ("tram", "dog")),
        ({"rename": {"tram": "bus"}, "drop": ("*",)}, ("bus",)),
        ({"rename": {"tram": "bus", "*": "other"}, "drop": ("dog",)}, ("other", "bus")),
    ],
)
def test_the_order_is_that_of_the_datasets_ids(keys: dict[str, Any], classes: tuple[str, ...]) -> None:
    assert classes_of([dataset(**keys)], [Names("Car", "tram", "dog", "van", "junk", ignored=("junk",))]) == classes


def test_one_dataset_after_the_other() -> None:
    tables = [Names("b", "a"), Names("c", "a", "d")]
    assert classes_of([dataset("x"), dataset("y")], tables) == ("b", "a", "c", "d")


@pytest.mark.parametrize(
    ("task", "classes"),
    [
        ("classification", ("disc", "square", "stripes")),
        ("detection", ("bus", "car")),
        ("interaction", ("others",)),
        ("segmentation", ("ground", "disc", "square")),
    ],
)
def test_every_task_knows_the_names_of_its_datasets(
    small_config: Callable[[str], Path], task: str, classes: tuple[str, ...]
) -> None:
    config = load_config(small_config(task), ["classes=auto", "data.samples_per_epoch=12"])
    assert yaml.safe_load(to_yaml(config))["classes"] == "auto"
    resolved = new_task(config).with_classes().config
    assert set(resolved.classes) == set(classes)
    assert resolve(yaml.safe_load(to_yaml(resolved))) == resolved
    assert build_task(config).classes == (("not interacting", "interacting") if task == "interaction" else resolved.classes)


def test_the_run_holds_the_list(shapes_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(shapes_config), "classes=auto", "train.steps=1"]) == 0
    run = tmp_path / "run"
    assert yaml.safe_load((run / "config.yaml").read_text())["classes"] == ["disc", "square", "stripes"]
    assert load_checkpoint(run, best=True).config.classes == ("disc", "square", "stripes")
    assert main(["train", str(shapes_config), "classes=auto", "train.steps=2", "resume=auto"]) == 0
    assert "from step 1 to step 2" in capsys.readouterr().out


def test_where_no_list_can_be_made_is_one_line(small_config: Callable[[str], Path], tmp_path: Path) -> None:
    config = small_config("segmentation")
    with pytest.raises(UserError, match="masks hold no class names"):
        new_task(load_config(config, ["classes=auto", "data.train.0.names=null"])).with_classes()
    everything = ["data.train.0.drop=['*']", "data.train.1.ignore=['*']"]
    with pytest.raises(UserError, match="no training dataset has a class that is neither ignored nor dropped"):
        new_task(load_config(config, ["classes=auto", *everything])).with_classes()
    for value, line in (("[]", "must have at least 1 item, or be auto"), ("cars", "must be a list, such as")):
        with pytest.raises(UserError, match=line):
            load_config(config, [f"classes={value}"])
    with pytest.raises(UserError, match="'tram' is not a class of the run; classes are ground, disc, square"):
        new_task(load_config(config, ["classes=auto", "data.val.0.rename={ground: tram}"])).with_classes()

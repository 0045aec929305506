"""What a config says that its defaults do not."""

from __future__ import annotations

from ddptrain.config import resolve
from ddptrain.config.given import given

DATASET = {"name": "a", "format": "voc", "root": "data"}


def test_keys_that_differ_their_values_and_their_defaults() -> None:
    config = resolve({
        "classes": ["car"],
        "data": {"train": [DATASET | {"share": 1}, DATASET | {"name": "b", "share": 2}], "val": [DATASET]},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "train": {"epochs": 100, "precision": "none"},
    })  # fmt: skip
    found = {g.key: (g.value, g.default) for g in given(config)}
    assert found["optimizer.name"][0] == "sgd"
    assert found["data.train.1.share"] == ("2.0", "null")
    assert found["data.train.0.root"] == ("data", "")
    assert found["classes"] == ("[car]", "")
    assert not {"train.epochs", "train.precision", "data.image_size", "data.train.0.split"} & found.keys()


def test_another_model_is_named_and_compared_with_its_own_defaults() -> None:
    model = {"name": "ssdlite320_mobilenet_v3_large"}
    config = resolve({"classes": ["car"], "data": {"train": [DATASET], "val": [DATASET]}, "model": model})
    keys = [(g.key, g.value, g.default) for g in given(config) if g.key.startswith("model")]
    assert keys == [("model.name", "ssdlite320_mobilenet_v3_large", "yolo")]

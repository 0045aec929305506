"""What `ddptrain config` prints."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ddptrain.config import ImageLossConfig, docs, load_config, resolve
from ddptrain.config.detection import TORCHVISION_DETECTORS, DetectionRun, TorchvisionConfig
from ddptrain.config.places import sections_in
from ddptrain.config.section import documentation
from ddptrain.config.tasks import every_run
from ddptrain.config.text import parse_yaml


@pytest.fixture(scope="module")
def described() -> str:
    return docs.describe()


def flat(text: str) -> str:
    """The comments as running text."""
    return " ".join(text.replace("#", " ").split())


def test_the_description_is_a_config_of_defaults(described: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(described, encoding="utf-8")
    config = load_config(path, environ={})
    datasets = [{"name": "d", "format": "coco", "root": "r"}]
    bare = resolve({"classes": ["car"], "data": {"train": datasets, "val": datasets}})
    for name in DetectionRun.model_fields:
        if name not in ("classes", "data"):
            assert getattr(config, name) == getattr(bare, name), name
    assert config.data.augment == bare.data.augment
    assert config.data.train[0].model_copy(update={"name": "d", "root": "r"}) == bare.data.train[0]


def test_the_description_is_readable(described: str) -> None:
    assert max(len(line) for line in described.splitlines()) <= 100
    assert not [line for line in described.splitlines() if line != line.rstrip()]
    for words in (
        "[integer, ≥ 32, a multiple of 32]",
        "[n | s | m | l | x]",
        "[number or null, > 0]",
        *TORCHVISION_DETECTORS,
    ):
        assert words in flat(described)


def sections(section: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [s for f in section.model_fields.values() for i in sections_in(f.annotation) for s in sections(i)]
    return [section, *inner]


def test_every_key_is_documented(described: str) -> None:
    found = {section for run in every_run().values() for section in sections(run)}
    assert TorchvisionConfig in found
    words = flat(described)
    for section in found:
        for name in section.model_fields:
            text = documentation(section, name)
            assert text, f"{section.__name__}.{name} has no text below it"
            assert text[0].isupper() or text[0] == "`", f"{section.__name__}.{name}: {text}"
            assert text.endswith((".", "…")), f"{section.__name__}.{name}: {text}"
            assert " ".join(text.split()) in words, f"{section.__name__}.{name}"
            assert f"{name}:" in described


def test_every_key_names_its_tasks(described: str) -> None:
    """Those that are not for all; what is not for detection is a comment."""
    for key, tasks in (("crop", "segmentation"), ("mixup", "detection and classification"), ("pairs", "interaction")):
        lines = described.splitlines()
        at = next(i for i, line in enumerate(lines) if line.lstrip(" #").startswith(f"{key}:"))
        assert f"Only for {tasks}: " in flat("\n".join(lines[at - 4 : at]))
        assert ("detection" in tasks) != lines[at].lstrip().startswith("#")
    assert "classification: folder | csv | mnist; segmentation: masks | camvid | ade20k; interaction: jrdb" in flat(described)


def alternatives(described: str, key: str) -> list[dict[str, Any]]:
    """The commented sections that could stand in the place of `key`."""
    found: list[list[str]] = []
    for line in described.splitlines():
        if line == f"# {key}:":
            found.append([line[2:]])
        elif found and line.startswith("#   "):
            found[-1].append(line[2:])
        elif found and not line.startswith("#"):
            break
    return [parse_yaml("\n".join(block), "d")[key] for block in found]


def test_every_alternative_section_is_a_valid_one(described: str) -> None:
    base = parse_yaml(described, "d")
    models, losses = alternatives(described, "model"), alternatives(described, "loss")
    assert resolve(base | {"model": models[0]}).model == TorchvisionConfig(name=TORCHVISION_DETECTORS[0])
    assert {m["name"] for m in models} >= {"lenet", "small_resnet"}
    data = [{"name": "d", "format": "folder", "root": "r"}]
    image = {"task": "classification", "classes": ["a"], "data": {"train": data, "val": data}}
    for model in models:
        if model["name"] in ("resnet18", "lenet", "small_resnet"):
            assert resolve(image | {"model": model}).model.name == model["name"]
    assert resolve(image | {"loss": losses[0]}).loss == ImageLossConfig()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [
            "model={name: fcos_resnet50_fpn, pretrained: true}",
            "name='1e-3'",
            "optimizer.lr=1e-7",
            "seed=9223372036854775807",
        ],
        ["classes=['no', 'null', '007', 'a: b', 'ü', '#c']", "data.train.0.rename={x: 'no'}", "slurm.time=1:00:00"],
        [
            "data.train.0.annotated=all",
            "data.train.0.share=0.3333333333333333",
            "train.clip_norm=null",
            "train.steps=5",
        ],
        ["resume={source: auto, allow: [seed, classes]}"],
        ["resume=runs/x"],
    ],
)
def test_the_resolved_config_is_read_back_equal(described: str, overrides: list[str], tmp_path: Path) -> None:
    config = resolve(parse_yaml(described, "d"), overrides)
    path = tmp_path / "config.yaml"
    path.write_text(docs.to_yaml(config), encoding="utf-8")
    assert load_config(path) == config

"""What `ddptrain config` prints."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ddptrain.config import ImageLossConfig, RunConfig, docs, load_config, resolve
from ddptrain.config.model import TORCHVISION_DETECTORS, TorchvisionConfig
from ddptrain.config.tasks import KITS
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
    for name in RunConfig.model_fields:
        if name not in ("classes", "data"):
            assert getattr(config, name) == getattr(bare, name), name
    assert config.data.augment == bare.data.augment
    assert config.data.train[0].model_copy(update={"name": "d", "root": "r"}) == bare.data.train[0]


def test_the_description_is_readable(described: str) -> None:
    assert max(len(line) for line in described.splitlines()) <= 100
    assert not [line for line in described.splitlines() if line != line.rstrip()]
    for words in (
        "[whole number, >= 32, a multiple of 32]",
        "[n | s | m | l]",
        "[number or null, > 0]",
        *TORCHVISION_DETECTORS,
    ):
        assert words in flat(described)


def sections(section: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [s for f in section.model_fields.values() for i in docs._inner(f.annotation) for s in sections(i)]
    return [section, *inner]


def test_every_key_is_documented(described: str) -> None:
    found = sections(RunConfig)
    assert TorchvisionConfig in found
    words = flat(described)
    for section in found:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no text below it"
            assert " ".join(field.description.split()) in words, f"{section.__name__}.{name}"
            assert f"{name}:" in described


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
        if model["name"] in KITS["classification"].models:
            assert resolve(image | {"model": model}).model.model_dump()["name"] == model["name"]
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


def test_schema_covers_every_section() -> None:
    schema = json.loads(json.dumps(docs.schema(), allow_nan=False))
    assert schema["$schema"].startswith("https://json-schema.org/draft/")
    definitions: dict[str, Any] = {**schema["$defs"], RunConfig.__name__: schema}
    for section in sections(RunConfig):
        properties = definitions[section.__name__]["properties"]
        assert set(properties) == set(section.model_fields)
        assert definitions[section.__name__]["additionalProperties"] is False
        for p in properties.values():  # pydantic leaves out what the section says in the same words
            assert "description" in p or "description" in definitions[p["$ref"].rsplit("/", 1)[1]]
    assert set(schema["required"]) == {"classes", "data"}
    models = {m["$ref"].rsplit("/", 1)[1] for m in schema["properties"]["model"]["oneOf"]}
    assert models >= {"YoloConfig", "TorchvisionConfig", "ClassifierConfig", "SmallResNetConfig"}
    assert schema["properties"]["classes"] | {"title": ""} == {
        "title": "",
        "anyOf": [{"const": "auto"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
        "description": RunConfig.model_fields["classes"].description,
    }

"""The JSON Schema completes exactly: for each task its own keys, formats, models and losses, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bare_config import FORMATS, bare
from pydantic import BaseModel

from ddptrain.config import aliases, resolve
from ddptrain.config.places import names_of, sections_in
from ddptrain.config.run import RunConfig
from ddptrain.config.schema import schema
from ddptrain.config.section import documentation
from ddptrain.config.tasks import OWN, RUNS, every_run
from ddptrain.config.text import parse_yaml

SCHEMA: dict[str, Any] = json.loads(json.dumps(schema(), allow_nan=False))


def of_task(task: str | None) -> dict[str, Any]:
    """The schema of the configs with a task, which `if` and `then` choose."""
    given = {} if task is None else {"task": task}
    chosen = []
    for branch in SCHEMA["allOf"]:
        wanted = branch["if"]["properties"]["task"]
        fits = task == wanted["const"] if "const" in wanted else ":" in (task or "")
        if all(key in given for key in branch["if"].get("required", ())) and (fits or task is None):
            chosen.append(branch["then"])
    (one,) = chosen
    return followed(one)


def followed(node: dict[str, Any]) -> dict[str, Any]:
    return {**SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], **node} if "$ref" in node else node


def kinds(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that a value may be, or that its items may be."""
    node = followed(node)
    inner = [kind for part in ("oneOf", "anyOf") for one in node.get(part, ()) for kind in kinds(one)]
    return [*inner, *(kinds(node["items"]) if "items" in node else []), *([node] if "properties" in node else [])]


def compare(section: type[BaseModel], node: dict[str, Any], path: str) -> None:
    """The keys of a section and of those below it are those of the schema, each with its text."""
    known = {alias.rpartition(".")[2] for alias in aliases.KEYS if alias.rpartition(".")[0] == path.rstrip(".")}
    known &= {name for key in section.model_fields for name in aliases.aliases_of(path + key)}
    known |= {
        alias.rpartition(".")[2]
        for alias in (*aliases.SWITCHES, *aliases.LISTS)
        if alias.rpartition(".")[0] == path.rstrip(".")
    }
    assert set(node["properties"]) == {*section.model_fields, *known}, path
    assert node["additionalProperties"] is False
    for key, field in section.model_fields.items():
        value = node["properties"][key]
        assert value.get("description") or followed(value).get("description"), f"{path}{key}"
        inner, objects = sections_in(field.annotation), kinds(value)
        assert len(inner) == len(objects), f"{path}{key}"
        for below, kind in zip(inner, objects):
            compare(below, kind, f"{path}{key}.")


@pytest.mark.parametrize("task", [None, *RUNS, "own:Task"])
def test_the_keys_of_a_task_are_its_own(task: str | None) -> None:
    run = every_run()[OWN] if task == "own:Task" else RUNS[task or "detection"]
    node = of_task(task)
    compare(run, node, "")
    assert set(node["required"]) == {"classes", "data", *(() if task in (None, "detection") else ("task",))}


@pytest.mark.parametrize("task", RUNS)
def test_formats_models_and_losses_are_those_of_the_task(task: str) -> None:
    node = of_task(task)["properties"]
    (data,) = kinds(node["data"])
    (dataset,) = kinds(data["properties"]["train"])
    formats = dataset["properties"]["format"]
    assert FORMATS[task] in formats.get("enum", [formats.get("const")])
    assert not set(formats.get("enum", [])) & {FORMATS[other] for other in RUNS if other != task}
    for key in ("model", "loss"):
        objects = kinds(node[key])
        for first, kind in zip([True, *[False] * len(objects)], objects):
            name = kind["properties"]["name"]
            for value in name.get("enum", [name.get("const")]):
                assert resolve(bare(task, **{key: {"name": value}} | own_model(task, value))).model_dump()[key]["name"] == value
            # without a name it is the first kind, so that a value fits exactly one
            assert first != ("name" in kind.get("required", ()))
        assert {n for s in sections_in(RUNS[task].model_fields[key].annotation) for n in names_of(s)} == {
            value for kind in objects for value in names_in(kind)
        }


def own_model(task: str, loss: str) -> dict[str, Any]:
    """The model that a loss is for, where it is not the default."""
    models = {("segmentation", "masks"): {"name": "mask2former"}, ("interaction", "bce"): {"stage": 2}}
    return {"model": models[task, loss]} if (task, loss) in models else {}


def names_in(kind: dict[str, Any]) -> list[str]:
    name = kind["properties"]["name"]
    return list(name.get("enum", [name.get("const")]))


def test_aliases_are_in_it_and_exclude_each_other() -> None:
    (train,) = kinds(of_task("detection")["properties"]["train"])
    assert train["properties"]["global_batch_size"]["minimum"] == 1
    assert {"required": ["global_batch", "global_batch_size"]} in train["not"]["anyOf"]
    (optimizer,) = (kind for kind in kinds(of_task("detection")["properties"]["optimizer"]) if "betas" in kind["properties"])
    first, second = optimizer["properties"]["betas"]["prefixItems"]
    assert (first["minimum"], second["exclusiveMinimum"]) == (0, 0)
    assert {"required": ["beta2", "betas"]} in optimizer["not"]["anyOf"]
    assert {"fp32", "none", "bf16", "fp16"} == set(train["properties"]["precision"]["enum"])


def test_classes_may_be_auto() -> None:
    classes = of_task("detection")["properties"]["classes"]
    assert classes["anyOf"] == [{"const": "auto"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    assert classes["description"] == documentation(RunConfig, "classes")


CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_the_schema_beside_the_configs_is_this_one() -> None:
    """For editors."""
    stored = json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8"))
    assert stored == SCHEMA, "the keys have changed: `make schema` rewrites configs/schema.json"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_a_config_that_is_shipped_names_the_schema_and_follows_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    head, _, place = first.partition("$schema=")
    assert head == "# yaml-language-server: "
    assert (path.parent / place).resolve() == CONFIGS / "schema.json"
    validation = pytest.importorskip("jsonschema", reason="jsonschema is not installed; make test installs it")
    validator = validation.Draft202012Validator(SCHEMA)
    data = parse_yaml(path.read_text(encoding="utf-8"), path.name)
    assert not [error.message for error in validator.iter_errors(data)]
    assert not validator.is_valid({**data, "trian": {}})

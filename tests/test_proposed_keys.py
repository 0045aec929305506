"""Every key, value, command, option and extra that a message names is one that there is: read off the strings of the source."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tomllib
from bare_config import FORMATS

from ddptrain.commands.arguments import build_parser
from ddptrain.config import RunConfig, resolve
from ddptrain.config.own import OwnDataset
from ddptrain.config.schema import schema
from ddptrain.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
HOLE = "\0"
"""Stands for what is filled in when a message is printed."""
KEY = re.compile(
    rf"(?<![\w./])([a-z_]+(?:\.(?:[a-z_0-9]+|{HOLE}))+)(?![\w/(])(?:=(\[[^\]]*\]|[^\s,;)]+(?:(?:, \w+)* or \w+)?))?"
)
PLAIN = re.compile(r"(?<![\w.=/-])(resume|name|output|seed|task|classes)=([^\s,;:)`]+)")
OF_A_DATASET = re.compile(rf"\b(?:set|write|give) ([a-z_]+): ([^\s,;({HOLE}]+)")
VARIANTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("detection", ()),
    ("detection", ("model.name=fcos_resnet50_fpn",)),
    ("detection", ("model.in_channels=5", "optimizer.name=sgd", "schedule.name=one_cycle")),
    ("classification", ()),
    ("classification", ("loss.name=bce",)),
    ("classification", ("model.name=resnet18",)),
    ("segmentation", ()),
    ("segmentation", ("eval.window=slide",)),
    ("segmentation", ("model.name=deeplabv3_resnet50",)),
    ("interaction", ()),
    ("interaction", ("model.stage=2",)),
)


@cache
def spoken() -> tuple[tuple[str, str], ...]:
    return tuple(_spoken())


def _spoken() -> Iterator[tuple[str, str]]:
    """(file:line, text) of every string of the package and the launcher but its docstrings; `HOLE` for what is filled in."""
    for path in sorted(p for top in ("ddptrain", "launch") for p in (ROOT / top).rglob("*.py")):
        if path.name in ("class_layers.py", "torchvision_detectors.py"):  # names of layers
            continue
        tree = ast.parse(path.read_text())
        nodes = list(ast.walk(tree))
        skip = {id(n.value) for n in nodes if isinstance(n, ast.Expr)}
        skip |= {id(part) for n in nodes if isinstance(n, ast.JoinedStr) for part in n.values}
        for node in nodes:
            if id(node) in skip:
                continue
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield where, "".join(str(p.value) if isinstance(p, ast.Constant) else HOLE for p in node.values)
            elif (isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value) or _is_setting(node):
                yield where, str(node.value)  # type: ignore[attr-defined]


def _is_setting(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(KEY.fullmatch(node.value))


@cache
def whole_schema() -> dict[str, Any]:
    return schema()


def has_key(dotted: str) -> bool:
    """Whether a config may hold a key, whatever its task and model."""
    found = [whole_schema()]
    for part in dotted.split("."):
        found = [inner for one in found for inner in _inside(one, part)]
    return bool(found)


def _inside(node: Any, part: str) -> list[Any]:
    if not isinstance(node, dict):
        return []
    if "$ref" in node:
        return _inside(whole_schema()["$defs"][node["$ref"].rpartition("/")[2]], part)
    out = [inner for kind in ("anyOf", "oneOf", "allOf") for one in node.get(kind, ()) for inner in _inside(one, part)]
    out += _inside(node.get("then"), part)
    if part in node.get("properties", {}):
        out.append(node["properties"][part])
    if (part.isdigit() or part == HOLE) and "items" in node:
        out.append(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        out.append(node["additionalProperties"])
    if part == HOLE:
        out += node.get("properties", {}).values()
    return out


@cache
def refusals(override: str) -> list[str]:
    """What each kind of run says to an override; empty as soon as one takes it."""
    said = []
    for task, changes in VARIANTS:
        data = [{"name": "d", "format": FORMATS[task], "root": "r", "depth": "depth"} for _ in range(1)]
        if task != "detection" or not any("in_channels" in c for c in changes):
            del data[0]["depth"]
        config = {"task": task, "classes": ["a", "b"], "data": {"train": data, "val": data}}
        try:
            resolve(config, [*changes, override], tell=lambda line: None)
        except UserError as e:
            said.append(str(e))
        else:
            return []
    return said


def values(text: str) -> list[str]:
    """The alternatives of `linear, cosine or one_cycle`."""
    return [text] if text.startswith("[") else [v for v in re.split(r", | or ", text) if v]


FILES = (".py", ".yaml", ".pt", ".json", ".txt", ".names")
"""Of names that look like keys."""
SECTIONS = (*RunConfig.model_fields,)


def test_every_key_that_is_named_is_a_key_of_the_config() -> None:
    found = 0
    for where, text in spoken():
        for key, value in KEY.findall(text):
            if key.split(".")[0] not in SECTIONS or key.endswith(FILES):
                continue
            found += 1
            assert has_key(key), f"{where}: there is no key {key}"
            if value and HOLE not in key + value:
                for one in values(value.rstrip(".,`'")):
                    assert not refusals(f"{key}={one}"), f"{where}: {key}={one}: {refusals(f'{key}={one}')}"
        for key, value in PLAIN.findall(text):
            if HOLE not in value and "…" not in value and value.isascii() and not value.isupper():
                found += 1
                assert not refusals(f"{key}={value}"), f"{where}: {key}={value}"
    assert found > 100


def test_every_key_of_a_dataset_that_is_proposed_is_taken() -> None:
    found = 0
    for where, text in spoken():
        for key, value in OF_A_DATASET.findall(text):
            if value.isupper() or value[0] == "{" or key in ("annotations", "images"):
                continue
            found += 1
            assert key in OwnDataset.model_fields, f"{where}: a dataset has no key {key}"
            assert not refusals(f"data.train.0.{key}={value}"), f"{where}: {key}: {value}"
    assert found


def commands() -> dict[str, set[str]]:
    """The options of each command."""
    (sub,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return {name: {o for a in p._actions for o in a.option_strings} for name, p in sub.choices.items()}


def test_every_command_and_option_that_is_named_is_there() -> None:
    known, found = commands(), 0
    every = {"--version", *(o for options in known.values() for o in options)}
    for where, text in spoken():
        if where.startswith("launch/sbatch.py"):  # a batch script, for sbatch and srun
            continue
        for command, options in re.findall(r"`ddptrain ([a-z-]+)([^`]*)`", text) + re.findall(
            r"(?:or use|see|\() ?ddptrain ([a-z-]+)([^;)]*)", text
        ):
            found += 1
            assert command in known, f"{where}: there is no command {command}"
            for option in re.findall(r"--[a-z-]+", options):
                assert option in known[command], f"{where}: {command} has no {option}"
        for option in re.findall(r"(?:with|pass|out|name another file with|give|as|leave) (--[a-z][a-z-]+)", text):
            found += 1
            assert option in every, f"{where}: no command has {option}"
    assert found > 10


def test_every_extra_that_is_proposed_is_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [(where, extra) for where, text in spoken() for extra in re.findall(r"pip install 'ddptrain\[(\w+)\]'", text)]
    assert len(named) > 3
    assert all(extra in extras for _, extra in named), named


@pytest.mark.parametrize("broken", ["set data.on_falt=drop", "set train.device=gpu", "raise eval.max_bad"])
def test_the_walk_sees_what_is_wrong(broken: str) -> None:
    ((key, value),) = KEY.findall(broken)
    assert not has_key(key) or refusals(f"{key}={value}")

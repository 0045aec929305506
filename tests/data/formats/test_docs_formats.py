"""The pages about formats: their examples are read as they stand, and they name the faults that their readers find."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import cv2
import numpy as np
import pytest

from ddptrain.config import load_config
from ddptrain.config.places import keys_of
from ddptrain.config.tasks import RUNS
from ddptrain.data.tables.faults import KINDS
from ddptrain.tasks.build import build_task

ROOT = Path(__file__).resolve().parents[3]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "formats").glob("*.md"))}
READERS = {
    "auair": ["auair"],
    "coco": ["coco"],
    "csv": ["csv"],
    "images": ["labelled"],
    "jrdb": ["jrdb", "jrdb_people"],
    "masks": ["masks"],
    "uavdt": ["sequences"],
    "visdrone": ["visdrone", "sequences"],
    "voc": ["voc"],
    "yolo": ["yolo", "yolo_labels"],
}
"""By page, the modules that read its formats."""


class Example(NamedTuple):
    page: str
    tree: list[str]  # the root, then paths in it
    files: dict[str, str]
    config: str


def examples() -> Iterator[Example]:
    for page, text in PAGES.items():
        tree: list[str] = []
        files: dict[str, str] = {}
        for before, kind, block in re.findall(r"([^\n]*)\n\n```(\w+)\n(.*?)```", text, re.DOTALL):
            lines = block.split()
            if kind == "text" and lines[0].endswith("/"):
                tree, files = lines, {}
            elif kind == "yaml" and "format:" in block:
                yield Example(page, tree, files, block)
            else:
                files |= {path: block for path in re.findall(r"`([^`]+)`", before) if path in tree}


EXAMPLES = list(examples())


def write(example: Example) -> None:
    """The files of an example below the working directory; images are noise, masks hold the classes 0 and 1."""
    root, *paths = example.tree
    r = np.random.default_rng(0)
    for path in paths:
        file = Path(root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if path in example.files:
            file.write_text(example.files[path], encoding="utf-8")
        elif file.parts[1].startswith("masks") or file.parts[1].endswith("annot"):
            cv2.imwrite(str(file), r.integers(0, 2, (480, 640)).astype(np.uint8))
        else:
            cv2.imwrite(str(file), r.integers(0, 256, (480, 640, 3)).astype(np.uint8))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.page}-{e.tree[0]}")
def test_an_example_is_read_without_a_fault(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(example)
    Path("run.yaml").write_text(example.config, encoding="utf-8")
    task = build_task(load_config("run.yaml"))
    read = [note for note in task.notes if re.match("(train|val) [a-z]+: [0-9]+ (image|frame)", note)]
    assert len(read) == 2
    assert all(note.endswith(("; no faults", "(box taken from the segmentation)")) for note in read)
    assert all(count > 0 for _, count in task.val)


def test_every_format_has_an_example() -> None:
    shown = {name for example in EXAMPLES for name in re.findall(r"format: ([\w-]+)", example.config)}
    formats = {
        name for run in RUNS.values() for _, field in keys_of(run)["data.train.format"] for name in get_args(field.annotation)
    }
    assert formats - shown == {"mnist", "ade20k"}  # binary files, and a layout with 150 classes


@pytest.mark.parametrize("page", PAGES)
def test_the_faults_that_a_reader_finds_are_on_its_page(page: str) -> None:
    trees = [ast.parse((ROOT / f"ddptrain/data/formats/{name}.py").read_text(encoding="utf-8")) for name in READERS[page]]
    words = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    rows = re.findall(r"^\| ([a-z][\w, -]+) \|", PAGES[page].split("## What is a fault")[1], re.MULTILINE)
    table = {kind for row in rows for kind in row.split(", ")} - {"kind"}
    assert table <= set(KINDS)
    assert words & set(KINDS) <= table

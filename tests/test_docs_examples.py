"""The YAML and the commands in README and docs: every block is a valid config, every command is understood, and those that
need neither a cluster nor several processes are run, on a run of two steps. Pages with tests of their own are left to them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bare_config import bare
from small_runs import RUNS, write_config

from ddptrain.cli import main
from ddptrain.commands.arguments import build_parser
from ddptrain.config import resolve
from ddptrain.config.text import parse_yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
RUN_ELSEWHERE = {
    "docs/tasks.md": "tests/tasks/test_docs_tasks.py",
    "docs/interaction.md": "tests/tasks/interaction",
}
"""Pages whose commands have a test of their own."""
NOT_RUN = {
    "submit": "tests/slurm",
    "jobs": "tests/slurm",
    "logs": "tests/slurm",
    "cancel": "tests/slurm",
    "requeue": "tests/slurm",
    "sweep": "tests/commands/test_compare.py",
    "launch": "tests/launch",
    "verify": "tests/commands/test_verify.py",
    "depth": "tests/commands/test_depth_maps.py",
    "export": "tests/commands/test_export.py",
    "wandb": "tests/reporting",
}
"""Words of commands that start processes, need a cluster, a server or large networks, and where they are run."""
SMALL = ("data.workers=0", "data.image_size=64", "train.global_batch=4", "train.micro_batch=4", "monitor.tensorboard=false")
ONE_STEP = ("train.steps=1", "eval.every_epochs=null")
"""What makes a run of the docs one of a second."""


def blocks(kind: str) -> Iterator[tuple[str, str]]:
    for page, text in PAGES.items():
        for block in re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            yield page, block


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of each command, without comments and what is optional."""
    starts = re.compile(r"^(?:\$ )?((?:ddptrain|python|torchrun|srun|sbatch|pip|make|tensorboard) .*)$", re.MULTILINE)
    for page, block in blocks(""):
        for line in starts.findall(block):
            yield page, shlex.split(re.sub(r" \[[^\]]*\]", "", line), comments=True)


COMMANDS = list(commands())
OURS = [(page, words[1:]) for page, words in COMMANDS if words[0] == "ddptrain"]
OURS_ELSEWHERE = [(page, words[words.index("ddptrain") + 1 :]) for page, words in COMMANDS if "ddptrain" in words[1:]]


def of_task(page: str, given: dict[str, Any]) -> dict[str, Any]:
    """A config that a block is a part of."""
    task = given.get("task", "segmentation" if "segmentation" in page else "detection")
    whole = bare(task)
    data = {**given.get("data", {})}
    if "train" in data or "val" in data:
        scored = [{k: v for k, v in one.items() if k not in ("tiles", "loss_weight")} for one in data.get("train", ())]
        data = {"train": data.get("val"), "val": scored, **data}
    return {**whole, **given, "data": {**whole["data"], **data}}


@pytest.mark.parametrize(("page", "block"), [(p, b) for p, b in blocks("yaml") if "/formats/" not in p])
def test_a_block_of_yaml_is_a_config(page: str, block: str) -> None:
    given = parse_yaml(block, page)
    if given is not None:  # else a comment
        assert resolve(of_task(page, given), environ={}) is not None


@pytest.mark.parametrize("line", sorted({shlex.join(words) for _, words in [*OURS, *OURS_ELSEWHERE]}))
def test_a_command_is_understood(line: str) -> None:
    _, rest = build_parser().parse_known_args([RENAMED.get(word, word) for word in shlex.split(line)])
    assert all("=" in word and not word.startswith("-") for word in rest)


def test_other_programs_are_given_what_exists() -> None:
    section = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    table = re.findall(r"^\| (`.*?) \|", PAGES["docs/install.md"], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(table))) == extras
    lines = [" ".join(words) for _, words in COMMANDS]
    named = {
        extra
        for line in lines
        if line.startswith("pip")
        for found in re.findall(r"\[([\w,]+)\]", line)
        for extra in found.split(",")
    }
    assert named
    assert named <= extras
    modules = {name for line in lines for name in re.findall(r"-m (ddptrain[\w.]*)", line)}
    assert modules
    assert all(importlib.util.find_spec(name) for name in modules)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the docs take for granted: configs, datasets, runs, images and predictions."""
    place = tmp_path_factory.mktemp("docs")
    (place / "data").mkdir()
    RUNS["detection"].write(place / "data")
    config = write_config("detection", place / "data", place).read_text(encoding="utf-8").replace("name: run", "name: bccd")
    config = config.replace(f"output: {place}", "output: runs").replace(
        "steps: 6, global_batch: 12", "steps: 2, global_batch: 4"
    )
    for name in ("cells", "run", "config", "truth", "other"):
        (place / f"{name}.yaml").write_text(config, encoding="utf-8")
    (place / "configs").symlink_to(ROOT / "configs")
    here = os.getcwd()
    os.chdir(place)
    try:
        assert main(["train", "cells.yaml", "checkpoint.every_steps=1", "train.micro_batch=4"]) == 0
        assert main(["eval", "runs/bccd", "--save-predictions", "results.json"]) == 0
    finally:
        os.chdir(here)
    for name in ("other", "a", "b", "c", *(f"{side}-{seed}" for side in ("new", "old") for seed in range(3))):
        shutil.copytree(place / "runs" / "bccd", place / "runs" / name, symlinks=True)
    (place / "images").mkdir()
    for image in sorted((place / "data").rglob("*.jpg"))[:2]:
        shutil.copy(image, place / "images")
    return place


RENAMED = {"CONFIG": "cells.yaml", "RUN": "runs/bccd", "RUN_A": "runs/bccd", "RUN_B": "runs/other", "N": "1", "1234": "1"}


def runnable() -> list[str]:
    """Each command once; `--nproc`, which starts processes, is left out, and tested in tests/launch."""
    lines = {shlex.join(RENAMED.get(word, word) for word in words) for page, words in OURS if page not in RUN_ELSEWHERE}
    lines = {re.sub(r" --nproc \d+", "", line) for line in lines}
    return sorted(line for line in lines if not NOT_RUN.keys() & {line.split()[0], *re.findall(r"[a-z]+", line)})


def run(line: str, world: Path) -> int:
    """A command as it stands, but for what makes its run small and its run folder a new one."""
    words = shlex.split(line)
    if words[0] in ("train", "check") and "configs/" in line:
        words += SMALL
    if words[0] == "train":
        own = any(word.startswith("name=") for word in words) or "resume=auto" in words
        words += [*ONE_STEP, *([] if own else [f"name={next(NUMBERS)}"])]
    for name in ("demo-data", "demo"):
        if f"runs/{name}" in line or (name == "demo-data" and "demo.yaml" in line):
            make(world, name)
    return main(words)


NUMBERS = map("docs-{}".format, itertools.count())


@pytest.mark.parametrize("line", [line for line in runnable() if not line.startswith("report")])
def test_a_command_runs(line: str, world: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    if "configs/bench" in line:
        monkeypatch.setenv("DDPTRAIN_DATA", str(request.getfixturevalue("data_root")))
    assert run(line, world) in ((0, 1) if line.startswith("diff") else (0,))  # 1: the runs differ


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("line", [line for line in runnable() if line.startswith("report")])
def test_a_report_is_written(line: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    assert run(line, world) == 0


def make(world: Path, name: str) -> None:
    """The data of the demo, written by the command of the docs but fewer, and its run."""
    if name == "demo-data" and not (world / "runs" / name).exists():
        command = [sys.executable, "-m", "ddptrain.data.synthetic", f"runs/{name}", "--images", "24"]
        subprocess.run(command, cwd=world, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if name == "demo" and not (world / "runs" / name).exists():
        make(world, "demo-data")
        assert main(["train", "configs/demo.yaml", *SMALL, *ONE_STEP]) == 0


@pytest.mark.parametrize(("page", "block"), list(blocks("python")))
def test_a_block_of_python_imports_what_exists(page: str, block: str) -> None:
    """That the blocks run is tested beside what they show."""
    for node in ast.walk(ast.parse(block, page)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddptrain"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}"), alias.name

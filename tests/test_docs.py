"""What the docs name exists: links, files, modules, commands, targets of make. Their examples are run by tests of their own."""

from __future__ import annotations

import argparse
import ast
import re
import urllib.parse
from pathlib import Path

import pytest

from ddptrain.commands.arguments import build_parser
from ddptrain.data.tables.faults import KINDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
FOLDERS = ("ddptrain", "launch", "configs", "slurm", "tests", "benchmarks", "docs")
FILES = [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
PATH = re.compile(rf"(?<![\w./~-])(?:{'|'.join(FOLDERS)})/[\w/.-]*\w|\b[\w/-]+/\w+\.py\b")
MODULE = re.compile(r"\bddptrain(?:\.\w+)+")
TARGET = re.compile(r"`make ([a-z-]+)|^make ([a-z-]+)", re.MULTILINE)
COMMAND = re.compile(r"(?:`|^|srun |[0-9] )ddptrain ([a-z]+(?:-[a-z]+)*)", re.MULTILINE)
PRESENT = pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
"""Pages about what is, not what was."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_addresses_elsewhere_are_whole(page: Path) -> None:
    for address in re.findall(r"https?:[^\s)>`\"]*", page.read_text(encoding="utf-8")):
        parts = urllib.parse.urlsplit(address)
        assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.hostname or ""), address
        assert parts.scheme == "https", address


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page: Path) -> None:
    """Each has a line below its head, and as many cells in each row; a row that stands alone would be shown as text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = table.splitlines()
        assert re.fullmatch(r"\|[ |:-]+\|", "".join(rows[1:2])), rows[0]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, rows[0]


@PRESENT
def test_files_and_modules_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = {path for path in PATH.findall(text) if not any(f"/{file}".endswith(f"/{path}") for file in FILES)}
    assert not paths
    assert not {name for name in MODULE.findall(text) if not defined(name)}


@PRESENT
def test_commands_and_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {first or second for first, second in TARGET.findall(text)} <= set(targets)
    subparsers = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(COMMAND.findall(text)) <= set(subparsers.choices)


def test_the_page_of_formats_lists_every_kind_of_fault() -> None:
    table = (ROOT / "docs/formats.md").read_text(encoding="utf-8").split("\n## Faults\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines() if line.startswith("| ")][1:]
    ends_run = {kind: ends == "yes" for kinds, _, ends in rows for kind in kinds.split(", ")}
    listed = {kind: ends for kind, ends in ends_run.items() if not kind.startswith("`.")}  # of suffixes only examples
    assert listed == {name: kind.error for name, kind in KINDS.items() if not name.startswith(".")}


def defined(name: str) -> bool:
    """Whether a dotted name is a module, or a name at the top of one."""
    path, _, attribute = name.rpartition(".")
    if module_file(name):
        return True
    source = module_file(path)
    names = (
        {getattr(node, "id", None) or getattr(node, "name", None) for node in ast.walk(ast.parse(source.read_text()))}
        if source
        else set()
    )
    return attribute in names


def module_file(name: str) -> Path | None:
    """The file of a module or package."""
    path = ROOT / name.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)

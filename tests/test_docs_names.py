"""Keys and numbers that pages name: the keys exist, and the numbers of the comparisons stand on the pages they come from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from ddptrain.config.aliases import KEYS, LISTS
from ddptrain.config.places import keys_of
from ddptrain.config.tasks import every_run

DOCS = Path(__file__).resolve().parents[1] / "docs"
SOURCES = [path for top in ("ddptrain", "launch") for path in sorted((DOCS.parent / top).rglob("*.py"))]
SECTIONS = "data|model|loss|train|optimizer|schedule|ema|eval|checkpoint|monitor|slurm"
KEY = re.compile(rf"`((?:{SECTIONS})(?:\.[a-z_]+)+)[`=:]")
ELSEWHERE = {"data.yaml"}


def known() -> set[str]:
    keys = {key for run in every_run().values() for key in keys_of(run)}
    return keys | set(KEYS) | set(LISTS) | {f"{outer}.{inner}" for outer in ("data.train",) for inner in keys}


def test_every_key_that_a_page_names_exists() -> None:
    keys = known()
    for page in sorted(DOCS.rglob("*.md")):
        named = set(KEY.findall(page.read_text(encoding="utf-8")))
        files = {name for name in named if name.rpartition(".")[2] in ("yaml", "txt", "csv", "py")}
        assert named - keys - files == set(), page.name


def test_what_others_call_otherwise_is_a_key_here() -> None:
    """The right column of the page about other packages; a name without a section is one of the run or of a dataset."""
    last = {key.rpartition(".")[2] for key in known()}
    for line in (DOCS / "coming_from.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and line.count(" | ") == 1:
            for name in re.findall(r"`([a-z_]+)`", line.split(" | ")[1]):
                assert name in last | {"build_model", "loss", "predict", "metrics", "read", "close_mosaic", "lrf", "root"}, line


def test_the_numbers_of_the_comparisons_stand_where_they_come_from() -> None:
    rows = [line for line in (DOCS / "comparisons.md").read_text(encoding="utf-8").splitlines() if line.count(" | ") == 3]
    found = 0
    for row in rows:
        _, result, _, page = row.strip("| ").split(" | ")
        if source := re.search(r"\((\w+\.md)", page):
            text = (DOCS / source[1]).read_text(encoding="utf-8")
            for number in re.findall(r"\d+(?:\.\d+)?", re.sub(r"AP\d+", "", result)):
                assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", text), (number, row)
                found += 1
    assert found > 20


def test_every_message_that_the_page_of_symptoms_quotes_exists() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").split("## Every message")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(quoted) > 40
    texts = [" ".join(text.split()) for path in SOURCES for text in written(path)]
    wanted = {quote: re.compile(".*".join(map(re.escape, quote.strip("…").split("…")))) for quote in quoted}
    assert not [quote for quote, pattern in wanted.items() if not any(pattern.search(text) for text in texts)]


def written(path: Path) -> Iterator[str]:
    """Every text in a file, with `…` where something is filled in."""

    def template(node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(map(template, node.values))
        return template(node.left) + template(node.right) if isinstance(node, ast.BinOp) else "…"

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
            yield template(node)

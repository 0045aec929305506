"""The documentation site is built without a warning, every page is reachable, and nothing is fetched from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed; make test installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    listed = re.findall(r"^ +- .*: ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted([*PAGES, "index.md", "contributing.md", "changelog.md"])
    assert all((site / page).with_suffix(".html").is_file() for page in listed)


def test_what_is_generated_is_there(site: Path) -> None:
    for page, words in {
        "config.html": ('id="train.epochs"', 'id="data.train.share"'),
        "commands.html": ("usage: ddptrain submit", "--nproc N"),
        "api.html": ('id="ddptrain.api.train"', 'id="ddptrain.api.BoxResult"', "float32"),
        "index.html": ("A run is a function of its config and its seed",),
    }.items():
        text = (site / page).read_text(encoding="utf-8")
        assert not [word for word in words if word not in text], page
        assert "<!-- generated" not in text


def test_a_reader_needs_no_network(site: Path) -> None:
    fetched = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="?(https?:[^" >]+)')
    assert not {url for page in site.rglob("*.html") for url in fetched.findall(page.read_text(encoding="utf-8"))}

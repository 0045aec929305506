"""The page of a run says what its folder holds, needs nothing else, and lets no name act as HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from written_run import EVIL, FILE, SET, write_run

from ddptrain.errors import UserError
from ddptrain.reporting.run_page.findings import Findings, write_findings
from ddptrain.reporting.run_page.folder import read_run
from ddptrain.reporting.run_page.parts import Chart, Line, Matrix, Picture, Section
from ddptrain.reporting.run_page.single import install_command, write_page
from ddptrain.system.lock import RunLock

VOID = ("meta", "img", "br", "hr", "link", "input")


class Reader(HTMLParser):
    """Elements, headings, the text and the addresses of a page; fails where an element is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_while_a_run_trains_its_numbers_are_those_of_the_last_evaluation(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "running"}))
    write_findings(folder / "report", Findings({"step": 4, "weights": "best"}, {"AP": 0.123}, {"AP": (0.1, 0.2)}, []))
    with RunLock(folder, print) as lock:  # it ended at step 4, was resumed, and has been evaluated since
        lock.acquire()
        run = read_run(folder)
    assert (run.state, run.findings, run.metrics["AP"]) == ("running", None, run.history["AP"][-1])
    killed = read_run(folder)  # whose best weights were evaluated for a report
    assert (killed.state, killed.metrics["AP"]) == ("killed", 0.123)


def test_names_of_the_data_are_text_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = write_page(write_run(tmp_path / "run"))
    html = path.read_text()
    page = Reader(html)
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == 1
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in page.addresses)
    assert html.count("&lt;script&gt;document.title=&quot;owned&quot;&lt;/script&gt;") >= 8
    assert EVIL in page.text
    assert FILE in page.text
    assert SET in page.text
    assert "default-src 'none'" in html
    assert path.stat().st_size < 5e6


def test_it_says_what_the_folder_holds(tmp_path: Path) -> None:
    text = Reader(write_page(write_run(tmp_path / "run")).read_text()).text
    for words in (
        "finished", "step 8 of 8", "95 %: 0.410 – 0.590", "0.500 – 0.700",  # status, intervals in all and of a class
        "1 warning", "samples drawn", "a step takes 10.0 ms", "4711 on node[1-3]", "4712", "c0ffee", "optimizer.lr",
        "git checkout c0ffee", "ddptrain train", "--nproc 2", "torch==2.9", "best AP at step",
    ):  # fmt: skip
        assert words in text, words
    assert "image_size: " not in text  # what is not in the file is the default, and does not differ


def test_the_command_that_installs_asks_for_what_registries_have() -> None:
    """No registry has `2.9.0+cpu`, nor an OpenCV of three numbers."""
    record = {"torch": "2.9.0+cpu", "torchvision": "0.24.0+cpu", "numpy": "2.0", "opencv": "5.0.0"}
    packages = "pip install torch==2.9.0 torchvision==0.24.0 numpy==2.0 'opencv-python==5.0.0.*'"
    assert install_command(record) == f"{packages} --extra-index-url https://download.pytorch.org/whl/cpu"
    assert install_command({"torch": "2.9.0+gitabc"}) == "pip install torch==2.9.0"


def test_a_picture_that_is_large_gets_smaller(tmp_path: Path) -> None:
    """1300 x 900 pixels of noise take 2 MB."""
    run = write_run(tmp_path / "run")
    assert (run / "report" / "worst.jpg").stat().st_size > 1e6
    assert write_page(run).stat().st_size < 0.8e6


def test_a_thousand_classes_fit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    names = [f"class number {i}" for i in range(1000)]
    config = json.loads((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(json.dumps(config | {"classes": names}))
    keys = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "precision", "recall", "F1")
    metrics = {f"class/{name}/{key}": i / 1007 for i, name in enumerate(names) for key in keys}
    curves = [
        Line(name, np.linspace(0, 1, 300).tolist(), np.linspace(1, i / 24, 300).tolist()) for i, name in enumerate(names[:24])
    ]
    parts = [Chart("F1", "confidence", "F1", curves)] * 4
    matrix = Matrix("boxes", names, np.diag(range(1000)).tolist())
    picture = Picture("worst.jpg", "noise")
    sections = [Section("all", "All", [*parts, matrix, picture, picture, picture])]
    write_findings(run / "report", Findings({"step": 8}, {"AP": 0.5} | metrics, {}, sections))
    assert 1e6 < write_page(run).stat().st_size < 5e6


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in (
        "summary.json",
        "history.csv",
        "steps.csv",
        "log.txt",
        "starts.jsonl",
        "status.json",
        "report/evaluation.json",
    ):
        (run / name).unlink()
    text = Reader(write_page(run).read_text()).text
    assert "There has been no evaluation yet." in text
    assert "what differs from the defaults" in text


def test_files_that_are_cut_off_and_a_config_of_another_version(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in ("summary.json", "starts.jsonl", "report/evaluation.json", "status.json"):
        (run / name).write_text((run / name).read_text()[:-20])
    (run / "steps.csv").write_text("step,position,updated,loss,gradient_norm,normalizer\n1,0,1,cut,1,1\n2,1,1,3,1,1\n")
    (run / "config.yaml").write_text("key_of_tomorrow: 1\n")
    text = Reader(write_page(run).read_text()).text
    assert "config.yaml: key_of_tomorrow: unknown key" in text
    assert re.search(r"AP\s+0\.500", text)


def test_what_is_not_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.yaml in it; name a run folder"):
        write_page(tmp_path)

"""`ddptrain check`: 0 where a run can start, 1 with every reason where it cannot; facts for a program, a page for a person."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ddptrain.cli import main
from ddptrain.data.synthetic.scenes import write_demo


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def private(config: Path, scenes: Path, tmp_path: Path) -> Path:
    """A copy of the scenes that may be damaged; `config` points to it."""
    write_demo(tmp_path / "scenes", images=8, seed=1)
    config.write_text(config.read_text().replace(str(scenes), str(tmp_path / "scenes")))
    return tmp_path / "scenes"


def check(config: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, facts, page."""
    out = config.parent / "out" / "check.html"
    status = main(["check", str(config), *arguments, "--out", str(out), "--json"])
    return status, json.loads(capsys.readouterr().out), out.read_text()


def test_a_good_run(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, facts, html = check(config, capsys, "data.image_size=192")
    assert (status, facts["errors"], facts["warnings"]) == (0, [], [])
    assert [(d["part"], d["name"], d["images"]) for d in facts["datasets"]] == [
        ("train", "skyview", 24), ("train", "streets", 24), ("val", "skyview", 6), ("val", "streets", 6),
    ]  # fmt: skip
    streets = facts["classes"][1]["boxes"]
    assert streets["pedestrian"] is None
    assert streets["car"] > 0
    for dataset, sizes in zip(facts["datasets"], facts["sizes"]):
        assert sum(sizes["native"].values()) == sum(sizes["network"].values()) == dataset["boxes"]
        assert sizes["network"] == sizes["native"]
    assert [(m["name"], m["share"]) for m in facts["mixture"]] == [
        ("skyview", pytest.approx(2 / 3)),
        ("streets", pytest.approx(1 / 3)),
    ]
    assert facts["steps"] == 6
    assert facts["memory"]["total"] > facts["memory"]["state"] > 4 * 4 * facts["memory"]["parameters"] - 1
    assert html.count("<img") == 2
    assert "<svg" in html
    assert not (tmp_path / "run").exists()


def test_every_fault_is_reported_at_once(private: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = sorted((private / "streets/JPEGImages").glob("*.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:300])
    label = next((private / "skyview/VisDrone2019-DET-train/annotations").glob("*.txt"))
    label.write_text("1,2,3\n")
    status, facts, html = check(config, capsys, "data.val.1.root=nowhere")
    assert status == 1
    assert len(facts["errors"]) == 3
    for word in (broken.name, label.name, "nowhere"):
        assert any(word in e for e in facts["errors"])
        assert word in html
    status, facts, _ = check(config, capsys, "data.on_fault=drop", "data.image_size=192")
    assert (status, facts["errors"]) == (0, [])
    assert len(facts["warnings"]) == 2


def test_leaks_and_missing_classes_are_warnings(private: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = sorted((private / "skyview/VisDrone2019-DET-train/images").glob("*.jpg"))
    val = sorted((private / "skyview/VisDrone2019-DET-val/images").glob("*.jpg"))
    shutil.copy(train[2], val[1])
    status, facts, _ = check(config, capsys, "classes=[car, bus, pedestrian, tram]")
    assert status == 0
    leak = [w for w in facts["warnings"] if w.startswith("leak")]
    assert len(leak) == 1
    assert train[2].name in leak[0]
    assert any("class tram: no training dataset labels it" in w for w in facts["warnings"])


def test_a_person_reads_tables(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(config), "--out", str(config.parent / "check.html"), "--images", "10"]) == 0
    out = capsys.readouterr().out
    for word in ("pedestrian", "unknown", "samples/epoch", "0 errors", "8 of 60 images were opened"):
        assert word in out
    # of 192 px scenes shown at 64 px most boxes are tiny
    assert "below 8 px (root of the area) after letterbox at 64" in out


def test_a_start_that_is_not_there(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, facts, _ = check(config, capsys, "init_from=nowhere")
    assert status == 1
    assert facts["errors"] == ["init_from: nowhere: no such checkpoint; name a checkpoint (*.pt) or a run folder"]
    # one that goes on has no use for it
    assert check(config, capsys, "init_from=nowhere", "resume=auto")[1]["errors"] == []

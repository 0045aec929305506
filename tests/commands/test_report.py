"""`ddptrain report` of several runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ddptrain.cli import main


@pytest.fixture
def two(small_config: Callable[[str], Path]) -> tuple[Path, Path]:
    """Two runs of classification with different rates."""
    config = small_config("classification")
    for name, lr in (("one", 0.001), ("two", 0.01)):
        assert main(["train", str(config), f"name={name}", f"optimizer.lr={lr}", "train.steps=3"]) == 0
    return config.parent / "one", config.parent / "two"


def test_verdicts_are_those_of_compare(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, second = map(str, two)
    capsys.readouterr()
    assert main(["report", one, second]) == 0
    page = two[0] / "report" / "comparison.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text()
    assert main(["compare", one, second]) == 0
    words = next(line for line in capsys.readouterr().out.splitlines() if "95 % interval" in line)
    assert words.replace(one, "one").replace(second, "two") in text
    assert "optimizer.lr" in text
    (two[1] / "evaluation.npz").unlink()
    assert main(["report", one, second, "--out", str(tmp_path / "out")]) == 0
    assert "two was not compared with one: " in (tmp_path / "out" / "comparison.html").read_text()


def test_mistakes_are_one_line(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    one, second = map(str, two)
    for words, line in (
        ([one, second, "eval.batch=1"], "eval.batch=1: 2 runs cannot take an override"),
        ([one, one], "a run is given twice"),
        ([one, str(two[0] / "checkpoints")], "no config.yaml in it; name a run folder"),
    ):
        assert main(["report", *words]) == 2
        assert line in capsys.readouterr().err

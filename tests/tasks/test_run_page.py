"""A run of every task ends with its page, which `ddptrain report` writes again, at any time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddptrain.cli import main
from ddptrain.reporting.run_page.findings import read_findings
from ddptrain.system.lock import RunLock

SECTIONS = {
    "detection": ("Sizes and crowding", "Precision, recall and confidence", "Confusion", "Errors", "Suspected labels"),
    "classification": ("Precision, recall and confidence", "Confusion", "Errors and suspected labels"),
    "segmentation": ("Precision, recall and confidence", "Precision, recall and confusion", "Errors and suspected labels"),
    "interaction": ("Precision, recall and confidence", "Errors and suspected labels"),
}
ALWAYS = ("Results", "Curves", "Mixture", "Machine and versions", "Config", "Run it again", "All numbers")


@pytest.mark.parametrize("task", SECTIONS)
def test_a_run_ends_with_its_page(small_config: Callable[[str], Path], task: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures, too, without the package for figures."""
    run = small_config(task).parent / "run"
    assert main(["train", str(small_config(task))]) == 0
    page = run / "report" / "report.html"
    text = page.read_text()
    for title in (*ALWAYS, *SECTIONS[task]):
        assert f"<h2>{title}</h2>" in text, title
    summary = json.loads((run / "summary.json").read_text())
    assert summary["digest"] in text
    assert "finished" in text
    assert "data:image/jpeg" in text
    assert page.stat().st_size < 5e6
    found = read_findings(run / "report")
    assert found is not None
    assert (found.about["step"], found.about["weights"]) == (6, "best")
    assert set(found.intervals) <= set(found.metrics)
    page.unlink()
    (run / "report" / "evaluation.json").unlink()
    assert main(["report", str(run)]) == 0
    assert "only the page was written, matplotlib is not installed" in capsys.readouterr().err
    again = read_findings(run / "report")
    assert again is not None
    assert again.about == found.about
    assert again.metrics == pytest.approx(found.metrics, nan_ok=True)
    assert page.is_file()


def test_a_run_that_is_still_training_is_not_evaluated(
    small_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config("classification")
    run = config.parent / "run"
    assert main(["train", str(config), "eval.every_steps=3"]) == 0
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "running"}))
    (run / "report" / "evaluation.json").unlink()
    page = run / "report" / "report.html"

    def refuse(*_: Any) -> None:
        raise AssertionError("evaluated")

    monkeypatch.setattr("ddptrain.commands.report.evaluate_checkpoint", refuse)
    capsys.readouterr()
    with RunLock(run, print) as lock:
        lock.acquire()
        assert main(["report", str(run)]) == 0
    assert "written without a new evaluation: the run is still training" in capsys.readouterr().out
    assert "Of the last evaluation." in page.read_text()
    assert '<span class="state running">' in page.read_text()
    shutil.rmtree(run / "checkpoints")
    assert main(["report", str(run), "--out", str(run / "later")]) == 0
    assert "the run has no checkpoint yet" in capsys.readouterr().out
    assert '<span class="state killed">' in (run / "later" / "report.html").read_text()


def test_every_start_is_noted(small_config: Callable[[str], Path]) -> None:
    config = small_config("classification")
    run = config.parent / "run"
    assert main(["train", str(config), "train.steps=2", "checkpoint.every_steps=2"]) == 0
    assert main(["train", str(config), "train.steps=4", "resume=auto"]) == 0
    starts = [json.loads(line) for line in (run / "starts.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 2]
    summary = json.loads((run / "summary.json").read_text())
    assert starts[1]["record"] == summary["record"]
    assert starts[1]["ranks"] == 1
    assert starts[0]["command"] == ""  # a test has started it
    assert "2 starts" in (run / "report" / "report.html").read_text()

"""`ddptrain runs`: what it says of runs in every state, sorted and as JSON."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ddptrain.cli import main
from ddptrain.system import processes
from ddptrain.system.owner import STALE_S, Owner
from ddptrain.system.status import State, write_status


def make(folder: Path, state: State, step: int, reason: str = "", **summary: object) -> Path:
    folder.mkdir(parents=True)
    write_status(folder, state, step, 100, reason)
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def top(tmp_path: Path) -> Path:
    make(tmp_path / "done", "finished", 100, monitor="AP", best=0.5, best_step=80)
    make(tmp_path / "group" / "worse", "failed", 30, "out of memory", monitor="AP", best=0.25, best_step=20)
    own = make(tmp_path / "own", "running", 40)
    (own / "lock.json").write_text(Owner("a", processes.this(), job="77").dumps())
    (own / "metrics.jsonl").write_text('{"kind": "train", "step": 50}\n{"kind": "train", "st')
    make(tmp_path / "gone", "running", 10)
    silent = make(tmp_path / "silent", "running", 10)
    (silent / "lock.json").write_text(Owner("b", processes.this()).dumps())
    os.utime(silent / "lock.json", (time.time() - 2 * STALE_S,) * 2)
    (tmp_path / "no run").mkdir()
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main(["runs", *arguments, "--json"]) == 0
    return list(json.loads(capsys.readouterr().out))


def test_every_state_is_reported(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {run["run"]: run for run in listed(capsys, str(top))}
    assert {name: run["state"] for name, run in runs.items()} == {
        "done": "finished", "group/worse": "failed", "own": "running", "gone": "killed", "silent": "silent",
    }  # fmt: skip
    assert (runs["own"]["step"], runs["own"]["job"]) == (50, "77")
    assert runs["group/worse"]["reason"] == "out of memory"
    assert [runs["done"][key] for key in ("metric", "best", "best_step", "steps")] == ["AP", 0.5, 80, 100]


def test_it_is_sorted(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def order(key: str) -> list[object]:
        return [run["run"] for run in listed(capsys, str(top), "--sort", key)]

    assert order("name") == ["done", "gone", "group/worse", "own", "silent"]
    assert order("step")[:3] == ["done", "own", "group/worse"]
    assert order("best")[:2] == ["done", "group/worse"]
    os.utime(top / "own" / "metrics.jsonl", (time.time() + 60,) * 2)
    assert order("age")[0] == "own"


def test_the_lowest_loss_is_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "high", "finished", 100, monitor="loss", best=2.0, best_step=1)
    make(tmp_path / "low", "finished", 100, monitor="loss", best=1.0, best_step=1)
    assert [run["run"] for run in listed(capsys, str(tmp_path), "--sort", "best")] == ["low", "high"]


def test_a_table_for_people(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(top), "--sort", "name"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "state", "step", "metric", "best", "at", "step", "age", "job", "reason"]
    assert rows[0].split()[:6] == ["done", "finished", "100/100", "AP", "0.5", "80"]
    assert main(["runs", str(top / "no run")]) == 0
    assert capsys.readouterr().out == f"{top / 'no run'}: no runs\n"
    assert main(["runs", str(top / "nowhere")]) == 2
    assert "nowhere: is not a directory" in capsys.readouterr().err

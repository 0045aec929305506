"""`ddptrain diff` says whether two runs are the same, and else what differs, where it began and how far it went."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import cut_back, save_checkpoint, train

from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.cli import main
from ddptrain.commands.differences import differences
from ddptrain.reporting.steps import read_steps

Capture = pytest.CaptureFixture[str]
Made = Callable[[str], Path]


@pytest.fixture
def second(made: Made, tmp_path: Path) -> Path:
    """A copy of the small run of classification as of its step 2."""
    cut_back(made("classification"), tmp_path / "second", 2)
    return tmp_path / "second"


def go_on(run: Path, *overrides: str) -> None:
    train(1, run / "config.yaml", f"output={run.parent}", f"name={run.name}", "resume=auto", *overrides)


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(made: Made, second: Path, capsys: Capture) -> None:
    first = made("classification")
    assert main(["diff", str(first), str(second)]) == 1
    assert "equal so far, but one ends at step 6, the other at step 2" in capsys.readouterr().out
    go_on(second)
    assert main(["diff", str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    digest = load_checkpoint(first).digest
    assert lines[1:] == [
        "steps: 6 compared, all equal",
        "weights after step 6: all tensors are equal",
        f"equal: 6 steps, SHA-256 of the weights {digest}",
    ]
    assert (first / "steps.csv").read_bytes() == (second / "steps.csv").read_bytes()


def test_what_differs_and_from_where_on(made: Made, second: Path, capsys: Capture) -> None:
    first = made("classification")
    go_on(second, "optimizer.lr=0.02", "data.workers=1")
    assert main(["diff", str(first), str(second)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^config: optimizer.lr: \S+ → 0.02$", out, re.MULTILINE)
    assert "config: data.workers: 0 → 1" in out
    assert "config: name" not in out
    assert "machine: " not in out
    rows = zip(read_steps(first), read_steps(second), strict=True)
    step = next(int(a["step"]) for a, b in rows if a != b)
    assert step > 2
    assert f"steps: the first that differs is step {step}, position {12 * (step - 1)}: loss " in out
    assert out.endswith(f"different from step {step} on\n")
    nearest = 4 if step <= 4 else 6
    states = [load_checkpoint(run / f"checkpoints/step_{nearest:08d}.pt").state for run in (first, second)]
    found = differences(*states)
    assert f"weights after step {nearest}: {len(found)} tensors differ" in out
    assert [line.split("  ")[1] for line in out.splitlines() if re.match(r"  (model|ema|optimizer) ", line)] == [
        d.name for d in found[:20]
    ]


def test_other_data_code_and_machine_are_named(made: Made, tmp_path: Path, capsys: Capture) -> None:
    checkpoint = load_checkpoint(made("classification"))
    state = dict(checkpoint.state)
    record = dict(state["record"]) | {"torch": "1.0", "threads": 64, "code": "0.0.1+abc", "commit": ""}
    contents = [dict(c) for c in state["contents"]]
    contents[0] |= {"total": 1, "digests": contents[0]["digests"] + 1}
    other = save_checkpoint(tmp_path, state | {"record": record, "contents": contents, "ranks": 4}, 6)
    assert main(["diff", str(other), str(checkpoint.path)]) == 0
    out = capsys.readouterr().out
    assert f"machine: torch 1.0 → {torch.__version__}" in out
    assert f"machine: threads 64 → {state['record']['threads']}" in out
    assert "machine: ranks 4 → 1" in out
    assert "code: code 0.0.1+abc → " in out
    assert "data: train shapes: 27 of 27 images changed" in out
    old = save_checkpoint(tmp_path / "old", {k: v for k, v in state.items() if k not in ("record", "digest")}, 6)
    assert main(["diff", str(old), str(checkpoint.path)]) == 0
    out = capsys.readouterr().out
    assert "code, machine: unknown" in out
    assert checkpoint.digest in out  # computed from the weights themselves


def test_two_checkpoints_are_compared_whatever_their_steps(made: Made, capsys: Capture) -> None:
    folder = made("classification") / "checkpoints"
    assert main(["diff", str(folder / "step_00000002.pt"), str(folder / "last.pt")]) == 1
    out = capsys.readouterr().out
    assert "step 2 and 6" in out
    assert "position 24 and 72" in out
    assert "tensors differ" in out


def test_runs_of_different_networks_differ_in_their_tensors(made: Made, capsys: Capture) -> None:
    assert main(["diff", str(made("classification")), str(made("segmentation"))]) == 1
    out = capsys.readouterr().out
    assert "config: task: classification → segmentation" in out
    assert "only in one of the two: " in out


def test_what_is_not_a_run_is_refused_in_one_line(made: Made, tmp_path: Path, capsys: Capture) -> None:
    run = str(made("classification"))
    for other in (tmp_path / "nowhere", tmp_path, made("classification") / "config.yaml"):
        assert main(["diff", run, str(other)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"ddptrain: error: {other}: ")
        assert error.count("\n") == 1

"""What the bits of weights depend on is in every checkpoint and in the summary, and a run that resumes elsewhere reports it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import final_state, save_checkpoint, summary

from ddptrain.checkpoint.digest import weights_digest
from ddptrain.checkpoint.load import load_checkpoint
from ddptrain.cli import main
from ddptrain.config.changes import fingerprint
from ddptrain.engine.record import machine_changes, other_bits, record_changes
from ddptrain.system.code import code_version

Capture = pytest.CaptureFixture[str]


def test_the_log_the_summary_and_the_checkpoint_give_the_same_digest(
    small_config: Callable[[str], Path], tmp_path: Path, capsys: Capture
) -> None:
    config = small_config("classification")
    assert main(["train", str(config), "train.steps=2"]) == 0
    state, run = final_state(tmp_path / "run"), tmp_path / "run"
    digest = weights_digest(state)
    assert state["digest"] == digest == summary(run)["digest"]
    assert (run / "log.txt").read_text().endswith(f"finished at step 2; SHA-256 of the weights: {digest}\n")
    record = summary(run)["record"]
    assert record == state["record"]
    assert record["code"] == code_version()
    assert (record["torch"], record["threads"], record["micro_batch"]) == (torch.__version__, torch.get_num_threads(), 12)
    assert record["device"].startswith("cpu, ")
    assert set(record["commit"]) <= set("0123456789abcdef")
    capsys.readouterr()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert main(["train", str(config), "train.steps=3", "resume=auto"]) == 0
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    line = "warning: resume: the weights will not be bit-equal to those of a run without this stop: threads 1 → 2"
    assert out.count(line) == 1
    assert final_state(run)["record"]["config"] != record["config"]  # of another length
    assert summary(run)["digest"] == weights_digest(final_state(run)) != digest


def test_a_checkpoint_of_an_older_version_resumes(small_config: Callable[[str], Path], tmp_path: Path, capsys: Capture) -> None:
    config, run = small_config("classification"), tmp_path / "run"
    assert main(["train", str(config), "train.steps=2"]) == 0
    old = {k: v for k, v in final_state(run).items() if k not in ("record", "digest")}
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    (run / "steps.csv").unlink()
    checkpoint = load_checkpoint(save_checkpoint(run / "checkpoints", old, 2))
    assert (checkpoint.record, checkpoint.digest) == ({}, weights_digest(old))
    capsys.readouterr()
    assert main(["train", str(config), "train.steps=3", "resume=auto"]) == 0
    assert "bit-equal" not in capsys.readouterr().out
    assert [row.split(",")[0] for row in (run / "steps.csv").read_text().splitlines()] == ["step", "3"]


def record(**entries: Any) -> dict[str, Any]:
    return {"code": "1+a", "commit": "c", "torch": "2", "data": "d", "config": "e", **entries}


def test_each_entry_that_differs_is_named() -> None:
    assert list(record_changes(record(), record(torch="3", code="1+b", commit=""))) == [
        "code 1+a → 1+b", "commit c → unknown", "torch 2 → 3"
    ]  # fmt: skip
    assert machine_changes(record(), record(commit="f", data="g", config="h")) == []
    assert list(other_bits(record(), record())) == list(other_bits({}, record())) == []
    (line,) = other_bits(record(), record(torch="3"))
    assert line.endswith("torch 2 → 3")


def test_the_fingerprint_of_a_config_is_that_of_what_the_weights_depend_on(config: Path, tmp_path: Path) -> None:
    from ddptrain.config import load_config

    def of(*overrides: str) -> str:
        return fingerprint(json.loads(load_config(config, overrides).model_dump_json()))

    same = ("name=other", "output=/elsewhere", "data.workers=3", "eval.batch=2", "resume=auto", "data.train.0.root=/moved")
    assert len({of(), *map(of, same)}) == 1
    different = ("seed=1", "optimizer.lr=0.5", "train.steps=7", "data.train.0.share=3", "model.norm=none")
    assert len({of(), *map(of, different)}) == 6

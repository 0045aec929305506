"""A disk on which nothing more can be written: training continues, reports it, and does not end as if all were well."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest
from support import Ranks, command_line, summary

from ddptrain.reporting.console import Console

LIMIT = 12_000
"""Bytes that a file may have in a rank: enough for texts, too few for pictures and weights."""


def cramped(arguments: list[str]) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    return command_line(arguments)


def test_a_run_outlives_a_full_disk_and_ends_non_zero(config: Path, tmp_path: Path) -> None:
    overrides = ("monitor.tensorboard=true", "checkpoint.every_steps=2", "train.steps=4", "monitor.every_steps=1")
    ranks = Ranks(1, cramped, ["train", str(config), *overrides])
    assert ranks.wait() == [1], ranks.text
    assert "step_00000002.pt: not saved" in ranks.text
    assert "tensorboard: not written, tried again later (File too large); training continues" in ranks.text
    assert "ended at step 4, but the last checkpoint could not be written" in ranks.text
    assert not list((tmp_path / "run/checkpoints").glob("*.pt"))
    assert summary(tmp_path / "run")["step"] == 4


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_log_that_cannot_be_written_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(Path("/dev/full"), total_steps=1, steps_per_epoch=1, stream=sys.stdout) as console:
        console.line("one")
        console.line("two")
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if "warning" not in line] == ["one", "two"]
    assert sum("/dev/full: lines are lost (No space left on device)" in line for line in out) == 1


def test_a_name_that_is_not_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    with Console(tmp_path / "log.txt", total_steps=1, steps_per_epoch=1, stream=None) as console:
        console.line(f"warning: {os.fsdecode(b'q' + bytes([0xE9]))}.jpg: unreadable")
    assert "q\\udce9.jpg" in (tmp_path / "log.txt").read_text(encoding="utf-8")

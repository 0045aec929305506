"""Ranks that srun starts itself, one per task, without torchrun and without anything set by the user."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from private_slurm import PrivateSlurm
from support import summary

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


def test_srun_starts_the_ranks(cluster: PrivateSlurm, config: Path, tmp_path: Path) -> None:
    text = cluster.run(
        "srun", "-N2", "-n2", sys.executable, "-m", "ddptrain", "train", str(config), "train.steps=2", timeout_s=240
    )
    assert "2 ranks (srun, cpu)" in text
    assert "finished at step 2" in text
    assert sum(m["drawn"] for m in summary(tmp_path / "run")["mixture"]) == 24


def test_a_shell_inside_a_step_is_not_a_rank(cluster: PrivateSlurm, config: Path) -> None:
    """Typed into the shell of `srun -n2 --pty bash -i`: nobody would start the other rank."""
    ours, theirs = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | cluster.environ
    shell = subprocess.Popen(
        ["srun", "-n2", "--pty", "bash", "--norc", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    )
    os.close(theirs)
    os.write(ours, f"{sys.executable} -m ddptrain train {config}\nexit\n".encode())
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 1 << 16):
            said += part
    os.close(ours)
    shell.wait(60)
    text = " ".join(said.decode(errors="replace").split())
    assert "this shell is one of the 2 tasks of a Slurm step, and nothing starts ddptrain in the others" in text
    assert "`srun --overlap ddptrain …` starts 2 ranks, `env -u SLURM_STEP_ID -u SLURM_STEPID ddptrain …` one process" in text

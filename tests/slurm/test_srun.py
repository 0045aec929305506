"""Ranks that srun starts itself, one per task, without torchrun and without anything set by the user."""

from __future__ import annotations

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

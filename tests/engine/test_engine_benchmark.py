"""The benchmark of the loop still fits the loop; how fast it is, is for the benchmark to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "engine.py"), "--blocks", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "ours adds" in done.stdout, done.stderr

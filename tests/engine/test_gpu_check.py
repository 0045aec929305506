"""`make gpu` on the CPU: the script that waits for the first GPU at hand still fits the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_what_can_be_had_on_the_cpu_is_as_expected() -> None:
    """But for what other tests show alone: verify, suppression."""
    script, checks = (
        ROOT / "benchmarks" / "gpu" / "check.py",
        ["steps", "waits", "ahead sgd", "ahead adamw", "other layout", "raise"],
    )
    command = [sys.executable, str(script), "--device", "cpu", "--only", ",".join(checks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    head, *rows, total = done.stdout.splitlines()
    assert (done.returncode, done.stderr, total.split(",")[0]) == (0, "", "0 not as expected"), done.stdout + done.stderr
    assert head.split() == ["check", "expected", "found"]
    assert [row[:16].strip() for row in rows] == checks
    assert all(row.endswith("  ok") for row in rows)

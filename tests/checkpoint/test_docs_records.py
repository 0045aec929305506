"""The page about records: its script computes the digest that a run reports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support import save_checkpoint
from torch import arange, ones, tensor

from ddptrain.checkpoint.digest import weights_digest

PAGE = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")


def test_the_digest_can_be_computed_without_the_package(tmp_path: Path) -> None:
    weights = {"b": arange(6.0).reshape(2, 3).T, "a.n": tensor(3), "ü": ones(2).bfloat16()}
    for ema in (None, {"a": ones(1)}):
        state = {"model": weights, "ema": ema}
        path = save_checkpoint(tmp_path, state, 1)
        (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == weights_digest(state)

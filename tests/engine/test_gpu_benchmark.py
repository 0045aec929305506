"""`make bench-gpu` still fits the code: at a tiny size on the CPU."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_bench", ROOT / "benchmarks" / "gpu" / "bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_measures_a_run_beside_its_network(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--device", "cpu", "--steps", "4"]) == 0
    _, _, found = capsys.readouterr().out.rpartition("\nsize n, 64 px, batch 4, bf16, 0 workers, on the CPU\n")
    whole = re.search(r"bare forward and backward +([\d.]+) +- +1.00", found)
    own = re.search(r"ours +([\d.]+) +[\d.]+ +([\d.]+)", found)
    assert whole
    assert own
    assert float(own[1]) / float(whole[1]) == pytest.approx(float(own[2]), abs=0.011)
    assert re.search(r"goal: 0.95 of bare .* here\n\na step takes [\d.]+ ms, the mean of steps 4 to 4 of this process", found)
    assert "  backward  " in found


def test_without_a_gpu_it_says_so(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main([]) == 0
    assert capsys.readouterr().out == "no GPU here: nothing to measure; --device cpu tries the script at a tiny size\n"
